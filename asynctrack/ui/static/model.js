// What is chosen, and what is loaded: runs, charts and news. The page (app.js) draws it.
import { plots } from "./cards.js";
import { Loader } from "./loader.js";
import { News } from "./news.js";
import { digits, fromAddress, taste, toAddress } from "./state.js";
import * as wire from "./wire.js";
import { isBegun, isFilter, matcher } from "./words.js";

/** runs that are shown at first, besides those that go on */
const NEWEST = 10;

export const state = {
  ...fromAddress(location.search),
  theme: taste("theme", "system"),
  side: taste("side", innerWidth > 760 ? "open" : "shut"),
  listed: null, // what the server says of runs
  searched: "", // what the list was searched for last: a text is typed, and a filter asked for, before it is this
  filtered: null, // the ids that a filter leaves, in MLflow's language
  filterError: "",
  values: {}, // of columns, by run
  keys: [],
  charts: new Map(),
  folded: new Map(),
  tables: new Set(),
  cursor: null, // the run that keys work on
  focus: null, // the chart that keys work on
  panel: null,
  news: null,
  connected: false,
  error: null,
  now: Date.now(),
};

let asked = 0;
let drawer = () => {};
/** What draws the page. */
export function drawnBy(draw) {
  drawer = draw;
}

export function update(patch) {
  Object.assign(state, patch);
  if (!asked) asked = requestAnimationFrame(draw);
}

/** Draw at once what has changed. */
export function draw() {
  cancelAnimationFrame(asked);
  asked = 0;
  drawer();
}

/** Change what the address holds. */
export function show(patch) {
  update(patch);
  history.replaceState(null, "", toAddress(state));
  loader.changed();
}

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => update({}));
export const dark = () => (state.theme === "system" ? system.matches : state.theme === "dark");

// ── runs

export const all = () => state.listed?.runs ?? [];
/** Whether the runs that are shown are those that the search leaves, whichever these are. */
export const isAll = () => state.runs?.[0] === "*";
/** Those of the experiment that is chosen. */
const here = () => (state.listed?.experiments[state.experiment] ? all().filter((run) => run.experiment === state.experiment) : all());
const isOn = (run) => run.alive || run.status === "RUNNING";

let chosenFor = [];
let chosen = [];
/** The runs whose lines are shown, in the order of the list. */
export function selected() {
  const now = [state.listed, state.runs, state.experiment, isAll() && state.searched, isAll() && state.filtered];
  if (now.every((each, n) => each === chosenFor[n])) return chosen;
  chosenFor = now;
  if (isAll()) {
    chosen = searched();
  } else if (state.runs === null) {
    const newest = new Set([...here()].sort((a, b) => b.start - a.start).slice(0, NEWEST));
    chosen = here().filter((run) => isOn(run) || newest.has(run)).slice(0, 50);
  } else {
    const wanted = new Set(state.runs);
    const sizes = [...new Set(state.runs.map((id) => id.length))];
    chosen = all().filter((run) => sizes.some((size) => wanted.has(run.id.slice(0, size))));
  }
  return chosen;
}

export function select(runs) {
  const size = digits(all().map((run) => run.id));
  show({ runs: runs.map((run) => run.id.slice(0, size)) });
  watch();
  loadKeys();
}

export function toggle(id) {
  const on = new Set(selected().map((run) => run.id));
  if (!on.delete(id)) on.add(id);
  select(all().filter((run) => on.has(run.id)));
  update({ cursor: id });
}

/** The runs that the search leaves. */
function searched() {
  let found = here();
  if (state.filtered) found = found.filter((run) => state.filtered.has(run.id));
  else if (state.searched) {
    const matches = matcher(state.searched);
    const experiments = state.listed?.experiments ?? {};
    found = found.filter((run) => matches(run.name) || matches(run.id) || matches(experiments[run.experiment] ?? "")
      || Object.entries(run.params).some(([key, value]) => matches(`${key}=${value}`))
      || Object.entries(run.tags).some(([key, value]) => matches(`${key}=${value}`)));
  }
  return found;
}

/** The same in the order of the table. */
export function rows() {
  const left = searched();
  const { name, down } = sorting();
  if (!name) return left;
  if (isText(name)) {
    const key = name.slice(name.indexOf(".") + 1), kind = name.startsWith("params.") ? "params" : "tags";
    const [known, none] = [left.filter((run) => run[kind][key] !== undefined), left.filter((run) => run[kind][key] === undefined)];
    known.sort((a, b) => natural.compare(a[kind][key], b[kind][key]));
    return [...(down ? known.reverse() : known), ...none];
  }
  const of = { name: (run) => run.name || run.id, start: (run) => run.start, time: (run) => (run.end || state.now) - run.start }[name]
    ?? ((run) => valueOf(run, name));
  const known = left.map((run) => [of(run), run]);
  const there = known.filter(([value]) => typeof value === "number" ? !Number.isNaN(value) : typeof value === "string" && name === "name");
  there.sort(([a], [b]) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b));
  if (down) there.reverse();
  const sorted = new Set(there.map(([, run]) => run));
  return [...sorted, ...left.filter((run) => !sorted.has(run))];
}

export function sorting() {
  return state.sort.startsWith("-") ? { name: state.sort.slice(1), down: true } : { name: state.sort, down: false };
}

export function sortBy(name) {
  const now = sorting();
  show({ sort: now.name !== name ? name : now.down ? "" : `-${name}` });
}

const TELLING = /loss|acc|err|reward|score|return|f1|auc|perplexity|bleu/i;
let usual = { keys: null, columns: [] };
/** The columns that are chosen, or two of metrics by which runs are compared. */
export function columns() {
  if (state.columns) return state.columns;
  if (usual.keys !== state.keys) {
    const keys = state.keys.filter((key) => !key.startsWith("system/"));
    const telling = [...keys.filter((key) => TELLING.test(key)), ...keys.filter((key) => !TELLING.test(key))];
    usual = { keys: state.keys, columns: telling.slice(0, 2).map((key) => `${key}:last`) };
  }
  return usual.columns;
}
export const valueOf = (run, column) => (isText(column)
  ? run[column.startsWith("params.") ? "params" : "tags"][column.slice(column.indexOf(".") + 1)] ?? null
  : state.values[column]?.get(run.id) ?? null);
/** Whether a column is of a param or a tag, and not of a metric. */
export const isText = (column) => /^(params|tags)\./.test(column) && !/:(last|min|max)$/.test(column);

let listing = null;
export async function loadRuns() {
  if (listing) {
    listing.again = true;
    return;
  }
  const mine = (listing = { again: false });
  try {
    const found = await wire.runs(columns().filter((column) => !isText(column)), "");
    const values = {};
    for (const [column, list] of Object.entries(found.columns)) {
      values[column] = new Map(found.runs.map((run, n) => [run.id, list[n]]));
    }
    const searched = state.search ? await searchFor(state.search) : null;
    update({ listed: found, values, error: null, now: Date.now(), ...searched });
    loader.changed();
  } catch (error) {
    update({ error: error.message });
  } finally {
    listing = null;
    if (mine.again) loadRuns();
  }
}

let filtering = 0;
/** What a search comes to: a change of the state, or null where the text is a filter that is still being typed. */
async function searchFor(text) {
  if (isBegun(text)) return null;
  if (!isFilter(text)) return { searched: text, filtered: null, filterError: "" };
  try {
    const found = await wire.runs([], text);
    if (found.invalid) return { filterError: found.invalid };
    return { searched: text, filtered: new Set(found.runs.map((run) => run.id)), filterError: found.trouble ?? "" };
  } catch (error) {
    return { filterError: error.message };
  }
}

let typing = 0;
export function search(text) {
  update({ search: text });
  clearTimeout(typing);
  typing = setTimeout(async () => {
    show({});
    const mine = ++filtering;
    const found = await searchFor(text);
    if (!found || mine !== filtering) return;
    show(found);
    if (!isAll()) return;
    watch();
    loadKeys();
  }, 200);
}

/** layer2 before layer10. */
export const natural = new Intl.Collator(undefined, { numeric: true });

export async function loadKeys() {
  try {
    const before = columns().join("\n");
    const keys = (await wire.keys(selected().map((run) => run.id.slice(0, 12)))).sort(natural.compare);
    if (keys.join("\n") !== state.keys.join("\n")) update({ keys });
    if (columns().join("\n") !== before) await loadRuns();
  } catch (error) {
    update({ error: error.message });
  }
}

// ── charts

export const loader = new Loader({ query: queryOf, done, failed: (error) => update({ error: error?.message ?? null }) });

let common = { of: [], text: null };
/** What all charts ask for. */
function query() {
  const now = [state.listed && selected(), state.x, state.smooth, state.group, state.besides, state.spread, state.zoom, places()];
  if (!state.listed) return null;
  if (now.every((each, n) => each === common.of[n])) return common.text;
  const found = new URLSearchParams({ runs: selected().map((run) => run.id.slice(0, 12)).join("."), x: state.x, places: places() });
  if (state.smooth) found.set("smooth", state.smooth);
  if (state.group) for (const name of state.group.length ? state.group : [""]) found.append("group", name);
  if (state.besides) for (const name of state.besides.length ? state.besides : [""]) found.append("besides", name);
  if (isGrouped() && state.spread !== "std") found.set("spread", state.spread);
  if (state.zoom) {
    // A little more than is seen, so that lines go on to the edge.
    const room = (state.zoom[1] - state.zoom[0]) * 0.02;
    found.set("from", state.zoom[0] - room);
    found.set("to", state.zoom[1] + room);
  }
  common = { of: now, text: found.toString() };
  return common.text;
}

export const isGrouped = () => state.group !== null || state.besides !== null;

/** What one chart asks for besides. */
function queryOf(key) {
  const text = query();
  if (text === null) return null;
  const { logX, logY, outliers, y } = viewOf(key);
  return text + (logX ? "&log_x=1" : "") + (logY ? "&log_y=1" : "") + (y ? `&y_from=${y[0]}&y_to=${y[1]}` : outliers ? "&outliers=1" : "");
}

let views = new Map();
/** How a chart is drawn: as all, but for what it has of its own. */
export function viewOf(key) {
  const own = state.own.get(key) ?? {};
  const logX = own.logX ?? state.logX, logY = own.logY ?? state.logY;
  const view = { logX, logY, outliers: own.outliers ?? state.outliers, y: own.y ?? null, axes: axes(state.x, logX, logY) };
  const before = views.get(key);
  if (before && Object.keys(view).every((name) => view[name] === before[name])) return before;
  views.set(key, view);
  return view;
}

/** Change what one chart has of its own; undefined: as all. */
export function own(key, patch) {
  const mine = Object.fromEntries(Object.entries({ ...state.own.get(key), ...patch }).filter(([, value]) => value !== undefined));
  const next = new Map(state.own);
  if (Object.keys(mine).length) next.set(key, mine);
  else next.delete(key);
  show({ own: next });
}

export function pin(key) {
  show({ pins: state.pins.includes(key) ? state.pins.filter((each) => each !== key) : [...state.pins, key] });
}

/** About one place for each pixel of a chart. */
function places() {
  const grid = document.querySelector(".canvas");
  return Math.min(Math.max(Math.round((grid?.clientWidth || 460) / 20) * 20, 200), 2000);
}

/** What the axes of a chart are of: a chart is drawn on those that it was made for. */
const axes = (x, logX, logY) => `${logX ? "log " : ""}${logY ? "logy " : ""}${x}`;

function done(key, chart, query) {
  const made = new URLSearchParams(query);
  chart.axes = axes(made.get("x"), made.get("log_x") === "1", made.get("log_y") === "1");
  chart.drawn = (state.charts.get(key)?.drawn ?? 0) + 1;
  const charts = new Map(state.charts);
  charts.set(key, chart);
  while (charts.size > 400) charts.delete(charts.keys().next().value);
  update({ charts });
}

export function zoom(low, high) {
  show({ zoom: [low, high] });
}

export function reset(key) {
  show({ zoom: null });
  if (key && state.own.get(key)?.y) own(key, { y: undefined });
}

/** Zoom in or out around the middle, or move: by so much of the width. */
export function zoomBy(factor, shift) {
  const plot = plots.get(state.focus) ?? [...plots.values()][0];
  if (!plot) return;
  const log = plot.look.logX;
  const [low, high] = plot.bounds.map((each) => (log ? Math.log(each) : each));
  const middle = (low + high) / 2 + (high - low) * shift, half = ((high - low) / 2) * factor;
  const next = [middle - half, middle + half].map((each) => (log ? Math.exp(each) : each));
  const { low: first, high: last } = plot.chart;
  if (next[0] <= first && next[1] >= last) show({ zoom: null });
  else if (next[0] < next[1] && next[0] < last && next[1] > first) show({ zoom: next });
}

// ── news

const news = new News({
  opened: (connected) => update({ connected }),
  heard: (event) => {
    if (event.keys.length) loader.news(event.keys);
    const listed = state.news?.listing;
    update({ news: event, connected: true, now: Date.now() });
    if (event.keys.some((key) => !state.keys.includes(key))) loadKeys();
    if (listed !== undefined ? listed !== event.listing : state.listed?.listing !== event.listing) relist();
  },
});

export function watch() {
  if (!document.hidden) news.watch(selected().map((run) => run.id.slice(0, 12)));
}

async function relist() {
  await loadRuns();
  await loadKeys();
  watch();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    news.rest();
    update({ connected: false });
  } else {
    watch();
    loader.news([...state.charts.keys()]); // what was new meanwhile was not heard
    relist();
  }
});

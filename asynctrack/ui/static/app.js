// The page: what is chosen, what is loaded, and the keys.
import { ChartPanel, Grouping } from "./asking.js";
import { Card, Section, plots, sections } from "./cards.js";
import { Loader } from "./loader.js";
import { News } from "./news.js";
import { Compare, Help, StepValues } from "./panels.js";
import { RunPanel } from "./run.js";
import { html, render, useMemo } from "./vendor/htm-preact.js";
import { digits, fromAddress, setTaste, taste, toAddress } from "./state.js";
import { RunsTable } from "./table.js";
import * as wire from "./wire.js";
import { isBegun, isFilter, looks, matcher } from "./words.js";

/** runs that are shown at first, besides those that go on */
const NEWEST = 10;
/** charts of sections that are open at first, the first section's besides */
const OPEN = 60;
/** keys that lists offer */
const OFFERED = 300;
const SMOOTH = [0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
const THEMES = ["system", "light", "dark"];

const state = {
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
function update(patch) {
  Object.assign(state, patch);
  if (!asked) asked = requestAnimationFrame(draw);
}

function draw() {
  cancelAnimationFrame(asked);
  asked = 0;
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  render(html`<${App} />`, document.getElementById("app"));
}

/** Change what the address holds. */
function show(patch) {
  update(patch);
  history.replaceState(null, "", toAddress(state));
  loader.changed();
}

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => update({}));
const dark = () => (state.theme === "system" ? system.matches : state.theme === "dark");

// ── runs

const all = () => state.listed?.runs ?? [];
/** Whether the runs that are shown are those that the search leaves, whichever these are. */
const isAll = () => state.runs?.[0] === "*";
/** Those of the experiment that is chosen. */
const here = () => (state.listed?.experiments[state.experiment] ? all().filter((run) => run.experiment === state.experiment) : all());
const isOn = (run) => run.alive || run.status === "RUNNING";

let chosenFor = [];
let chosen = [];
/** The runs whose lines are shown, in the order of the list. */
function selected() {
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

function select(runs) {
  const size = digits(all().map((run) => run.id));
  show({ runs: runs.map((run) => run.id.slice(0, size)) });
  watch();
  loadKeys();
}

function toggle(id) {
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
function rows() {
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

function sorting() {
  return state.sort.startsWith("-") ? { name: state.sort.slice(1), down: true } : { name: state.sort, down: false };
}

function sortBy(name) {
  const now = sorting();
  show({ sort: now.name !== name ? name : now.down ? "" : `-${name}` });
}

const TELLING = /loss|acc|err|reward|score|return|f1|auc|perplexity|bleu/i;
let usual = { keys: null, columns: [] };
/** The columns that are chosen, or two of metrics by which runs are compared. */
function columns() {
  if (state.columns) return state.columns;
  if (usual.keys !== state.keys) {
    const keys = state.keys.filter((key) => !key.startsWith("system/"));
    const telling = [...keys.filter((key) => TELLING.test(key)), ...keys.filter((key) => !TELLING.test(key))];
    usual = { keys: state.keys, columns: telling.slice(0, 2).map((key) => `${key}:last`) };
  }
  return usual.columns;
}
const valueOf = (run, column) => (isText(column)
  ? run[column.startsWith("params.") ? "params" : "tags"][column.slice(column.indexOf(".") + 1)] ?? null
  : state.values[column]?.get(run.id) ?? null);
/** Whether a column is of a param or a tag, and not of a metric. */
const isText = (column) => /^(params|tags)\./.test(column) && !/:(last|min|max)$/.test(column);

let listing = null;
async function loadRuns() {
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
    return { searched: text, filtered: new Set(found.runs.map((run) => run.id)), filterError: found.trouble ?? "" };
  } catch (error) {
    return { filterError: error.message };
  }
}

let typing = 0;
function search(text) {
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
const natural = new Intl.Collator(undefined, { numeric: true });

async function loadKeys() {
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

const loader = new Loader({ query: queryOf, done, failed: (error) => update({ error: error?.message ?? null }) });

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

const isGrouped = () => state.group !== null || state.besides !== null;

/** What one chart asks for besides. */
function queryOf(key) {
  const text = query();
  if (text === null) return null;
  const { logX, logY, outliers, y } = viewOf(key);
  return text + (logX ? "&log_x=1" : "") + (logY ? "&log_y=1" : "") + (y ? `&y_from=${y[0]}&y_to=${y[1]}` : outliers ? "&outliers=1" : "");
}

let views = new Map();
/** How a chart is drawn: as all, but for what it has of its own. */
function viewOf(key) {
  const own = state.own.get(key) ?? {};
  const logX = own.logX ?? state.logX, logY = own.logY ?? state.logY;
  const view = { logX, logY, outliers: own.outliers ?? state.outliers, y: own.y ?? null, axes: axes(state.x, logX, logY) };
  const before = views.get(key);
  if (before && Object.keys(view).every((name) => view[name] === before[name])) return before;
  views.set(key, view);
  return view;
}

/** Change what one chart has of its own; undefined: as all. */
function own(key, patch) {
  const mine = Object.fromEntries(Object.entries({ ...state.own.get(key), ...patch }).filter(([, value]) => value !== undefined));
  const next = new Map(state.own);
  if (Object.keys(mine).length) next.set(key, mine);
  else next.delete(key);
  show({ own: next });
}

function pin(key) {
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

function zoom(low, high) {
  show({ zoom: [low, high] });
}

function reset(key) {
  show({ zoom: null });
  if (key && state.own.get(key)?.y) own(key, { y: undefined });
}

/** Zoom in or out around the middle, or move: by so much of the width. */
function zoomBy(factor, shift) {
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

function watch() {
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

// ── the page

function Health() {
  const { news, connected, error, listed } = state;
  const trouble = error ?? news?.trouble ?? listed?.trouble;
  const waiting = news?.waiting ?? 0;
  const word = trouble ? "trouble" : connected ? "live" : "not connected";
  return html`
    <div class=${`health ${trouble ? "bad" : connected ? "good" : "off"}`} role="status">
      <span class="light"></span>
      <span>${word}${news && !trouble && news.alive ? `, ${news.alive} running` : ""}${news && !trouble && connected ? `, ${news.behind.toFixed(1)} s behind` : ""}</span>
      ${waiting > 0 && html`<span class="waiting">${waiting.toLocaleString("en-US")} not delivered</span>`}
      ${trouble && html`<bdi class="said" title=${trouble}>${trouble}</bdi>`}
    </div>`;
}

function App() {
  const runs = selected();
  const ids = useMemo(() => new Set(runs.map((run) => run.id)), [runs]);
  const isDark = dark();
  const runLooks = useMemo(() => looks(runs.map((run) => run.id), isDark), [runs, isDark]);
  const names = useMemo(() => new Map(runs.map((run) => [run.id, run.name || run.id.slice(0, 8)])), [runs]);
  const grouped = isGrouped();
  const groups = grouped ? [...new Set([...state.charts.values()].flatMap((chart) => chart.lines.map((line) => line.name ?? "")))].sort().join("\n") : "";
  const look = useMemo(() => ({
    looks: grouped ? looks(groups.split("\n"), isDark) : runLooks,
    names: (line) => (line.id ? names.get(line.id) ?? line.id.slice(0, 8) : `${line.name} (${line.runs})`),
    x: state.x, zoom: state.zoom, theme: isDark ? "dark" : "light",
  }), [grouped ? null : runLooks, groups, names, state.x, state.zoom, isDark]);
  const keys = useMemo(() => state.keys.filter(matcher(state.keysSearch)), [state.keys, state.keysSearch]);
  const parts = useMemo(() => sections(keys.filter((key) => !state.pins.includes(key))), [keys, state.pins]);
  const few = useMemo(() => {
    let count = 0;
    return new Set(parts.filter(([, its], n) => (count += its.length) <= OPEN || !n).map(([name]) => name));
  }, [parts]);
  const open = (name) => (state.folded.has(name) ? !state.folded.get(name) : few.has(name));
  const list = rows();
  const [params, groupable] = useMemo(() => namesOf(runs), [runs]);
  const on = useMemo(() => ({
    zoom, reset: () => reset(state.focus), pick, own, pin, more: (key) => update({ panel: { chart: key } }),
    table: (key) => { const tables = new Set(state.tables); if (!tables.delete(key)) tables.add(key); update({ tables }); },
    focus: (key) => { if (state.focus !== key) update({ focus: key }); },
    fold: (name, isOpen) => update({ folded: new Map(state.folded).set(name, !isOpen) }),
  }), []);
  const xOffered = useMemo(() => [...new Set(["step", "time", "relative", ...state.keys.slice(0, OFFERED), state.x])]
    .map((kind) => html`<option value=${kind}>${kind}</option>`), [state.keys, state.x]);
  const columnsOffered = useMemo(() => html`<datalist id="columns">${offered(params, groupable).map((name) => html`<option value=${name}></option>`)}</datalist>`,
    [state.keys, params, groupable]);
  const experiments = Object.entries(state.listed?.experiments ?? {}).sort((a, b) => natural.compare(a[1], b[1]));
  const pinned = state.pins.filter((key) => state.keys.includes(key));
  const card = (key) => html`<${Card} key=${key} id=${key} chart=${state.charts.get(key)} look=${look} view=${viewOf(key)} loader=${loader} on=${on}
    table=${state.tables.has(key)} pinned=${state.pins.includes(key)} focused=${state.focus === key} />`;
  const shut = Boolean(state.panel);
  return html`
    <header class="top" inert=${shut}>
      <button class="plain" title="runs (b)" aria-expanded=${state.side === "open"} onClick=${sideways}>☰</button>
      <b>asynctrack</b>
      <bdi class="store" title=${state.listed?.store}>${state.listed?.store}</bdi>
      <${Health} />
      <button class="plain" title="dark, light or as the system (d)" onClick=${nextTheme}>${{ system: "◐", light: "○", dark: "●" }[state.theme]}</button>
      <button class="plain" title="keys (?)" onClick=${() => update({ panel: "help" })}>?</button>
    </header>
    <div class=${`body ${state.side}`} inert=${shut}>
      <aside aria-label="runs">
        <div class="find">
          ${experiments.length > 1 && html`<select id="experiment" aria-label="experiment" value=${state.experiment} onChange=${(event) => inExperiment(event.target.value)}>
            <option value="">all ${experiments.length} experiments</option>
            ${experiments.map(([id, name]) => html`<option value=${id}>${name}</option>`)}
          </select>`}
          <input id="search" type="search" placeholder="runs: a name, or metrics.loss < 0.1   f" aria-label="search runs, or filter them in MLflow's language"
            value=${state.search} onInput=${(event) => search(event.target.value)} />
          ${state.filterError && html`<p class="warn">${state.filterError}</p>`}
          <div class="bar">
            <span class="quiet" title="shown">${runs.length.toLocaleString("en-US")} of ${list.length.toLocaleString("en-US")}</span>
            <button class="plain" title="show all that are listed (a)" onClick=${selectAll}>all</button>
            <button class="plain" title="show the newest and those that go on" onClick=${() => { show({ runs: null }); watch(); loadKeys(); }}>newest</button>
            <button class="plain" onClick=${() => select([])}>none</button>
            <button class="plain" title="what differs between them (c)" disabled=${!runs.length} onClick=${() => update({ panel: "compare" })}>compare</button>
            <input id="column" list="columns" placeholder="+ column" aria-label="add a column: a metric's last, min or max value, a param or a tag" onChange=${addColumn} />
            ${columnsOffered}
          </div>
        </div>
        <${RunsTable} rows=${list} selected=${ids} looks=${runLooks} columns=${columns()} values=${valueOf} sort=${sorting()} cursor=${state.cursor}
          now=${state.now} experiments=${state.listed?.experiments ?? {}} on=${{ toggle, sort: sortBy, removeColumn, open: (id) => update({ panel: { opened: id } }) }} />
      </aside>
      <main>
        <div class="controls" role="toolbar" aria-label="charts">
          <input id="keys" type="search" placeholder="metrics   /" aria-label="search metrics, a regular expression" value=${state.keysSearch}
            onInput=${(event) => show({ keysSearch: event.target.value })} />
          <label>x <select id="x" value=${state.x} onChange=${(event) => show({ x: event.target.value, zoom: null })}>
            ${xOffered}
          </select></label>
          <label>smooth <input id="smooth" type="range" min="0" max=${SMOOTH.length - 1} step="1" value=${smoothAt()}
            onInput=${(event) => show({ smooth: SMOOTH[Number(event.target.value)] })} /><output>${state.smooth || "off"}</output></label>
          <button class="toggle" id="group" aria-pressed=${grouped} title="group runs (g)" onClick=${() => update({ panel: "group" })}>${groupWord()}</button>
          <button class="toggle" aria-pressed=${state.logY} title="logarithmic y (y)" onClick=${() => show({ logY: !state.logY })}>log y</button>
          <button class="toggle" aria-pressed=${state.logX} title="logarithmic x (x)" onClick=${() => show({ logX: !state.logX, zoom: null })}>log x</button>
          <button class="toggle" aria-pressed=${state.outliers} title="y is chosen for 98 of 100 points; the others are marked and counted (o)" onClick=${() => show({ outliers: !state.outliers })}>ignore outliers</button>
          ${state.zoom && html`<button class="toggle" id="reset" title="all of x (0, Esc)" onClick=${() => show({ zoom: null })}>all of x</button>`}
          ${state.keysSearch && html`<span class="quiet">${keys.length === 1 ? "1 metric" : `${keys.length.toLocaleString("en-US")} metrics`}</span>`}
        </div>
        ${grouped && html`<div class="legend" aria-label="groups">${groups.split("\n").slice(0, 30).map((name) => {
          const { colour, dash } = look.looks.get(name);
          return name && html`<span><svg width="18" height="8" aria-hidden="true"><path d="M0 4h18" stroke=${colour} stroke-width="2" stroke-dasharray=${dash.join(" ")} /></svg><bdi>${name}</bdi></span>`;
        })}${groups.split("\n").length > 30 && html`<span class="quiet">and ${groups.split("\n").length - 30} more</span>`}</div>`}
        ${pinned.length > 0 && html`
          <${Section} key="pinned" name="pinned" keys=${pinned} open=${!state.folded.get("pinned ")} on=${{ fold: (_, isOpen) => on.fold("pinned ", isOpen) }}>${card}<//>`}
        ${parts.map(([name, its]) => html`
          <${Section} key=${`of ${name}`} name=${name} keys=${its} open=${open(name)} on=${on}>${card}<//>`)}
        ${state.listed && !keys.length && html`<p class="empty">${state.listed.runs.length
          ? runs.length ? (state.keysSearch ? "No metric matches." : "These runs have no metrics yet.") : "No run is shown: choose some on the left."
          : "There are no runs here yet. As soon as one starts, it is shown."}</p>`}
        ${!state.listed && !state.error && html`<p class="empty">reading the runs…</p>`}
      </main>
    </div>
    ${state.panel === "help" && html`<${Help} close=${close} />`}
    ${state.panel === "compare" && html`<${Compare} runs=${runs} looks=${runLooks} close=${close} />`}
    ${state.panel === "group" && html`<${Grouping} ...${state} params=${params} names=${groupable} on=${show} close=${close} />`}
    ${state.panel?.chart !== undefined && chartPanel(state.panel.chart, on)}
    ${state.panel?.opened !== undefined && runPanel(state.panel.opened)}
    ${state.panel?.step !== undefined && html`<${StepValues} step=${state.panel} name=${names.get(state.panel.run) ?? state.panel.run} close=${close} />`}
  `;
}

function chartPanel(key, on) {
  const runs = selected(), view = viewOf(key);
  const asked = { ...state, ...view, key, runs: runs.map((run) => run.id), store: state.listed.store, low: state.charts.get(key)?.low };
  return html`<${ChartPanel} id=${key} view=${view} own=${state.own.get(key) ?? {}} plot=${plots.get(key)} pinned=${state.pins.includes(key)}
    csv=${wire.csvAddress(key, runs.map((run) => run.id.slice(0, 12)))} asked=${asked} on=${on} close=${close} />`;
}

function runPanel(id) {
  const run = all().find((each) => each.id === id);
  return run && html`<${RunPanel} run=${run} experiment=${state.listed.experiments[run.experiment] ?? run.experiment} editable=${state.listed.editable}
    now=${state.now} changed=${loadRuns} close=${close} />`;
}

/** Names of params, and of params and tags, those first whose values differ. */
function namesOf(runs) {
  const sorted = (kind) => {
    const values = new Map();
    for (const run of runs) for (const [key, value] of Object.entries(run[kind])) values.set(key, (values.get(key) ?? new Set()).add(value));
    return [...values].sort(([a, its], [b, others]) => (others.size > 1) - (its.size > 1) || natural.compare(a, b)).map(([key]) => key);
  };
  const params = sorted("params");
  return [params, [...new Set([...params, ...sorted("tags")])]];
}

function groupWord() {
  if (state.besides) return state.besides.length ? `group: all but ${state.besides.join(", ")}` : "group: all params";
  if (state.group === null) return "group";
  return `group: ${state.group.join(", ") || "all"}`;
}

function inExperiment(experiment) {
  show({ experiment, runs: null });
  watch();
  loadKeys();
}

/** What a column may be of. */
function offered(params, groupable) {
  const metrics = state.keys.slice(0, OFFERED).flatMap((key) => ["last", "min", "max"].map((part) => `${key}:${part}`));
  return [...metrics, ...params.map((name) => `params.${name}`), ...groupable.filter((name) => !params.includes(name)).map((name) => `tags.${name}`)];
}

const close = () => update({ panel: null });

/** `point`: {at, half, value}, as `wire.step` takes it. */
async function pick(key, line, point) {
  const panel = { run: line.id, step: "" };
  try {
    update({ panel: { ...panel, ...(await wire.step(line.id, { key, x: state.x, ...point })) } });
  } catch (error) {
    update({ panel: { ...panel, error: error.message } });
  }
}

function selectAll() {
  show({ runs: ["*"] });
  watch();
  loadKeys();
}

function addColumn(event) {
  const text = event.target.value.trim();
  event.target.value = "";
  const column = isText(text) || /:(last|min|max)$/.test(text) ? text : text && `${text}:last`;
  if (!column || columns().includes(column)) return;
  show({ columns: [...columns(), column] });
  loadRuns();
}

function removeColumn(name) {
  show({ columns: columns().filter((each) => each !== name) });
}

const smoothAt = () => Math.max(0, SMOOTH.findLastIndex((each) => each <= state.smooth));

function sideways() {
  const side = state.side === "open" ? "shut" : "open";
  setTaste("side", side);
  update({ side });
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length];
  setTaste("theme", theme);
  update({ theme });
}

// ── keys

function moveRun(by) {
  const list = rows();
  const at = list.findIndex((run) => run.id === state.cursor);
  const next = list[Math.min(Math.max(at + by, 0), list.length - 1)];
  if (next) update({ cursor: next.id });
}

function moveChart(by) {
  const cards = [...document.querySelectorAll(".card")];
  const at = cards.findIndex((card) => card.dataset.key === state.focus);
  const next = cards[at < 0 ? 0 : Math.min(Math.max(at + by, 0), cards.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => moveRun(1), k: () => moveRun(-1), " ": () => state.cursor && toggle(state.cursor),
  a: () => (isAll() ? (show({ runs: null }), watch(), loadKeys()) : selectAll()),
  l: () => moveChart(1), h: () => moveChart(-1), ArrowRight: () => moveChart(1), ArrowLeft: () => moveChart(-1),
  "/": () => document.getElementById("keys").focus(),
  f: () => { if (state.side !== "open") sideways(); draw(); document.getElementById("search").focus(); },
  s: () => show({ smooth: SMOOTH[Math.min(smoothAt() + 1, SMOOTH.length - 1)] }),
  S: () => show({ smooth: SMOOTH[Math.max(smoothAt() - 1, 0)] }),
  y: () => show({ logY: !state.logY }), x: () => show({ logX: !state.logX, zoom: null }),
  r: () => { const kinds = ["step", "time", "relative"]; show({ x: kinds[(kinds.indexOf(state.x) + 1) % 3], zoom: null }); },
  g: () => update({ panel: "group" }),
  o: () => show({ outliers: !state.outliers }),
  p: () => state.focus && pin(state.focus),
  i: () => state.cursor && update({ panel: { opened: state.cursor } }),
  "+": () => zoomBy(0.5, 0), "=": () => zoomBy(0.5, 0), "-": () => zoomBy(2, 0), ">": () => zoomBy(1, 0.25), "<": () => zoomBy(1, -0.25),
  "]": () => plots.get(state.focus)?.move(1), "[": () => plots.get(state.focus)?.move(-1),
  Enter: () => plots.get(state.focus)?.clicked(),
  0: () => reset(state.focus),
  t: () => { if (state.focus) { const tables = new Set(state.tables); if (!tables.delete(state.focus)) tables.add(state.focus); update({ tables }); } },
  e: () => state.focus && update({ panel: { chart: state.focus } }),
  c: () => update({ panel: "compare" }), b: sideways, d: nextTheme, "?": () => update({ panel: "help" }),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input[type=search], input[list], select");
  if (event.key === "Escape") {
    if (state.panel) close();
    else if (field) field.blur();
    else if (state.zoom || state.own.get(state.focus)?.y) reset(state.focus);
    else return;
    event.preventDefault();
    return;
  }
  if (field || state.panel || ([" ", "Enter"].includes(event.key) && event.target.closest?.("button, a"))) return;
  if (event.target.closest?.("input") && event.key.startsWith("Arrow")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
  draw(); // at once: the next key may be for what it has opened
});

addEventListener("resize", () => loader.changed());
setInterval(() => update({ now: Date.now() }), 5000);
draw();
await loadRuns();
await loadKeys();
watch();

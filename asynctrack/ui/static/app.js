// The page: what is chosen, what is loaded, and the keys.
import { html, render, useMemo } from "./vendor/htm-preact.js";
import { Card, Section, sections } from "./cards.js";
import { Loader } from "./loader.js";
import { Compare, Help, StepValues } from "./panels.js";
import { digits, fromAddress, setTaste, taste, toAddress } from "./state.js";
import { RunsTable } from "./table.js";
import * as wire from "./wire.js";
import { isFilter, looks, matcher } from "./words.js";

/** runs that are shown at first, besides those that go on */
const NEWEST = 10;
/** keys up to which all sections are open at first */
const OPEN = 60;
const SMOOTH = [0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
const THEMES = ["system", "light", "dark"];

const state = {
  ...fromAddress(location.search),
  theme: taste("theme", "system"),
  side: taste("side", innerWidth > 760 ? "open" : "shut"),
  listed: null, // what the server says of runs
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
const isOn = (run) => run.alive || run.status === "RUNNING";

let chosenFor = [];
let chosen = [];
/** The runs whose lines are shown, in the order of the list. */
function selected() {
  if (chosenFor[0] === state.listed && chosenFor[1] === state.runs) return chosen;
  chosenFor = [state.listed, state.runs];
  if (state.runs === null) {
    const newest = new Set([...all()].sort((a, b) => b.start - a.start).slice(0, NEWEST));
    chosen = all().filter((run) => isOn(run) || newest.has(run)).slice(0, 50);
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

/** The runs that the search leaves, in the order of the table. */
function rows() {
  let found = all();
  if (state.filtered) found = found.filter((run) => state.filtered.has(run.id));
  else if (state.search) {
    const matches = matcher(state.search);
    const experiments = state.listed?.experiments ?? {};
    found = found.filter((run) => matches(run.name) || matches(run.id) || matches(experiments[run.experiment] ?? "")
      || Object.entries(run.params).some(([key, value]) => matches(`${key}=${value}`))
      || Object.entries(run.tags).some(([key, value]) => matches(`${key}=${value}`)));
  }
  const { name, down } = sorting();
  if (!name) return found;
  const of = { name: (run) => run.name || run.id, start: (run) => run.start, time: (run) => (run.end || state.now) - run.start }[name]
    ?? ((run) => valueOf(run, name));
  const known = found.map((run) => [of(run), run]);
  const here = known.filter(([value]) => typeof value === "number" ? !Number.isNaN(value) : typeof value === "string" && name === "name");
  here.sort(([a], [b]) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b));
  if (down) here.reverse();
  const there = new Set(here.map(([, run]) => run));
  return [...here.map(([, run]) => run), ...found.filter((run) => !there.has(run))];
}

function sorting() {
  return state.sort.startsWith("-") ? { name: state.sort.slice(1), down: true } : { name: state.sort, down: false };
}

function sortBy(name) {
  const now = sorting();
  show({ sort: now.name !== name ? name : now.down ? "" : `-${name}` });
}

const columns = () => state.columns ?? state.keys.filter((key) => !key.startsWith("system/")).slice(0, 2).map((key) => `${key}:last`);
const valueOf = (run, column) => state.values[column]?.get(run.id) ?? null;

let listing = null;
async function loadRuns() {
  if (listing) {
    listing.again = true;
    return;
  }
  const mine = (listing = { again: false });
  try {
    const found = await wire.runs(columns(), "");
    const values = {};
    for (const [column, list] of Object.entries(found.columns)) {
      values[column] = new Map(found.runs.map((run, n) => [run.id, list[n]]));
    }
    update({ listed: found, values, error: null, now: Date.now() });
    loader.changed();
    if (state.search) await filter();
  } catch (error) {
    update({ error: error.message });
  } finally {
    listing = null;
    if (mine.again) loadRuns();
  }
}

let filtering = 0;
async function filter() {
  const mine = ++filtering;
  if (!isFilter(state.search)) {
    update({ filtered: null, filterError: "" });
    return;
  }
  try {
    const found = await wire.runs([], state.search);
    if (mine === filtering) update({ filtered: new Set(found.runs.map((run) => run.id)), filterError: found.trouble ?? "" });
  } catch (error) {
    if (mine === filtering) update({ filterError: error.message });
  }
}

let typing = 0;
function search(text) {
  show({ search: text });
  clearTimeout(typing);
  typing = setTimeout(filter, 250);
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

const loader = new Loader({ query, done, failed: (error) => update({ error: error?.message ?? null }) });

let queried = [];
let queryText = null;
function query() {
  const now = [state.listed && selected(), state.x, state.smooth, state.group, state.logX, state.logY, state.zoom];
  if (!state.listed) return null;
  if (now.every((each, n) => each === queried[n])) return queryText;
  queried = now;
  const found = new URLSearchParams({ runs: selected().map((run) => run.id.slice(0, 12)).join("."), x: state.x, places: places() });
  if (state.smooth) found.set("smooth", state.smooth);
  if (state.group) for (const name of state.group.length ? state.group : [""]) found.append("group", name);
  if (state.logX) found.set("log_x", "1");
  if (state.logY) found.set("log_y", "1");
  if (state.zoom) {
    // A little more than is seen, so that lines go on to the edge.
    const room = (state.zoom[1] - state.zoom[0]) * 0.02;
    found.set("from", state.zoom[0] - room);
    found.set("to", state.zoom[1] + room);
  }
  queryText = found.toString();
  return queryText;
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

// ── news

let stream = null;
let streamed = "";
function watch() {
  const ids = selected().map((run) => run.id.slice(0, 12));
  const what = ids.join(".");
  if (document.hidden || (stream && streamed === what && stream.readyState !== 2)) return;
  stream?.close();
  streamed = what;
  stream = new EventSource(wire.eventsAddress(ids, loader.version));
  stream.onopen = () => update({ connected: true });
  stream.onerror = () => update({ connected: false });
  stream.onmessage = (event) => {
    const news = JSON.parse(event.data);
    loader.version = news.version;
    if (news.keys.length) loader.news(news.keys);
    const listed = state.news?.listing;
    update({ news, connected: true, now: Date.now() });
    if (news.keys.some((key) => !state.keys.includes(key))) loadKeys();
    if (listed !== undefined ? listed !== news.listing : state.listed?.listing !== news.listing) relist();
  };
}

async function relist() {
  await loadRuns();
  await loadKeys();
  watch();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    // Browsers open six connections to a host at once, all tabs together.
    stream?.close();
    stream = null;
    update({ connected: false });
  } else {
    watch();
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
  const groups = state.group === null ? "" : [...state.charts.values()].flatMap((chart) => chart.lines.map((line) => line.name ?? "")).join("\n");
  const look = useMemo(() => ({
    looks: state.group === null ? runLooks : looks(groups.split("\n"), isDark),
    names: (line) => (line.id ? names.get(line.id) ?? line.id.slice(0, 8) : `${line.name} (${line.runs})`),
    axes: axes(state.x, state.logX, state.logY), x: state.x, logX: state.logX, logY: state.logY, zoom: state.zoom, theme: isDark ? "dark" : "light",
  }), [runLooks, groups, names, state.x, state.logX, state.logY, state.zoom, isDark]);
  const keys = useMemo(() => state.keys.filter(matcher(state.keysSearch)), [state.keys, state.keysSearch]);
  const parts = useMemo(() => sections(keys), [keys]);
  const open = (name) => state.folded.has(name) ? !state.folded.get(name) : state.keysSearch ? true
    : keys.length <= OPEN ? true : name === parts[0][0];
  const list = rows();
  const params = useMemo(() => [...new Set(runs.flatMap((run) => [...Object.keys(run.params), ...Object.keys(run.tags)]))].sort(), [runs]);
  const on = useMemo(() => ({
    zoom, reset: () => show({ zoom: null }),
    pick: (line, x) => pick(line, x),
    table: (key) => { const tables = new Set(state.tables); if (!tables.delete(key)) tables.add(key); update({ tables }); },
    focus: (key) => { if (state.focus !== key) update({ focus: key }); },
    fold: (name, isOpen) => update({ folded: new Map(state.folded).set(name, !isOpen) }),
  }), []);
  const kinds = ["step", "time", "relative"];
  const address = (key) => wire.csvAddress(key, runs.map((run) => run.id.slice(0, 12)));
  return html`
    <header class="top">
      <button class="plain" title="runs (b)" aria-expanded=${state.side === "open"} onClick=${sideways}>☰</button>
      <b>asynctrack</b>
      <bdi class="store" title=${state.listed?.store}>${state.listed?.store}</bdi>
      <${Health} />
      <button class="plain" title="dark, light or as the system (d)" onClick=${nextTheme}>${{ system: "◐", light: "○", dark: "●" }[state.theme]}</button>
      <button class="plain" title="keys (?)" onClick=${() => update({ panel: "help" })}>?</button>
    </header>
    <div class=${`body ${state.side}`}>
      <aside aria-label="runs">
        <div class="find">
          <input id="search" type="search" placeholder="runs: a name, or metrics.loss < 0.1   f" aria-label="search runs, or filter them in MLflow's language"
            value=${state.search} onInput=${(event) => search(event.target.value)} />
          ${state.filterError && html`<p class="warn">${state.filterError}</p>`}
          <div class="bar">
            <span class="quiet">${runs.length.toLocaleString("en-US")} of ${list.length.toLocaleString("en-US")} shown</span>
            <button class="plain" title="show all that are listed (a)" onClick=${selectAll}>all</button>
            <button class="plain" title="show the newest and those that go on" onClick=${() => { show({ runs: null }); watch(); loadKeys(); }}>newest</button>
            <button class="plain" onClick=${() => select([])}>none</button>
            <button class="plain" title="what differs between them (c)" disabled=${!runs.length} onClick=${() => update({ panel: "compare" })}>compare</button>
            <select aria-label="add a column" onChange=${addColumn}>
              <option value="">+ column</option>
              ${state.keys.slice(0, 300).flatMap((key) => ["last", "min", "max"].map((part) => html`<option value=${`${key}:${part}`}>${key} ${part}</option>`))}
            </select>
          </div>
        </div>
        <${RunsTable} rows=${list} selected=${ids} looks=${runLooks} columns=${columns()} values=${valueOf} sort=${sorting()} cursor=${state.cursor}
          now=${state.now} experiments=${state.listed?.experiments ?? {}} on=${{ toggle, sort: sortBy, removeColumn }} />
      </aside>
      <main>
        <div class="controls" role="toolbar" aria-label="charts">
          <input id="keys" type="search" placeholder="metrics   /" aria-label="search metrics, a regular expression" value=${state.keysSearch}
            onInput=${(event) => show({ keysSearch: event.target.value })} />
          <label>x <select id="x" value=${state.x} onChange=${(event) => show({ x: event.target.value, zoom: null })}>
            ${[...new Set([...kinds, ...state.keys.slice(0, 300), state.x])].map((kind) => html`<option value=${kind}>${kind}</option>`)}
          </select></label>
          <label>smooth <input id="smooth" type="range" min="0" max=${SMOOTH.length - 1} step="1" value=${smoothAt()}
            onInput=${(event) => show({ smooth: SMOOTH[Number(event.target.value)] })} /><output>${state.smooth || "off"}</output></label>
          <label>group <select id="group" value=${state.group === null ? "-" : state.group.join(",")} onChange=${(event) => group(event.target.value)}>
            <option value="-">no</option><option value="">all runs</option>
            ${[...new Set([...params, ...(state.group?.length ? [state.group.join(",")] : [])])].map((name) => html`<option value=${name}>${name}</option>`)}
          </select></label>
          <button class="toggle" aria-pressed=${state.logY} title="logarithmic y (y)" onClick=${() => show({ logY: !state.logY })}>log y</button>
          <button class="toggle" aria-pressed=${state.logX} title="logarithmic x (x)" onClick=${() => show({ logX: !state.logX, zoom: null })}>log x</button>
          ${state.zoom && html`<button class="toggle" id="reset" title="all of x (0, Esc)" onClick=${() => show({ zoom: null })}>all of x</button>`}
          <span class="quiet">${keys.length === 1 ? "1 metric" : `${keys.length.toLocaleString("en-US")} metrics`}</span>
        </div>
        ${parts.map(([name, its]) => html`
          <${Section} key=${name} name=${name} keys=${its} open=${open(name)} on=${on}>
            ${(key) => html`<${Card} key=${key} id=${key} chart=${state.charts.get(key)} look=${look} loader=${loader} on=${on}
              table=${state.tables.has(key)} csv=${address(key)} focused=${state.focus === key} />`}
          <//>`)}
        ${state.listed && !keys.length && html`<p class="empty">${state.listed.runs.length
          ? runs.length ? (state.keysSearch ? "No metric matches." : "These runs have no metrics yet.") : "No run is shown: choose some on the left."
          : "There are no runs here yet. As soon as one starts, it is shown."}</p>`}
        ${!state.listed && !state.error && html`<p class="empty">reading the runs…</p>`}
      </main>
    </div>
    ${state.panel === "help" && html`<${Help} close=${close} />`}
    ${state.panel === "compare" && html`<${Compare} runs=${runs} looks=${runLooks} close=${close} />`}
    ${state.panel?.step !== undefined && html`<${StepValues} step=${state.panel} name=${names.get(state.panel.run) ?? state.panel.run} close=${close} />`}
  `;
}

const close = () => update({ panel: null });

async function pick(line, x) {
  if (state.x !== "step") return;
  const panel = { run: line.id, step: Math.round(x) };
  try {
    update({ panel: { ...panel, ...(await wire.step(line.id, panel.step)) } });
  } catch (error) {
    update({ panel: { ...panel, error: error.message } });
  }
}

function selectAll() {
  select(rows());
}

function addColumn(event) {
  const column = event.target.value;
  event.target.value = "";
  if (!column || columns().includes(column)) return;
  show({ columns: [...columns(), column] });
  loadRuns();
}

function removeColumn(name) {
  show({ columns: columns().filter((each) => each !== name) });
}

const smoothAt = () => Math.max(0, SMOOTH.findLastIndex((each) => each <= state.smooth));

function group(text) {
  show({ group: text === "-" ? null : text === "" ? [] : text.split(",") });
}

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
  a: () => (selected().length === rows().length ? (show({ runs: null }), watch(), loadKeys()) : selectAll()),
  l: () => moveChart(1), h: () => moveChart(-1), ArrowRight: () => moveChart(1), ArrowLeft: () => moveChart(-1),
  "/": () => document.getElementById("keys").focus(),
  f: () => { if (state.side !== "open") sideways(); requestAnimationFrame(() => document.getElementById("search").focus()); },
  s: () => show({ smooth: SMOOTH[Math.min(smoothAt() + 1, SMOOTH.length - 1)] }),
  S: () => show({ smooth: SMOOTH[Math.max(smoothAt() - 1, 0)] }),
  y: () => show({ logY: !state.logY }), x: () => show({ logX: !state.logX, zoom: null }),
  r: () => { const kinds = ["step", "time", "relative"]; show({ x: kinds[(kinds.indexOf(state.x) + 1) % 3], zoom: null }); },
  g: () => document.getElementById("group").focus(),
  0: () => show({ zoom: null }),
  t: () => { if (state.focus) { const tables = new Set(state.tables); if (!tables.delete(state.focus)) tables.add(state.focus); update({ tables }); } },
  e: () => state.focus && document.querySelector(`.card[data-key="${CSS.escape(state.focus)}"] a[download]`)?.click(),
  c: () => update({ panel: "compare" }), b: sideways, d: nextTheme, "?": () => update({ panel: "help" }),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input[type=search], select");
  if (event.key === "Escape") {
    if (state.panel) close();
    else if (field) field.blur();
    else if (state.zoom) show({ zoom: null });
    else return;
    event.preventDefault();
    return;
  }
  if (field || state.panel || (event.key === " " && event.target.closest?.("button, a"))) return;
  if (event.target.closest?.("input") && event.key.startsWith("Arrow")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

addEventListener("resize", () => loader.changed());
setInterval(() => update({ now: Date.now() }), 5000);
draw();
await loadRuns();
await loadKeys();
watch();

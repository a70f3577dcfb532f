// The page: what is seen, and the keys.
import { ChartPanel, Grouping } from "./asking.js";
import { Card, Section, plots, sections } from "./cards.js";
import {
  all, columns, dark, draw, drawnBy, isAll, isGrouped, isText, loadKeys, loadRuns, loader, natural, own, pin,
  reset, rows, search, select, selected, show, sortBy, sorting, state, toggle, update, valueOf, viewOf, watch, zoom, zoomBy,
} from "./model.js";
import { Compare, Help, StepValues } from "./panels.js";
import { RunPanel } from "./run.js";
import { setTaste } from "./state.js";
import { RunsTable } from "./table.js";
import { html, render, useMemo } from "./vendor/htm-preact.js";
import * as wire from "./wire.js";
import { looks, matcher } from "./words.js";

/** charts of sections that are open at first, the first section's besides */
const OPEN = 60;
/** keys that lists offer */
const OFFERED = 300;
const SMOOTH = [0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
const THEMES = ["system", "light", "dark"];

drawnBy(() => {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  render(html`<${App} />`, document.getElementById("app"));
});

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
            <span class="quiet" title="shown, listed">${runs.length.toLocaleString("en-US")}${runs.length > list.length ? " shown, " : " of "}${list.length.toLocaleString("en-US")}${state.listed?.whole === false ? "…" : ""}${runs.length > list.length ? " listed" : ""}</span>
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
        ${state.listed && !keys.length && (runs.length || state.listed.whole !== false) && html`<p class="empty">${state.listed.runs.length
          ? runs.length ? (state.keysSearch ? "No metric matches." : "These runs have no metrics yet.") : "No run is shown: choose some on the left."
          : "There are no runs here yet. As soon as one starts, it is shown."}</p>`}
        ${(!state.listed || (!runs.length && state.listed.whole === false)) && !state.error && html`<p class="empty">reading the runs…</p>`}
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

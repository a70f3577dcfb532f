// The charts: sections by the part of a key before "/", and of all of them only those that are seen are drawn.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { oddKinds } from "./marks.js";
import { number, place } from "./words.js";
import { Plot } from "./chart.js";

/** the charts that are drawn, by key */
export const plots = new Map();
/** charts of a section that are shown at first */
export const FIRST = 48;
const HEIGHT = 230;
const MOST_ROWS = 300;

/** [name, keys] for each section; metrics of the system last. */
export function sections(keys) {
  const found = new Map();
  for (const key of keys) {
    const cut = key.indexOf("/");
    const name = cut > 0 ? key.slice(0, cut) : "";
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(key);
  }
  // A section of one chart would be a row of its own.
  const alone = [...found].filter(([name, its]) => its.length === 1 && name && name !== "system");
  if (alone.length) {
    for (const [name] of alone) found.delete(name);
    found.set("", [...(found.get("") ?? []), ...alone.flatMap(([, its]) => its)]);
  }
  const rank = (name) => (name === "system" ? 1 : 0);
  return [...found].sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : a > b ? 1 : 0));
}

export function Section({ name, keys, open, on, children }) {
  const [most, setMost] = useState(FIRST);
  const shown = open ? keys.slice(0, most) : [];
  return html`
    <section class="section">
      <h2><button aria-expanded=${open} onClick=${() => on.fold(name, !open)}>
        <span class="fold">${open ? "▾" : "▸"}</span><bdi>${name || "metrics"}</bdi><span class="count">${keys.length.toLocaleString("en-US")}</span>
      </button></h2>
      ${open && html`<div class="grid">${shown.map(children)}</div>`}
      ${open && keys.length > most && html`<button class="plain more" onClick=${() => setMost(most + FIRST)}>
        ${(keys.length - most).toLocaleString("en-US")} more: show ${Math.min(FIRST, keys.length - most)}</button>`}
    </section>`;
}

/** A chart with its title. `look`: what all charts have in common; `view`: what this one has of its own. */
export function Card({ id, chart, look, view, loader, table, on, pinned, focused }) {
  const box = useRef(null);
  const canvas = useRef(null);
  const plot = useRef(null);
  const [visible, setVisible] = useState(false);
  const [width, setWidth] = useState(0);
  const drop = () => {
    plot.current?.destroy();
    if (plots.get(id) === plot.current) plots.delete(id);
    plot.current = null;
  };
  useEffect(() => {
    const watch = new IntersectionObserver(([entry]) => setVisible(entry.isIntersecting), { rootMargin: "200px" });
    const sizes = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(box.current);
    sizes.observe(canvas.current);
    return () => {
      watch.disconnect();
      sizes.disconnect();
      loader.see(id, false);
      drop();
    };
  }, []);
  useEffect(() => loader.see(id, visible), [visible]);
  useEffect(() => {
    if (focused) box.current.focus({ preventScroll: false });
  }, [focused]);
  useEffect(() => {
    // On its way is a chart for the axes that are wanted now; until then the one that is there stays.
    if (!visible || !width || !chart || table || chart.axes !== view.axes) return;
    plot.current ??= new Plot(canvas.current, { ...on, zoomY: (low, high) => on.own(id, { y: [low, high] }), pick: (line, point) => on.pick(id, line, point) });
    plots.set(id, plot.current);
    plot.current.show(chart, { ...look, ...view, width, height: HEIGHT });
  }, [visible, width, chart, look, view, table]);
  useEffect(() => {
    if (!visible || table) drop(); // a canvas that nobody sees takes memory
  }, [visible, table]);
  const points = chart ? chart.lines.reduce((sum, line) => sum + (line.points ?? 0), 0) : 0;
  return html`
    <article class="card" ref=${box} tabindex="0" data-key=${id} data-drawn=${chart ? chart.drawn : ""} onFocus=${() => on.focus(id)}>
      <header>
        <h3 title=${id}><bdi>${id}</bdi></h3>
        <span class="notes">${chart && notes(chart, points, view, look.x)}</span>
        <span class="tools">
          ${view.y && html`<button class="plain" title="all of y again (0)" onClick=${() => on.own(id, { y: undefined })}>all of y</button>`}
          <button class="plain" title="table of the values (t)" aria-pressed=${table} onClick=${() => on.table(id)}>table</button>
          <button class="plain" title=${pinned ? "unpin (p)" : "pin to the top (p)"} aria-label="pin" aria-pressed=${pinned} onClick=${() => on.pin(id)}>pin</button>
          <button class="plain" title="axes, pictures, CSV, the same in Python (e)" aria-label="axes and export" onClick=${() => on.more(id)}>⋯</button>
        </span>
      </header>
      <div class="canvas" ref=${canvas} style=${{ height: `${HEIGHT}px`, display: table ? "none" : "" }}></div>
      ${table && chart && html`<${Values} chart=${chart} look=${look} />`}
      ${chart && !chart.lines.length && html`<p class="empty">none of these runs has logged it</p>`}
    </article>`;
}

/** What the drawing does not show by itself. */
function notes(chart, points, view, x) {
  const said = [];
  const odd = chart.lines.reduce((sum, line) => sum + (line.odd ?? 0), 0);
  if (odd) said.push(html`<span class="warn" title="marked: × NaN at the top, ▲ ∞ at the top, ▼ −∞ at the bottom">${odd.toLocaleString("en-US")} NaN or ±∞</span>`);
  const { sight } = chart;
  if (sight && (view.y || view.outliers) && sight.under + sight.over) {
    const far = sight.over ? `up to ${number(sight.most)}` : `down to ${number(sight.least)}`;
    said.push(html`<span class="warn" title="marked △ at the top, ▽ at the bottom">${(sight.under + sight.over).toLocaleString("en-US")} outside, ${far}</span>`);
  }
  const left = chart.hidden + chart.lines.reduce((sum, line) => sum + (line.left_out ?? 0), 0);
  if (left) said.push(html`<span class="warn" title="a logarithmic axis cannot show them">${left.toLocaleString("en-US")} not above 0</span>`);
  if (chart.without) {
    said.push(html`<span class="warn" title="their runs have not logged it at these steps, so they have no x">${chart.without.toLocaleString("en-US")} without <bdi>${x}</bdi></span>`);
  }
  const again = chart.lines.filter((line) => line.again);
  if (again.length) {
    const where = again.length > 1 ? `${again.length} runs taken up again` : `taken up again at step ${again[0].again.map((step) => number(step, 15)).join(", ")}`;
    said.push(html`<span title="steps went back there: what had been logged from there on is pale and dashed">${where}</span>`);
  }
  const waiting = chart.lines.reduce((sum, line) => sum + (line.waiting ?? 0), 0);
  if (waiting) said.push(html`<span title="they wait on this machine">${waiting.toLocaleString("en-US")} not delivered yet</span>`);
  if (!chart.exact && chart.places) {
    said.push(html`<span title="each pixel shows the smallest and the largest of its points: no spike is lost">${compact(points)} points, min–max</span>`);
  }
  return said.map((each, n) => html`${n ? " · " : ""}${each}`);
}

function compact(count) {
  return count >= 1e6 ? `${number(count / 1e6, 3)}M` : count >= 1e4 ? `${number(count / 1e3, 3)}k` : String(count);
}

/** The values behind a chart. */
function Values({ chart, look }) {
  const lines = chart.lines.slice(0, 20);
  const rows = Math.min(chart.x.length, MOST_ROWS);
  const text = ({ cells, marks }, i) => {
    const shown = cells.last[i] !== cells.last[i] ? [] : [cells.low[i] === cells.high[i] ? number(cells.last[i], 6) : `${number(cells.low[i])} – ${number(cells.high[i])}`];
    return [...shown, ...oddKinds(marks?.[i]).map((kind) => number(kind))].join(", ");
  };
  return html`
    <div class="values" style=${{ height: `${HEIGHT}px` }} tabindex="0">
      <table>
        <thead><tr><th scope="col">${look.x}</th>${lines.map((line) => html`<th scope="col"><bdi>${look.names(line)}</bdi></th>`)}</tr></thead>
        <tbody>${Array.from({ length: rows }, (_, i) => html`<tr><td>${place(chart.x[i], look.x)}</td>${lines.map((line) => html`<td>${text(line, i)}</td>`)}</tr>`)}</tbody>
      </table>
      ${(chart.x.length > rows || chart.lines.length > lines.length) && html`<p class="empty">more in the CSV</p>`}
    </div>`;
}

// What opens over the page: help, what differs between runs, the values of a step.
import { html, useLayoutEffect, useRef } from "./vendor/htm-preact.js";
import { number } from "./words.js";

export const KEYS = [
  ["j k", "next, previous run"], ["space", "show or hide it"], ["a", "show all that are listed, or the newest again"],
  ["i", "the run: notes, tags, metrics, files"], ["c", "compare runs"], ["f", "search or filter runs"], ["/", "search metrics"],
  ["l h", "next, previous chart"], ["] [", "crosshair to the right, left"], ["Enter", "values of that step"],
  ["+ -", "zoom in, out"], ["> <", "move right, left"], ["0 Esc", "show all again"],
  ["s S", "smooth more, less"], ["y x", "log y, log x"], ["o", "ignore outliers"], ["r", "x: step, time, relative"], ["g", "group runs"],
  ["p", "pin the chart to the top"], ["t", "table behind the chart"], ["e", "its axes; PNG, SVG, CSV, Python, shell"],
  ["b", "hide the runs"], ["d", "dark, light, as the system"], ["?", "this help"],
];

export function Panel({ title, close, children }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    box.current.focus();
    return () => before?.focus?.();
  }, []);
  return html`
    <div class="veil" onClick=${(event) => event.target === event.currentTarget && close()}>
      <div class="panel" role="dialog" aria-modal="true" aria-label=${title} tabindex="-1" ref=${box}>
        <header><h2><bdi>${title}</bdi></h2><button class="plain" onClick=${close} title="close (Esc)">close</button></header>
        ${children}
      </div>
    </div>`;
}

export function Help({ close }) {
  return html`
    <${Panel} title="Keys" close=${close}>
      <dl class="keys">${KEYS.map(([key, what]) => html`<div><dt>${key.split(" ").map((each) => html`<kbd>${each}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl>
      <p class="quiet">Drag along x, along y or across a chart to zoom, double-click to see all of it again, click a line for the values of that step.
        Runs are searched by name, id, param or tag, or filtered as MLflow does: <code>${"metrics.loss < 0.1 and params.lr = '0.1'"}</code></p>
    <//>`;
}

/** Params and tags of some runs, those first that differ. */
export function Compare({ runs, close, looks }) {
  const shown = runs.slice(0, 50);
  const rows = [];
  for (const kind of ["params", "tags"]) {
    for (const key of [...new Set(shown.flatMap((run) => Object.keys(run[kind])))].sort()) {
      const values = shown.map((run) => run[kind][key]);
      rows.push({ kind, key, values, differs: new Set(values).size > 1 });
    }
  }
  const [differing, same] = [rows.filter((row) => row.differs), rows.filter((row) => !row.differs)];
  const line = (row) => html`<tr class=${row.differs ? "differs" : ""}><th scope="row"><bdi>${row.key}</bdi>${row.kind === "tags" && html`<span class="quiet"> tag</span>`}</th>
    ${row.values.map((value) => html`<td><bdi>${value ?? "–"}</bdi></td>`)}</tr>`;
  return html`
    <${Panel} title=${`What differs between ${shown.length} runs`} close=${close}>
      <div class="scroll"><table class="compare">
        <thead><tr><td></td>${shown.map((run) => html`<th scope="col"><span class="swatch" style=${{ background: looks.get(run.id)?.colour }}></span><bdi>${run.name || run.id.slice(0, 8)}</bdi></th>`)}</tr></thead>
        <tbody>${differing.map(line)}
          ${!differing.length && html`<tr><td class="quiet" colspan=${shown.length + 1}>nothing differs</td></tr>`}
          ${same.length > 0 && html`<tr class="rule"><td class="quiet" colspan=${shown.length + 1}>the same in all</td></tr>`}
          ${same.map(line)}</tbody>
      </table></div>
      ${runs.length > shown.length && html`<p class="quiet">the first 50 of ${runs.length}</p>`}
    <//>`;
}

/** What a run logged at a step. */
export function StepValues({ step, name, close }) {
  return html`
    <${Panel} title=${`${name}, step ${step.step}`} close=${close}>
      ${step.error && html`<p class="warn">${step.error}</p>`}
      ${step.values && !step.values.length && html`<p class="quiet">nothing was logged at this step</p>`}
      <div class="scroll"><table class="compare"><tbody>
        ${(step.values ?? []).map(([key, value]) => html`<tr><th scope="row"><bdi>${key}</bdi></th><td class="right">${number(value, 8)}</td></tr>`)}
      </tbody></table></div>
    <//>`;
}

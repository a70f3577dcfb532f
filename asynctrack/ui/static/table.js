// The runs: a table of which only the rows that are seen are made.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { ago, duration, number } from "./words.js";

const ROW = 30;
const STATUS = { RUNNING: "running", FINISHED: "finished", FAILED: "failed", KILLED: "killed", SCHEDULED: "scheduled" };

/** `rows`: runs in order. `columns`: of metrics, "key:part". `values`: (run, column) => value. */
export function RunsTable({ rows, selected, looks, columns, values, sort, cursor, now, experiments, on }) {
  const box = useRef(null);
  const [range, setRange] = useState([0, 60]);
  const seen = () => {
    const { scrollTop, clientHeight } = box.current;
    const from = Math.max(0, Math.floor(scrollTop / ROW) - 10);
    const to = Math.ceil((scrollTop + clientHeight) / ROW) + 10;
    if (from !== range[0] || to !== range[1]) setRange([from, to]);
  };
  useEffect(seen, [rows.length]);
  useEffect(() => {
    const at = rows.findIndex((run) => run.id === cursor);
    if (at < 0) return;
    const { scrollTop, clientHeight } = box.current;
    if (at * ROW < scrollTop) box.current.scrollTop = at * ROW;
    else if ((at + 2) * ROW > scrollTop + clientHeight) box.current.scrollTop = (at + 2) * ROW - clientHeight;
  }, [cursor]);
  const [from, to] = [Math.min(range[0], rows.length), Math.min(range[1], rows.length)];
  const head = (name, title, right) => html`
    <th scope="col" class=${right ? "right" : ""} aria-sort=${sort.name === name ? (sort.down ? "descending" : "ascending") : "none"}>
      <button onClick=${() => on.sort(name)} title=${`sort by ${title}`}>
        <bdi>${title}</bdi>${sort.name === name ? (sort.down ? " ↓" : " ↑") : ""}
      </button>
      ${right && html`<button class="remove" title=${`remove the column ${title}`} aria-label=${`remove the column ${title}`}
        onClick=${() => on.removeColumn(name)}>×</button>`}
    </th>`;
  return html`
    <div class="rows" ref=${box} onScroll=${seen} tabindex="0" aria-label="runs">
      <table>
        <thead><tr>
          ${head("name", "run")}${head("start", "started")}${head("time", "took")}
          ${columns.map((column) => head(column, column.endsWith(":last") ? column.slice(0, -5) : column.replace(/:(min|max)$/, " $1"), true))}
        </tr></thead>
        <tbody>
          ${from > 0 && html`<tr style=${{ height: `${from * ROW}px` }}></tr>`}
          ${rows.slice(from, to).map((run) => {
            const chosen = selected.has(run.id);
            const look = looks.get(run.id);
            const status = STATUS[run.status] ?? run.status;
            return html`
            <tr key=${run.id} class=${`${chosen ? "chosen" : ""} ${cursor === run.id ? "cursor" : ""}`}
              onClick=${(event) => on.toggle(run.id, event)} title=${`${run.id}\n${experiments[run.experiment] ?? run.experiment}, ${status}`}>
              <td class="run">
                <input type="checkbox" checked=${chosen} aria-label=${`show ${run.name || run.id}`} tabindex="-1"
                  style=${{ accentColor: chosen && look ? look.colour : "" }} />
                <span class=${`dot ${run.alive || status === "running" ? "running" : status}`} title=${status}></span>
                <bdi>${run.name || run.id.slice(0, 12)}</bdi>
                ${run.waiting > 0 && html`<span class="waiting" title="events that the store does not have yet">${run.waiting.toLocaleString("en-US")}</span>`}
              </td>
              <td>${ago(run.start, now)}</td>
              <td>${run.end || run.alive || status === "running" ? duration((run.end || now) - run.start) : ""}</td>
              ${columns.map((column) => html`<td class="right">${number(values(run, column))}</td>`)}
            </tr>`;
          })}
          ${to < rows.length && html`<tr style=${{ height: `${(rows.length - to) * ROW}px` }}></tr>`}
        </tbody>
      </table>
    </div>`;
}

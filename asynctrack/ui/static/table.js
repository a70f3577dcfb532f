// The runs: a table of which only the rows that are seen are made.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { duration, number } from "./words.js";

const ROW = 30;
const STATUS = { RUNNING: "running", FINISHED: "finished", FAILED: "failed", KILLED: "killed", SCHEDULED: "scheduled" };

/** What a column is called, and what kind of values it has. */
function titleOf(column) {
  const text = /^(params|tags)\.(.*)$/s.exec(column);
  if (text && !/:(last|min|max)$/.test(column)) return { title: text[2], isText: true };
  return { title: column.endsWith(":last") ? column.slice(0, -5) : column.replace(/:(min|max)$/, " $1"), isText: false };
}

/** The smallest of a column of smallest values, the largest of largest ones. */
function bestOf(rows, column, values) {
  if (!/:(min|max)$/.test(column)) return null;
  const found = rows.map((run) => values(run, column)).filter((value) => typeof value === "number");
  return found.length < 2 ? null : found.reduce((a, b) => (column.endsWith(":min") === b < a ? b : a));
}

/** `rows`: runs in order. `columns`: of metrics, "key:part", or "params.lr", "tags.team". `values`: (run, column) =>
 * value. */
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
  const titles = columns.map((column) => ({ column, ...titleOf(column), best: bestOf(rows, column, values) }));
  const head = (name, title, removable, right) => html`
    <th scope="col" class=${right ? "right" : ""} aria-sort=${sort.name === name ? (sort.down ? "descending" : "ascending") : "none"}>
      <button onClick=${() => on.sort(name)} title=${`sort by ${title}`}>
        <bdi>${title}</bdi>${sort.name === name ? (sort.down ? " ↓" : " ↑") : ""}
      </button>
      ${removable && html`<button class="remove" title=${`remove the column ${title}`} aria-label=${`remove the column ${title}`}
        onClick=${() => on.removeColumn(name)}>×</button>`}
    </th>`;
  return html`
    <div class="rows" ref=${box} onScroll=${seen} tabindex="0" aria-label="runs">
      <table>
        <thead><tr>
          ${head("name", "run")}${head("start", "age")}${head("time", "took")}
          ${titles.map(({ column, title, isText }) => head(column, title, true, !isText))}
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
                <button class="plain open" tabindex="-1" title="notes, tags, metrics, files (i)" aria-label=${`open ${run.name || run.id}`}
                  onClick=${(event) => { event.stopPropagation(); on.open(run.id); }}>›</button>
                ${run.waiting > 0 && html`<span class="waiting" title="events that the store does not have yet">${run.waiting.toLocaleString("en-US")}</span>`}
              </td>
              <td>${run.start ? duration(now - run.start) : ""}</td>
              <td>${run.end || run.alive || status === "running" ? duration((run.end || now) - run.start) : ""}</td>
              ${titles.map(({ column, isText, best }) => {
                const value = values(run, column);
                return isText ? html`<td class="text"><bdi title=${value}>${value}</bdi></td>`
                  : html`<td class=${best !== null && value === best ? "right best" : "right"}>${number(value)}</td>`;
              })}
            </tr>`;
          })}
          ${to < rows.length && html`<tr style=${{ height: `${(rows.length - to) * ROW}px` }}></tr>`}
        </tbody>
      </table>
    </div>`;
}

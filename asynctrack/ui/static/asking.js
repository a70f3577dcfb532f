// What opens over the page and changes it: how runs are grouped, and one chart's axes and copies of it.
import { html, useState } from "./vendor/htm-preact.js";
import { commandOf, download, fileName, pngOf, pythonOf, svgOf } from "./export.js";
import { Panel } from "./panels.js";
import { SPREADS } from "./state.js";

const WORDS = { std: "mean, standard deviation", quartiles: "median, quartiles", range: "mean, smallest to largest" };
/** names that are offered at once */
const MOST_NAMES = 200;

/** `names`: of params and tags, those first that differ. `params`: those of them that are params. */
export function Grouping({ group, besides, spread, names, params, on, close }) {
  const [search, setSearch] = useState("");
  const kind = besides ? "besides" : group === null ? "no" : group.length ? "by" : "all";
  const chosen = besides ?? group ?? [];
  const choose = (name) => {
    const next = chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name];
    if (kind === "besides") on({ group: null, besides: next });
    else on({ group: next, besides: null });
  };
  const radio = (value, text, patch) => html`<label><input type="radio" name="group" value=${value} checked=${kind === value} onChange=${() => on(patch)} /> ${text}</label>`;
  const offered = (kind === "besides" ? params : names).filter((name) => name.toLowerCase().includes(search.toLowerCase()));
  return html`
    <${Panel} title="Group runs" close=${close}>
      <div class="choices" role="radiogroup" aria-label="groups">
        ${radio("no", "a line for each run", { group: null, besides: null })}
        ${radio("all", "all runs together", { group: [], besides: null })}
        ${radio("by", "runs that have in common:", { group: chosen.length ? chosen : names.slice(0, 1), besides: null })}
        ${radio("besides", "runs that differ only in:", { group: null, besides: chosen.filter((name) => params.includes(name)) })}
      </div>
      ${(kind === "by" || kind === "besides") && html`
        ${names.length > 12 && html`<input type="search" placeholder="params and tags" aria-label="search params and tags" value=${search} onInput=${(event) => setSearch(event.target.value)} />`}
        <div class="names scroll">${[...new Set([...chosen, ...offered])].slice(0, MOST_NAMES).map((name) => html`
          <label><input type="checkbox" checked=${chosen.includes(name)} onChange=${() => choose(name)} /> <bdi>${name}</bdi></label>`)}</div>`}
      ${kind !== "no" && html`
        <div class="choices" role="radiogroup" aria-label="what is drawn of a group">
          ${SPREADS.map((each) => html`<label><input type="radio" name="spread" checked=${spread === each} onChange=${() => on({ spread: each })} /> ${WORDS[each]}</label>`)}
        </div>`}
    <//>`;
}

/** One chart: its axes, pictures of it, and how it is made elsewhere. `plot`: what is drawn, if it is seen. */
export function ChartPanel({ id, view, own, plot, csv, asked, pinned, on, close }) {
  const [said, say] = useState("");
  const [low, setLow] = useState(view.y?.[0] ?? "");
  const [high, setHigh] = useState(view.y?.[1] ?? "");
  const setY = (from, to) => {
    setLow(from);
    setHigh(to);
    const [bottom, top] = [from, to].map((text) => (text === "" ? NaN : Number(text)));
    if (Number.isFinite(bottom) && Number.isFinite(top) && bottom < top) on.own(id, { y: [bottom, top] });
    else if (from === "" && to === "") on.own(id, { y: undefined });
  };
  const flag = (name, text) => html`
    <label>${text} <select value=${own[name] === undefined ? "" : own[name] ? "1" : "0"} aria-label=${text}
      onChange=${(event) => on.own(id, { [name]: event.target.value === "" ? undefined : event.target.value === "1" })}>
      <option value="">as all</option><option value="1">yes</option><option value="0">no</option>
    </select></label>`;
  const save = async (suffix) => {
    try {
      const blob = suffix === "png" ? await pngOf(plot) : new Blob([svgOf(plot)], { type: "image/svg+xml" });
      download(fileName(id, suffix), blob);
    } catch (error) {
      say(`not saved: ${error.message}`);
    }
  };
  const texts = [["Python", pythonOf(asked), 0], ["shell", commandOf(asked), 0]];
  const partly = asked.runs.length > 100 ? "the first 100 runs" : "";
  const missing = [asked.group || asked.besides ? "the shell has a line for each run" : "", asked.spread !== "std" && (asked.group || asked.besides) ? "Python draws the mean" : "", partly].filter(Boolean);
  return html`
    <${Panel} title=${id} close=${close}>
      <div class="fields">
        <label>y from <input type="number" step="any" id="y-low" value=${low} onInput=${(event) => setY(event.target.value, high)} /></label>
        <label>to <input type="number" step="any" id="y-high" value=${high} onInput=${(event) => setY(low, event.target.value)} /></label>
        ${flag("logY", "log y")}${flag("logX", "log x")}${flag("outliers", "ignore outliers")}
        <label><input type="checkbox" checked=${pinned} onChange=${() => on.pin(id)} /> pinned</label>
      </div>
      <div class="fields">
        <span class="quiet">save</span>
        <button class="toggle" disabled=${!plot} onClick=${() => save("png")}>PNG</button>
        <button class="toggle" disabled=${!plot} onClick=${() => save("svg")}>SVG</button>
        <a class="toggle" href=${csv} download>CSV, all points</a>
      </div>
      ${texts.map(([name, text]) => html`
        <div class="copy"><span class="quiet">${name}</span><button class="toggle" onClick=${async (event) => say(await copied(text, event.target) ? `${name} copied` : `${name} is selected: copy it`)}>copy</button></div>
        <pre class="code" tabindex="0" data-kind=${name}>${text}</pre>`)}
      ${missing.length > 0 && html`<p class="quiet">${missing.join("; ")}</p>`}
      <p role="status" class="quiet">${said}</p>
    <//>`;
}

async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(button.parentElement.nextElementSibling); // the browser does not let a page copy
    return false;
  }
}

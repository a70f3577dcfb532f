// One run: its note, params, tags, metrics and files. All that it is called is text.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { Panel } from "./panels.js";
import * as wire from "./wire.js";
import { ago, bytes, duration, number } from "./words.js";

const NOTE = "mlflow.note.content";
/** metrics and files that are listed at once */
const MOST = 300;

/** `editable`: whether notes and tags may be changed. `changed`: () after one was. */
export function RunPanel({ run, experiment, editable, now, changed, close }) {
  const [more, setMore] = useState({ tags: run.tags, metrics: null });
  const [error, setError] = useState("");
  const load = async () => {
    try {
      setMore(await wire.run(run.id));
    } catch (failed) {
      setError(failed.message);
    }
  };
  useEffect(() => { load(); }, [run.id]);
  const set = async (key, value) => {
    try {
      await wire.tag(run.id, key, value);
      setError("");
      await load();
      changed();
    } catch (failed) {
      setError(failed.message);
    }
  };
  const rows = (values, name) => Object.entries(values).map(([key, value]) => html`<tr><th scope="row"><bdi>${key}</bdi></th><td><bdi>${value}</bdi></td>${name}</tr>`);
  const tags = Object.fromEntries(Object.entries(more.tags).filter(([key]) => key !== NOTE));
  const metrics = more.metrics ?? [];
  return html`
    <${Panel} title=${run.name || run.id} close=${close}>
      <p class="quiet facts"><span>${run.status.toLowerCase()}</span><span>started ${ago(run.start, now)}</span>${run.end && html`<span>took ${duration(run.end - run.start)}</span>`}
        <bdi>${experiment}</bdi><code>${run.id}</code></p>
      ${error && html`<p class="warn" role="alert">${error}</p>`}
      <div class="scroll run-parts">
        ${(editable || more.tags[NOTE]) && html`<${Note} text=${more.tags[NOTE] ?? ""} editable=${editable} save=${(text) => set(NOTE, text || null)} />`}
        <${Files} run=${run.id} />
        <h3>params</h3>
        <table class="compare"><tbody>${rows(run.params)}</tbody></table>
        <h3>tags</h3>
        <${Tags} tags=${tags} editable=${editable} set=${set} />
        <h3>metrics</h3>
        <table class="compare"><thead><tr><th></th>${["last", "min", "at step", "max", "at step"].map((name) => html`<th class="right" scope="col">${name}</th>`)}</tr></thead>
          <tbody>${metrics.slice(0, MOST).map(([key, ...values]) => html`<tr><th scope="row"><bdi>${key}</bdi></th>${values.map((value) => html`<td class="right">${number(value, 6)}</td>`)}</tr>`)}</tbody></table>
        ${metrics.length > MOST && html`<p class="quiet">the first ${MOST} of ${metrics.length.toLocaleString("en-US")}</p>`}
      </div>
    <//>`;
}

function Note({ text, editable, save }) {
  const [draft, setDraft] = useState(null);
  if (!editable) return html`<p class="note"><bdi>${text}</bdi></p>`;
  return html`
    <textarea id="note" rows="3" placeholder="note" aria-label="note" value=${draft ?? text} onInput=${(event) => setDraft(event.target.value)}></textarea>
    ${draft !== null && draft !== text && html`<button class="toggle" id="save-note" onClick=${async () => { await save(draft); setDraft(null); }}>save</button>`}`;
}

function Tags({ tags, editable, set }) {
  const [key, setKey] = useState("");
  const [value, setValue] = useState("");
  const mine = (name) => editable && !/^(mlflow|asynctrack)\./.test(name);
  const add = async (event) => {
    event.preventDefault();
    if (!key) return;
    await set(key, value);
    setKey("");
    setValue("");
  };
  return html`
    <table class="compare"><tbody>${Object.entries(tags).map(([name, its]) => html`
      <tr><th scope="row"><bdi>${name}</bdi></th><td><bdi>${its}</bdi></td>
        <td>${mine(name) && html`<button class="plain" aria-label=${`change the tag ${name}`} onClick=${() => { setKey(name); setValue(its); }}>change</button>
          <button class="plain" aria-label=${`delete the tag ${name}`} onClick=${() => set(name, null)}>delete</button>`}</td></tr>`)}</tbody></table>
    ${editable && html`<form class="fields" onSubmit=${add}>
      <input id="tag-key" type="text" placeholder="tag" aria-label="tag" value=${key} onInput=${(event) => setKey(event.target.value)} />
      <input id="tag-value" type="text" placeholder="value" aria-label="value" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <button class="toggle" type="submit">set</button></form>`}`;
}

/** The files of a run: folders open in place, images and texts are shown. */
function Files({ run }) {
  const [folders, setFolders] = useState({});
  const [shown, setShown] = useState(null);
  const list = async (path) => {
    try {
      const files = await wire.files(run, path);
      setFolders((before) => ({ ...before, [path]: { files } }));
    } catch (failed) {
      setFolders((before) => ({ ...before, [path]: { error: failed.message } }));
    }
  };
  useEffect(() => {
    setFolders({});
    setShown(null);
    list("");
  }, [run]);
  const fold = (path) => (folders[path] ? setFolders(({ [path]: _, ...rest }) => rest) : list(path));
  const look = async (path) => {
    if (shown?.path === path) return setShown(null);
    try {
      setShown({ path, ...(await wire.file(run, path)) });
    } catch (failed) {
      setShown({ path, kind: "other", why: failed.message });
    }
  };
  const entries = (path) => {
    const folder = folders[path];
    if (!folder) return null;
    if (folder.error) return html`<p class="quiet">${folder.error}</p>`;
    return html`<ul>${folder.files.slice(0, MOST).map((file) => html`<li key=${file.path}>
      <button class="plain" aria-expanded=${Boolean(file.folder ? folders[file.path] : shown?.path === file.path)} onClick=${() => (file.folder ? fold(file.path) : look(file.path))}>
        ${file.folder ? (folders[file.path] ? "▾ " : "▸ ") : ""}<bdi>${file.path.split("/").pop()}</bdi><span class="quiet"> ${bytes(file.size)}</span></button>
      ${file.folder ? entries(file.path) : shown?.path === file.path && html`<${Shown} run=${run} file=${shown} />`}</li>`)}</ul>
      ${folder.files.length > MOST && html`<p class="quiet">the first ${MOST} of ${folder.files.length}</p>`}`;
  };
  if (!folders[""] || folders[""].files?.length === 0) return null;
  return html`<h3>files</h3><div class="files">${entries("")}</div>`;
}

function Shown({ run, file }) {
  if (file.kind === "image") return html`<img class="shown" src=${wire.imageAddress(run, file.path)} alt=${file.path} />`;
  if (file.kind === "text") return html`<pre class="code shown" tabindex="0">${file.text}</pre>${file.cut && html`<p class="quiet">only its beginning</p>`}`;
  return html`<p class="quiet">${file.why}</p>`;
}

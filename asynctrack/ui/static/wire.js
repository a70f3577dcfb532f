// What the server is asked, and what it answers.

async function asked(path, query, signal) {
  const response = await fetch(`${path}?${query}`, { signal, credentials: "same-origin" });
  if (response.ok) return response;
  throw await errorOf(response);
}

async function errorOf(response) {
  const text = await response.text();
  let said = text;
  try {
    said = JSON.parse(text).error ?? text;
  } catch {
    // not of ours: a proxy's page, say
  }
  return new Error(said.slice(0, 500) || `${response.status} ${response.statusText}`);
}

export async function runs(columns, filter) {
  const query = new URLSearchParams(columns.map((column) => ["column", column]));
  if (filter) query.set("filter", filter);
  return (await asked("api/runs", query)).json();
}

export async function keys(ids) {
  return (await (await asked("api/keys", new URLSearchParams({ runs: ids.join(".") }))).json()).keys;
}

/** What a run has logged at the step of a point: {run, step, values}. `point`: {key, x, at, half, value}. */
export async function step(run, point) {
  return (await asked("api/step", new URLSearchParams({ run, ...point }))).json();
}

/** A run: {tags, metrics: [[key, last, min, step, max, step], ...], editable}. */
export async function run(id) {
  return (await asked("api/run", new URLSearchParams({ run: id }))).json();
}

/** The files in a folder of a run: [{path, folder, size}]. */
export async function files(id, path) {
  return (await (await asked("api/files", new URLSearchParams({ run: id, path }))).json()).files;
}

/** What a file is: {kind: "image", "text" or "other", text, cut, why}. */
export async function file(id, path) {
  return (await asked("api/file", new URLSearchParams({ run: id, path }))).json();
}

export function imageAddress(id, path) {
  return `api/image?${new URLSearchParams({ run: id, path })}`;
}

/** Set a tag of a run; a value of null deletes it. */
export async function tag(run, key, value) {
  const response = await fetch("api/tag", {
    method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: JSON.stringify({ run, key, value }),
  });
  if (!response.ok) throw await errorOf(response);
}

export function csvAddress(key, ids) {
  return `api/csv?${new URLSearchParams({ key, runs: ids.join(".") })}`;
}

export function eventsAddress(ids, since) {
  return `api/events?${new URLSearchParams({ runs: ids.join("."), since })}`;
}

/** Charts of some keys: {version, trouble, charts: [...]}, with arrays where the answer holds the places of arrays. */
export async function charts(keys, query, signal) {
  const whole = new URLSearchParams(query);
  for (const key of keys) whole.append("key", key);
  return unpacked(await (await asked("api/charts", whole, signal)).arrayBuffer());
}

export function unpacked(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const start = 4 + size;
  for (const chart of header.charts) {
    const Values = chart.kind === "f4" ? Float32Array : Float64Array;
    const values = (at) => new Values(buffer, start + at, chart.places);
    chart.x = new Float64Array(buffer, start + chart.x, chart.places);
    for (const line of chart.lines) {
      line.cells = cells(line.at, values);
      line.raw = line.rawat ? cells(line.rawat, values) : null;
      line.before = (line.before ?? []).map((at) => cells(at, values));
      line.band = line.band ? line.band.map(values) : null;
      line.counts = line.counts === undefined ? null : new Float32Array(buffer, start + line.counts, chart.places);
      line.marks = line.marks === undefined ? null : new Uint8Array(buffer, start + line.marks, chart.places);
    }
  }
  return header;
}

function cells(at, values) {
  const [last, low = last, high = last] = at.map(values);
  return { last, low, high };
}

// What is shown. The address of the page holds it, so that it can be shared and reloaded; taste stays with the reader.

/** Digits of an id in the address, at least. */
const DIGITS = 8;

/** of a metric, a param or a tag; what else stands in an address somebody has typed is left out */
const COLUMN = /^(params|tags)\..|.:(last|min|max)$/;

export function fromAddress(search) {
  const query = new URLSearchParams(search);
  const zoom = ["from", "to"].map((name) => (query.has(name) ? Number(query.get(name)) : NaN));
  const smooth = Number(query.get("s") ?? 0);
  return {
    runs: query.has("runs") ? query.get("runs").split(".").filter(Boolean) : null,
    search: query.get("q") ?? "",
    keysSearch: query.get("k") ?? "",
    x: query.get("x") || "step",
    smooth: smooth >= 0 && smooth < 1 ? smooth : 0,
    group: query.has("g") ? query.get("g").split(",").filter(Boolean) : null,
    logX: query.get("lx") === "1",
    logY: query.get("ly") === "1",
    zoom: zoom.every(Number.isFinite) && zoom[0] < zoom[1] ? zoom : null,
    columns: query.has("c") ? query.getAll("c").filter((column) => COLUMN.test(column)) : null,
    sort: query.get("sort") ?? "",
    experiment: query.get("e") ?? "",
    besides: query.has("gx") ? query.get("gx").split(",").filter(Boolean) : null,
    spread: SPREADS.includes(query.get("b")) ? query.get("b") : "std",
    outliers: query.get("out") === "1",
    pins: query.getAll("pin").filter(Boolean),
    own: new Map(query.getAll("o").map(ownOf).filter(Boolean)),
  };
}

/** how a group is drawn */
export const SPREADS = ["std", "quartiles", "range"];

/** What one chart has of its own, as "ly1;out0;y0.5~3:key": logX, logY and outliers, true or false, and y. */
function ownOf(text) {
  const cut = text.indexOf(":");
  if (cut < 0) return null;
  const own = {};
  for (const part of text.slice(0, cut).split(";")) {
    for (const [name, short] of FLAGS) if (part === `${short}1` || part === `${short}0`) own[name] = part.endsWith("1");
    if (part[0] === "y") {
      const y = part.slice(1).split("~").map(Number);
      if (y.length === 2 && y.every(Number.isFinite) && y[0] < y[1]) own.y = y;
    }
  }
  return [text.slice(cut + 1), own];
}

const FLAGS = [["logX", "lx"], ["logY", "ly"], ["outliers", "out"]];

function ownText(key, own) {
  const parts = FLAGS.filter(([name]) => own[name] !== undefined).map(([name, short]) => `${short}${own[name] ? 1 : 0}`);
  if (own.y) parts.push(`y${own.y.map(short).join("~")}`);
  return parts.length ? `${parts.join(";")}:${key}` : "";
}

export function toAddress(state) {
  const query = new URLSearchParams();
  const put = (name, value, usual) => value !== usual && query.set(name, value);
  if (state.runs) query.set("runs", state.runs.join("."));
  put("q", state.search, "");
  put("k", state.keysSearch, "");
  put("x", state.x, "step");
  put("s", state.smooth, 0);
  if (state.group) query.set("g", state.group.join(","));
  if (state.logX) query.set("lx", "1");
  if (state.logY) query.set("ly", "1");
  if (state.zoom) {
    query.set("from", short(state.zoom[0]));
    query.set("to", short(state.zoom[1]));
  }
  if (state.columns) for (const column of state.columns.length ? state.columns : [""]) query.append("c", column);
  put("sort", state.sort, "");
  put("e", state.experiment, "");
  if (state.besides) query.set("gx", state.besides.join(","));
  put("b", state.spread, "std");
  if (state.outliers) query.set("out", "1");
  for (const key of state.pins) query.append("pin", key);
  for (const [key, own] of state.own) if (ownText(key, own)) query.append("o", ownText(key, own));
  const text = query.toString();
  return text ? `?${text}` : "./";
}

function short(value) {
  return String(Number(value.toPrecision(15)));
}

/** So many digits tell all of these ids apart. */
export function digits(ids) {
  let found = DIGITS;
  while (found < 32 && new Set(ids.map((id) => id.slice(0, found))).size < new Set(ids).size) found += 1;
  return found;
}

export function taste(name, usual) {
  try {
    return localStorage.getItem(`asynctrack.${name}`) ?? usual;
  } catch {
    return usual; // the browser keeps nothing for this page
  }
}

export function setTaste(name, value) {
  try {
    localStorage.setItem(`asynctrack.${name}`, value);
  } catch {
    // it holds until the page is left
  }
}

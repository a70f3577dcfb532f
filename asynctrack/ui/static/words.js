// Numbers, times and colours, as people read them. Nothing here touches the page.

/** A value in few digits: 0.25, 12k, 1.5e-7. Texts are "nan", "inf" and "-inf", which JSON has no numbers for. */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return { nan: "NaN", inf: "∞", "-inf": "−∞" }[value] ?? value;
  if (Number.isNaN(value)) return "NaN";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
}

export function ago(ms, now) {
  return ms ? `${duration(now - ms)} ago` : "";
}

export function duration(ms) {
  const s = Math.max(ms, 0) / 1000;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** An x as a tooltip shows it. */
export function place(x, kind) {
  if (kind === "time") return new Date(x).toLocaleString(undefined, { hour12: false });
  if (kind === "relative") return `${number(x, 5)} s`;
  return Number.isInteger(x) ? x.toLocaleString("en-US") : number(x, 6);
}

const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b8558f", "#2f93cf", "#b87a00", "#8c6bb1", "#6f6f6f"];
const DARK = ["#4da3dd", "#f08a4b", "#2cc89a", "#e29ac4", "#8ccbf0", "#f0bc52", "#b69bd9", "#b3b3b3"];
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];

const TABLE = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(text) {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A colour and a dash for each name, as `asynctrack.plots.palette.places_of` chooses them: by the name alone as long
 * as no other has that colour, then the next free one. Where all are taken, dashes tell lines of one colour apart. */
export function looks(names, dark) {
  const found = new Map();
  const taken = new Array(LIGHT.length).fill(0);
  let free = LIGHT.length;
  for (const name of [...new Set(names)].sort()) {
    let at = crc32(name) % LIGHT.length;
    if (free > 0) {
      while (taken[at]) at = (at + 1) % LIGHT.length;
      free -= 1;
    }
    found.set(name, { colour: (dark ? DARK : LIGHT)[at], dash: DASHES[Math.min(taken[at], DASHES.length - 1)] });
    taken[at] += 1;
  }
  return found;
}

/** What text of a search box means: a test of strings. A text that is no regular expression is looked for as it is. */
export function matcher(text) {
  if (!text) return () => true;
  try {
    const pattern = new RegExp(text, "i");
    return (name) => pattern.test(name);
  } catch {
    const low = text.toLowerCase();
    return (name) => name.toLowerCase().includes(low);
  }
}

const CLAUSE = /^\s*((metrics?|params?|parameters?|tags?|attributes?|attr|runs?|datasets?)\s*\.|(status|start_time|end_time|run_name|run_id|user_id|artifact_uri)\b)[^=<>!]*(=|!=|<|>|\slike\s|\silike\s|\sin\s)/i;

/** Whether a text is a filter in MLflow's language, and not just something to look for. */
export function isFilter(text) {
  return CLAUSE.test(text);
}

/** Whether a text is the beginning of such a filter. */
export function isBegun(text) {
  return /^\s*(metrics?|params?|parameters?|tags?|attributes?)\s*\./i.test(text) && !isFilter(text);
}

/** 12 kB. */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  const at = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 4);
  return `${number(count / 1000 ** at, 3)} ${["B", "kB", "MB", "GB", "TB"][at]}`;
}

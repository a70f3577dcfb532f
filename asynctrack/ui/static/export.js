// A chart as a picture, and as what to type for the same in Python or a shell.
import { BEFORE } from "./chart.js";
import { traceMark } from "./marks.js";

const SVG = "http://www.w3.org/2000/svg";
const FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif";
/** names in the legend of a picture, and runs in a command, at most */
const MOST_NAMES = 40, MOST_RUNS = 100;
const TITLE = 30, LEGEND = 18;

/** A pen that writes the path of an SVG. */
class Pen {
  constructor() {
    this.parts = [];
  }
  moveTo(x, y) { this.parts.push(`M${round(x)} ${round(y)}`); }
  lineTo(x, y) { this.parts.push(`L${round(x)} ${round(y)}`); }
  closePath() { this.parts.push("Z"); }
  arc(x, y, r) { this.parts.push(`m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`); }
  toString() { return this.parts.join(""); }
}

const round = (value) => Math.round(value * 100) / 100;

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** What is drawn, as an SVG element, with its title and its legend. */
function drawing(plot) {
  const { u, look, chart } = plot;
  const scale = window.devicePixelRatio;
  const box = Object.fromEntries(Object.entries(u.bbox).map(([name, value]) => [name, value / scale]));
  const names = chart.lines.slice(0, MOST_NAMES).map((line) => [line, clean(look.names(line))]);
  const more = chart.lines.length - names.length;
  const columns = Math.max(1, Math.floor(u.width / (40 + 6.4 * Math.max(6, ...names.map(([, name]) => name.length)))));
  const height = TITLE + u.height + LEGEND * Math.ceil((names.length + (more > 0)) / columns) + 8;
  const svg = make(null, "svg", { xmlns: SVG, width: u.width, height, viewBox: `0 0 ${u.width} ${height}`, "font-family": FONT, "font-size": 11 });
  make(svg, "rect", { width: u.width, height, fill: ink("--paper") });
  make(svg, "text", { x: 12, y: 20, "font-size": 13, "font-weight": 600, fill: ink("--ink") }, clean(chart.key));
  const all = make(svg, "g", { transform: `translate(0 ${TITLE})` });
  const pos = (value, name) => (name === "x" ? box.left : box.top) + u.valToPos(value, name);
  axes(all, u, box, pos);
  const clip = make(all, "clipPath", { id: "plot" });
  make(clip, "rect", { x: box.left, y: box.top, width: box.width, height: box.height });
  const lines = make(all, "g", { "clip-path": "url(#plot)", fill: "none", "stroke-linejoin": "round" });
  for (const part of plot.parts) {
    const { colour, dash } = look.looks.get(part.line.id ?? part.line.name) ?? { colour: ink("--quiet"), dash: [] };
    if (part.line.band && !part.pale) make(lines, "path", { d: traced((pen) => plot.traceBand(part.line.band, pen, pos)), fill: colour, "fill-opacity": 0.17 });
    make(lines, "path", {
      d: traced((pen) => plot.trace(part, pen, pos)), stroke: colour,
      "stroke-width": part.pale && !part.before ? 1 : 1.5, "stroke-opacity": part.before ? 0.67 : part.pale ? 0.33 : 1, "stroke-dasharray": part.before ? BEFORE.join(" ") : part.pale ? "" : dash.join(" "),
    });
  }
  for (const { line, x, kind } of plot.marks()) {
    const pen = new Pen();
    const filled = traceMark(pen, kind, pos(x, "x"), box.top + 1, box.top + box.height - 1, 4);
    make(lines, "path", { d: pen, [filled ? "fill" : "stroke"]: plot.colourOf(line) });
  }
  names.forEach(([line, name], n) => {
    const x = 12 + (n % columns) * (u.width / columns), y = TITLE + u.height + LEGEND * Math.floor(n / columns) + 10;
    const { colour, dash } = look.looks.get(line.id ?? line.name) ?? { colour: ink("--quiet"), dash: [] };
    make(svg, "path", { d: `M${x} ${y - 4}h20`, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash.join(" ") });
    make(svg, "text", { x: x + 26, y, fill: ink("--ink") }, name);
  });
  if (more > 0) make(svg, "text", { x: 12 + (names.length % columns) * (u.width / columns), y: TITLE + u.height + LEGEND * Math.floor(names.length / columns) + 10, fill: ink("--quiet") }, `and ${more} more`);
  return svg;
}

function axes(all, u, box, pos) {
  const [across, up] = u.axes;
  const text = { fill: ink("--quiet") };
  (up._splits ?? []).forEach((split, n) => {
    const y = pos(split, "y");
    make(all, "path", { d: `M${box.left} ${round(y)}h${box.width}`, stroke: ink("--grid") });
    make(all, "text", { ...text, x: box.left - 6, y: round(y) + 4, "text-anchor": "end" }, up._values?.[n] ?? "");
  });
  (across._splits ?? []).forEach((split, n) => {
    const x = pos(split, "x");
    make(all, "path", { d: `M${round(x)} ${box.top}v${box.height}`, stroke: ink("--grid") });
    String(across._values?.[n] ?? "").split("\n").forEach((line, row) => {
      make(all, "text", { ...text, x: round(x), y: box.top + box.height + 14 + 12 * row, "text-anchor": "middle" }, line);
    });
  });
}

function traced(draw) {
  const pen = new Pen();
  draw(pen);
  return pen;
}

function make(parent, kind, attributes, text = "") {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") made.setAttribute(name, value);
  if (text) made.textContent = text;
  parent?.append(made);
  return made;
}

/** Without characters that XML has no place for. */
const clean = (text) => text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");

export function svgOf(plot) {
  return new XMLSerializer().serializeToString(drawing(plot));
}

/** The picture in twice as many pixels, as a Blob. */
export async function pngOf(plot) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(plot))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width * 2;
  canvas.height = image.height * 2;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function fileName(key, suffix) {
  return `${key.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 80) || "metric"}.${suffix}`;
}

// ── the same elsewhere

const HIDDEN = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A text in Python and in JSON, in characters that are seen. */
const quoted = (text) => JSON.stringify(text).replace(HIDDEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** `asked`: {key, runs: ids, store, x, logX, logY, smooth, zoom, low: where x begins, group, besides}. */
export function pythonOf(asked) {
  const { key, x, zoom } = asked;
  const runs = asked.runs.slice(0, MOST_RUNS);
  const grouped = asked.group || asked.besides;
  const options = [`tracking_uri=${quoted(asked.store)}`];
  if (x !== "step" && !grouped) options.push(`x=${quoted(x)}`);
  if (zoom && x === "step") options.push(`min_step=${Math.ceil(zoom[0])}`, `max_step=${Math.floor(zoom[1])}`);
  let text = `import asynctrack\n\nruns = [\n${runs.map((id) => `    ${quoted(id)},\n`).join("")}]\n`;
  text += `history = asynctrack.history(runs, [${quoted(key)}], ${options.join(", ")})\n`;
  if (asked.smooth) text += `history = history.smooth(${asked.smooth})\n`;
  if (asked.besides) text += `history = history.mean_over(besides=[${asked.besides.map(quoted).join(", ")}])\n`;
  else if (asked.group) text += `history = history.mean_over(${asked.group.map(quoted).join(", ")})\n`;
  const log = [asked.logX && "log_x=True", asked.logY && "log_y=True"].filter(Boolean).join(", ");
  return `${text}history.plot(${log})  # history.to_pandas(): all points\n`;
}

export function commandOf(asked) {
  const { key, x, zoom } = asked;
  const words = ["asynctrack plot", ...asked.runs.slice(0, MOST_RUNS), key.startsWith("-") ? `--key=${shell(key)}` : `-k ${shell(key)}`, "--store", shell(asked.store)];
  if (x !== "step") words.push("--x", shell(x));
  if (asked.smooth) words.push("--smooth", asked.smooth);
  if (asked.logX) words.push("--log-x");
  if (asked.logY) words.push("--log-y");
  if (zoom) {
    // There, time is counted from the first point on.
    const [low, high] = x === "time" ? zoom.map((ms) => (ms - asked.low) / 1000) : zoom;
    words.push(`--from=${low}`, `--to=${high}`);
  }
  return words.join(" ");
}

/** A word for a shell. One with characters that are not seen is written as bash and zsh read it. */
function shell(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (/[\u0000-\u001f]/.test(text) || text.search(HIDDEN) >= 0) {
    const bytes = [...new TextEncoder().encode(text)];
    return `$'${bytes.map((byte) => (byte < 32 || byte > 126 || byte === 39 || byte === 92 ? `\\x${byte.toString(16).padStart(2, "0")}` : String.fromCharCode(byte))).join("")}'`;
  }
  return `'${text.replaceAll("'", "'\\''")}'`;
}

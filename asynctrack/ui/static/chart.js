// One chart on a canvas: uPlot's axes, cursor and zoom, and lines of our own that lose no extreme.
import { TICKS, oddKinds, traceMark } from "./marks.js";
import { followFingers } from "./touch.js";
import { number, place } from "./words.js";

const uPlot = window.uPlot;
const FONT = "11px system-ui, -apple-system, 'Segoe UI', sans-serif";
/** lines of a chart from which on they are as thin as a pixel, and without dashes: Chromium draws those five times as
 * quickly, and so many that are thicker hide one another */
const MANY = 25;
/** rows of a tooltip at most */
const MOST_ROWS = 10;
/** the dashes of what a run had logged before it was taken up again at an earlier step */
export const BEFORE = [3, 3];

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** how far an axis goes: the distance of its ends is a number, too */
const WIDEST = 8e307;

/** `on`: zoom(low, high), zoomY(low, high), reset(), pick(line, {at, half, value}). */
export class Plot {
  constructor(element, on) {
    this.element = element;
    this.on = on;
    this.chart = null;
    this.u = null;
    this.hovered = false;
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
  }

  /** Draw a chart. `look`: {looks: of each line by its id or name, names, x, logX, logY, zoom: [low, high] or null,
   * y: [low, high] or null, outliers: whether y is as the server found it, width, height}. Where only the data is new, the zoom and the cursor stay. */
  show(chart, look) {
    this.chart = chart;
    const shape = JSON.stringify([
      chart.lines.map((line) => [line.id ?? line.name, Boolean(line.raw), line.before.length, Boolean(line.band)]),
      look.x, look.logX, look.logY, look.theme,
    ]);
    this.look = look;
    this.parts = [
      ...chart.lines.filter((line) => line.raw).map((line) => ({ line, cells: line.raw, pale: true })),
      ...chart.lines.flatMap((line) => line.before.map((cells) => ({ line, cells, pale: true, before: true }))),
      ...chart.lines.map((line) => ({ line, cells: line.cells, pale: false })),
    ];
    this.bounds = this.xBounds();
    this.shownY = this.yBounds();
    if (this.u && this.shape === shape) {
      if (this.u.width !== look.width || this.u.height !== look.height) this.u.setSize(look);
      this.u.setData(this.data(), true);
    } else {
      this.destroy();
      this.shape = shape;
      this.make();
    }
    this.tell();
  }

  data() {
    return [this.chart.x, ...this.parts.map((part) => part.cells.last)];
  }

  xBounds() {
    const { zoom, logX } = this.look;
    let low = zoom ? zoom[0] : this.chart.low;
    let high = zoom ? zoom[1] : this.chart.high;
    if (logX && low <= 0) low = this.chart.low;
    if (typeof low !== "number" || typeof high !== "number" || (logX && !(low > 0))) return logX ? [1, 10] : [0, 1];
    if (low < high) return [low, high];
    return logX ? [low / 2, high * 2] : [low - 1, high + 1];
  }

  yBounds() {
    const [from, to] = this.bounds;
    const { y, outliers, logY } = this.look;
    if (y && (y[0] > 0 || !logY)) return y;
    const { sight } = this.chart;
    if (outliers && sight && (sight.low > 0 || !logY)) return [sight.low, sight.high];
    const x = this.chart.x;
    let low = Infinity, high = -Infinity;
    const take = (lows, highs) => {
      for (let i = 0; i < x.length; i++) {
        if (x[i] < from || x[i] > to || (this.look.logY && !(lows[i] > 0))) continue;
        if (lows[i] < low) low = lows[i];
        if (highs[i] > high) high = highs[i];
      }
    };
    for (const { line, cells } of this.parts) {
      take(cells.low, cells.high);
      if (line.band) take(line.band[0], line.band[1]);
    }
    if (low > high) return this.look.logY ? [1, 10] : [0, 1];
    if (this.look.logY) {
      const room = low < high ? Math.pow(high / low, 0.05) : 2;
      return [low / room, high * room];
    }
    const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
    return [Math.max(low - room, -WIDEST), Math.min(high + room, WIDEST)];
  }

  make() {
    const { look } = this;
    const axis = { stroke: ink("--quiet"), font: FONT, grid: { stroke: ink("--grid"), width: 1 }, ticks: { show: false } };
    const options = {
      width: look.width,
      height: look.height,
      ms: 1,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: look.x === "time", distr: look.logX ? 3 : 1, range: () => this.bounds },
        y: { distr: look.logY ? 3 : 1, range: () => this.shownY },
      },
      axes: [
        { ...axis, gap: 2, size: 26, ...(look.x === "time" ? {} : { ...(look.logX ? {} : TICKS), values: (_, splits) => splits.map(axisText) }),
          ...(look.x === "step" && !look.logX ? { incrs: (...range) => TICKS.incrs(...range).filter((step) => step >= 1) } : {}) },
        { ...axis, gap: 4, ...(look.logY ? {} : TICKS), size: (_, texts) => 14 + 6.2 * Math.max(3, ...(texts ?? []).map((text) => (text ?? "").length)),
          values: (_, splits) => splits.map(axisText) },
      ],
      series: [{}, ...this.parts.map((part) => this.series(part))],
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: true, uni: 40, setScale: false, dist: 4 }, // along x, along y, or both
        sync: { key: "asynctrack", setSeries: false, scales: ["x", null], filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
        bind: { dblclick: () => () => { this.on.reset(); return null; } },
      },
      hooks: {
        setSelect: [(u) => this.selected(u)],
        setCursor: [() => this.point()],
        draw: [(u) => this.drawMarks(u)],
      },
    };
    this.u = new uPlot(options, this.data(), this.element);
    this.u.over.append(this.tip);
    this.u.over.addEventListener("mouseenter", () => { this.hovered = true; });
    this.u.over.addEventListener("mouseleave", () => { this.hovered = this.held = false; this.tip.hidden = true; });
    this.u.over.addEventListener("click", () => this.clicked());
    followFingers(this.u, (left, right) => this.zoomTo(left, right));
  }

  series(part) {
    const name = part.line.id ?? part.line.name;
    const { colour, dash } = this.look.looks.get(name) ?? { colour: ink("--quiet"), dash: [] };
    const thin = (part.pale && !part.before) || this.parts.length >= MANY;
    return {
      stroke: part.before ? `${colour}aa` : part.pale ? `${colour}55` : colour,
      width: thin ? 1 : 1.5,
      dash: part.before ? BEFORE : thin || !dash.length ? undefined : dash,
      fill: part.line.band && !part.pale ? `${colour}2b` : undefined,
      points: { show: false },
      spanGaps: true,
      paths: (u, index) => this.paths(u, this.parts[index - 1]),
    };
  }

  paths(u, part) {
    const pos = (value, scale) => u.valToPos(value, scale, true);
    const stroke = new Path2D();
    this.trace(part, stroke, pos);
    let fill = null;
    if (part.line.band && !part.pale) this.traceBand(part.line.band, (fill = new Path2D()), pos);
    return { stroke, fill, clip: null, band: null, gaps: null, flags: 0 };
  }

  /** From place to place; where a place stands for many points, over its smallest and its largest value. */
  trace({ line, cells }, stroke, pos) {
    const x = this.chart.x, { last, low, high } = cells;
    const [from, to] = this.around();
    let before = null, drawn = 0, at = 0, level = 0;
    for (let i = from; i <= to; i++) {
      const value = last[i];
      if (value !== value) {
        // Only where NaN was logged, and nothing else, is there a gap: elsewhere another run has a point.
        if (line.marks && line.marks[i]) before = null;
        continue;
      }
      const px = pos(x[i], "x"), top = pos(high[i], "y");
      const bottom = low[i] === high[i] ? top : pos(low[i], "y");
      const end = low[i] === high[i] ? top : pos(value, "y");
      if (before === null) stroke.moveTo(px, bottom);
      else stroke.lineTo(px, Math.abs(before - top) < Math.abs(before - bottom) ? top : bottom);
      if (top !== bottom) {
        stroke.lineTo(px, bottom);
        stroke.lineTo(px, top);
        stroke.lineTo(px, end);
      }
      before = end;
      drawn += 1;
      at = px;
      level = end;
    }
    if (drawn === 1) {
      stroke.moveTo(at + 2, level);
      stroke.arc(at, level, 2, 0, 2 * Math.PI);
    }
  }

  traceBand([low, high], area, pos) {
    const [from, to] = this.around();
    const x = this.chart.x;
    const known = [];
    for (let i = from; i <= to; i++) if (low[i] === low[i] && (low[i] > 0 || !this.look.logY)) known.push(i);
    known.forEach((i, n) => area[n ? "lineTo" : "moveTo"](pos(x[i], "x"), pos(high[i], "y")));
    for (const i of known.reverse()) area.lineTo(pos(x[i], "x"), pos(low[i], "y"));
    if (known.length) area.closePath();
  }

  /** The places that are seen, and one more on each side. */
  around() {
    const x = this.chart.x, [low, high] = this.bounds;
    let from = 0, to = x.length - 1;
    while (from < to && x[from + 1] < low) from += 1;
    while (to > from && x[to - 1] > high) to -= 1;
    return [from, to];
  }

  /** What a line cannot show: {line, x, kind} with a kind of "nan", "inf", "-inf", "over" or "under". */
  marks() {
    const found = [];
    const [from, to] = this.around(), [bottom, top] = this.shownY;
    const { x } = this.chart, cut = Boolean(this.look.y || (this.look.outliers && this.chart.sight)) || bottom === -WIDEST || top === WIDEST;
    for (const { line, cells, pale } of this.parts) {
      const raw = pale || !line.raw ? cells : null; // of a line that is smoothed, what was logged
      for (let i = from; i <= to; i++) {
        if (x[i] < this.bounds[0] || x[i] > this.bounds[1]) continue;
        for (const kind of pale ? [] : oddKinds(line.marks?.[i])) found.push({ line, x: x[i], kind });
        if (cut && raw && raw.high[i] > top) found.push({ line, x: x[i], kind: "over" });
        if (cut && raw && raw.low[i] < bottom) found.push({ line, x: x[i], kind: "under" });
      }
    }
    return found;
  }

  drawMarks(u) {
    const { ctx, bbox } = u;
    const size = 4 * devicePixelRatio;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const { line, x, kind } of this.marks()) {
      ctx.strokeStyle = ctx.fillStyle = this.colourOf(line);
      ctx.beginPath();
      const filled = traceMark(ctx, kind, u.valToPos(x, "x", true), bbox.top + 1, bbox.top + bbox.height - 1, size);
      if (filled) ctx.fill();
      else ctx.stroke();
    }
    ctx.restore();
  }

  colourOf(line) {
    return this.look.looks.get(line.id ?? line.name)?.colour ?? ink("--quiet");
  }

  selected(u) {
    const { left, top, width, height } = u.select;
    if (width < 4 || height < 4) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.dragged = true;
    const [low, high] = [left, left + width].map((at) => u.posToVal(at, "x"));
    const [bottom, upper] = [top + height, top].map((at) => u.posToVal(at, "y"));
    if (height < u.over.clientHeight - 1 && bottom < upper) this.on.zoomY(bottom, upper);
    if (width < u.over.clientWidth - 1 && low < high) this.on.zoom(low, high);
  }

  /** Zoom to what is between two places, in pixels; they may be outside, but not what is shown. */
  zoomTo(left, right) {
    const { low, high } = this.chart;
    const from = Math.max(this.u.posToVal(left, "x"), low), to = Math.min(this.u.posToVal(right, "x"), high);
    if (from < to) this.on.zoom(from, to);
  }

  /** Put the crosshair on another place, from the keyboard. */
  move(by) {
    const x = this.chart.x;
    if (!x.length) return;
    const [from, to] = this.around();
    const now = this.u.cursor.idx ?? null;
    const at = now === null || !this.held ? (by > 0 ? from : to) : Math.min(Math.max(now + by, from), to);
    this.held = this.hovered = true;
    const [nearest] = this.near(at);
    this.u.setCursor({ left: this.u.valToPos(x[at], "x"), top: nearest ? this.u.valToPos(nearest.value, "y") : 0 }, true, true);
  }

  /** The value of each line near a place: {line, value, low, high, x}. */
  near(index) {
    const x = this.chart.x, found = [];
    const reach = Math.max(2, Math.ceil(x.length / 20));
    for (const { line, cells, pale } of this.parts) {
      if (pale) continue;
      for (let away = 0; away <= reach; away++) {
        const at = [index - away, index + away].find((i) => i >= 0 && i < x.length && cells.last[i] === cells.last[i]);
        if (at === undefined) continue;
        found.push({ line, at, x: x[at], value: cells.last[at], low: cells.low[at], high: cells.high[at] });
        break;
      }
    }
    return found;
  }

  point() {
    const { idx, left, top } = this.u.cursor;
    if (!this.hovered || idx === null || idx === undefined || left < 0) {
      this.tip.hidden = true;
      return;
    }
    const away = (each) => Math.abs(this.u.valToPos(each.value, "y") - top);
    const rows = this.near(idx).sort((a, b) => away(a) - away(b));
    const shown = rows.slice(0, MOST_ROWS).sort((a, b) => b.value - a.value);
    const head = element("div", "at", place(this.chart.x[idx], this.look.x));
    this.tip.replaceChildren(head, ...shown.map((each) => this.row(each, each === rows[0])));
    if (rows.length > MOST_ROWS) this.tip.append(element("div", "more", `and ${rows.length - MOST_ROWS} more`));
    this.tip.hidden = !rows.length;
    const right = left > this.u.over.clientWidth / 2;
    this.tip.style.left = right ? "" : `${left + 14}px`;
    this.tip.style.right = right ? `${this.u.over.clientWidth - left + 14}px` : "";
    this.tip.style.top = "4px";
  }

  row({ line, at, value, low, high }, nearest) {
    const row = element("div", nearest ? "row nearest" : "row");
    const swatch = element("span", "swatch");
    swatch.style.background = this.look.looks.get(line.id ?? line.name)?.colour ?? "";
    let text = low === high ? number(value, 5) : `${number(value, 5)}  (${number(low)} – ${number(high)})`;
    if (line.band) text = `${number(value, 5)}  (${number(line.band[0][at])} – ${number(line.band[1][at])}), ${line.counts?.[at] ?? 1} runs`;
    row.append(swatch, element("bdi", "name", this.look.names(line)), element("span", "value", text));
    return row;
  }

  clicked() {
    if (this.dragged) {
      this.dragged = false;
      return;
    }
    const { idx, top } = this.u.cursor;
    if (idx === null || idx === undefined) return;
    // A line is as near as the stretch from its smallest to its largest value here.
    const y = this.u.posToVal(top, "y");
    const away = (each) => Math.abs(this.u.valToPos(Math.min(Math.max(y, each.low), each.high), "y") - top);
    const [nearest] = this.near(idx).sort((a, b) => away(a) - away(b));
    if (!nearest?.line.id) return;
    const x = this.chart.x, at = nearest.at;
    const half = this.chart.exact ? 0 : Math.abs(at ? x[at] - x[at - 1] : x[at + 1] - x[at]) / 2;
    this.on.pick(nearest.line, { at: nearest.x, half, value: Number.isFinite(y) ? y : nearest.value });
  }

  /** For those who hear the page. */
  tell() {
    const said = this.chart.lines.slice(0, 5).map(
      (line) => `${this.look.names(line)}: last ${number(line.last)}, min ${number(line.min?.[0])}, max ${number(line.max?.[0])}`,
    );
    const more = this.chart.lines.length > 5 ? `; and ${this.chart.lines.length - 5} more` : "";
    this.element.dataset.x = this.bounds.join(" ");
    this.element.dataset.y = this.shownY.join(" ");
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", `${this.chart.key}: ${said.join("; ")}${more}`);
  }

  destroy() {
    this.tip.remove();
    this.u?.destroy();
    this.u = null;
  }
}

function axisText(value) {
  return value === null || value === undefined ? "" : number(value, 4);
}

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

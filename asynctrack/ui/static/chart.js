// One chart on a canvas: uPlot's axes, cursor and zoom, and lines of our own that lose no extreme.
import { number, place } from "./words.js";

const uPlot = window.uPlot;
const FONT = "11px system-ui, -apple-system, 'Segoe UI', sans-serif";
/** rows of a tooltip at most */
const MOST_ROWS = 10;
const NAN = 1, INF = 2, NEGATIVE_INF = 4;

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** `on`: zoom(low, high), reset(), pick(line, x). */
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
   * width, height}. Where only the data is new, the zoom and the cursor stay. */
  show(chart, look) {
    this.chart = chart;
    const shape = JSON.stringify([
      chart.lines.map((line) => [line.id ?? line.name, Boolean(line.raw), Boolean(line.band)]),
      look.x, look.logX, look.logY, look.theme,
    ]);
    this.look = look;
    this.parts = [
      ...chart.lines.filter((line) => line.raw).map((line) => ({ line, cells: line.raw, pale: true })),
      ...chart.lines.map((line) => ({ line, cells: line.cells, pale: false })),
    ];
    this.bounds = this.xBounds();
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
    return [low - room, high + room];
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
        y: { distr: look.logY ? 3 : 1, range: () => this.yBounds() },
      },
      axes: [
        { ...axis, gap: 2, size: 26, values: look.x === "time" ? undefined : (_, splits) => splits.map(axisText) },
        { ...axis, gap: 4, size: (_, texts) => 14 + 6.2 * Math.max(3, ...(texts ?? []).map((text) => (text ?? "").length)),
          values: (_, splits) => splits.map(axisText) },
      ],
      series: [{}, ...this.parts.map((part) => this.series(part))],
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false, dist: 4 },
        sync: { key: "asynctrack", setSeries: false, scales: ["x", null] },
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
    this.u.over.addEventListener("mouseleave", () => { this.hovered = false; this.tip.hidden = true; });
    this.u.over.addEventListener("click", () => this.clicked());
  }

  series(part) {
    const name = part.line.id ?? part.line.name;
    const { colour, dash } = this.look.looks.get(name) ?? { colour: ink("--quiet"), dash: [] };
    return {
      stroke: part.pale ? `${colour}55` : colour,
      width: part.pale ? 1 : 1.5,
      dash: part.pale || !dash.length ? undefined : dash,
      fill: part.line.band && !part.pale ? `${colour}2b` : undefined,
      points: { show: false },
      spanGaps: true,
      paths: (u, index) => this.paths(u, this.parts[index - 1]),
    };
  }

  /** From place to place; where a place stands for many points, over its smallest and its largest value. */
  paths(u, { line, cells, pale }) {
    const stroke = new Path2D();
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
      const px = u.valToPos(x[i], "x", true), top = u.valToPos(high[i], "y", true);
      const bottom = low[i] === high[i] ? top : u.valToPos(low[i], "y", true);
      const end = low[i] === high[i] ? top : u.valToPos(value, "y", true);
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
    const fill = line.band && !pale ? this.band(u, line.band, from, to) : null;
    return { stroke, fill, clip: null, band: null, gaps: null, flags: 0 };
  }

  band(u, [low, high], from, to) {
    const area = new Path2D();
    const x = this.chart.x;
    const known = [];
    for (let i = from; i <= to; i++) if (low[i] === low[i] && (low[i] > 0 || !this.look.logY)) known.push(i);
    known.forEach((i, n) => area[n ? "lineTo" : "moveTo"](u.valToPos(x[i], "x", true), u.valToPos(high[i], "y", true)));
    for (const i of known.reverse()) area.lineTo(u.valToPos(x[i], "x", true), u.valToPos(low[i], "y", true));
    area.closePath();
    return area;
  }

  /** The places that are seen, and one more on each side. */
  around() {
    const x = this.chart.x, [low, high] = this.bounds;
    let from = 0, to = x.length - 1;
    while (from < to && x[from + 1] < low) from += 1;
    while (to > from && x[to - 1] > high) to -= 1;
    return [from, to];
  }

  drawMarks(u) {
    const { ctx, bbox } = u;
    const size = 4 * devicePixelRatio;
    ctx.save();
    for (const { line, pale } of this.parts) {
      if (!line.marks || pale) continue;
      const colour = this.look.looks.get(line.id ?? line.name)?.colour ?? ink("--quiet");
      ctx.strokeStyle = ctx.fillStyle = colour;
      ctx.lineWidth = devicePixelRatio;
      for (let i = 0; i < line.marks.length; i++) {
        const mark = line.marks[i];
        if (!mark || this.chart.x[i] < this.bounds[0] || this.chart.x[i] > this.bounds[1]) continue;
        const px = u.valToPos(this.chart.x[i], "x", true);
        const top = bbox.top + 1, bottom = bbox.top + bbox.height - 1;
        ctx.beginPath();
        if (mark & NAN) {
          ctx.moveTo(px - size / 2, top);
          ctx.lineTo(px + size / 2, top + size);
          ctx.moveTo(px + size / 2, top);
          ctx.lineTo(px - size / 2, top + size);
          ctx.stroke();
        }
        if (mark & INF) triangle(ctx, px, top, size);
        if (mark & NEGATIVE_INF) triangle(ctx, px, bottom, -size);
      }
    }
    ctx.restore();
  }

  selected(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    const low = u.posToVal(left, "x"), high = u.posToVal(left + width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.dragged = true;
    if (low < high) this.on.zoom(low, high);
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
        found.push({ line, x: x[at], value: cells.last[at], low: cells.low[at], high: cells.high[at] });
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

  row({ line, value, low, high }, nearest) {
    const row = element("div", nearest ? "row nearest" : "row");
    const swatch = element("span", "swatch");
    swatch.style.background = this.look.looks.get(line.id ?? line.name)?.colour ?? "";
    const text = low === high ? number(value, 5) : `${number(value, 5)}  (${number(low)} – ${number(high)})`;
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
    const away = (each) => Math.abs(this.u.valToPos(each.value, "y") - top);
    const [nearest] = this.near(idx).sort((a, b) => away(a) - away(b));
    if (nearest?.line.id) this.on.pick(nearest.line, nearest.x);
  }

  /** For those who hear the page. */
  tell() {
    const said = this.chart.lines.slice(0, 5).map(
      (line) => `${this.look.names(line)}: last ${number(line.last)}, min ${number(line.min?.[0])}, max ${number(line.max?.[0])}`,
    );
    const more = this.chart.lines.length > 5 ? `; and ${this.chart.lines.length - 5} more` : "";
    this.element.dataset.x = this.bounds.join(" ");
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

function triangle(ctx, x, y, size) {
  ctx.moveTo(x, y);
  ctx.lineTo(x - size / 2, y + size);
  ctx.lineTo(x + size / 2, y + size);
  ctx.fill();
}

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

// What axes and edges of a chart say: ticks, and marks of what a line cannot show.

/** Ticks at 1, 2 or 5 times a power of ten, whatever it is; uPlot's own end at 1e-16. */
export const TICKS = {
  incrs: (u, axis, low, high) => {
    const size = Math.floor(Math.log10(high - low));
    return [-3, -2, -1, 0].flatMap((at) => [1, 2, 5].map((step) => step * 10 ** (size + at)));
  },
  splits: (u, axis, low, high, step) => {
    const found = [];
    const first = Math.ceil(low / step - 1e-9), count = Math.min(Math.floor(high / step + 1e-9) - first, 100);
    for (let n = 0; n <= count; n++) found.push(Number(((first + n) * step).toPrecision(12)));
    return found;
  },
};

/** What no line can show of the values that the server has marked with these bits: "nan", "inf", "-inf". */
export function oddKinds(bits) {
  return bits ? ["nan", "inf", "-inf"].filter((_, n) => bits & (1 << n)) : [];
}

/** × for NaN, a filled triangle for ±∞, an open one for what is above or below. Whether it is filled. */
export function traceMark(pen, kind, x, top, bottom, size) {
  if (kind === "nan") {
    pen.moveTo(x - size / 2, top);
    pen.lineTo(x + size / 2, top + size);
    pen.moveTo(x + size / 2, top);
    pen.lineTo(x - size / 2, top + size);
    return false;
  }
  const down = kind === "-inf" || kind === "under";
  const [y, height] = down ? [bottom, -size] : [top, size];
  pen.moveTo(x - size / 2, y + height);
  pen.lineTo(x, y);
  pen.lineTo(x + size / 2, y + height);
  return kind === "inf" || kind === "-inf";
}

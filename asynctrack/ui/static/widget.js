// The live view of a run in a notebook. uPlot stands before this text (asynctrack/ui/widget.py puts it there).
// Everything a run is called goes through textContent: names are never HTML.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6bb1", "#7f7f7f"];
const HEIGHT = 260;

// Of each column the smallest and the largest value, one behind the other: a spike of one point is a line of its own.
function aligned(chart) {
  const { x0, x1, columns, lines } = chart;
  const found = chart.data;
  const numbers = new Float32Array(found.buffer.slice(found.byteOffset, found.byteOffset + found.byteLength));
  const xs = new Array(columns * 2);
  for (let at = 0; at < xs.length; at++) xs[at] = x0 + ((at + 0.5) / xs.length) * (x1 - x0);
  return [xs, ...lines.map((_, line) => {
    const ys = new Array(columns * 2);
    for (let at = 0; at < ys.length; at++) {
      const value = numbers[line * columns * 2 + at];
      ys[at] = Number.isNaN(value) ? null : value;
    }
    return ys;
  })];
}

function options(chart, width, ink) {
  const axis = { stroke: ink, grid: { stroke: ink + "22" }, ticks: { stroke: ink + "44" } };
  return {
    title: chart.title,
    width,
    height: HEIGHT,
    scales: { x: { time: false } },
    axes: [axis, { ...axis, size: 60 }],
    series: [{ label: chart.x }, ...chart.lines.map((line) => ({
      label: line.label, stroke: COLOURS[line.colour % COLOURS.length], width: 1.5, spanGaps: true, points: { show: false },
    }))],
    // uPlot writes its labels as text.
    cursor: { drag: { x: true, y: false } },
  };
}

function render({ model, el }) {
  const said = document.createElement("p");
  const room = document.createElement("div");
  el.append(said, room);
  const drawn = new Map(); // by title: the plot, and which lines it has
  const width = () => Math.max(320, Math.min(960, el.clientWidth || 720));

  function draw() {
    const payload = model.get("payload");
    said.textContent = payload.said || "";
    const ink = getComputedStyle(el).color.startsWith("rgb(2") ? "#dddddd" : "#333333";
    for (const chart of payload.charts || []) {
      const names = JSON.stringify(chart.lines);
      const before = drawn.get(chart.title);
      const data = aligned(chart);
      if (before && before.names === names) {
        // A zoom that somebody has made stays.
        const { min, max } = before.plot.scales.x;
        const whole = min === before.x0 && max === before.x1;
        before.plot.setData(data, whole);
        if (!whole) before.plot.setScale("x", { min, max });
        [before.x0, before.x1] = [data[0][0], data[0][data[0].length - 1]];
        continue;
      }
      if (before) before.plot.destroy();
      const plot = new uPlot(options(chart, width(), ink), data, room);
      drawn.set(chart.title, { plot, names, x0: data[0][0], x1: data[0][data[0].length - 1] });
    }
  }

  model.on("change:payload", draw);
  draw();
  return () => {
    model.off("change:payload", draw);
    for (const { plot } of drawn.values()) plot.destroy();
  };
}

export default { render };

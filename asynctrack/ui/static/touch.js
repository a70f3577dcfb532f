// Fingers on a chart: one that goes sideways chooses what to zoom to, two zoom and move. Up and down the page scrolls.

/** px that are no tap any more */
const LEAST = 12;

/** `zoom`: (left, right) in pixels of the chart, which may be outside it. */
export function followFingers(u, zoom) {
  const { over } = u;
  let fingers = new Map(); // x of each: where it began, and where it is
  const width = () => over.clientWidth;
  const at = (event) => event.clientX - over.getBoundingClientRect().left;
  const choice = () => {
    const [[begun, now]] = [...fingers.values()];
    return [Math.max(Math.min(begun, now), 0), Math.min(Math.max(begun, now), width())];
  };
  const shade = (left, right) => u.setSelect({ left, top: 0, width: right - left, height: right > left ? over.clientHeight : 0 }, false);

  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch" || fingers.size > 1) return;
    fingers.set(event.pointerId, [at(event), at(event)]);
    over.setPointerCapture(event.pointerId);
    shade(0, 0);
  });
  over.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    finger[1] = at(event);
    if (fingers.size === 1) shade(...choice());
  });
  over.addEventListener("pointerup", (event) => {
    if (!fingers.has(event.pointerId)) return;
    shade(0, 0);
    if (fingers.size === 1) {
      const [left, right] = choice();
      if (right - left > LEAST) zoom(left, right);
    } else {
      const [[a, c], [b, d]] = [...fingers.values()];
      const share = (b - a) / (d - c); // of what is seen, so much will be
      if (Math.abs(d - c) > LEAST && share > 0) zoom(a - c * share, a + (width() - c) * share);
    }
    fingers = new Map();
  });
  over.addEventListener("pointercancel", () => {
    fingers = new Map();
    shade(0, 0);
  });
}

"""Lines as SVG: one file or element without scripts, that a browser, a notebook or GitHub shows as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asynctrack.markup import escape
from asynctrack.plots.lines import Frame, Line, frame_of, strokes_of
from asynctrack.plots.palette import COLOURS
from asynctrack.plots.scales import number

__all__ = ["draw", "spark"]

_TOP, _RIGHT, _BOTTOM, _CHARACTER, _ROW = 12, 14, 22, 6.6, 16
_DASHES = ("", "6 3", "2 2", "8 3 2 3")


def draw(
    lines: Sequence[Line],
    width: int = 720,
    height: int = 360,
    *,
    log_x: bool = False,
    log_y: bool = False,
    title: str | None = None,
    x_label: str | None = None,
) -> str:
    """The lines as an ``<svg>`` element of so many pixels; the legend below makes it higher where it needs more than a
    row. Text and axes take the colour of the text around them, so it can be read on any ground. All text is escaped.
    """
    frame = frame_of(lines, log_x=log_x, log_y=log_y)
    legend = list(_legend(lines, width))
    notes = frame.notes()
    top = _TOP + (18 if title else 0)
    foot = _BOTTOM + (14 if x_label else 0)
    below = foot + _ROW * (max((row for *_, row in legend), default=-1) + 1 + bool(notes))
    ticks = frame.y.ticks(max((height - top - below) // 40, 2))
    left = int(max(len(number(tick)) for tick in ticks) * _CHARACTER) + 10
    area = _Area(left, top, max(width - left - _RIGHT, 40), max(height - top - below, 40))
    total = area.top + area.height + below
    said = escape("; ".join(filter(None, (title, *(line.label for line in lines), *notes))))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}"'
        f' role="img" aria-label="{said}" font-family="system-ui,sans-serif" font-size="11" fill="currentColor">'
    ]
    if title:
        parts.append(f'<text x="{width / 2:g}" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>')
    parts += _axes(frame, ticks, area, x_label)
    for index, line in enumerate(lines):
        parts += _line(line, index, frame, area)
    for index, label, x, row in legend:
        y = area.top + area.height + foot + _ROW * row + 6
        parts.append(f'<path d="M{x:g} {y - 4:g}h16" {_pen(lines[index], index)}/>')
        parts.append(f'<text x="{x + 20:g}" y="{y:g}">{escape(label)}</text>')
    if notes:
        parts.append(f'<text x="{left}" y="{total - 6}" opacity=".7">{escape("; ".join(notes))}</text>')
    return "".join([*parts, "</svg>"])


def spark(values: Sequence[float], width: int = 120, height: int = 24) -> str:
    """The values as a small ``<svg>`` line, without axes."""
    line = Line("", range(len(values)), values)
    area = _Area(1, 2, width - 2, height - 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        + "".join(_line(line, 0, frame_of([line]), area))
        + "</svg>"
    )


class _Area:
    """Where the lines are."""

    def __init__(self, left: int, top: int, width: int, height: int) -> None:
        self.left, self.top, self.width, self.height = left, top, width, height

    def x(self, place: float) -> float:
        return self.left + place * self.width

    def y(self, place: float) -> float:
        return self.top + (1 - place) * self.height


def _axes(frame: Frame, ticks: list[float], area: _Area, x_label: str | None) -> Iterator[str]:
    right, bottom = area.left + area.width, area.top + area.height
    for tick in ticks:
        y = area.y(frame.y.place(tick) or 0.0)
        yield f'<path d="M{area.left} {y:.1f}H{right}" stroke="currentColor" opacity=".15"/>'
        yield f'<text x="{area.left - 5}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    yield f'<path d="M{area.left} {bottom}H{right}" stroke="currentColor" opacity=".5"/>'
    for tick in frame.x.ticks(max(area.width // 90, 2)):
        x = area.x(frame.x.place(tick) or 0.0)
        yield f'<path d="M{x:.1f} {bottom}v4" stroke="currentColor" opacity=".5"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{number(tick)}</text>'
    if x_label:
        yield f'<text x="{right}" y="{bottom + 29}" text-anchor="end" opacity=".7">{escape(x_label)}</text>'


def _line(line: Line, index: int, frame: Frame, area: _Area) -> Iterator[str]:
    columns = area.width
    path: list[str] = []
    alone: list[str] = []
    strokes = strokes_of(line, frame, columns)
    for at, stroke in enumerate(strokes):
        x = f"{area.x((stroke.column + 0.5) / columns):.1f}"
        y = f"{area.y(stroke.first):.1f}"
        continued = at + 1 < len(strokes) and strokes[at + 1].joined
        if not stroke.joined and not continued and stroke.low == stroke.high:
            alone.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{_colour(line, index)}"/>')
            continue
        path.append(f"{'L' if stroke.joined else 'M'}{x} {y}")
        for place in (stroke.low, stroke.high) if stroke.low != stroke.high else ():
            path.append(f"V{area.y(place):.1f}")
        if stroke.low != stroke.high and stroke.last != stroke.high:
            path.append(f"V{area.y(stroke.last):.1f}")
    if path:
        yield f'<path d="{"".join(path)}" {_pen(line, index)}/>'
    yield from alone


def _colour(line: Line, index: int) -> str:
    return COLOURS[(index if line.colour is None else line.colour) % len(COLOURS)]


def _pen(line: Line, index: int) -> str:
    dash = _DASHES[(index // len(COLOURS)) % len(_DASHES)]  # more lines than colours differ in their dashes
    return f'fill="none" stroke="{_colour(line, index)}" stroke-width="1.5" stroke-linejoin="round"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _legend(lines: Sequence[Line], width: int) -> Iterator[tuple[int, str, float, int]]:
    """Index, label, x and row of each entry."""
    most = max(int((width - 60) / _CHARACTER), 8)
    x, row = 20.0, 0
    for index, line in enumerate(lines):
        label = line.label if len(line.label) <= most else line.label[: most - 1] + "…"
        if not label:
            continue
        size = 34 + len(label) * _CHARACTER
        if x > 20 and x + size > width:
            x, row = 20.0, row + 1
        yield index, label, x, row
        x += size

"""A chart as PNG, by Pillow: what chat programs and papers take."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from asynctrack.plots.lines import Frame, Line, frame_of, strokes_of
from asynctrack.plots.palette import COLOURS
from asynctrack.plots.scales import number

if TYPE_CHECKING:
    from asynctrack.plots.chart import Chart

__all__ = ["draw"]

#: drawn so many times larger and made smaller at the end: lines without steps
_FINE = 2
_GREY, _PALE = "#555555", "#dddddd"


def draw(chart: Chart, width: int, height: int) -> bytes:
    """The chart on white, so many pixels wide and high. Raises ImportError without Pillow."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError(f"PNG needs Pillow 10.1 or later: pip install 'asynctrack[images]' ({error})") from error
    image = Image.new("RGB", (width * _FINE, height * _FINE), "white")
    _Drawing(ImageDraw.Draw(image), chart, width, height).draw()
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


class _Drawing:
    def __init__(self, pen: Any, chart: Chart, width: int, height: int) -> None:
        from PIL import ImageFont

        self._pen, self._chart = pen, chart
        self._font: Any = _font(ImageFont)
        self._frame = frame_of(chart.lines, log_x=chart.log_x, log_y=chart.log_y)
        ticks = self._frame.y.ticks(max(height // 40, 2))
        self._ticks = ticks
        self._left = (max(self._size(number(tick)) for tick in ticks) + 8) * _FINE
        self._top = (30 if chart.title else 12) * _FINE
        self._right = (width - 14) * _FINE
        rows = 1 + len(self._rows(width)) + bool(self._frame.notes())
        self._bottom = max(height - 12 - 16 * rows - (14 if chart.x_label else 0), 40) * _FINE
        self._width = width

    def draw(self) -> None:
        """Draw axes, lines and legend."""
        chart, frame = self._chart, self._frame
        if chart.title:
            self._text(self._width * _FINE // 2, 8 * _FINE, chart.title, "mt", "black")
        for tick in self._ticks:
            y = self._y(frame.y.place(tick) or 0.0)
            self._pen.line([(self._left, y), (self._right, y)], fill=_PALE, width=_FINE)
            self._text(self._left - 5 * _FINE, y, number(tick), "rm")
        self._pen.line([(self._left, self._bottom), (self._right, self._bottom)], fill=_GREY, width=_FINE)
        for tick in frame.x.ticks(max(self._width // 90, 2)):
            x = self._x(frame.x.place(tick) or 0.0)
            self._pen.line([(x, self._bottom), (x, self._bottom + 4 * _FINE)], fill=_GREY, width=_FINE)
            self._text(x, self._bottom + 6 * _FINE, number(tick), "mt")
        at = self._bottom + 20 * _FINE
        if chart.x_label:
            self._text(self._right, at, chart.x_label, "rt")
            at += 14 * _FINE
        for index, line in enumerate(chart.lines):
            self._line(line, frame, _colour(line, index))
        for row in self._rows(self._width):
            x = 20 * _FINE
            for index, label in row:
                middle = at + 6 * _FINE
                self._pen.line([(x, middle), (x + 14 * _FINE, middle)], _colour(chart.lines[index], index), 2 * _FINE)
                self._text(x + 18 * _FINE, middle, label, "lm")
                x += (34 + self._size(label)) * _FINE
            at += 16 * _FINE
        if frame.notes():
            self._text(20 * _FINE, at, "; ".join(frame.notes()), "lt")

    def _line(self, line: Line, frame: Frame, colour: str) -> None:
        columns = max(int(self._right - self._left), 1)
        path: list[tuple[float, float]] = []
        for stroke in strokes_of(line, frame, columns):
            if not stroke.joined:
                self._path(path, colour)
                path = []
            x = self._x((stroke.column + 0.5) / columns)
            path += [(x, self._y(place)) for place in (stroke.first, stroke.low, stroke.high, stroke.last)]
        self._path(path, colour)

    def _path(self, path: list[tuple[float, float]], colour: str) -> None:
        if len(set(path)) == 1:
            x, y = path[0]
            size = 2 * _FINE
            self._pen.ellipse([(x - size, y - size), (x + size, y + size)], fill=colour)
        elif path:
            self._pen.line(path, fill=colour, width=int(1.5 * _FINE), joint="curve")

    def _rows(self, width: int) -> list[list[tuple[int, str]]]:
        rows: list[list[tuple[int, str]]] = [[]]
        x = 20
        for index, line in enumerate(self._chart.lines):
            if not line.label:
                continue
            label = line.label if len(line.label) <= 60 else line.label[:59] + "…"
            size = 34 + self._size(label)
            if rows[-1] and x + size > width:
                rows.append([])
                x = 20
            rows[-1].append((index, label))
            x += size
        return rows if rows[-1] else rows[:-1]

    def _x(self, place: float) -> float:
        return self._left + place * (self._right - self._left)

    def _y(self, place: float) -> float:
        return self._bottom - place * (self._bottom - self._top)

    def _size(self, text: str) -> int:
        """Pixels across."""
        return int(self._font.getlength(_drawable(text)) / _FINE) + 1

    def _text(self, x: float, y: float, text: str, anchor: str, colour: str = _GREY) -> None:
        self._pen.text((x, y), _drawable(text), fill=colour, anchor=anchor, font=self._font)


def _font(fonts: Any) -> Any:
    """A font with most of the world's letters where the machine has one; else Pillow's own, which has English ones."""
    try:
        return fonts.truetype("DejaVuSans.ttf", 11 * _FINE)
    except OSError:
        return fonts.load_default(size=11 * _FINE)


def _colour(line: Line, index: int) -> str:
    return COLOURS[(index if line.colour is None else line.colour) % len(COLOURS)]


def _drawable(text: str) -> str:
    """Without what breaks a line, and what no font has."""
    return "".join(mark if mark.isprintable() else " " for mark in text.encode("utf-8", "replace").decode())

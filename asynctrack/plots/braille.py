"""Lines in a terminal, in Braille characters: eight dots each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asynctrack.plots.lines import Frame, Line, frame_of, strokes_of
from asynctrack.plots.palette import TERMINAL
from asynctrack.plots.scales import Scale, number

__all__ = ["draw"]

#: the bit of a dot, by its row and column within a character
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_MARKS = "*+ox#@%="
_LEAST_WIDTH, _LEAST_HEIGHT = 20, 5


def draw(
    lines: Sequence[Line],
    width: int = 80,
    height: int = 20,
    *,
    log_x: bool = False,
    log_y: bool = False,
    colour: bool = True,
    ascii_only: bool = False,
    title: str | None = None,
    x_label: str | None = None,
    legend: bool = True,
) -> str:
    """The lines as text: at most ``width`` characters wide, ``height`` rows with the axes, and below them a legend and
    what cannot be drawn, in words (not without ``legend``).

    ``colour``: with the escapes of 256 colours. ``ascii_only``: one mark a character, for terminals that know nothing
    else. Of the values that share a column the smallest and the largest are always drawn. The labels and the title are
    taken as they are: make escapes in them harmless first.
    """
    frame = frame_of(lines, log_x=log_x, log_y=log_y)
    width, height = max(width, _LEAST_WIDTH), max(height, _LEAST_HEIGHT)
    rows = height - 2 - (title is not None)
    ticks = {_row(frame.y, tick, rows): number(tick) for tick in frame.y.ticks(max(rows // 3, 2))}
    margin = max(map(len, ticks.values())) + 1
    columns = width - margin - 1
    canvas = _Canvas(columns, rows, 1 if ascii_only else 2, 1 if ascii_only else 4)
    for index, line in enumerate(lines):
        canvas.draw(line, frame, index if line.colour is None else line.colour)
    shown = [] if title is None else [title[:width].center(width).rstrip()]
    corner, side, tick_mark, floor = ("+", "|", "+", "-") if ascii_only else ("└", "│", "┤", "─")
    for row, cells in enumerate(canvas.cells()):
        label = ticks.get(row)
        axis = f"{label or '':>{margin}}{tick_mark if label is not None else side}"
        shown.append(axis + "".join(_cells(cells, colour, ascii_only)))
    shown.append(" " * margin + corner + floor * columns)
    shown.append(" " * (margin + 1) + _x_axis(frame.x, columns, x_label))
    if not legend:
        return "\n".join(shown)
    shown += _legend(lines, width, colour, ascii_only)
    notes = frame.notes()
    return "\n".join([*shown, *([f"({'; '.join(notes)})"] if notes else [])])


def _row(scale: Scale, value: float, rows: int) -> int:
    return rows - 1 - min(int((scale.place(value) or 0.0) * rows), rows - 1)


class _Canvas:
    """Dots, ``across`` times ``down`` of them in a character, and the colour of each character."""

    def __init__(self, columns: int, rows: int, across: int, down: int) -> None:
        self._columns, self._rows, self._across, self._down = columns, rows, across, down
        self._bits = [[0] * columns for _ in range(rows)]
        self._colours = [[0] * columns for _ in range(rows)]

    def draw(self, line: Line, frame: Frame, colour: int) -> None:
        height = self._rows * self._down

        def level(place: float) -> int:
            return height - 1 - min(int(place * height), height - 1)

        before: tuple[int, int] | None = None
        for stroke in strokes_of(line, frame, self._columns * self._across):
            first, last = level(stroke.first), level(stroke.last)
            if stroke.joined and before is not None:
                self._join(before, (stroke.column, first), colour)
            for y in range(level(stroke.high), level(stroke.low) + 1):
                self._dot(stroke.column, y, colour)
            before = stroke.column, last

    def _join(self, start: tuple[int, int], end: tuple[int, int], colour: int) -> None:
        (x, y), (x_end, y_end) = start, end
        steps = max(abs(x_end - x), abs(y_end - y))
        for step in range(1, steps):
            self._dot(round(x + (x_end - x) * step / steps), round(y + (y_end - y) * step / steps), colour)

    def _dot(self, x: int, y: int, colour: int) -> None:
        column, row = x // self._across, y // self._down
        self._bits[row][column] |= _DOTS[y % self._down][x % self._across]
        self._colours[row][column] = colour

    def cells(self) -> Iterator[list[tuple[int, int]]]:
        for bits, colours in zip(self._bits, self._colours, strict=True):
            yield list(zip(bits, colours, strict=True))


def _cells(cells: list[tuple[int, int]], colour: bool, ascii_only: bool) -> Iterator[str]:
    end = next((index for index in range(len(cells), 0, -1) if cells[index - 1][0]), 0)
    at: int | None = None
    for bits, place in cells[:end]:
        if bits and colour and place != at:
            yield f"\x1b[38;5;{TERMINAL[place % len(TERMINAL)]}m"
            at = place
        if not bits:
            yield " "
        else:
            yield _MARKS[place % len(_MARKS)] if ascii_only else chr(0x2800 + bits)
    if at is not None:
        yield "\x1b[0m"


def _x_axis(scale: Scale, columns: int, label: str | None) -> str:
    row = [" "] * columns
    free = 0
    for tick in scale.ticks(max(columns // 12, 2)):
        text = number(tick)
        start = min(max(int((scale.place(tick) or 0.0) * columns) - len(text) // 2, 0), max(columns - len(text), 0))
        if start >= free:
            row[start : start + len(text)] = text
            free = start + len(text) + 2
    if label and columns - free > len(label):
        row[columns - len(label) :] = label
    return "".join(row)[:columns].rstrip()


def _legend(lines: Sequence[Line], width: int, colour: bool, ascii_only: bool) -> list[str]:
    rows, at = [""], 0
    for index, line in enumerate(lines):
        place = index if line.colour is None else line.colour
        mark = _MARKS[place % len(_MARKS)] if ascii_only else "━━"
        room = max(width - len(mark) - 1, 1)
        label = line.label if len(line.label) <= room else line.label[: room - 1] + ("." if ascii_only else "…")
        size = len(mark) + 1 + len(label)
        if at and at + 3 + size > width:
            rows.append("")
            at = 0
        painted = f"\x1b[38;5;{TERMINAL[place % len(TERMINAL)]}m{mark}\x1b[0m" if colour else mark
        rows[-1] += ("   " if at else "") + f"{painted} {label}"
        at += (3 if at else 0) + size
    return [row for row in rows if row]

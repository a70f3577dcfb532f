"""What is drawn: lines of points, where each one comes on a canvas, and what no canvas can show."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from asynctrack.plots.scales import Scale, scale_of

__all__ = ["Frame", "Line", "Stroke", "frame_of", "strokes_of"]

#: points of one line from which on NumPy, if it is installed, pays for its import (0.2 s)
_MANY = 300_000


class Line(NamedTuple):
    """Some points: ``x`` and ``y`` are of one length, in the order in which they were logged.

    ``colour``: a place in the palette; None: by its place among the lines.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = None


class Stroke(NamedTuple):
    """The points of a line that lie in one column of the canvas, one behind another: the first and the last value, the
    smallest and the largest. ``joined``: the line comes from the stroke before; it does not where there is no value
    between, or where x goes back, as when a run was taken up again from an earlier step."""

    column: int
    first: float
    last: float
    low: float
    high: float
    joined: bool


class Frame(NamedTuple):
    """The axes that hold all lines. ``left_out``: so many points that a logarithmic axis cannot show, being 0 or less.
    ``nans``, ``infs``: so many values are NaN, and ±Inf."""

    x: Scale
    y: Scale
    left_out: int
    nans: int
    infs: int

    def notes(self) -> list[str]:
        """What the drawing does not show as a line, in words."""
        found = [(self.nans, "NaN"), (self.infs, "±Inf"), (self.left_out, "not above 0, left out on the log axis")]
        return [f"{count:,} {what}" for count, what in found if count]


def frame_of(lines: Sequence[Line], *, log_x: bool = False, log_y: bool = False) -> Frame:
    """The frame of some lines."""
    x_bounds, y_bounds = _Bounds(log_x), _Bounds(log_y)
    for line in lines:
        x_bounds.add(line.x)
        y_bounds.add(line.y)
    return Frame(
        scale_of(x_bounds.low, x_bounds.high, log=log_x),
        scale_of(y_bounds.low, y_bounds.high, log=log_y),
        x_bounds.left_out + y_bounds.left_out,
        y_bounds.nans,
        y_bounds.infs,
    )


class _Bounds:
    """The smallest and the largest finite number."""

    def __init__(self, log: bool) -> None:
        self._log = log
        self.low, self.high = math.inf, -math.inf
        self.left_out = self.nans = self.infs = 0

    def add(self, values: Sequence[float]) -> None:
        if not len(values):
            return
        # min and max of an array are quick, and wrong where there is a NaN: the sum shows whether one is.
        low, high, total = min(values), max(values), math.nan if len(values) < 2 else sum(values)
        if math.isfinite(total) and not (self._log and low <= 0):
            self.low, self.high = min(self.low, low), max(self.high, high)
            return
        for value in values:
            if not math.isfinite(value):
                if math.isnan(value):
                    self.nans += 1
                else:
                    self.infs += 1
            elif self._log and value <= 0:
                self.left_out += 1
            else:
                self.low, self.high = min(self.low, value), max(self.high, value)


def strokes_of(line: Line, frame: Frame, columns: int) -> list[Stroke]:
    """The strokes of a line on a canvas of so many columns. No extreme value is lost, whatever the width.

    NaN, and what a logarithmic axis cannot show, interrupts the line; ±Inf is at the edge.
    """
    if len(line.y) >= _MANY or ("numpy" in sys.modules and len(line.y) >= 1000):
        try:
            from asynctrack.plots.many import strokes_of_many
        except ImportError:
            pass  # NumPy is not installed; it takes longer then
        else:
            return [Stroke(*fields) for fields in strokes_of_many(line, frame, columns)]
    found: list[Stroke] = []
    column, first, last, low, high, joined = -1, 0.0, 0.0, 0.0, 0.0, False
    place, y_place = frame.x.place, frame.y.place
    begun, broken, before = False, True, -math.inf
    for x, value in zip(line.x, line.y, strict=True):
        at, y = place(x), y_place(value)
        if at is None or y is None:
            broken = True
            continue
        here = min(int(at * columns), columns - 1)
        if begun and here == column and not broken and x >= before:
            last = y
            low, high = min(low, y), max(high, y)
        else:
            if begun:
                found.append(Stroke(column, first, last, low, high, joined))
            begun, joined = True, not broken and x >= before
            column, first, last, low, high = here, y, y, y, y
        broken, before = False, x
    if begun:
        found.append(Stroke(column, first, last, low, high, joined))
    return found

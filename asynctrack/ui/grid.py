"""Many points on few places of x: of each place the smallest, the largest and the last value, so no spike is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

__all__ = ["INF", "NAN", "NEGATIVE_INF", "Axis", "Cells", "Grid", "cells_of", "ema", "ema_on", "grid_of", "takes_of"]

#: bits of `Cells.marks`: a value of this kind was logged here
NAN, INF, NEGATIVE_INF = 1, 2, 4

Array = Any
#: so often steps go back at most where a run was taken up again; more often they are just in disorder
_MOST_TAKES = 8
#: points that are looked at at once: a heap keeps what a large array has taken
_BLOCK = 1 << 14


class Axis(NamedTuple):
    """The x of each point of a line. ``rises``: each is as large as the one before, or larger, and none is NaN; then
    what is looked for is found by halves."""

    x: Array
    rises: bool

    @classmethod
    def of(cls, x: Array) -> Axis:
        """Any x."""
        rises = len(x) != 1 or not math.isnan(x[0])
        for at in range(0, len(x) - 1, _BLOCK):
            part = x[at : at + _BLOCK + 1]
            rises = rises and bool((part[1:] >= part[:-1]).all())
        return cls(x, rises)

    def inside(self, low: float, high: float) -> Any:
        """An index for the points from ``low`` to ``high``."""
        if self.rises:
            return slice(int(np.searchsorted(self.x, low)), int(np.searchsorted(self.x, high, side="right")))
        return (self.x >= low) & (self.x <= high)


class Takes(NamedTuple):
    """A line whose steps go back where its run was taken up again from an earlier step. ``current``: where the points
    are that nothing has replaced, which rise; ``earlier``: stretches of others; ``again``: the steps where it begins
    anew."""

    current: list[slice]
    earlier: list[slice]
    again: list[float]


def takes_of(x: Array) -> Takes | None:
    """The takes of a line; None where its steps go back so often, or nowhere, that it is one line."""
    starts = np.flatnonzero(x[1:] < x[:-1]) + 1
    if not 1 <= len(starts) <= _MOST_TAKES:
        return None
    borders = [0, *starts.tolist(), len(x)]
    current: list[slice] = []
    earlier: list[slice] = []
    limit = math.inf
    for start, end in reversed(list(pairwise(borders))):
        cut = start + int(np.searchsorted(x[start:end], limit))
        current.insert(0, slice(start, cut))
        if cut < end:
            earlier.append(slice(cut, end))
        limit = min(limit, float(x[start]))
    return Takes(current, earlier, x[starts].tolist())


class Grid(NamedTuple):
    """The places of x that all lines of a chart share. ``x``: f8, rising; where a place stands for a stretch of x, its
    middle. ``exact``: each place is an x that was logged. ``low``, ``high``: where the first stretch begins, and the
    last one ends. ``log``: the stretches are equal on a logarithmic axis."""

    x: Array
    exact: bool
    low: float
    high: float
    log: bool

    def places(self, x: Array) -> Array:
        """The index of the place of each x, -1 for what is outside (and for NaN)."""
        if self.exact:
            if not len(self.x):
                return np.full(len(x), -1)
            found = np.minimum(np.searchsorted(self.x, x), len(self.x) - 1)
            return np.where(self.x[found] == x, found, -1)
        low, high = self.low, self.high
        with np.errstate(all="ignore"):
            inside = (x >= low) & (x <= high)
            if self.log:
                low, high, x = math.log(low), math.log(high), np.log(x)
            shares = (x / 2 - low / 2) / (high / 2 - low / 2)  # halves: the width of all doubles is infinite
        shares = np.where(inside, shares, 0.0)
        return np.where(inside, np.clip((shares * len(self.x)).astype(np.int64), 0, len(self.x) - 1), -1)

    def begins(self, x: Array) -> Array:
        """Of x that rise, none of them outside, where a place stands for a stretch: the index of the first one of each
        place, and behind these their number. Each is found by halves, so most of x is not looked at."""
        numbers = np.arange(len(self.x))
        low, high = np.zeros(len(self.x), np.int64), np.full(len(self.x), len(x))
        while (low < high).any():
            middle = np.minimum((low + high) // 2, len(x) - 1)
            before = (low < high) & (self.places(x[middle]) < numbers)
            low, high = np.where(before, middle + 1, low), np.where(before | (low >= high), high, middle)
        return np.append(low, len(x))


class Cells(NamedTuple):
    """One line on a grid, a value for each place; NaN where it has none. ``low``, ``high``, ``last``: f8, finite
    values only. ``marks``: u1, `NAN`, `INF` and `NEGATIVE_INF`. ``left_out``: so many values are 0 or less, which a
    logarithmic axis does not show."""

    low: Array
    high: Array
    last: Array
    marks: Array
    left_out: int


def grid_of(axes: Sequence[Axis], most: int, low: float, high: float, *, log: bool = False) -> Grid:
    """The grid for lines with these x, from ``low`` to ``high``, with at most ``most`` places: the very x that were
    logged if there are no more, else so many equal stretches. On a logarithmic axis ``low`` is above 0."""
    if not low <= high:
        return Grid(np.empty(0), True, 0.0, 0.0, log)
    inside = [axis.x[axis.inside(low, high)] for axis in axes]
    if not any(_has_more(x, most) for x in inside):
        distinct = np.unique(np.concatenate([np.empty(0), *inside]))
        if len(distinct) <= most:
            return Grid(distinct, True, low, high, log)
    shares = (np.arange(most) + 0.5) / most
    if log:
        middles = np.exp(math.log(low) * (1 - shares) + math.log(high) * shares)
    else:
        middles = low * (1 - shares) + high * shares
    return Grid(middles, False, low, high, log)


def _has_more(x: Array, most: int) -> bool:
    """Whether some of them have already more distinct values: then all need not be sorted."""
    return len(x) > most and len(np.unique(x[:: max(len(x) // (2 * most), 1)])) > most


def cells_of(grid: Grid, axis: Axis, values: Array, *, log: bool = False) -> Cells:
    """The points of one line (in the order in which they were logged) on a grid. ``log``: the y axis is logarithmic."""
    if axis.rises and not grid.exact:
        inside = axis.inside(grid.low, grid.high)
        begins, values = grid.begins(axis.x[inside]), values[inside]
        at = np.flatnonzero(begins[1:] > begins[:-1])
        return _cells(len(grid.x), at, begins[at], values, log)
    places = grid.places(axis.x)
    here = np.flatnonzero(places >= 0)
    places, values = places[here], values[here]
    if (np.diff(places) < 0).any():
        order = np.argsort(places, kind="stable")
        places, values = places[order], values[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    return _cells(len(grid.x), places[starts], starts, values, log)


def _cells(size: int, at: Array, starts: Array, values: Array, log: bool) -> Cells:
    """``values``: by place. Those of the places ``at`` begin at ``starts``."""
    low, high, last = (np.full(size, math.nan) for _ in range(3))
    marks = np.zeros(size, np.uint8)
    if not len(starts):
        return Cells(low, high, last, marks, 0)
    least, most = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    # Where there is a NaN, both are NaN.
    if np.isfinite(least).all() and np.isfinite(most).all() and not (log and (least <= 0).any()):
        low[at], high[at] = least, most
        last[at] = values[np.append(starts[1:], len(values)) - 1]
        return Cells(low, high, last, marks, 0)
    kinds = (NAN, np.isnan(values)), (INF, values == math.inf), (NEGATIVE_INF, values == -math.inf)
    marks[at] = np.bitwise_or.reduceat(sum(kind * np.uint8(bit) for bit, kind in kinds), starts)
    shown = np.isfinite(values)
    left_out = 0
    if log:
        left_out = int(np.count_nonzero(shown & (values <= 0)))
        shown &= values > 0
    newest = np.maximum.reduceat(np.where(shown, np.arange(len(values)), -1), starts)
    there, newest = at[newest >= 0], newest[newest >= 0]
    low[at] = np.minimum.reduceat(np.where(shown, values, math.inf), starts)
    high[at] = np.maximum.reduceat(np.where(shown, values, -math.inf), starts)
    low[np.isinf(low)] = high[np.isinf(high)] = math.nan
    last[there] = values[newest]
    return Cells(low, high, last, marks, left_out)


def ema(values: Array, weight: float) -> Array:
    """The exponential moving average of `asynctrack.reading.smoothing.smoothed`, for many values at once; the values
    themselves where ``weight`` is 0."""
    return ema_on(values, weight, (0.0, 0))[0]


def ema_on(values: Array, weight: float, before: tuple[float, int]) -> tuple[Array, tuple[float, int]]:
    """The same of values that stand behind others: ``before`` is what was returned with these, (0, 0) at first."""
    if not 0 < weight < 1:
        return values, before
    finite = np.flatnonzero(np.isfinite(values))
    found = np.array(values, np.float64)
    if not len(finite):
        return found, before
    # Each pass doubles how many values back a mean has seen; what is older weighs less than a double can tell.
    mean = found[finite] * (1 - weight)
    back, share = 1, weight
    while back < len(mean) and share > 1e-18:
        mean[back:] = mean[back:] + share * mean[:-back]
        back, share = 2 * back, share * share
    numbers = np.arange(1, len(finite) + 1)
    mean += before[0] * np.exp(numbers * math.log(weight))
    found[finite] = mean / -np.expm1((numbers + before[1]) * math.log(weight))
    return found, (float(mean[-1]), before[1] + len(finite))

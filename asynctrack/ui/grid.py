"""Many points on few places of x: of each place the smallest, the largest and the last value, so no spike is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["INF", "NAN", "NEGATIVE_INF", "Cells", "Grid", "cells_of", "ema", "grid_of"]

#: bits of `Cells.marks`: a value of this kind was logged here
NAN, INF, NEGATIVE_INF = 1, 2, 4

Array = Any


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


class Cells(NamedTuple):
    """One line on a grid, a value for each place; NaN where it has none. ``low``, ``high``, ``last``: f8, finite
    values only. ``marks``: u1, `NAN`, `INF` and `NEGATIVE_INF`. ``left_out``: so many values are 0 or less, which a
    logarithmic axis does not show."""

    low: Array
    high: Array
    last: Array
    marks: Array
    left_out: int


def grid_of(xs: Sequence[Array], most: int, low: float, high: float, *, log: bool = False) -> Grid:
    """The grid for lines with these x, from ``low`` to ``high``, with at most ``most`` places: the very x that were
    logged if there are no more, else so many equal stretches. On a logarithmic axis ``low`` is above 0."""
    if not low <= high:
        return Grid(np.empty(0), True, 0.0, 0.0, log)
    inside = [x[(x >= low) & (x <= high)] for x in xs]
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
    """Whether it can be said without sorting that there are more distinct values."""
    return len(x) > most and bool((x[1:] > x[:-1]).all())


def cells_of(grid: Grid, x: Array, values: Array, *, log: bool = False) -> Cells:
    """The points of one line (in the order in which they were logged) on a grid. ``log``: the y axis is logarithmic."""
    size = len(grid.x)
    low, high, last = (np.full(size, math.nan) for _ in range(3))
    marks = np.zeros(size, np.uint8)
    places = grid.places(x)
    finite = np.isfinite(values)
    left_out = 0
    if log:
        shown = ~finite | (values > 0)
        left_out = int(np.count_nonzero(~shown & (places >= 0)))
        places = np.where(shown, places, -1)
    if not finite.all():
        for bit, kind in ((NAN, np.isnan(values)), (INF, values == math.inf), (NEGATIVE_INF, values == -math.inf)):
            marks[places[kind & (places >= 0)]] |= bit
    chosen = np.flatnonzero(finite & (places >= 0))
    if len(chosen):
        places, values = places[chosen], values[chosen]
        if (np.diff(places) < 0).any():
            order = np.argsort(places, kind="stable")
            places, values = places[order], values[order]
        starts = np.flatnonzero(np.append(True, np.diff(places) != 0))
        at = places[starts]
        low[at] = np.minimum.reduceat(values, starts)
        high[at] = np.maximum.reduceat(values, starts)
        last[at] = values[np.append(starts[1:], len(values)) - 1]
    return Cells(low, high, last, marks, left_out)


def ema(values: Array, weight: float) -> Array:
    """The exponential moving average of `asynctrack.reading.smoothing.smoothed`, for many values at once."""
    finite = np.flatnonzero(np.isfinite(values))
    found = np.array(values, np.float64)
    if not 0 < weight < 1 or not len(finite):
        return found
    # Each pass doubles how many values back a mean has seen; what is older weighs less than a double can tell.
    mean = found[finite] * (1 - weight)
    back, share = 1, weight
    while back < len(mean) and share > 1e-18:
        mean[back:] = mean[back:] + share * mean[:-back]
        back, share = 2 * back, share * share
    found[finite] = mean / -np.expm1(np.arange(1, len(finite) + 1) * math.log(weight))
    return found

"""Lines of groups of runs: their mean or median, and how far the runs are from it, of all points that were logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asynctrack.reading.means import named

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.ui.tapes import Points

__all__ = ["SPREADS", "Grouped", "by_place", "by_step", "group_names"]

Array = Any
#: what a group's line and its band are: mean and standard deviation, median and quartiles, mean and extremes
SPREADS = ("std", "quartiles", "range")


class Grouped(NamedTuple):
    """One group. ``x``, and for each the ``middle`` of its runs' values, from where to where the band goes, and how
    many runs have a finite value there; ``odd``: where one has another. ``runs``: how many are in the group."""

    name: str
    runs: int
    x: Array
    middle: Array
    below: Array
    above: Array
    counts: Array
    odd: Array


def group_names(runs: Sequence[Run], by: Sequence[str], besides: Sequence[str] | None) -> list[str]:
    """What the group of each run is called, in the charts of all metrics. ``besides``: the runs of a group have all
    params in common but these."""
    if besides is None:
        names = [name for name in by if any(name in run.data.params or name in run.data.tags for run in runs)]
        return [named(run, names) or "all runs" for run in runs]
    known = sorted({name for run in runs for name in run.data.params} - set(besides))
    # What all have in common tells no group from another.
    telling = [name for name in known if len({run.data.params.get(name) for run in runs}) > 1]
    return [named(run, telling) or "all runs" for run in runs]


def by_step(names: Sequence[str], points: Sequence[Points], spread: str) -> list[Grouped]:
    """Step by step; of each run the value that it logged last at a step."""
    members: dict[str, list[Points]] = {}
    for name, its in zip(names, points, strict=True):
        members.setdefault(name, []).append(its)
    return [_group(name, its, spread) for name, its in sorted(members.items())]


def _group(name: str, points: Sequence[Points], spread: str) -> Grouped:
    steps, values = (np.concatenate(each) for each in zip(*map(_last_of_each_step, points), strict=True))
    finite = np.isfinite(values)
    if spread == "quartiles":  # NaN is behind all numbers, so the finite values of a step come first
        order = np.lexsort((np.where(finite, values, math.nan), steps))
    else:
        order = np.argsort(steps, kind="stable")
    steps, values, finite = steps[order], values[order], finite[order]
    begins = np.flatnonzero(np.append(True, np.diff(steps) != 0))
    lengths = np.diff(np.append(begins, len(steps)))
    counts = np.add.reduceat(finite.astype(np.int64), begins)
    plain = np.where(finite, values, 0.0)
    with np.errstate(all="ignore"):
        middle = np.add.reduceat(plain, begins) / np.where(counts > 0, counts, math.nan)
        if spread == "quartiles":
            below, middle, above = (_quantile(values, begins, counts, part) for part in (0.25, 0.5, 0.75))
        elif spread == "range":
            below = np.minimum.reduceat(np.where(finite, values, math.inf), begins)
            above = np.maximum.reduceat(np.where(finite, values, -math.inf), begins)
        else:
            apart = np.where(finite, np.square(plain - np.repeat(middle, lengths)), 0.0)
            std = np.sqrt(np.add.reduceat(apart, begins) / np.maximum(counts - 1, 1))
            below, above = middle - std, middle + std
    return Grouped(name, len(points), steps[begins], middle, below, above, counts, lengths > counts)


def _last_of_each_step(points: Points) -> tuple[Array, Array]:
    if (np.diff(points.steps) > 0).all():
        return points.steps, points.values
    order = np.lexsort((points.times, points.steps))
    chosen = order[np.append(np.diff(points.steps[order]) != 0, True)]
    return points.steps[chosen], points.values[chosen]


def _quantile(values: Array, begins: Array, counts: Array, part: float) -> Array:
    """Of each stretch of sorted values, as `numpy.quantile` finds it between two of them."""
    at = (np.maximum(counts, 1) - 1) * part
    lower = np.floor(at).astype(np.int64)
    upper = np.minimum(lower + 1, np.maximum(counts, 1) - 1)
    low, high = values[begins + lower], values[begins + upper]
    return np.where(counts > 0, low + (high - low) * (at - lower), math.nan)


def by_place(
    names: Sequence[str], rows: Sequence[Array], odds: Sequence[Array], x: Array, spread: str
) -> list[Grouped]:
    """Place by place, of runs that have no x in common, as times: ``rows`` are their own means at each place, ``odds``
    where they have logged NaN or ±Inf."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    found = []
    for name, indexes in sorted(members.items()):
        table = np.array([rows[index] for index in indexes])
        counts = np.count_nonzero(~np.isnan(table), axis=0)
        here = np.flatnonzero(counts)
        if not len(here):
            continue
        odd = np.logical_or.reduce([odds[index] for index in indexes])
        with np.errstate(all="ignore"):
            middle, below, above = _SPREAD_OF[spread](table[:, here], counts[here])
        found.append(Grouped(name, len(indexes), x[here], middle, below, above, counts[here], odd[here]))
    return found


def _std_of(table: Array, counts: Array) -> tuple[Array, Array, Array]:
    mean = np.nansum(table, axis=0) / counts
    std = np.sqrt(np.nansum(np.square(table - mean), axis=0) / np.maximum(counts - 1, 1))
    return mean, mean - std, mean + std


def _quartiles_of(table: Array, counts: Array) -> tuple[Array, Array, Array]:
    below, middle, above = np.nanquantile(table, (0.25, 0.5, 0.75), axis=0)
    return middle, below, above


def _range_of(table: Array, counts: Array) -> tuple[Array, Array, Array]:
    return np.nansum(table, axis=0) / counts, np.nanmin(table, axis=0), np.nanmax(table, axis=0)


_SPREAD_OF: Mapping[str, Callable[[Array, Array], tuple[Array, Array, Array]]] = {
    "std": _std_of,
    "quartiles": _quartiles_of,
    "range": _range_of,
}

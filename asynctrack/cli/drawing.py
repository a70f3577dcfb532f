"""From the points of runs to the lines of a chart: what is x, smoothing, ranges. Pure, but for reading the points."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.cli.amounts import moment
from asynctrack.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.cli.standin import FoundRun
    from asynctrack.plots.lines import Line
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Columns

__all__ = ["Axis", "chosen_keys", "extremes", "lines_of", "places", "smoothed"]

_UNITS = (("d", 2 * 86400.0, 86400.0), ("h", 2 * 3600.0, 3600.0), ("min", 120.0, 60.0))


class Axis(NamedTuple):
    """What x is: "step"; "time", since the first point of all; "relative", since each run's start; or the key of a
    metric. ``low`` and ``high``: what is shown of it. ``smooth``: the weight of what came before, from 0 to below 1."""

    x: str = "step"
    low: float | None = None
    high: float | None = None
    smooth: float = 0.0


def chosen_keys(keys: Collection[str], patterns: Iterable[str]) -> list[str]:
    """The keys that are meant, in order: of each pattern the key of just this name, else those in which the regular
    expression is found. Raises InvalidInputError, and NotFoundError where none is."""
    found: set[str] = set()
    for pattern in patterns:
        try:
            matches = {pattern} if pattern in keys else {key for key in keys if re.search(pattern, key)}
        except re.error as error:
            raise InvalidInputError(f"--key {pattern!r} is no regular expression: {error}") from None
        if not matches:
            shown = ", ".join(sorted(keys)[:10]) + (", …" if len(keys) > 10 else "")
            raise NotFoundError(f"no metric is called like {pattern!r}; there are {shown or 'none'}")
        found |= matches
    return sorted(found)


def lines_of(
    store: AbstractStore, runs: Sequence[FoundRun], labels: Sequence[str], keys: Sequence[str], axis: Axis = Axis()
) -> tuple[list[Line], str]:
    """A line for each run and key that has points there, and what x is."""
    from asynctrack.cli.asking import series
    from asynctrack.plots.lines import Line

    others = [] if axis.x in ("step", "time", "relative") else [axis.x]
    found = [series(store, run, sorted({*keys, *others} & run.run.data.metrics.keys())) for run in runs]
    begun = min((min(each.times) for held in found for each in held.values()), default=0)
    lines, starts = [], [run.run.info.start_time or begun for run in runs]
    for run, held, start in zip(range(len(runs)), found, starts, strict=True):
        for key in keys:
            if key not in held:
                continue
            x = places(held[key], axis.x, begun if axis.x == "time" else start, held.get(axis.x))
            y = smoothed(held[key].values, axis.smooth) if axis.smooth else held[key].values
            x, y = _between(x, y, axis.low, axis.high)
            if len(x):
                lines.append(Line(_label(labels[run], key, len(runs), len(keys)), x, y))
    if axis.x not in ("time", "relative"):
        return lines, axis.x
    unit, length = _unit(max((max(line.x) for line in lines), default=0.0))
    since = f"since {moment(begun)}" if axis.x == "time" else "since the start"
    return [line._replace(x=[x / length for x in line.x]) for line in lines], f"{unit} {since}"


def _label(run: str, key: str, runs: int, keys: int) -> str:
    return key if runs == 1 and keys > 1 else run if keys == 1 else f"{run} {key}"


def _unit(seconds: float) -> tuple[str, float]:
    return next(((name, length) for name, least, length in _UNITS if seconds >= least), ("s", 1.0))


def places(columns: Columns, x: str, start: int, other: Columns | None = None) -> Sequence[float]:
    """Where the points lie on the x axis: steps, seconds since ``start``, or the latest value that another metric had
    at their step. Where all steps are the same, as where none were given, the number of each point."""
    if x in ("time", "relative"):
        return [(time - start) / 1000 for time in columns.times]
    if x == "step":
        steps = columns.steps
        return steps if len(steps) < 2 or min(steps) != max(steps) else range(len(steps))
    if other is None:
        return [math.nan] * len(columns)
    order = sorted(range(len(other)), key=other.steps.__getitem__)
    steps = [other.steps[index] for index in order]
    found = []
    for step in columns.steps:
        at = bisect_right(steps, step) - 1
        found.append(other.values[order[at]] if at >= 0 else math.nan)
    return found


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average of all values, corrected for its start (as in Adam): the first is itself. NaN and
    ±Inf stay, and count for nothing."""
    if not 0 <= weight < 1:
        raise InvalidInputError(f"--smooth {weight}: it must be from 0 to below 1")
    average, share, found = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = average * weight + value * (1 - weight)
            share = share * weight + (1 - weight)
            found.append(average / share)
        else:
            found.append(value)
    return found


def _between(
    x: Sequence[float], y: Sequence[float], low: float | None, high: float | None
) -> tuple[Sequence[float], Sequence[float]]:
    if low is None and high is None:
        return x, y
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    kept = [(a, b) for a, b in zip(x, y, strict=True) if least <= a <= most]
    return [a for a, _ in kept], [b for _, b in kept]


def extremes(x: Sequence[float], y: Sequence[float], most: int) -> list[tuple[float, float]]:
    """At most so many points (four at least): the first, the last, and of each stretch between the smallest and the
    largest, in order. A spike stays, as do NaN and ±Inf of a stretch that has nothing else."""
    if len(x) <= most:
        return list(zip(x, y, strict=True))
    stretches = max(most - 2, 2) // 2
    kept = {0, len(x) - 1}
    for index in range(stretches):
        stretch = range(index * len(x) // stretches, (index + 1) * len(x) // stretches)
        numbers = [at for at in stretch if not math.isnan(y[at])]
        if numbers:
            kept |= {min(numbers, key=y.__getitem__), max(numbers, key=y.__getitem__)}
        else:
            kept.add(stretch[0])
    return [(x[at], y[at]) for at in sorted(kept)]

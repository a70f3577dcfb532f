"""From runs and keys to charts: which metrics are meant, what is x, what of it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.cli.amounts import moment
from asynctrack.cli.asking import labels_of, looked
from asynctrack.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.plots.chart import Chart
    from asynctrack.plots.lines import Line
    from asynctrack.reading.runs import FoundRun
    from asynctrack.stores.base import AbstractStore

__all__ = ["Axis", "between", "charts_of", "chosen_keys", "in_units", "none_is_called", "together"]

#: name, seconds from which on it is used, its seconds
_UNITS = (("d", 2 * 86400.0, 86400.0), ("h", 2 * 3600.0, 3600.0), ("min", 120.0, 60.0))


class Axis(NamedTuple):
    """What x is: "step"; "time", since the first point of all; "relative", since each run's start; or the key of a
    metric. ``low`` and ``high``: what is shown of it, in seconds where it is a time. ``smooth``: the weight of what
    came before, from 0 to below 1."""

    x: str = "step"
    low: float | None = None
    high: float | None = None
    smooth: float = 0.0
    log_x: bool = False
    log_y: bool = False


def chosen_keys(keys: Collection[str], patterns: Iterable[str]) -> list[str]:
    """The keys that are meant, in order: of each pattern the key of just this name, else those in which the regular
    expression is found. Raises InvalidInputError, and NotFoundError where none is. Pure."""
    found: set[str] = set()
    for pattern in patterns:
        try:
            matches = {pattern} if pattern in keys else {key for key in keys if re.search(pattern, key)}
        except re.error as error:
            raise InvalidInputError(f"--key {pattern!r} is no regular expression: {error}") from None
        if not matches:
            raise none_is_called(pattern, keys)
        found |= matches
    return sorted(found)


def none_is_called(text: str, keys: Collection[str]) -> NotFoundError:
    """The error for a metric that is not among these."""
    shown = ", ".join(sorted(keys)[:10]) + (", …" if len(keys) > 10 else "")
    return NotFoundError(f"no metric is called like {text!r}; there are {shown or 'none'}")


def charts_of(store: AbstractStore, runs: Sequence[FoundRun], keys: Sequence[str], axis: Axis) -> list[Chart]:
    """A chart for each key, with a line for each run that has points there."""
    from asynctrack.plots.chart import Chart
    from asynctrack.plots.lines import Line
    from asynctrack.plots.palette import places_of
    from asynctrack.reading.table import History, Piece

    timed = axis.x in ("time", "relative")
    wanted = sorted({*keys} if timed or axis.x == "step" else {*keys, axis.x})
    pieces = [Piece(run.run, key, series) for run in runs for key, series in looked(store, run, wanted).items()]
    history = History(pieces).over(axis.x)
    if axis.smooth:
        history = history.smooth(axis.smooth)
    labels = dict(zip((run.run.info.run_id for run in runs), labels_of(runs), strict=True))
    colours = places_of(labels)
    begun = min((min(piece.series.columns.times) for piece in pieces), default=0)
    charts = []
    for key in keys:
        lines = []
        for piece in history.pieces:
            if piece.key != key:
                continue
            run_id = piece.run.info.run_id
            x: Sequence[float] = history.x_of(piece)
            if axis.x == "time":
                x = [(time - begun) / 1000 for time in x]
            elif axis.x == "step" and len(x) > 1 and min(x) == max(x):
                x = range(len(x))  # no steps were given
            x, y = between(x, piece.series.columns.values, axis.low, axis.high)
            lines.append(Line(labels[run_id], x, y, colours[run_id]))
        label = axis.x
        if timed:
            lines, unit = in_units(lines)
            label = f"{unit} since {moment(begun)}" if axis.x == "time" else f"{unit} since the run's start"
        charts.append(Chart(lines, key, label, axis.log_x, axis.log_y))
    return charts


def together(charts: Sequence[Chart]) -> Chart:
    """All lines in one chart, for a file that holds one. Pure."""
    if len(charts) == 1:
        return charts[0]
    lines = [
        line._replace(label=f"{line.label} {chart.title}", colour=None) for chart in charts for line in chart.lines
    ]
    return charts[0]._replace(lines=lines, title=", ".join(chart.title or "" for chart in charts))


def between(
    x: Sequence[float], y: Sequence[float], low: float | None, high: float | None
) -> tuple[Sequence[float], Sequence[float]]:
    """The points with x from ``low`` to ``high``, both included. Pure."""
    if low is None and high is None:
        return x, y
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    kept = [(a, b) for a, b in zip(x, y, strict=True) if least <= a <= most]
    return [a for a, _ in kept], [b for _, b in kept]


def in_units(lines: Sequence[Line]) -> tuple[list[Line], str]:
    """Lines over seconds as lines over the unit that suits the longest of them, and its name. Pure."""
    most = max((max(line.x) for line in lines if len(line.x)), default=0.0)
    unit, length = next(((name, length) for name, least, length in _UNITS if most >= least), ("s", 1.0))
    return [line._replace(x=[x / length for x in line.x]) for line in lines], unit

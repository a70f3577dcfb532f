"""What a chart shows: lines on a shared grid, made of all points that were logged."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asynctrack.ui.grid import NAN, Axis, Cells, Grid, cells_of, ema, grid_of, takes_of
from asynctrack.ui.groups import Grouped, by_place, by_step, group_names

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.ui.tapes import Points

__all__ = ["Asked", "Chart", "chart_of", "nearest", "packed", "x_of"]

Array = Any
#: the x that every point has
_OF_ALL = ("step", "time", "relative")
#: lines of a chart up to which the line that is smoothed is drawn, too
_FEW = 30
#: the largest part of the height of a chart that a value may be off
_FINE = 1e-5
#: without outliers, y goes from where to where so many parts of the points are
_INNER = (0.01, 0.99)


class Asked(NamedTuple):
    """How charts are drawn. ``x``: "step", "time" (ms since the epoch), "relative" (s since each run began), or a
    metric's key. ``low``, ``high``: the x to show; None for all. ``places``: so many at most, about a pixel each.
    ``smoothing``: the weight of the moving average, 0 for none. ``group``: the params or tags whose values a group of
    runs has in common; or ``besides``: the params in which its runs may differ; None and None for a line for each run.
    ``spread``: one of `asynctrack.ui.groups.SPREADS`. ``outliers``: y is chosen for 98 of 100 points; or ``y`` says
    from where to where it goes."""

    x: str = "step"
    low: float | None = None
    high: float | None = None
    places: int = 500
    smoothing: float = 0.0
    log_x: bool = False
    log_y: bool = False
    group: tuple[str, ...] | None = None
    besides: tuple[str, ...] | None = None
    spread: str = "std"
    outliers: bool = False
    y: tuple[float, float] | None = None


class Sight(NamedTuple):
    """What of y is shown, from ``low`` to ``high``: so many values are ``under`` and ``over`` it, and ``least`` and
    ``most`` are the extremes of all."""

    low: float
    high: float
    under: int
    over: int
    least: float
    most: float


class Line(NamedTuple):
    """``header``: what JSON says of it. ``raw``: the line before it was smoothed. ``band``: from where to where its
    values deviate, and ``counts``: of how many runs it is, by place. ``before``: what was logged before the run was
    taken up again from an earlier step, from there on."""

    header: dict[str, Any]
    cells: Cells
    raw: Cells | None = None
    band: tuple[Array, Array] | None = None
    counts: Array | None = None
    before: Sequence[Cells] = ()


class Chart(NamedTuple):
    """One chart. ``low``, ``high``: from where to where x goes in all of its points. ``sight``: None for all of y.
    ``hidden``: so many points are at an x of 0 or less, which a logarithmic axis does not show. ``without``: so many
    have no x, as their run has not logged that metric at their step."""

    key: str
    grid: Grid
    low: float
    high: float
    lines: list[Line]
    sight: Sight | None = None
    hidden: int = 0
    without: int = 0


def chart_of(asked: Asked, key: str, runs: Mapping[str, Run], points: Mapping[str, Mapping[str, Points]]) -> Chart:
    """The chart of a metric. ``points``: of each run by key."""
    there = [(run, points[run_id]) for run_id, run in runs.items() if key in points.get(run_id, ())]
    xs = [Axis.of(x_of(asked.x, run, its, key)) for run, its in there]
    low, high = _bounds(xs, asked.log_x)
    shown_low = low if asked.low is None else max(asked.low, low)
    shown_high = high if asked.high is None else min(asked.high, high)
    grid = grid_of(xs, max(asked.places, 2), shown_low, shown_high, log=asked.log_x)
    if asked.group is None and asked.besides is None:
        with_raw = asked.smoothing > 0 and len(there) <= _FEW
        lines = [_line(asked, grid, run, its[key], x, with_raw) for (run, its), x in zip(there, xs, strict=True)]
        logged = [(x, its[key].values) for (_, its), x in zip(there, xs, strict=True)]
    else:
        names = dict(zip(runs, group_names(list(runs.values()), asked.group or (), asked.besides), strict=True))
        lines = _groups(asked, grid, key, there, xs, [names[run.info.run_id] for run, _ in there])
        logged = [(Axis.of(grid.x), each) for line in lines for each in (line.cells.low, line.cells.high)]
    hidden = int(sum(np.count_nonzero(axis.x <= 0) for axis in xs)) if asked.log_x else 0
    without = 0 if asked.x in _OF_ALL else int(sum(np.count_nonzero(np.isnan(axis.x)) for axis in xs))
    return Chart(key, grid, low, high, lines, _shown_y(asked, shown_low, shown_high, logged), hidden, without)


def x_of(kind: str, run: Run, points: Mapping[str, Points], key: str) -> Array:
    """The x of each point of a metric, NaN where it has none."""
    here = points[key]
    if kind == "step":
        return here.steps
    if kind == "time":
        return here.times
    if kind == "relative":
        return (here.times - run.info.start_time) / 1000
    if kind not in points:
        return np.full(len(here.steps), math.nan)
    there = points[kind]
    order = np.argsort(there.steps, kind="stable")
    steps = there.steps[order]
    found = np.searchsorted(steps, here.steps, side="right") - 1  # the value that was logged last at a step
    met = (found >= 0) & (steps[np.maximum(found, 0)] == here.steps)
    return np.where(met, there.values[order][np.maximum(found, 0)], math.nan)


def _bounds(axes: Sequence[Axis], log: bool) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for axis in axes:
        # On a logarithmic axis from the smallest number above 0.
        known = axis.x[axis.inside(math.nextafter(0, 1) if log else -sys.float_info.max, sys.float_info.max)]
        if len(known):
            first, last = (known[0], known[-1]) if axis.rises else (known.min(), known.max())
            low, high = min(low, float(first)), max(high, float(last))
    return low, high


def _line(asked: Asked, grid: Grid, run: Run, points: Points, x: Axis, with_raw: bool) -> Line:
    smooth = points.smoothed(asked.smoothing)
    said = {"id": run.info.run_id, **_said(points.values, x.x, points.series.waiting)}
    takes = None if x.rises or asked.x != "step" else takes_of(x.x)
    if takes is None:
        raw = cells_of(grid, x, points.values, log=asked.log_y) if with_raw else None
        return Line(said, cells_of(grid, x, smooth, log=asked.log_y), raw)

    def cells(values: Array, parts: Sequence[slice]) -> Cells:
        at, its = (np.concatenate([array[part] for part in parts]) for array in (x.x, values))
        return cells_of(grid, Axis.of(at), its, log=asked.log_y)

    raw = cells(points.values, takes.current) if with_raw else None
    before = [cells(smooth, [part]) for part in takes.earlier]
    return Line({**said, "again": takes.again}, cells(smooth, takes.current), raw, before=before)


def nearest(points: Points, x: Array, at: float, half: float, value: float | None) -> int | None:
    """The index of the point nearest to ``at``; of those within ``half`` of it, the one whose value is nearest."""
    away = np.abs(x - at)
    if not len(away) or np.isnan(away).all():
        return None
    close = np.flatnonzero(away <= half)
    if value is None or not len(close) or np.isnan(points.values[close]).all():
        return int(np.nanargmin(away))
    return int(close[np.nanargmin(np.abs(points.values[close] - value))])


def _said(values: Array, x: Array, waiting: int) -> dict[str, Any]:
    """In numbers: how many there are, the last one, and the extremes with their x; of all points, smoothed or not."""
    said: dict[str, Any] = {"points": len(values), "waiting": waiting, "last": _plain(values[-1])}
    least, most = int(np.argmin(values)), int(np.argmax(values))
    if not (math.isfinite(values[least]) and math.isfinite(values[most])):  # both are a NaN where there is one
        finite = np.isfinite(values)
        least = int(np.argmin(np.where(finite, values, math.inf)))
        most = int(np.argmax(np.where(finite, values, -math.inf)))
        said["odd"] = int(len(values) - np.count_nonzero(finite))
    if math.isfinite(values[least]):
        said |= {"min": [_plain(values[least]), _plain(x[least])], "max": [_plain(values[most]), _plain(x[most])]}
    return said


def _plain(value: Any) -> float | str:
    """JSON has no NaN and no infinity."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


# ── groups of runs


def _groups(
    asked: Asked,
    grid: Grid,
    key: str,
    there: Sequence[tuple[Run, Mapping[str, Points]]],
    xs: Sequence[Axis],
    names: Sequence[str],
) -> list[Line]:
    if asked.x == "step":
        groups = by_step(names, [points[key] for _, points in there], asked.spread)
    else:
        # Times hardly ever coincide: each run has its own mean at a place.
        rows, odds = [], []
        for (_, points), x in zip(there, xs, strict=True):
            rows.append(_mean_at_each_place(grid, x.x, points[key].smoothed(asked.smoothing)))
            odds.append(cells_of(grid, x, points[key].values).marks > 0)
        groups = by_place(names, rows, odds, grid.x, asked.spread)
    smoothing = asked.smoothing if asked.x == "step" else 0.0
    return [_group_line(asked, grid, group, smoothing) for group in groups]


def _group_line(asked: Asked, grid: Grid, group: Grouped, smoothing: float) -> Line:
    axis = Axis.of(group.x)
    cells = cells_of(grid, axis, ema(group.middle, smoothing), log=asked.log_y)
    below, above = (ema(each, smoothing) for each in (group.below, group.above))
    band = cells_of(grid, axis, below, log=asked.log_y).low, cells_of(grid, axis, above, log=asked.log_y).high
    places = grid.places(group.x)
    here = places >= 0
    cells.marks[:] = 0  # where no run has a value is nothing to mark
    cells.marks[places[here & group.odd]] |= NAN
    counts = np.zeros(len(grid.x))
    np.maximum.at(counts, places[here], group.counts[here])
    known = np.isfinite(group.middle)
    if not known.any():
        return Line({"name": group.name, "runs": group.runs, "points": 0, "waiting": 0, "last": "nan"}, cells)
    said = _said(group.middle[known], group.x[known], 0)
    if group.odd.any():
        said["odd"] = int(np.count_nonzero(group.odd))
    return Line({"name": group.name, "runs": group.runs, **said}, cells, None, band, counts)


def _mean_at_each_place(grid: Grid, x: Array, values: Array) -> Array:
    places = grid.places(x)
    shown = (places >= 0) & np.isfinite(values)
    size = len(grid.x)
    counts = np.bincount(places[shown], minlength=size)
    with np.errstate(all="ignore"):
        return np.bincount(places[shown], values[shown], minlength=size) / np.where(counts > 0, counts, math.nan)


# ── what of y is shown


def _shown_y(asked: Asked, low: float, high: float, lines: Sequence[tuple[Axis, Array]]) -> Sight | None:
    """``lines``: x and values of each. ``low``, ``high``: the x that are shown."""
    if asked.y is None and not asked.outliers:
        return None
    values = np.concatenate([np.empty(0), *(y[axis.inside(low, high)] for axis, y in lines)])
    values = values[np.isfinite(values) & ((values > 0) | (not asked.log_y))]
    if asked.y is not None:
        bottom, top = asked.y
    elif not len(values):
        return None
    else:
        bottom, top = (float(each) for each in np.quantile(values, _INNER, method="nearest"))
        if asked.log_y:
            room = (top / bottom) ** 0.05 if bottom < top else 2.0
            bottom, top = bottom / room, top * room
        else:
            room = (top - bottom) * 0.05 or abs(top) * 0.1 or 1.0
            bottom, top = bottom - room, top + room
    under, over = values[values < bottom], values[values > top]
    extremes = [float(values.min()), float(values.max())] if len(values) else [bottom, top]
    return Sight(bottom, top, len(under), len(over), extremes[0], extremes[1])


# ── on the way to the page


def packed(charts: Sequence[Chart], about: Mapping[str, Any]) -> bytes:
    """Bytes of the header (4, little-endian), the header as JSON in UTF-8, and behind it, from the next multiple of 8
    on, arrays. The header says where each begins: ``x`` float64, the others float32, or float64 where that would be
    off by more than a pixel shows, and ``marks`` uint8."""
    body = bytearray()

    def put(array: Array, kind: str) -> int:
        start = len(body)
        body.extend(np.ascontiguousarray(array, kind).tobytes())
        body.extend(bytes(-len(body) % 8))
        return start

    def put_cells(cells: Cells, kind: str) -> list[int]:
        if np.array_equal(cells.low, cells.high, equal_nan=True):
            return [put(cells.last, kind)]  # the smallest and the largest are the same
        return [put(each, kind) for each in (cells.last, cells.low, cells.high)]

    described = []
    for chart in charts:
        kind = _kind(chart)
        lines = []
        for line in chart.lines:
            at = dict(line.header)
            at["at"] = put_cells(line.cells, kind)
            if line.raw is not None:
                at["rawat"] = put_cells(line.raw, kind)
            if line.cells.marks.any():
                at["marks"] = put(line.cells.marks, "<u1")
            if line.cells.left_out:
                at["left_out"] = line.cells.left_out
            if line.band is not None:
                at["band"] = [put(each, kind) for each in line.band]
            if line.counts is not None:
                at["counts"] = put(line.counts, "<f4")
            if line.before:
                at["before"] = [put_cells(cells, kind) for cells in line.before]
            lines.append(at)
        grid = chart.grid
        bounds: dict[str, Any] = {"low": _plain(chart.low), "high": _plain(chart.high), "hidden": chart.hidden}
        if chart.without:
            bounds["without"] = chart.without
        if chart.sight is not None:
            bounds["sight"] = chart.sight._asdict()
        described.append(
            {
                "key": chart.key, "places": len(grid.x), "exact": grid.exact, "kind": kind[1:], **bounds,
                "x": put(grid.x, "<f8"), "lines": lines,
            }
        )  # fmt: skip
    text = json.dumps({**about, "charts": described}, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    text += b" " * (-(len(text) + 4) % 8)
    return len(text).to_bytes(4, "little") + text + bytes(body)


def _kind(chart: Chart) -> str:
    """float32 has seven digits: too few for the time of day in seconds, or for a loss near 1e-50."""
    least, most = math.inf, -math.inf
    for line in chart.lines:
        for each in (line.cells, line.raw, *line.before):
            if each is not None and not np.isnan(each.low).all():
                least, most = min(least, float(np.nanmin(each.low))), max(most, float(np.nanmax(each.high)))
    size = max(abs(least), abs(most))
    if least > most or (size < 1e38 and size * 2**-24 <= (most - least) * _FINE and (most - least) > 1e-30):
        return "<f4"
    return "<f8"

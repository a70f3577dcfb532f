"""What a chart shows: lines on a shared grid, made of all points that were logged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asynctrack.reading.means import means_of, named
from asynctrack.reading.table import History, Piece
from asynctrack.ui.grid import Cells, Grid, cells_of, ema, grid_of

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.ui.tapes import Points

__all__ = ["Asked", "Chart", "chart_of", "packed", "x_of"]

Array = Any
#: lines of a chart up to which the line that is smoothed is drawn, too
_FEW = 30
#: the largest part of the height of a chart that a value may be off
_FINE = 1e-5


class Asked(NamedTuple):
    """How charts are drawn. ``x``: "step", "time" (ms since the epoch), "relative" (s since each run began), or a
    metric's key. ``low``, ``high``: the x to show; None for all. ``places``: so many at most, about a pixel each.
    ``smoothing``: the weight of the moving average, 0 for none. ``group``: the params or tags whose values a group of
    runs has in common; None for a line for each run."""

    x: str = "step"
    low: float | None = None
    high: float | None = None
    places: int = 500
    smoothing: float = 0.0
    log_x: bool = False
    log_y: bool = False
    group: tuple[str, ...] | None = None


class Line(NamedTuple):
    """``header``: what JSON says of it. ``raw``: the line before it was smoothed. ``band``: from where to where its
    values deviate, by place."""

    header: dict[str, Any]
    cells: Cells
    raw: Cells | None = None
    band: tuple[Array, Array] | None = None


class Chart(NamedTuple):
    """One chart. ``low``, ``high``: from where to where x goes in all of its points."""

    key: str
    grid: Grid
    low: float
    high: float
    lines: list[Line]


def chart_of(asked: Asked, key: str, runs: Mapping[str, Run], points: Mapping[str, Mapping[str, Points]]) -> Chart:
    """The chart of a metric. ``points``: of each run by key."""
    there = [(run, points[run_id]) for run_id, run in runs.items() if key in points.get(run_id, ())]
    xs = [x_of(asked.x, run, its, key) for run, its in there]
    low, high = _bounds(xs, asked.log_x)
    shown_low = low if asked.low is None else max(asked.low, low)
    shown_high = high if asked.high is None else min(asked.high, high)
    grid = grid_of(xs, max(asked.places, 2), shown_low, shown_high, log=asked.log_x)
    if asked.group is None:
        with_raw = asked.smoothing > 0 and len(there) <= _FEW
        lines = [_line(asked, grid, run, its[key], x, with_raw) for (run, its), x in zip(there, xs, strict=True)]
    else:
        lines = _groups(asked, grid, key, there, xs)
    return Chart(key, grid, low, high, lines)


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


def _bounds(xs: Sequence[Array], log: bool) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for x in xs:
        known = x[np.isfinite(x) & (x > 0)] if log else x[np.isfinite(x)]
        if len(known):
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    return low, high


def _line(asked: Asked, grid: Grid, run: Run, points: Points, x: Array, with_raw: bool) -> Line:
    values = ema(points.values, asked.smoothing)
    cells = cells_of(grid, x, values, log=asked.log_y)
    raw = cells_of(grid, x, points.values, log=asked.log_y) if with_raw else None
    return Line({"id": run.info.run_id, **_said(points.values, x, points.series.waiting)}, cells, raw)


def _said(values: Array, x: Array, waiting: int) -> dict[str, Any]:
    """In numbers: how many there are, the last one, and the extremes with their x; of all points, smoothed or not."""
    said: dict[str, Any] = {"points": len(values), "waiting": waiting, "last": _plain(values[-1])}
    finite = np.isfinite(values)
    if finite.any():
        least = int(np.argmin(np.where(finite, values, math.inf)))
        most = int(np.argmax(np.where(finite, values, -math.inf)))
        said |= {"min": [_plain(values[least]), _plain(x[least])], "max": [_plain(values[most]), _plain(x[most])]}
    if not finite.all():
        said["odd"] = int(len(values) - np.count_nonzero(finite))
    return said


def _plain(value: Any) -> float | str:
    """JSON has no NaN and no infinity."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


# ── groups of runs


def _groups(
    asked: Asked, grid: Grid, key: str, there: Sequence[tuple[Run, Mapping[str, Points]]], xs: Sequence[Array]
) -> list[Line]:
    # A metric may be one of runs that do not have the param at all.
    by = [name for name in asked.group or () if any(_has(run, name) for run, _ in there)]
    if asked.x == "step":
        return _means_by_step(asked, grid, key, there, by)
    return _means_by_place(asked, grid, key, there, xs, by)


def _means_by_step(
    asked: Asked, grid: Grid, key: str, there: Sequence[tuple[Run, Mapping[str, Points]]], by: Sequence[str]
) -> list[Line]:
    """Step by step over all points; the mean is smoothed and put on the grid afterwards."""
    history = History([Piece(run, key, points[key].series) for run, points in there])
    lines = []
    for group in means_of(history, by, ()).groups:
        x = np.frombuffer(group.steps, np.int64).astype(np.float64)
        mean, std = np.frombuffer(group.means), np.nan_to_num(np.frombuffer(group.stds), nan=0.0)
        smooth = ema(mean, asked.smoothing)
        below, above = (ema(mean - std, asked.smoothing), ema(mean + std, asked.smoothing))
        band = cells_of(grid, x, below, log=asked.log_y).low, cells_of(grid, x, above, log=asked.log_y).high
        header = {"name": group.name, "runs": max(group.runs), **_said(mean, x, 0)}
        lines.append(Line(header, cells_of(grid, x, smooth, log=asked.log_y), None, band))
    return lines


def _means_by_place(
    asked: Asked,
    grid: Grid,
    key: str,
    there: Sequence[tuple[Run, Mapping[str, Points]]],
    xs: Sequence[Array],
    by: Sequence[str],
) -> list[Line]:
    """Times hardly ever coincide: each run has its own mean at a place, and the group the mean of these."""
    members: dict[str, list[Array]] = {}
    for (run, points), x in zip(there, xs, strict=True):
        values = ema(points[key].values, asked.smoothing)
        members.setdefault(named(run, by) or "all runs", []).append(_mean_at_each_place(grid, x, values))
    lines = []
    for name, rows in sorted(members.items()):
        table = np.array(rows)
        counts = np.count_nonzero(~np.isnan(table), axis=0)
        with np.errstate(all="ignore"):
            mean = np.where(counts > 0, np.nansum(table, axis=0) / counts, math.nan)
            std = np.sqrt(np.nansum(np.square(table - mean), axis=0) / np.where(counts > 1, counts - 1, math.nan))
        std = np.nan_to_num(std, nan=0.0)
        if not (counts > 0).any():
            continue
        cells = cells_of(grid, grid.x, mean, log=asked.log_y)
        cells = cells._replace(marks=np.zeros(len(grid.x), np.uint8))
        known = counts > 0
        header = {"name": name, "runs": int(counts.max()), **_said(mean[known], grid.x[known], 0)}
        lines.append(Line(header, cells, None, (mean - std, mean + std)))
    return lines


def _has(run: Run, name: str) -> bool:
    return name in run.data.params or name in run.data.tags


def _mean_at_each_place(grid: Grid, x: Array, values: Array) -> Array:
    places = grid.places(x)
    shown = (places >= 0) & np.isfinite(values)
    size = len(grid.x)
    counts = np.bincount(places[shown], minlength=size)
    with np.errstate(all="ignore"):
        return np.bincount(places[shown], values[shown], minlength=size) / np.where(counts > 0, counts, math.nan)


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

    described = []
    for chart in charts:
        kind = _kind(chart)
        lines = []
        for line in chart.lines:
            at = dict(line.header)
            for name, cells in (("", line.cells), ("raw", line.raw)):
                if cells is None:
                    continue
                if np.array_equal(cells.low, cells.high, equal_nan=True):
                    at[f"{name}at"] = [put(cells.last, kind)]  # the smallest and the largest are the same
                else:
                    at[f"{name}at"] = [put(each, kind) for each in (cells.last, cells.low, cells.high)]
            if line.cells.marks.any():
                at["marks"] = put(line.cells.marks, "<u1")
            if line.cells.left_out:
                at["left_out"] = line.cells.left_out
            if line.band is not None:
                at["band"] = [put(each, kind) for each in line.band]
            lines.append(at)
        grid = chart.grid
        bounds = {"low": _plain(chart.low), "high": _plain(chart.high)}
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
        for each in (line.cells, line.raw):
            if each is not None and not np.isnan(each.low).all():
                least, most = min(least, float(np.nanmin(each.low))), max(most, float(np.nanmax(each.high)))
    size = max(abs(least), abs(most))
    if least > most or (size < 1e38 and size * 2**-24 <= (most - least) * _FINE and (most - least) > 1e-30):
        return "<f4"
    return "<f8"

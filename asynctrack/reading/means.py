"""Means over runs, step by step, on all of their points."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.plots.chart import Chart, Charts
from asynctrack.plots.lines import Line
from asynctrack.plots.palette import places_of
from asynctrack.reading.chunks import Chunk, Kind, Same, needed
from asynctrack.reading.frames import Table

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.table import History, Piece

__all__ = ["Group", "Means", "means_of", "named"]

_KINDS: dict[str, Kind] = {
    "group": "text",
    "key": "text",
    "step": "int",
    "mean": "double",
    "std": "double",
    "min": "double",
    "max": "double",
    "runs": "int",
}


class Group(NamedTuple):
    """One metric of the runs of one group, at each step that one of them logged. ``std``: of a sample, NaN where one
    run logged alone. ``runs``: how many logged at that step."""

    name: str
    key: str
    steps: array[int]
    means: array[float]
    stds: array[float]
    mins: array[float]
    maxs: array[float]
    runs: array[int]


class Means(Table):
    """Means over runs: a row for each group, key and step, with the ``mean``,
    the standard deviation ``std``, ``min``, ``max`` and the number of ``runs``.
    NaN where one of the values is NaN. Data frames take it as they take a
    `History`."""

    __slots__ = ("groups",)

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)

    @property
    def kinds(self) -> dict[str, Kind]:
        return _KINDS

    def _chunks(self) -> Iterator[Chunk]:
        for group in self.groups:
            yield Chunk(len(group.steps), [Same(group.name), Same(group.key), *group[2:]])

    def plot(self, *, log_x: bool = False, log_y: bool = False) -> Charts:
        """A chart for each key, with a line for each group's mean."""
        colours = places_of(group.name for group in self.groups)
        charts = []
        for key in dict.fromkeys(group.key for group in self.groups):
            lines = [
                Line(group.name, array("d", group.steps), group.means, colours[group.name])
                for group in self.groups
                if group.key == key
            ]
            charts.append(Chart(lines, f"{key}, mean over runs", "step", log_x, log_y))
        return Charts(charts)


def means_of(history: History, by: Sequence[str], besides: Sequence[str]) -> Means:
    """Raises InvalidInputError for names that mean nothing, ImportError without NumPy."""
    np = needed("numpy", "a mean over runs", "numpy")
    name_of = _grouping(history, by, [besides] if isinstance(besides, str) else besides)
    members: dict[tuple[str, str], list[Piece]] = {}
    for piece in history.pieces:
        if len(piece.series.columns):
            members.setdefault((name_of(piece.run), piece.key), []).append(piece)
    return Means([_group(np, name, key, pieces) for (name, key), pieces in sorted(members.items(), key=lambda m: m[0])])


def _grouping(history: History, by: Sequence[str], besides: Sequence[str]) -> Callable[[Run], str]:
    for name in (*by, *besides):
        if not isinstance(name, str):
            raise InvalidInputError(f"mean_over: expected the names of params or tags, got {name!r}")
    if by and besides:
        raise InvalidInputError("mean_over: give the params that a group has in common, or `besides`, not both")
    runs = {piece.run.info.run_id: piece.run for piece in history.pieces}.values()
    for name in (*by, *besides):
        if runs and all(_value(run, name) is None for run in runs):
            known = sorted({key for run in runs for key in run.data.params})
            raise InvalidInputError(
                f"mean_over: none of the runs has a param or tag {name!r}; their params are "
                f"{', '.join(map(repr, known[:10])) or 'none'}"
            )
    if not besides:
        return lambda run: named(run, by) or "all runs"
    differing = set(besides)
    return lambda run: named(run, sorted(set(run.data.params) - differing)) or "all runs"


def named(run: Run, names: Sequence[str]) -> str:
    """What the group of a run is called that has the values of these params or tags in common."""
    return ", ".join(f"{name}={_value(run, name)}" for name in names)


def _value(run: Run, name: str) -> str | None:
    return run.data.params.get(name, run.data.tags.get(name))


def _group(np: Any, name: str, key: str, pieces: Sequence[Piece]) -> Group:
    steps, values = zip(*(_last_of_each_step(np, piece) for piece in pieces), strict=True)
    all_steps, all_values = np.concatenate(steps), np.concatenate(values)
    order = np.argsort(all_steps, kind="stable")
    all_steps, all_values = all_steps[order], all_values[order]
    begins = np.flatnonzero(np.append(True, np.diff(all_steps) != 0))
    counts = np.diff(np.append(begins, len(all_steps)))
    with np.errstate(all="ignore"):
        means = np.add.reduceat(all_values, begins) / counts
        apart = np.square(all_values - np.repeat(means, counts))
        stds = np.sqrt(np.add.reduceat(apart, begins) / np.where(counts > 1, counts - 1, math.nan))
        lows, highs = np.minimum.reduceat(all_values, begins), np.maximum.reduceat(all_values, begins)
    means, stds, lows, highs = (array("d", np.asarray(each, "f8").tobytes()) for each in (means, stds, lows, highs))
    runs = array("q", counts.astype("i8").tobytes())
    return Group(name, key, array("q", all_steps[begins].tobytes()), means, stds, lows, highs, runs)


def _last_of_each_step(np: Any, piece: Piece) -> tuple[Any, Any]:
    """Each step once, with the value that was logged last."""
    columns = piece.series.columns
    steps, times = np.frombuffer(columns.steps, "i8"), np.frombuffer(columns.times, "i8")
    order = np.lexsort((times, steps))
    last = np.append(np.diff(steps[order]) != 0, True)
    chosen = order[last]
    return steps[chosen], np.frombuffer(columns.values, "f8")[chosen]

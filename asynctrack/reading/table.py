"""`History`: what was logged, as a table with a row for each point."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.plots.chart import Chart, Charts
from asynctrack.plots.lines import Line
from asynctrack.plots.palette import places_of
from asynctrack.reading.chunks import Chunk, Kind, Same
from asynctrack.reading.frames import Table
from asynctrack.reading.sampling import check_samples, sampled
from asynctrack.reading.series import Series
from asynctrack.reading.smoothing import check_weight, smoothed
from asynctrack.stores.columns import Columns
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.means import Means
    from asynctrack.reading.wide import Wide

__all__ = ["History", "Piece"]

_KINDS: dict[str, Kind] = {
    "run_id": "text",
    "key": "text",
    "step": "int",
    "time": "time",
    "value": "double",
    "delivered": "bool",
}
#: what every point has
_AXES = ("step", "time")


class Piece(NamedTuple):
    """One metric of one run. ``x``: of each point, where it is not its step, its time, or the time since the start."""

    run: Run
    key: str
    series: Series
    x: array[float] | None = None

    def chosen(self, indexes: Sequence[int]) -> Piece:
        """The points at these indexes, which rise."""
        columns, stored = self.series
        series = Series(columns.at(indexes), sum(index < stored for index in indexes))
        x = None if self.x is None else array("d", [self.x[index] for index in indexes])
        return Piece(self.run, self.key, series, x)


class History(Table):
    """What some runs have logged under some keys: a row for each point, by run,
    then key, then in the order of the store.

    Columns: ``run_id``, ``key``, ``step``, ``time``, ``value``, and whether it
    is ``delivered``: the others still wait in a spool on this machine. With
    ``x="relative"`` or a metric as x there is a column of that name as well.

    ``polars.DataFrame(history)``, ``pyarrow.table(history)`` and DuckDB take
    it as it is. Nothing changes it; its methods make new ones.
    """

    __slots__ = ("pieces", "x")

    def __init__(self, pieces: Sequence[Piece], x: str = "step") -> None:
        #: the series, in order
        self.pieces = tuple(pieces)
        #: what the points are drawn and sampled over: "step", "time", "relative" or a metric's key
        self.x = x

    @property
    def kinds(self) -> dict[str, Kind]:
        return _KINDS if self.x in _AXES else {**_KINDS, self._x_name: "double"}

    @property
    def _x_name(self) -> str:
        return f"{self.x} (metric)" if self.x in _KINDS else self.x

    def _chunks(self) -> Iterator[Chunk]:
        for piece in self.pieces:
            columns = piece.series.columns
            if len(columns):
                fields = [
                    Same(piece.run.info.run_id), Same(piece.key),
                    columns.steps, columns.times, columns.values, piece.series.stored,
                ]  # fmt: skip
                yield Chunk(len(columns), fields if self.x in _AXES else [*fields, self.x_of(piece)])

    def __len__(self) -> int:
        return sum(len(piece.series.columns) for piece in self.pieces)

    @property
    def keys(self) -> list[str]:
        """The metrics' keys, each once."""
        return list(dict.fromkeys(piece.key for piece in self.pieces))

    @property
    def run_ids(self) -> list[str]:
        """The runs' ids, each once."""
        return list(dict.fromkeys(piece.run.info.run_id for piece in self.pieces))

    def x_of(self, piece: Piece) -> array[float]:
        """The x of each point of a piece. ``time``: ms since the epoch. ``relative``: s since its run began. A
        metric's key: its value that the run logged last at that step, NaN where it logged none."""
        columns = piece.series.columns
        if self.x == "step":
            return array("d", columns.steps)
        if self.x == "time":
            return array("d", columns.times)
        if self.x == "relative":
            start = piece.run.info.start_time
            return array("d", [(time - start) / 1000 for time in columns.times])
        return array("d") if piece.x is None else piece.x

    def over(self, x: str) -> History:
        """The same over another x: "step", "time" (ms since the epoch), "relative" (s since each run began), or the
        key of a metric in this history. Raises InvalidInputError for anything else."""
        if isinstance(x, str) and x in (*_AXES, "relative"):
            return History(self.pieces, x)
        if not isinstance(x, str) or x not in self.keys:
            raise InvalidInputError(
                f"x: expected 'step', 'time', 'relative' or the key of a metric that was read "
                f"({', '.join(map(repr, self.keys[:5])) or 'none'}), got {shortened(x)}"
            )
        values = {
            piece.run.info.run_id: dict(zip(piece.series.columns.steps, piece.series.columns.values, strict=True))
            for piece in self.pieces
            if piece.key == x
        }
        pieces = []
        for piece in self.pieces:
            known = values.get(piece.run.info.run_id, {})
            at = array("d", [known.get(step, math.nan) for step in piece.series.columns.steps])
            pieces.append(piece._replace(x=at))
        return History(pieces, x)

    def only(self, keys: Collection[str]) -> History:
        """The metrics with these keys."""
        return History([piece for piece in self.pieces if piece.key in keys], self.x)

    def smooth(self, weight: float = 0.9) -> History:
        """Each series as its exponential moving average, debiased, over all of its points: ``weight`` (0 to below 1) of
        what was before, the rest of the value. NaN and ±Inf stay. Raises InvalidInputError."""
        share = check_weight(weight)
        return self._with(lambda columns: Columns(columns.steps, columns.times, smoothed(columns.values, share)))

    def sample(self, points: int) -> History:
        """At most so many points of each series, 4 at least: its first, its last, and of equal stretches of x the
        smallest and the largest value, so that no spike is lost. Raises InvalidInputError."""
        most = check_samples(points)
        bounds: dict[str, tuple[float, float]] = {}
        over = [self.x_of(piece) for piece in self.pieces]
        for piece, x in zip(self.pieces, over, strict=True):
            known = [at for at in x if math.isfinite(at)] if self.x not in _AXES else x
            low, high = bounds.get(piece.key, (math.inf, -math.inf))
            bounds[piece.key] = min(low, min(known, default=low)), max(high, max(known, default=high))
        pieces = []
        for piece, x in zip(self.pieces, over, strict=True):
            low, high = bounds[piece.key]
            if low > high:
                low = high = 0.0  # no point has an x
            kept = sampled(x, piece.series.columns.values, most, low, high)
            pieces.append(piece if len(kept) == len(x) else piece.chosen(kept))
        return History(pieces, self.x)

    def mean_over(self, *by: str, besides: Sequence[str] = ()) -> Means:
        """The mean over runs, at each step, of the runs that have the same values of the params or tags ``by``
        (``mean_over("lr")``: a mean for each learning rate); without any, of all runs.

        ``besides``: instead, of the runs that differ in these params only (``mean_over(besides=["seed"])``). A run
        counts once a step, with the value that it logged last. Needs NumPy. Raises InvalidInputError for a name that
        no run has.
        """
        from asynctrack.reading.means import means_of

        return means_of(self, by, besides)

    def wide(self) -> Wide:
        """A row for each run and x, and a column for each key. Several values of a key at one x take a row each, so
        nothing is lost."""
        from asynctrack.reading.wide import Wide

        return Wide(self)

    def plot(self, *, log_x: bool = False, log_y: bool = False) -> Charts:
        """A chart for each key, with a line for each run. A notebook shows it, ``print`` draws it in the terminal,
        ``.save("loss.svg")`` writes a file (also .png, .html)."""
        colours = places_of(self.run_ids)
        charts = []
        for key in self.keys:
            lines = [
                Line(label_of(piece.run), self.x_of(piece), piece.series.columns.values, colours[piece.run.info.run_id])
                for piece in self.pieces
                if piece.key == key
            ]
            charts.append(Chart(lines, key, self.x, log_x, log_y))
        return Charts(charts)

    def _with(self, change: Callable[[Columns], Columns]) -> History:
        return History(
            [piece._replace(series=Series(change(piece.series.columns), piece.series.stored)) for piece in self.pieces],
            self.x,
        )


def label_of(run: Run) -> str:
    """What a line is called: the run's name, else the beginning of its id."""
    return run.info.run_name or run.info.run_id[:8]

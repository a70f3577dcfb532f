"""Points of metrics as columns: what reading, plots and tables work with."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import filterfalse, islice
from operator import indexOf, le
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from asynctrack.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Run

__all__ = [
    "Columns",
    "Increment",
    "ReadsColumns",
    "Spot",
    "Summary",
    "check_steps",
    "increment",
    "known_marks",
]


_REMEMBERED = 64  # runs whose summaries are remembered


class Columns:
    """The points of one metric, in the order of their store. Three arrays of one length.

    ``steps`` and ``times`` (ms since the epoch) are 64-bit integers, ``values`` doubles; NaN and ±Inf are values. They
    are plain arrays, which NumPy and Arrow read in place (``numpy.frombuffer(columns.values)``), so that a reader of a
    few points need not import NumPy. Those of a run that goes on are read-only views of arrays.
    """

    __slots__ = ("steps", "times", "values")

    def __init__(self, steps: Iterable[int] = (), times: Iterable[int] = (), values: Iterable[float] = ()) -> None:
        self.steps: array[int] = _column("q", steps)
        self.times: array[int] = _column("q", times)
        self.values: array[float] = _column("d", values)

    @classmethod
    def of(cls, points: Sequence[Metric]) -> Columns:
        """The columns of some points."""
        return cls(
            (point.step for point in points),
            (point.timestamp for point in points),
            (point.value for point in points),
        )

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        """Bit for bit: NaN equals NaN."""
        if not isinstance(other, Columns):
            return NotImplemented
        return (
            self.steps == other.steps and self.times == other.times and self.values.tobytes() == other.values.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<Columns of {len(self)} points>"

    def rows(self) -> Iterator[tuple[int, int, float]]:
        """Step, time and value of each point."""
        return zip(self.steps, self.times, self.values, strict=True)

    def rows_by_step(self) -> Iterator[tuple[int, int, float]]:
        """The same in order of the steps; of equal steps in the order of the store."""
        if all(map(le, self.steps, islice(self.steps, 1, None))):
            return self.rows()
        return self.at(sorted(range(len(self)), key=self.steps.__getitem__)).rows()

    def extend(self, other: Columns) -> None:
        """Put the points of another behind these."""
        self.steps.extend(other.steps)
        self.times.extend(other.times)
        self.values.extend(other.values)

    def part(self, start: int, end: int | None = None) -> Columns:
        """The points from index ``start`` to before ``end``, copied."""
        return Columns(*(_copied(column[start:end]) for column in (self.steps, self.times, self.values)))

    def between(self, min_step: int | None, max_step: int | None) -> Columns:
        """The points with these steps, both included; itself where nothing is left out."""
        if min_step is None and max_step is None:
            return self
        least = -math.inf if min_step is None else min_step
        most = math.inf if max_step is None else max_step
        if not self.steps or (least <= min(self.steps) and max(self.steps) <= most):
            return self
        return self.at([index for index, step in enumerate(self.steps) if least <= step <= most])

    def mark(self) -> int:
        """A number that nearly always differs between columns of one length that differ."""
        return crc32(self.values, crc32(self.times, crc32(self.steps)))

    def at(self, indices: Sequence[int]) -> Columns:
        """The points at some places, in their order."""
        return Columns(
            map(self.steps.__getitem__, indices),
            map(self.times.__getitem__, indices),
            map(self.values.__getitem__, indices),
        )


def _column(kind: str, items: Any) -> Any:
    return items if isinstance(items, array | memoryview) else array(kind, items)


def _copied(items: Any) -> Any:
    if isinstance(items, array):
        return items  # a part of an array is a copy
    found: array[Any] = array(items.format)
    found.frombytes(items.cast("B"))
    return found


class Spot(NamedTuple):
    """One point of a metric, without its key."""

    step: int
    time: int
    value: float


class Summary(NamedTuple):
    """What a table shows of one metric of one run.

    ``points``: how many there are. ``first``: in the order of the store. ``latest``: by step, then time, then value, as
    in MLflow. ``min`` and ``max``: by value; NaN is neither, so they are None where nothing else was logged.
    ``last_time``: ms since the epoch, of the newest point.
    """

    points: int
    first: Spot
    latest: Spot
    min: Spot | None
    max: Spot | None
    last_time: int

    @classmethod
    def of(cls, columns: Columns, before: Summary | None = None) -> Summary | None:
        """The summary of some points, or of ``before`` and these behind it; None of no points."""
        if not len(columns):
            return before
        here = cls._of_some(columns)
        return here if before is None else before.joined(here)

    @classmethod
    def _of_some(cls, columns: Columns) -> Summary:
        # One pass in C for each item: this takes an eighth of a second for a million points, and no memory.
        steps, times, values = columns.steps, columns.times, columns.values
        last_step = max(steps)
        candidates = (index for index, step in enumerate(steps) if step == last_step)
        latest = max(candidates, key=lambda index: (times[index], _number(values[index])))
        numbers = array("d", filterfalse(math.isnan, values)) if any(map(math.isnan, values)) else values

        def spot(index: int) -> Spot:
            return Spot(steps[index], times[index], values[index])

        return cls(
            len(columns),
            spot(0),
            spot(latest),
            spot(indexOf(values, min(numbers))) if numbers else None,
            spot(indexOf(values, max(numbers))) if numbers else None,
            max(times),
        )

    def joined(self, behind: Summary) -> Summary:
        """The summary of these points and of others behind them in the store's order. Of equals the first stays."""
        least = [spot for spot in (self.min, behind.min) if spot is not None]
        most = [spot for spot in (self.max, behind.max) if spot is not None]
        return Summary(
            self.points + behind.points,
            self.first,
            max(self.latest, behind.latest, key=_rank),
            min(least, key=_value, default=None),
            max(most, key=_value, default=None),
            max(self.last_time, behind.last_time),
        )


def _number(value: float) -> float:
    """NaN counts as 0, as in MLflow's SQL store."""
    return 0.0 if math.isnan(value) else value


def _rank(spot: Spot) -> tuple[int, int, float]:
    return spot.step, spot.time, _number(spot.value)


def _value(spot: Spot) -> float:
    return spot.value


class Increment(NamedTuple):
    """What is new since an earlier reading, by key; keys without news are missing.

    ``cursor``: pass it as ``after`` to the next reading. ``anew``: the keys whose earlier points do not stand any more
    (a file was rewritten, a branch was dropped): these columns are all of theirs, and where there are none of such a
    key, it has no points left. ``late``: it was read before the reader's last look at spools, and tells nothing of what
    has been delivered since.
    """

    columns: dict[str, Columns]
    cursor: Any
    anew: frozenset[str] = frozenset()
    late: bool = False


class ReadsColumns:
    """Reading as columns, over a store's own verbs. `AbstractStore` inherits it; a store that knows a quicker way
    overrides it."""

    if TYPE_CHECKING:

        async def get_run(self, run_id: str) -> Run: ...
        async def get_metric_history(self, run_id: str, key: str) -> list[Metric]: ...

    async def read_columns(
        self,
        run_id: str,
        keys: Collection[str] | None = None,
        *,
        after: Any = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> Increment:
        """The points of a run's metrics (default: of all), each key's in the order of the store, or only what is new
        ``after`` the cursor of an earlier reading of the same keys and steps. Keys that the run does not have are
        left out. Raises `NotFoundError`.

        The cursor is plain data (dictionaries, lists, texts, integers, None): a page may carry it.
        """
        check_steps(min_step, max_step)
        known = known_marks(after, 2)
        present = (await self.get_run(run_id)).data.metrics
        found, marks = {}, {}
        anew = {key for key in known if key not in present}
        for key in dict.fromkeys(present if keys is None else keys):
            if key not in present:
                continue
            columns = Columns.of(await self.get_metric_history(run_id, key))
            before = 0
            if key in known:
                # Both are needed: points may have gone, and others come, so that there are more than before.
                before, mark = known[key]
                if before > len(columns) or mark != columns.part(0, before).mark():
                    before = 0
                    anew.add(key)
            found[key] = columns.part(before).between(min_step, max_step)
            marks[key] = [len(columns), columns.mark()]
        return increment(found, marks, anew)

    async def summarize(self, run_id: str, keys: Collection[str] | None = None) -> dict[str, Summary]:
        """The summaries of a run's metrics (default: of all). Raises `NotFoundError`.

        They are remembered, and continued with what is new the next time.
        """
        remembered: dict[Any, tuple[Any, dict[str, Summary]]] = self.__dict__.setdefault("_summaries", {})
        what = run_id, None if keys is None else frozenset(keys)
        cursor, before = remembered.pop(what, (None, {}))
        found = await self.read_columns(run_id, keys, after=cursor)
        summaries = {key: summary for key, summary in before.items() if key not in found.anew}
        for key, columns in found.columns.items():
            summary = Summary.of(columns, summaries.get(key))
            if summary is not None:
                summaries[key] = summary
        remembered[what] = found.cursor, summaries
        while len(remembered) > _REMEMBERED:
            remembered.pop(next(iter(remembered), None), None)
        return dict(summaries)


def known_marks(cursor: Any, numbers: int) -> dict[str, list[int]]:
    """What an earlier reading has remembered: so many integers, by key. Raises InvalidInputError for what is no cursor
    of this kind of store."""
    marks = {} if cursor is None else cursor.get("keys") if isinstance(cursor, dict) else None
    if not isinstance(marks, dict) or not all(
        isinstance(mark, list) and len(mark) == numbers and all(isinstance(each, int) for each in mark)
        for mark in marks.values()
    ):
        raise InvalidInputError("the cursor is none that this store's read_columns has returned; read without one")
    return marks


def increment(found: dict[str, Columns], marks: dict[str, list[int]], anew: Collection[str]) -> Increment:
    """What a reading has found of each key, and what to remember of it."""
    return Increment({key: found[key] for key in found if len(found[key])}, {"keys": marks}, frozenset(anew))


def check_steps(min_step: int | None, max_step: int | None) -> None:
    """Raise InvalidInputError for a range that holds nothing."""
    if min_step is not None and max_step is not None and min_step > max_step:
        raise InvalidInputError(f"min_step={min_step} is above max_step={max_step}; swap them")

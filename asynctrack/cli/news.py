"""What of a run's points has not been shown yet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asynctrack.reading.series import Series

__all__ = ["News", "Step", "by_step"]

Point = tuple[int, int, float]


class Step(NamedTuple):
    """The metrics of one step. ``time``: of its newest point, in ms since the epoch."""

    step: int
    time: int
    metrics: dict[str, float]


class News:
    """Remembers which points were shown: each is shown once, also when it moves from a spool into the store, or when
    points that wait in several spools come into the store in another order."""

    def __init__(self) -> None:
        self._stored: dict[str, int] = {}
        #: points that were shown while they waited, and are not in the store yet
        self._ahead: dict[str, Counter[Point]] = {}

    def of(self, key: str, series: Series) -> list[Point]:
        """The points of a metric that were not given before."""
        columns, stored = series.columns, series.stored
        seen = self._stored.get(key, 0)
        if seen > stored:  # a file was written anew, or a branch was dropped: what is there now is shown again
            seen, self._ahead[key] = 0, Counter()
        ahead = self._ahead.setdefault(key, Counter())
        new: list[Point] = []
        for point in columns.part(seen, stored).rows():
            if ahead[_same(point)] > 0:
                ahead[_same(point)] -= 1
            else:
                new.append(point)
        left = +ahead
        for point in columns.part(stored).rows():
            if left[_same(point)] > 0:
                left[_same(point)] -= 1
            else:
                new.append(point)
                ahead[_same(point)] += 1
        self._stored[key], self._ahead[key] = stored, +ahead
        return new


def _same(point: Point) -> Point:
    """The point, such that NaN is itself."""
    step, time, value = point
    return (step, time, value) if value == value else (step, time, "NaN")  # type: ignore[return-value]


def by_step(points: Mapping[str, Iterable[Point]]) -> Iterator[Step]:
    """The points of metrics, each in order of its steps, put together by step. Where a metric has several values at one
    step each has a line of its own: nothing that was logged is left out. Holds one step at a time."""
    lanes = [_numbered(key, points[key]) for key in sorted(points)]
    for (step, _), line in groupby(merge(*lanes, key=_place), _place):
        values, latest = {}, -(1 << 63)
        for _, key, time, value in line:
            values[key] = value
            latest = max(latest, time)
        yield Step(step, latest, values)


def _numbered(key: str, points: Iterable[Point]) -> Iterator[tuple[tuple[int, int], str, int, float]]:
    """The points, each with how many of the metric came before it at the same step."""
    before, count = None, 0
    for step, time, value in points:
        count = count + 1 if step == before else 0
        before = step
        yield (step, count), key, time, value


def _place(numbered: tuple[tuple[int, int], str, int, float]) -> tuple[int, int]:
    return numbered[0]

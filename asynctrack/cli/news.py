"""What of a run's points has not been shown yet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
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


def by_step(points: Mapping[str, Iterable[Point]]) -> list[Step]:
    """The points of metrics, put together by step, in order of the steps. Of several values of a metric at one step
    each has a line of its own: nothing that was logged is left out."""
    lines: dict[tuple[int, int], Step] = {}
    for key in sorted(points):
        times: Counter[int] = Counter()
        for step, time, value in points[key]:
            place = step, times[step]
            times[step] += 1
            line = lines.get(place) or Step(step, time, {})
            line.metrics[key] = value
            lines[place] = line._replace(time=max(line.time, time))
    return [lines[place] for place in sorted(lines)]

"""Whose turn it is: each time another run comes first, so that none waits behind the others for ever.

There may be thousands of runs, and each answer of the store asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from asynctrack.delivery.accumulator import STUCK

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane
    from asynctrack.delivery.source import Source
    from asynctrack.delivery.work import Work

__all__ = ["InFlight", "Waiting", "in_turn"]


class InFlight:
    """The works that are under way, the oldest first: whoever asks walks those alone that take long."""

    def __init__(self) -> None:
        self._works: dict[Work, Lane] = {}

    def add(self, lane: Lane, work: Work) -> None:
        """It is begun."""
        self._works[work] = lane

    def gone(self, work: Work) -> None:
        """It is not under way any more."""
        self._works.pop(work, None)

    def clear(self) -> None:
        """Nothing is."""
        self._works.clear()

    def stuck(self, now: float) -> dict[Lane, int]:
        """The lanes whose answers do not come, and how many each waits for."""
        found: dict[Lane, int] = {}
        for work, lane in self._works.items():
            if now - work.begun <= STUCK:
                break
            found[lane] = found.get(lane, 0) + 1
        return found


class Waiting:
    """The lanes that wait for their next attempt."""

    def __init__(self) -> None:
        #: others may be among them until the next look
        self._lanes: set[Lane] = set()

    def add(self, lane: Lane) -> None:
        """It was put off."""
        self._lanes.add(lane)

    def next_retry(self, now: float) -> float:
        """When the first of them is to be tried again (monotonic seconds); infinity: none is."""
        first = float("inf")
        for lane in list(self._lanes):
            times = [backoff.retry_at for backoff in (lane.backoff, lane.disk) if backoff.waits(now)]
            if not times:
                self._lanes.remove(lane)
            elif not lane.idle:
                first = min(first, *times)
        return first


def in_turn(sources: Sequence[Source], turn: int) -> Iterator[tuple[Source, Lane]]:
    """The lanes that have something to deliver, beginning with another one each ``turn``. One by one: whoever has no
    room for more need not look at the rest."""
    lanes = [(source, source.active) for source in sources]
    first = turn % max(sum(len(active) for _, active in lanes), 1)
    skipped = []
    for source, active in lanes:
        begin = min(first, len(active))
        first -= begin
        skipped.append((source, active[:begin]))
        for lane in active[begin:]:
            yield source, lane
    for source, active in skipped:
        for lane in active:
            yield source, lane

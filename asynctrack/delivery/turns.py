"""Whose turn it is: each time another run comes first, so that none waits behind the others for ever.

There may be thousands of runs, and each answer of the store asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane
    from asynctrack.delivery.source import Source

__all__ = ["InFlight", "Waiting", "in_turn"]


class InFlight:
    """The lanes that have something under way."""

    def __init__(self) -> None:
        #: others may be among them until the next look
        self._lanes: dict[Lane, None] = {}

    def add(self, lane: Lane) -> None:
        """Something of it is begun."""
        self._lanes[lane] = None

    def stuck(self, now: float) -> dict[Lane, int]:
        """Those whose answers do not come, and how many each waits for."""
        found = {}
        for lane in list(self._lanes):
            if not any(work.busy for work in lane.flight):
                del self._lanes[lane]
            elif count := lane.stuck(now):
                found[lane] = count
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

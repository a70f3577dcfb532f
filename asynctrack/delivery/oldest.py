"""The oldest event that is not dealt with, of however many runs: asked after each piece of work, so it walks none."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane

__all__ = ["Oldest"]

#: entries that may be left of lanes that are at rest, beside as many as there are others
_SPARE = 64


class Oldest:
    """A heap of active lanes by the sequence number of the oldest event of each. Belongs to the engine's thread.

    A lane's number rises while it is delivered. So an entry may be too low; it is set right when it comes to the top.
    Where a number falls (an event is found late), the lane is added again.
    """

    def __init__(self, active: Container[Lane]) -> None:
        self._active = active
        self._heap: list[tuple[int, int, Lane]] = []
        #: the lowest entry of each lane; others of it are left over
        self._lowest: dict[Lane, int] = {}
        self._order = itertools.count()

    def add(self, lane: Lane) -> None:
        """A lane is active, or has an older event than before."""
        number = lane.progress.acknowledged
        if number < self._lowest.get(lane, number + 1):
            self._lowest[lane] = number
            heapq.heappush(self._heap, (number, next(self._order), lane))

    def number(self) -> int | None:
        """Every event before this sequence number is dealt with; None where no lane is active."""
        while self._heap:
            entered, _, lane = self._heap[0]
            if self._lowest.get(lane) != entered:
                heapq.heappop(self._heap)
            elif lane not in self._active:
                del self._lowest[lane]
                heapq.heappop(self._heap)
            elif (number := lane.progress.acknowledged) > entered:
                self._lowest[lane] = number
                heapq.heapreplace(self._heap, (number, next(self._order), lane))
            else:
                return entered
        return None

    def tidy(self, active: int) -> None:
        """Let go of what is left over, where that is more than there are ``active`` lanes."""
        if len(self._heap) > 2 * active + _SPARE:
            lanes = [lane for lane in self._lowest if lane in self._active]
            self._heap, self._lowest = [], {}
            for lane in lanes:
                self.add(lane)

"""The lanes of one run, wherever they stand: a run may be ended and taken up again, by this program or the next one.

What is older goes first. A lane knows the others of its run through its `RunQueue`; all queues of one consumer, over
all spools that it delivers, are in its `RunQueues`. Run lanes only: the lanes of artifacts follow their runs'.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane

__all__ = ["RunQueue", "RunQueues"]

_order = attrgetter("order")

#: where a spool stands among others: when it was made (ms), and its path
Order = tuple[int, str]


class RunQueue:
    """The lanes of one run, oldest first: by their spools' age, and within one by their numbers."""

    def __init__(self, index: RunQueues | None = None) -> None:
        #: the run's id, as the store has given it; it is every lane's
        self.run_id: str | None = None
        #: what it goes by: uids and ids
        self.names: set[str] = set()
        self.live: list[Lane] = []
        #: lanes that have ended, and are remembered
        self.ended: dict[Lane, None] = {}
        #: the spools, by their order, that hold events of the run, and are to be taken up again
        self.put_back: set[Order] = set()
        self._index = index

    def learn(self, run_id: str) -> None:
        """The store has told the run's id."""
        self.run_id = run_id
        if self._index is not None:
            self._index.name(self, run_id)

    def other(self, name: str) -> RunQueue | None:
        """Another run's queue, by its uid or id."""
        found = None if self._index is None else self._index.find(name)
        return None if found is self else found

    def first(self) -> Lane | None:
        """A lane to ask about the run: the one that creates it, if it is there."""
        lanes: list[Lane] = [*self.live, *self.ended]
        return min(lanes, key=lambda lane: (lane.spec.run_id is not None, lane.attached, lane.order), default=None)

    def holds_up(self, lane: Lane) -> bool:
        """Whether another lane's events, or the creation of the run, go before what ``lane`` has loaded."""
        own = lane.uploads_of or lane
        if self.put_back and min(self.put_back) < own.progress.front.order:
            return True
        for other in self.live:
            if other is own:
                continue
            if other.creates:
                return True
            if other.order < own.order:
                twin = other if own is lane else other.uploads
                if twin is not None and twin.goes_before(lane):
                    return True
        return False


class RunQueues:
    """The queue of each run, by the names that it goes by."""

    def __init__(self) -> None:
        self._queues: dict[str, RunQueue] = {}
        #: the spools that are to be taken up again
        self.put_back: set[Order] = set()

    def find(self, name: str) -> RunQueue | None:
        """The queue of the run with this uid or id."""
        return self._queues.get(name)

    def queue(self, names: Iterable[str]) -> RunQueue:
        """The queue of the run that goes by any of ``names``; a new one where there is none."""
        names = list(names)
        queue = next((found for name in names if (found := self._queues.get(name)) is not None), None)
        queue = queue or RunQueue(self)
        for name in names:
            self.name(queue, name)
        return queue

    def name(self, queue: RunQueue, name: str) -> None:
        """The run goes by ``name``, too. If another queue does, they are one."""
        other = self._queues.get(name)
        if other is not None and other is not queue:
            self._merge(other, queue)
        self._queues[name] = queue
        queue.names.add(name)

    def _merge(self, other: RunQueue, into: RunQueue) -> None:
        for lane in [*other.live, *other.ended]:
            lane.queue = into
            if lane.uploads is not None:
                lane.uploads.queue = into
        into.ended |= other.ended
        into.put_back |= other.put_back
        into.live = sorted([*into.live, *other.live], key=_order)
        into.run_id = into.run_id or other.run_id
        into.names |= other.names
        for name in other.names:
            self._queues[name] = into
        other.live, other.ended, other.names, other.put_back = [], {}, set(), set()

    def join(self, lane: Lane) -> None:
        """A lane whose events count."""
        lane.queue.ended.pop(lane, None)
        if lane not in lane.queue.live:
            insort(lane.queue.live, lane, key=_order)

    def leave(self, lane: Lane) -> None:
        """A lane that has ended: it holds nobody up."""
        if lane in lane.queue.live:
            lane.queue.live.remove(lane)
        lane.queue.ended[lane] = None

    def forget(self, lane: Lane) -> None:
        """Nothing is kept of a lane any more."""
        queue = lane.queue
        queue.ended.pop(lane, None)
        if lane in queue.live:
            queue.live.remove(lane)
        self._drop_empty(queue)

    def _drop_empty(self, queue: RunQueue) -> None:
        if not (queue.live or queue.ended or queue.put_back):
            for name in queue.names:
                self._queues.pop(name, None)

    def wait_for(self, spool: Order, lanes: Iterable[Lane]) -> None:
        """A spool is put back, to be taken up again: what it has for the runs of ``lanes`` still goes before what is
        younger."""
        self.put_back.add(spool)
        for lane in lanes:
            lane.queue.put_back.add(spool)

    def wait_no_more_for(self, path: str) -> None:
        """The spool in ``path``, if it was put back, cannot be taken up again here."""
        for spool in [spool for spool in self.put_back if spool[1] == path]:
            self.wait_no_more(spool)

    def wait_no_more(self, spool: Order) -> None:
        """The spool is taken up again, or somebody else has delivered it."""
        if spool in self.put_back:
            self.put_back.remove(spool)
            for queue in list(self._queues.values()):
                queue.put_back.discard(spool)
                self._drop_empty(queue)

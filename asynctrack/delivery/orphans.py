"""Ending the runs of a dead process, once everything that it has logged is delivered."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import is_member
from asynctrack.delivery.work import EndOfRun
from asynctrack.journal.spool import Spool
from asynctrack.stores.base import Batch

__all__ = ["OrphanEnds", "last_sign_of_life", "latest_point"]

#: ms by which the kernel may be late in noting that a mapped file was written
_LATE = 60_000


class OrphanEnds:
    """The ends that a dead process did not log."""

    def __init__(self, spool: Spool, status: Callable[[], str | None]) -> None:
        #: the status of its runs; None: it is not known yet
        self._status = status
        self._created = spool.owner.created
        #: its last sign of life, in ms
        self._died_at = last_sign_of_life(spool.path)

    def decide(self, lane: Lane, owned: Container[str], attached: Container[str]) -> EndOfRun | bool:
        """What becomes of a run that is delivered: the end to give it; True: nothing is left to do for it, False: that
        is not known yet.

        ``owned`` are the ids of the runs that a process here has taken up again, and will end; ``attached`` of those
        that one here still logs to.
        """
        # Who shares a run ends for itself alone: the others who do are no hindrance.
        shares = is_member(lane.spec)
        if lane.attached or lane.ended or lane.run_id is None or (lane.run_id in owned and not shares):
            return True
        status = None if lane.run_id in attached and not shares else self._status()
        return status is not None and EndOfRun(status, self._end_time(lane), assumed=True)

    def _end_time(self, lane: Lane) -> int:
        """When the run was alive last, in ms: its last metric point, if it has a time of its own that may be right."""
        latest, began = lane.latest_point, lane.spec.start_time or self._created
        return latest if began <= latest <= self._died_at + _LATE else self._died_at


def last_sign_of_life(path: str | None) -> int:
    """When the owner of the spool in ``path`` last wrote to it, in ms, as far as its files tell; those of a consumer do
    not count."""
    times = []
    try:
        with os.scandir(path or "") as found:
            times = [entry.stat().st_mtime for entry in found if _is_owners(entry.name)] if path else []
    except OSError:
        pass  # now will have to do
    return int(max(times, default=time.time()) * 1000)


def _is_owners(name: str) -> bool:
    return name == "registry" or name.endswith((".slots", ".frames"))


def latest_point(batch: Batch) -> int:
    """The latest timestamp (ms) in a batch; 0 where it has no points."""
    times = [max(memoryview(block.data).cast("q")[::8]) for block in batch.blocks if block.data]
    times += [max(point[0] for point in points) for points in batch.decoded.values() if points]
    return max(times, default=0)

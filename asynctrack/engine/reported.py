"""What a shipper has written down about the runs of this process: read from the spool's cursor."""

from __future__ import annotations

import os
from collections.abc import Container

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.reports import take_report
from asynctrack.journal.positions import Positions
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from asynctrack.stores.base import RunSpec

__all__ = ["ShipperReports"]


class ShipperReports:
    """How far the shipper is with each run, and what became of them. For reading from any thread."""

    def __init__(self, spool: Spool, head: Segment) -> None:
        self._spool = spool
        self._reader = JournalReader(spool.registry, head)
        self._lanes: dict[int, Lane] = {}
        self._positions = Positions()
        #: inode, size and time of the cursor as it was last read
        self._seen = (0, 0, 0)

    def refresh(self) -> None:
        """Read what is new."""
        try:
            about = os.stat(os.path.join(self._spool.path or "", "cursor"))
            seen = about.st_ino, about.st_size, about.st_mtime_ns
            cursor = self._spool.load_cursor() if seen != self._seen else None
            if cursor is None:
                return
            positions = Positions.of(cursor)
        except (OSError, ValueError):
            return  # not written yet, or being written just now
        for run, report in positions.reports.items():
            lane = self._lanes.get(run) or _empty(run)
            take_report(lane, report)
            self._lanes[run] = lane
        self._positions, self._seen = positions, seen

    @property
    def version(self) -> tuple[int, int, int]:
        """Another one whenever something new was read, by whichever thread."""
        return self._seen

    @property
    def front(self) -> int:
        """Everything before this sequence number is read."""
        return self._positions.front

    @property
    def positions(self) -> Positions:
        """As they were last read."""
        return self._positions

    def low_water(self) -> int:
        """Every event before this sequence number is delivered, whosesoever."""
        self.refresh()
        return min([self._positions.low_water(), *self._positions.pending])

    def lane(self, run: int) -> Lane | None:
        """What is known of a run."""
        return self._lanes.get(run)

    def lane_or_empty(self, run: int) -> Lane:
        """The same, of any run."""
        return self._lanes.get(run) or _empty(run)

    def acknowledged(self, run: int) -> int:
        """Every event of the run before this sequence number is delivered; with ``-run``, every artifact of it."""
        return self._positions.acknowledged(run)

    def waiting(self, run: int, streams: Container[int]) -> int:
        """How many points of a run, whose metrics are ``streams``, are not delivered. Raises OSError where the shipper
        has just deleted the segment that is being counted."""
        return self._reader.count(self.acknowledged(run), streams)

    def drop(self, head: Segment) -> None:
        """The segments before this one are gone."""
        self._reader.head = head

    def is_over(self, end: int, highest: int) -> bool:
        """Whether everything before this sequence number is delivered, and all runs up to this number have ended."""
        positions = self._positions
        rest = positions.runs or positions.pending or positions.seen.highest != highest
        return not rest and positions.front >= end

    @property
    def lanes(self) -> dict[int, Lane]:
        """What is known of all runs, by number."""
        return self._lanes

    def close(self) -> None:
        """Let go of the segments' files: the spool is given back."""
        for segment in self._reader.chain():
            segment.close()

    @property
    def delivered(self) -> bool:
        """Whether the whole spool is delivered: then its registry is deleted."""
        if self._spool.path is None:
            return False  # in memory, which no shipper can read
        try:
            os.stat(os.path.join(self._spool.path, "registry"))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            pass  # it is there, and cannot be seen just now
        return False

    @property
    def knows_any(self) -> bool:
        """Whether the shipper has seen a run."""
        return self._positions.seen.highest > 0

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""
        return next((lane.last_error for lane in list(self._lanes.values()) if lane.last_error), None)

    @property
    def held(self) -> bool:
        """Whether the user has to mend something before a run can go on."""
        return any(lane.held for lane in list(self._lanes.values()))


def _empty(run: int) -> Lane:
    return Lane(run, RunSpec(uid=""), attached=False)

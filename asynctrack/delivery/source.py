"""One spool being drained: read, handed out to its runs, acknowledged. Its own process's, a dead process's: the same
code.

The *front* is the sequence number up to which everybody's events have been loaded. A run whose store does not keep up
falls behind it and reads on from a position of its own when there is room again, so that memory stays bounded and no
run waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence, Set
from typing import Any

from asynctrack.delivery.directory import RunDirectory
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.loader import Loaded, Loader
from asynctrack.delivery.orphans import OrphanEnds
from asynctrack.delivery.progress import Front
from asynctrack.delivery.queues import RunQueues
from asynctrack.delivery.reports import rejected_lines, report_of, take_report_over
from asynctrack.delivery.restoring import load_positions, restore, take_back
from asynctrack.delivery.uploads import Upload
from asynctrack.delivery.work import EndOfRun, Part, Work
from asynctrack.journal.positions import Positions
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.removal import Account
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from asynctrack.stores.base import Limits, Refusal

__all__ = ["Loaded", "Source"]

#: seconds for which what is gone of a living owner's spool is not taken for lost: where somebody is just deleting all
#: of it, the owner, which has the files open, delivers what is not noted as delivered by then
_PATIENCE = 5.0
#: ended runs that are reported to their owner
_REPORTED = 100


class Source:
    """A spool, the lanes of its runs, and how far each has come. Belongs to the engine's thread.

    Raises OSError where the spool cannot be read just now; that says nothing about what stands in it.
    """

    def __init__(
        self,
        spool: Spool,
        head: Segment | None,
        limits: Limits,
        *,
        adopted: bool = False,
        followed: bool = False,
        durable: bool = False,
        experiment: str | None = None,
        queues: RunQueues | None = None,
        taken_back: Positions | None = None,
    ) -> None:
        self.spool = spool
        #: acknowledge only what survives the machine (``durability="system"``)
        self.durable = durable
        #: its owner is dead: nothing will be added
        self.adopted = adopted
        #: its owner is another process, alive as far as we know, that does not deliver
        self.followed = followed
        #: its owner, this very process, adds nothing any more
        self.finished = False
        #: write down for the owner what became of its runs, and their errors
        self.reports = False
        #: the status of runs that a dead owner has not ended; None: it is not known yet
        self.end_status: Callable[[], str | None] = lambda: "KILLED"
        #: events dealt with since we have it, and those of them that were refused
        self.delivered = self.rejected = 0
        #: where it goes, when that is not the store that its owner meant
        self.to: str | None = None
        self._published: tuple[Any, ...] = ()
        self._saved_low_water = 0
        found = load_positions(spool) if taken_back is None else taken_back
        positions = found or Positions(head.first if head else 0)
        front = Front(positions.front, (spool.owner.created, spool.path or ""))
        self.reader = JournalReader(spool.registry, head, positions.pending, problems=spool.segments.problems)
        forget = self.reader.registry.forget
        self.directory = RunDirectory(front, queues or RunQueues(), forgotten=forget, experiment=experiment)
        self.loader = Loader(self.reader, self.directory, front, limits)
        self._orphans: OrphanEnds | None = None
        if head is not None and head.first > front.at:
            self.loader.lost({"records in a segment that is missing, at most": head.first - front.at})
        if adopted:
            self._is_orphan()
        if followed:
            self.reader.patience = _PATIENCE
        if adopted or followed:
            front.complete = followed
            self.refresh()
            restore(self.directory, found)
        elif taken_back is not None:
            self.refresh()
            take_back(self.directory, taken_back, self.reader.written())

    def _is_orphan(self) -> None:
        self._orphans = OrphanEnds(self.spool, lambda: self.end_status())
        self.adopted, self.followed, self.loader.final = True, False, True
        self.reader.patience = 0.0

    @property
    def front(self) -> int:
        """The events of every slot before this one were handed to their runs."""
        return self.loader.front.at

    # ── runs

    @property
    def lanes(self) -> dict[int, Lane]:
        """The lanes of all live runs, by run number, and those of their artifacts by the negative numbers."""
        return self.directory.lanes

    @property
    def active(self) -> list[Lane]:
        """Those of them that have something loaded, or are behind. Any thread may ask."""
        return self.directory.busy_lanes()

    def lane(self, run: int) -> Lane | None:
        """The lane of a run, made when its registration is first seen; None where that is damaged. Raises OSError."""
        return self.loader.lane(run)

    def peek(self, run: int) -> Lane | None:
        """The lane of a run as far as it is known; changes nothing, so any thread may ask."""
        return self.directory.find(run)

    def refresh(self) -> None:
        """Make lanes for runs registered since. Raises OSError."""
        self.loader.register_new()
        if self.followed or (self.adopted and not self.spool.segments.complete):
            self.reader.head = self.spool.segments.look(self.reader.head, living=self.followed)

    def take_over(self) -> bool:
        """Whether the owner of a spool that we follow is found dead just now: nothing is added from here on."""
        if not self.followed or not self.spool.take_over():
            return False
        self._is_orphan()
        self.refresh()
        return True

    def load(self) -> Loaded:
        """Load one more chunk for the runs that have room. Raises OSError; nothing is lost then."""
        loaded = self.loader.load()
        if loaded is Loaded.ALL:
            self.spool.segments.check()
        return loaded

    # ── acknowledging

    def done(self, works: Sequence[tuple[Lane, Work]]) -> list[list[Upload]]:
        """The store has dealt with these works: move the cursor on. Raises OSError when it cannot; nothing has changed
        then. For each work, the artifacts that the cursor is past, whose snapshots are needed no more."""
        self.save_cursor({work for _, work in works})
        return [self._done(lane, work) for lane, work in works]

    def _done(self, lane: Lane, work: Work) -> list[Upload]:
        passed = lane.done(work)
        self.delivered += len(work.batch) + (work.upload is not None)
        self.directory.rest(lane)
        uploads = [work.upload for work in passed if work.upload is not None]
        return [upload for upload in uploads if upload.snapshot.name not in lane.failed]

    def acknowledged(self, run: int) -> int:
        """Every event of the run before this sequence number is dealt with; with ``-run``, every artifact of it."""
        main = self.lane(run) if run > 0 else self.peek(-run)
        if main is None:
            return self.front
        lanes = [main] if run > 0 else []
        lanes += [] if main.uploads is None else [main.uploads]
        return min((lane.progress.acknowledged for lane in lanes), default=self.front)

    def low_water(self) -> int:
        """Every event before this sequence number is dealt with, whosesoever. Any thread may ask."""
        return min((lane.progress.acknowledged for lane in self.active), default=self.front)

    def positions(self, dealt_with: Set[Work] = frozenset()) -> Positions:
        """How far each run is; the works ``dealt_with`` count as acknowledged."""
        runs, late = self.directory.positions(dealt_with)
        return Positions(self.front, self.directory.seen, self.reader.pending.union(late), runs, self.to)

    def save_cursor(self, dealt_with: Set[Work] = frozenset()) -> None:
        """Write down how far each run is; the works ``dealt_with`` count as acknowledged. Raises OSError."""
        positions = self.positions(dealt_with)
        if self.reports:
            lately = list(self.directory.finished.items())[-_REPORTED:]
            positions.reports = {
                run: report_of(lane, ended=positions.runs[run].ended if run in positions.runs else lane.ended)
                for run, lane in [*lately, *self.lanes.items()]
                if run > 0
            }
        positions.drop_finished()
        self.spool.save_cursor(positions.record(), sync=self.durable)
        self._saved_low_water = min([positions.low_water(), *positions.pending])
        if self.reports:
            self._published = self._news()

    def start_reporting(self) -> None:
        """Write down for the owner what becomes of its runs, going on with what an earlier consumer has written."""
        self.reports = True
        found = load_positions(self.spool)
        for run, report in found.reports.items() if found is not None else ():
            lane = self.peek(run)
            if lane is not None:
                take_report_over(lane, report)

    def publish(self) -> None:
        """Write down for the owner what is new although nothing was delivered. Raises OSError."""
        if self.reports and self._news() != self._published:
            self.save_cursor()

    def _news(self) -> tuple[Any, ...]:
        troubles = [(lane.retries, lane.rejected, lane.refused, lane.held) for lane in self.lanes.values()]
        return self.front, self.directory.seen.highest, len(self.directory.finished), troubles

    def retire(self) -> int:
        """Delete the segments that everybody is past; how many. Raises OSError; what could not be deleted is later."""
        head = self.reader.head
        if head is None or head.next is None or self.directory.low_water() < head.first + head.capacity:
            return 0
        if self._saved_low_water < head.first + head.capacity:
            self.save_cursor()  # or the next reader would take what was empty there for missing
        retired = 0
        for segment in self.reader.retirable(self._saved_low_water):
            segment.remove()
            self.reader.drop(segment)
            retired += 1
        return retired

    def account(self) -> Account:
        """What became of the journal's segments, for the removal of the spool. Raises OSError."""
        return self.spool.segments.account(self.reader.head, self.front)

    def reject(self, lane: Lane, refusals: list[Refusal], start: int) -> None:
        """Keep refused events beside the journal, with the reasons. Raises OSError."""
        now = time.time_ns() // 1_000_000
        self.spool.reject(rejected_lines(lane, refusals, start, now, self.to), sync=self.durable)
        lane.rejected += len(refusals)
        self.rejected += sum(refusal.kind != "end" for refusal in refusals)
        lane.refusals.extend(f"{refusal.kind} {refusal.key!r}: {refusal.reason}" for refusal in refusals)

    # ── what is left

    def pending(self) -> int:
        """About how many events are still to be delivered."""
        return max(self.reader.written() - self.low_water(), 0)

    @property
    def drained(self) -> bool:
        """Whether all that is loaded is delivered, and no run is behind."""
        return self.directory.drained

    @property
    def busy(self) -> bool:
        """Whether something of it is being sent just now."""
        return any(work.busy for lane in self.active for work in lane.flight)

    def unended(self) -> bool:
        """Whether a run that was started here has not ended."""
        return any(not (lane.ended or lane.attached or lane.refused) for lane in self.lanes.values())

    def end_orphans(self, owned: Container[str], attached: Container[str] = ()) -> bool:
        """For a spool whose owner is dead: once everything is delivered, end the runs that it could not end. True when
        nothing at all is left to do.

        ``owned`` are the ids of the runs that a process here has taken up again, and will end; ``attached`` those that
        one here still logs to: they are ended when it has done so.
        """
        end = max((segment.first + segment.capacity for segment in self.reader.chain()), default=0)
        if self._orphans is None or not self.drained or self.front < end or not self.spool.segments.complete:
            return False
        for run, lane in list(self.lanes.items()):
            if run < 0:
                continue
            decided = self._orphans.decide(lane, owned, attached)
            if isinstance(decided, EndOfRun):
                self.loader.give(lane, Part(self.front, self.front, ends=decided))
            elif decided:
                self.directory.put_away(lane)
        return not self.lanes

    def close(self) -> None:
        """Let go of the segments' files; they stay."""
        self.directory.close()
        for segment in self.reader.chain():
            segment.close()

"""This process's own spool: there while a run is open or something is left, and no longer.

A run that is only logged to, by its id, may never be ended. When nothing was logged for a while, it rests: the spool
goes, and the next log call gets another one.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Loaded, Source
from asynctrack.engine.consumer import Context
from asynctrack.journal.positions import Positions
from asynctrack.journal.removal import NOTHING
from asynctrack.journal.segment import Segment

__all__ = ["OwnSpool", "many"]

logger = logging.getLogger("asynctrack")

#: seconds for which a spool is kept at least: making one takes milliseconds, and runs may follow one another fast
_LEAST = 1.0
#: seconds without an event after which a spool is given back whose runs are only logged to
_RESTS_AFTER = 5.0
#: stores of one process that may each keep what it has for a while: beyond, descriptors are what is short
_FEW = 8
#: ended runs of earlier spools that are remembered, for those who still ask
_REMEMBERED = 1000


#: the stores of this process that something was logged to lately
_in_use: set[OwnSpool] = set()


def many() -> bool:
    """Whether so many stores are in use that each gives back at once what it does not need."""
    return len(_in_use) > _FEW


class OwnSpool:
    """Made when a run is opened; closed, and deleted, when every run has ended and all is delivered: so nothing stays
    behind, whatever the process goes on to die of. Belongs to the engine's thread, but for `open`.

    Runs are numbered on from one spool to the next, so that a number means one run for the life of the process.
    """

    def __init__(self, context: Context, pump: Pump) -> None:
        self._context = context
        self._pump = pump
        #: the one that is logged to; None: none is
        self.source: Source | None = None
        self._first_run = 1
        self._opened_at = 0.0
        #: those that nothing is added to any more, each with the last segment that was written
        self._leaving: list[tuple[Source, Segment]] = []
        self._past: dict[int, Lane] = {}
        #: how far the journal was read at the last look, and since when (monotonic seconds)
        self._front, self._quiet_since = -1, 0.0

    def follow_on(self, first_run: int, past: dict[int, Lane]) -> None:
        """Runs before ``first_run`` were in spools that are gone; what is known of them."""
        self._first_run = first_run
        self._past.update(past)

    def open(self, taken_back: Positions | None = None) -> None:
        """Have one. Called with the engine's lock held; raises OSError. ``taken_back``: go on with one of which a
        shipper had delivered so much at least; nobody else opens one then."""
        if self.source is not None or (self._context.ending.asked and taken_back is None):
            return
        journal, store = self._context.journal, self._context.store
        if journal.closed:
            journal.begin_anew()
        self._front = -1
        # For a run that comes back from a rest none is kept: it is logged to now and then.
        comes_back = any(not run.ended for run in list(self._context.attached))
        self._opened_at = float("-inf") if comes_back else monotonic()
        if taken_back is None:
            self._first_run = journal.registry.next_run
        source = Source(
            journal.spool,
            journal.head,
            store.limits,
            durable=store.durable,
            queues=self._pump.queues,
            taken_back=taken_back,
        )
        self._pump.sources.append(source)
        _in_use.add(self)
        self.source = source
        if many():
            # Those that are kept for what may come next need not be any more, and do not notice by themselves.
            for other in list(_in_use):
                if other.source is None or other.source.drained:
                    other._context.wakeup.ring()

    def lane(self, run: int) -> Lane | None:
        """What is known of a run; for reading only. Any thread may ask."""
        source = self.source
        for each in [*([] if source is None else [source]), *(leaving for leaving, _ in list(self._leaving))]:
            if (found := each.peek(run)) is not None:
                return found
        return self._past.get(run)

    def is_past(self, run: int) -> bool:
        """Whether the run's spool is gone: everything of it is delivered."""
        if self.source is not None and abs(run) >= self._first_run:
            return False
        return not any(abs(run) in source.directory.seen for source, _ in self._leaving)

    def never_came(self) -> bool:
        """The engine ends, and no run was ever opened: whether the spool was deleted that the journal began with."""
        journal = self._context.journal
        if journal.closed or self.source is not None:
            return False
        journal.close()
        journal.spool.remove(NOTHING)
        return True

    def rest(self) -> None:
        """The engine's thread ends: nothing of this store is in use."""
        _in_use.discard(self)

    @property
    def gone(self) -> bool:
        """Nothing is open, and nothing is left."""
        return self.source is None and not self._leaving

    @property
    def leaving(self) -> bool:
        """Whether a spool is to be deleted that could not be yet."""
        return bool(self._leaving)

    def give_back(self) -> bool:
        """Let go of a spool without open runs, and delete those that are delivered; whether that was done with one."""
        source = self.source
        if source is not None:
            self._note_quiet(source)
            if self._may_go(source) and self._context.lock.acquire(blocking=False):
                try:
                    source.refresh()  # no run is opened while we hold the lock; one may have been since the last look
                    if self._may_go(source):
                        self._put_to_rest(source)
                finally:
                    self._context.lock.release()
        deleted = [self._delete(*leaving) for leaving in list(self._leaving)]
        return any(deleted)

    def _note_quiet(self, source: Source) -> None:
        if source.front != self._front or not source.drained:
            self._front, self._quiet_since = source.front, monotonic()

    def _may_go(self, source: Source) -> bool:
        if not source.directory.seen.highest or not source.drained:
            return False
        if source.spool.path is None:
            return False  # in memory: there is nothing that could stay behind
        if not source.lanes:
            return many() or monotonic() >= self._opened_at + _LEAST
        # The more stores are in use, the shorter: however fast they come, some forty have files at a time.
        kept = _RESTS_AFTER * min((_FEW / max(len(_in_use), 1)) ** 2, 1.0)
        return monotonic() >= self._quiet_since + kept and _are_attached(source)

    def _put_to_rest(self, source: Source) -> None:
        """Close it, unless one of its runs is being logged to in this moment.

        A log call that takes a run's lock does so before or after this. One that writes a point takes none: either its
        point is in a segment that is not sealed yet, and is read below, or it meets the sealed one, and comes again.
        """
        attached = self._context.attached
        runs = list(attached)
        with ExitStack() as held:
            for run in runs:
                if not run.lock.acquire(blocking=False):
                    return
                held.callback(run.lock.release)
                if not run.may_rest():
                    return
            self._close(source)
            for run in runs:
                if run.ended:
                    attached.discard(run)
                else:
                    run.rest()

    def _close(self, source: Source) -> None:
        journal = self._context.journal
        source.finished = True
        self._leaving.append((source, journal.current[2]))
        self.source = None
        # A thread that is just logging to a run which another has ended gets the error that it would get a moment
        # later; what it had logged before is read below.
        journal.close()

    def _delete(self, source: Source, last: Segment) -> bool:
        """Whether it is delivered to its end, and deleted."""
        if not last.seal():
            return False  # a thread is in the middle of a write
        try:
            # All of it, and now: where the process is ending there is no later. A sealed segment is read to its very
            # end, in as many parts as the store's batches make of it, most of them unused.
            while (found := source.load()) is Loaded.MORE and source.drained:
                pass
        except OSError as error:
            self._context.trouble.error(f"cannot read the spool {source.spool.path}: {error}")
            return False
        if found is not Loaded.ALL or not source.drained or not _are_attached(source):
            return False
        self._leaving.remove((source, last))
        at_rest = {run: lane for run, lane in source.lanes.items() if lane.uploads_of is None}
        self._past.update(source.directory.finished | at_rest)
        while len(self._past) > _REMEMBERED:
            del self._past[next(iter(self._past))]
        self._pump.remove(source)
        return True


def _are_attached(source: Source) -> bool:
    """Whether no run of it is to be ended here."""
    return all(lane.attached for lane in source.lanes.values())

"""A journal delivered by the process that writes it: in rounds, on an event loop while the program runs.

When the interpreter is ending, and thread pools and new threads are no longer to be had, the very same rounds go on
straight through, with plain blocking I/O, until everything is delivered or the deadline passes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from contextlib import suppress
from importlib import import_module

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import is_member
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.work import Work, WorkState
from asynctrack.engine.consumer import Context, RunStats, answer_creation, sync
from asynctrack.engine.own import OwnSpool, many
from asynctrack.engine.shipping import make_own_loop
from asynctrack.engine.waiters import Request
from asynctrack.journal.positions import Positions
from asynctrack.journal.slots import SLOT_SIZE
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import InlineIO, call_soon, drive

__all__ = ["LocalConsumer", "Rounds"]

logger = logging.getLogger("asynctrack")

#: while nobody waits, the engine rests this many times as long as its last piece of work took: the program has the
#: interpreter to itself two thirds of the time, however fast it logs. What is not read yet is safe in the journal.
_REST = 2.0
#: seconds for which a thread stays that has nothing to do
_SLEEPS_AFTER = 5.0
#: seconds to wait for what is under way when the interpreter is ending
_LAST_ANSWER = 5.0
#: longest sleep in seconds while draining, or while a spool is to be deleted that somebody still writes to
_TICK = 0.05

#: a mark that is behind everything
_EVERYTHING = 1 << 63

#: a run that the engine has not seen yet
_UNKNOWN = Lane(0, RunSpec(uid=""), attached=True)


class Rounds:
    """What is done in a round, and when the next one is due: look at the journal, carry out what is due, answer.

    Nothing here waits but `carry_out`.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.pump = Pump(context.store, context.settings)
        self.own = OwnSpool(context, self.pump)
        #: the journal is looked at again then (monotonic seconds), unless somebody asks
        self._look_at = 0.0
        #: nothing more is loaded until some piece of work is done
        self._no_room = False
        #: runs of this process of which something has changed since the last answers
        self._moved: set[int] = set()
        self.caught_up_at = monotonic()

    def nothing_is_under_way(self) -> None:
        """The loop has been left, with all that was begun in it; what may not even have come to its first step."""
        for source in self.pump.sources:
            for lane in source.active:
                for work in lane.flight:
                    if work.busy:
                        work.state = WorkState.READY
        self.pump.sender.nothing_is_under_way()

    def take_back(self, positions: Positions, first_run: int, past: dict[int, Lane]) -> None:
        """Go on for a shipper, which was at least as far as ``positions`` with runs from ``first_run`` on; ``past``:
        what is known of earlier ones."""
        self.own.follow_on(first_run, past)
        self.own.open(positions)
        if self.own.source is not None:
            self._moved.update(self.own.source.lanes)

    def look(self) -> bool:
        """Load what there is room for, if it is time; whether there may be more right now."""
        started = monotonic()
        if self.own.source is not None:
            self._context.journal.seal_behind()
            self._context.journal.prepare()
        if not self._context.wakeup.take() and started < self._look_at:
            return False
        self._context.waiters.take(self.own.is_past)
        if self.own.source is not None and self._context.store.durable:
            sync(self._context.journal)
        self._moved |= self._behind()
        found = self.pump.load()
        self._note_room()
        self._no_room = Loaded.NO_ROOM in found
        if Loaded.MORE in found:
            self._look_at = monotonic() + self._rest(started)
            return True
        self._look_at = started + self._context.settings.flush_interval
        return False

    async def carry_out(self, source: Source, lane: Lane, work: Work) -> None:
        """Do what is due."""
        started = monotonic()
        try:
            await self.pump.step(source, lane, work)
            self._note_room()
            if work.done and work.ends is not None and is_member(lane.spec) and not source.adopted:
                self._look_for_dead(source)
        finally:
            if not source.adopted:
                self._moved.add(lane.run)
                name = "" if work.upload is None else work.upload.snapshot.name
                if name in lane.failed:
                    self._context.failures.note(name, lane.failed[name])
            if source.adopted and source.drained:
                self._look_at = 0.0  # nothing comes any more: its runs are ended, and it is deleted, at once
            elif self._no_room or self.pump.can_catch_up(source, lane):
                self._look_at = min(self._look_at, monotonic() + self._rest(started))

    def _note_room(self) -> None:
        """Tell whoever waits for room where segments were deleted."""
        journal, own = self._context.journal, self.own.source
        head = None if own is None else own.reader.head
        if head is not None and head is not journal.head:
            journal.head = head
            journal.room_made()

    def _look_for_dead(self, source: Source) -> None:
        """Of those who share a run, one has ended here. Others may have died meanwhile, whose ends are still to come;
        taken up at once, for this program may be ending."""
        if source.spool.path is not None:
            self.pump.adopt_orphans(self._context.journal.homes)
            self.pump.intake.fill()

    def nap(self) -> float:
        """Seconds until something is to be done without being woken."""
        if self._context.wakeup.asked:
            return 0.0
        left = min(self._look_at, self.pump.next_retry()) - monotonic()
        return max(0.0, min(left, self._context.settings.flush_interval))

    def answer(self) -> None:
        """Settle the receipts whose time has come. Where that was all there was to do, the spool goes first."""
        moved: set[int] | None
        moved, self._moved = self._moved, set()
        if self.own.give_back():
            moved = None
        if self.own.leaving:
            self._look_at = min(self._look_at, monotonic() + _TICK)  # who waits is answered when it is gone
        own, waiters = self.own.source, self._context.waiters
        waiters.answer(_EVERYTHING if own is None else own.front, moved, self._settled)
        if not waiters and (own is None or own.drained):
            self.caught_up_at = monotonic()

    def _settled(self, request: Request) -> bool:
        run = abs(request.run)
        if self.own.is_past(run):
            lane = self.own.lane(run)
            request.receipt.resolve(lane.info if lane is not None else None)
            return True
        own = self.own.source
        lane = self.own.lane(run) if own is None else own.lane(run)
        if request.mark is not None:
            if own is None or run not in own.directory.seen or own.acknowledged(request.run) < request.mark:
                return False
            request.receipt.resolve(lane.info if lane else None)
        else:
            return answer_creation(request, lane, self._context.settings)
        return True

    def _behind(self) -> set[int]:
        """Runs that may get on by being read alone."""
        return {lane.run for _, lane in self.own.source.directory.behind()} if self.own.source is not None else set()

    def _rest(self, started: float) -> float:
        """Seconds to leave the interpreter to the program after a piece of work that began at ``started``."""
        settings, own = self._context.settings, self.own.source
        backlog = 0 if own is None else (self._context.journal.current[2].first - own.front) * SLOT_SIZE
        if self._context.waiters or self._context.ending.asked or backlog > settings.max_spool_bytes // 4:
            return 0.0
        return min(_REST * (monotonic() - started), settings.flush_interval)


class LocalConsumer:
    """Delivers in the engine's thread."""

    offline = False

    def __init__(self, context: Context, beside: Callable[[], object] = bool) -> None:
        """``beside``: what else is to be done in each round."""
        self._context = context
        self._beside = beside
        self._rounds = Rounds(context)
        self._idle_since = monotonic()

    def open(self) -> None:
        self._rounds.own.open()

    def follow_on(self, first_run: int, past: dict[int, Lane]) -> None:
        """See `OwnSpool.follow_on`."""
        self._rounds.own.follow_on(first_run, past)

    def take_back(self, positions: Positions, first_run: int, past: dict[int, Lane]) -> None:
        """See `Rounds.take_back`."""
        self._rounds.take_back(positions, first_run, past)

    def wake(self) -> None:
        """Its thread is woken; nobody else is to be."""

    def forget(self) -> None:
        """The engine begins anew in a forked child, with another one."""
        self._context.wakeup.use_loop(None)

    # ── what it knows of the runs

    def lane(self, run: int) -> Lane | None:
        return self._rounds.own.lane(run)

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        lane, source, journal = self.lane(run) or _UNKNOWN, self._rounds.own.source, self._context.journal
        accepted = lane.accepted
        if source is not None:
            try:
                accepted += source.reader.count(lane.progress.read_to, streams)
            except OSError:
                pass  # the engine has just deleted the segment that was being counted
        uploads = lane.uploads or _UNKNOWN
        accepted += uploads.accepted
        delivered, rejected = lane.delivered + uploads.delivered, lane.rejected + uploads.rejected
        pending = accepted - delivered - rejected
        return RunStats(
            accepted=accepted,
            delivered=delivered,
            pending=max(pending, 0),
            rejected=rejected,
            dropped=journal.dropped,
            retries=lane.retries + uploads.retries,
            spool_bytes=0 if source is None else journal.disk_bytes() + journal.artifact_bytes(),
            lag=0.0 if pending <= 0 else monotonic() - self._rounds.caught_up_at,
            last_error=lane.last_error or uploads.last_error,
        )

    def pending(self) -> int:
        own = self._rounds.own.source
        behind = max(self._context.journal.current[2].first - own.low_water(), 0) if own is not None else 0
        sources = list(self._rounds.pump.sources)
        return behind + sum(lane.loaded_weight for source in sources for lane in source.active)

    @property
    def last_error(self) -> str | None:
        return self._rounds.pump.last_error

    # ── on an event loop

    def run(self) -> None:
        _load_what_comes_late(remote=self._context.store.client is not None)
        import anyio

        try:
            anyio.run(self._loop)
        finally:
            self._rounds.nothing_is_under_way()
            if self.idle:
                self._rounds.own.rest()

    async def _loop(self) -> None:
        import anyio

        make_own_loop()
        rounds, ending = self._rounds, self._context.ending
        self._idle_since = monotonic()
        soon = call_soon()
        event = anyio.Event()

        async def step(source: Source, lane: Lane, work: Work) -> None:
            try:
                await rounds.carry_out(source, lane, work)
            finally:
                event.set()

        self._context.wakeup.use_loop(lambda: soon(lambda: event.set()))  # the event of that moment, not today's
        self.adopt()
        async with anyio.create_task_group() as steps:
            while not (ending.asked or self._may_sleep()):
                event = anyio.Event()
                self._beside()
                rounds.look()
                for due in rounds.pump.due():
                    steps.start_soon(step, *due)
                rounds.answer()
                if not self._may_sleep():
                    with anyio.move_on_after(rounds.nap()):
                        await event.wait()
            # Leaving the group sees through what is under way, but for an answer that does not come: that is asked for
            # again. Then the thread goes on without a loop.
            patience = min(_LAST_ANSWER, (ending.deadline - monotonic()) / 2)
            steps.cancel_scope.deadline = anyio.current_time() + max(patience, 0.0)
        with anyio.move_on_after(_TICK):
            await self._context.store.aclose()  # its connections belong to this loop

    def _may_sleep(self) -> bool:
        """Whether nothing is there to do, and has not been for a while."""
        if not self.idle or self._context.waiters:
            self._idle_since = monotonic()
            return False
        return many() or monotonic() > self._idle_since + _SLEEPS_AFTER

    @property
    def idle(self) -> bool:
        """Nothing is open, and nothing is left, here and of other programs."""
        pump = self._rounds.pump
        return self._rounds.own.gone and self._context.journal.closed and not (pump.sources or pump.intake.more)

    def adopt(self) -> None:
        path = self._context.journal.spool.path
        if path is None:
            return
        try:
            self._rounds.pump.adopt_orphans(self._context.journal.homes)
        except Exception as error:  # whatever is wrong with what others have left, one's own events are delivered
            logger.exception("asynctrack: cannot look for what others have left beside %s: %s", path, error)

    # ── without one

    def finish(self) -> None:
        context, rounds = self._context, self._rounds
        if self.idle or rounds.own.never_came():
            return
        context.store.io = InlineIO()
        context.wakeup.use_loop(None)
        while True:
            context.wakeup.asked = True
            rounds.pump.wind_up()
            more = rounds.look()
            busy = False
            for due in rounds.pump.due():
                busy = True
                patience = context.ending.deadline - monotonic()
                patience = min(patience, rounds.pump.others_left) if due[0].adopted else patience
                context.store.patience = max(patience, _TICK)
                drive(rounds.carry_out(*due))
                if self._out_of_time():
                    break
            rounds.answer()
            if self._out_of_time():
                break
            if not busy and not more:
                if rounds.pump.drained:
                    if context.journal.closed and context.journal.current[2].sealed:
                        break
                    # From here on log calls raise; one more look, for what was logged until just now.
                    context.journal.close()
                    if rounds.own.source is not None:
                        # What a killed parent has left need not wait any more for what is logged here.
                        rounds.own.source.finished = True
                    continue
                context.wakeup.sleep(min(_TICK, context.ending.deadline - monotonic()))
        self._leave()

    def _out_of_time(self) -> bool:
        return monotonic() >= self._context.ending.deadline

    def _leave(self) -> None:
        """Delete the spool if it is empty; what is left goes to the next process that starts."""
        journal, pump, own = self._context.journal, self._rounds.pump, self._rounds.own.source
        # A run without an end (a signal came between its start and our noting it) is ended by whoever adopts the spool.
        done = own is None or (own.drained and journal.closed and not own.unended())
        # Whoever finds the lock free takes the journal for finished, so nothing may be added from here on.
        journal.close()
        if own is not None and done:
            done = pump.remove(own)
        self._context.ending.left_behind = not done or any(not source.adopted for source in pump.sources)
        for source in list(pump.sources):
            pump.let_go(source)
        self._rounds.own.rest()
        drive(self._context.store.aclose())


def _load_what_comes_late(*, remote: bool) -> None:
    """What Python and the C library load by themselves, in a moment when that may fail."""
    # With the interpreter daemon threads are ended from outside, for which glibc loads this library; where there is no
    # memory left for it, it aborts the program.
    with suppress(OSError, ImportError):
        import_module("ctypes").CDLL("libgcc_s.so.1")
    if remote:
        # Loaded with the first connection; a program may have given up its right to read Python's library until then.
        import_module("encodings.idna")

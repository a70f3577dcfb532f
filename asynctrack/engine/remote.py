"""A journal that another process delivers: a shipper process, or, offline, `asynctrack sync` later.

What is left to do here: have the next segment ready, seal the last one, and, where somebody waits, read what the
shipper has written down.
"""

from __future__ import annotations

import time
from collections.abc import Container

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.engine.consumer import Context, RunStats, answer_creation, sync
from asynctrack.engine.keeper import Farewell, ShipperKeeper, ShipperMessages
from asynctrack.engine.reported import ShipperReports
from asynctrack.engine.waiters import Request
from asynctrack.journal.positions import Positions

__all__ = ["RemoteConsumer"]

#: seconds between two looks at the cursor while somebody waits
_TICK = 0.02
#: seconds to wait for a shipper that has delivered everything to leave
_GOODBYE = 1.0
#: seconds without an event after which a spool whose runs have all ended is given back, and its shipper with it
_RESTS_AFTER = 5.0


class RemoteConsumer:
    """Keeps a shipper process for one spool, and reads what it has written down.

    ``earlier``: this process's earlier spools that are still on their way; ``past``: their runs.
    """

    def __init__(self, context: Context, earlier: list[Farewell], past: dict[int, Lane]) -> None:
        self._context = context
        self._earlier, self._past = earlier, past
        settings, journal, trouble = context.settings, context.journal, context.trouble
        self._spool = journal.spool
        #: earlier ones were in other spools
        self.first_run = journal.registry.next_run
        #: where the journal ended at the last look, and since when (monotonic seconds)
        self._end, self._quiet_since = -1, 0.0
        #: what is left to do once it is given back, and the first run that is no longer in it
        self.farewell: Farewell | None = None
        self._next_run = 0
        self.offline = settings.mode == "offline"
        self._reports = ShipperReports(journal.spool, journal.head)
        self._shipper = ShipperKeeper(journal.spool, context.store.uri, settings, trouble)
        self._messages = ShipperMessages(journal.spool, settings, trouble, context.failures)
        self._caught_up_at = monotonic()
        #: the version of the reports from which answers were given last
        self._answered = (0, 0, 0)

    @property
    def given_back(self) -> bool:
        """Whether nothing is added to its spool any more, for all of its runs had ended."""
        return self.farewell is not None

    @property
    def idle(self) -> bool:
        """Whether it is given back, delivered, and its shipper has ended."""
        return self.farewell is not None and self.farewell.over

    def open(self) -> None:
        """The shipper starts here, for at interpreter exit none could."""
        self._keep_shipper()

    def adopt(self) -> None:
        """The shippers of dead processes outlive them, and deliver what these have left."""

    def wake(self) -> None:
        self._shipper.wake()

    def forget(self) -> None:
        self._shipper.forget()
        self._messages.close()

    # ── what it knows of the runs

    def lane(self, run: int) -> Lane | None:
        return self._reports.lane(run) or self._past.get(run)

    @property
    def lanes(self) -> dict[int, Lane]:
        """What is known of the runs in its spool."""
        return self._reports.lanes

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        reports, journal = self._reports, self._context.journal
        reports.refresh()
        lane = self._past.get(run) or reports.lane_or_empty(run)
        try:
            waiting = reports.waiting(run, streams)
        except OSError:
            waiting = 0
        # The shipper knows of the others: params, tags and artifacts.
        waiting = max(waiting, lane.accepted - lane.delivered - lane.rejected)
        return RunStats(
            accepted=lane.delivered + lane.rejected + waiting,
            delivered=lane.delivered,
            pending=waiting,
            rejected=lane.rejected,
            dropped=journal.dropped,
            retries=lane.retries,
            spool_bytes=0 if self.given_back else journal.disk_bytes() + journal.artifact_bytes(),
            lag=0.0 if not waiting else monotonic() - self._caught_up_at,
            last_error=lane.last_error,
        )

    def pending(self) -> int:
        if self.given_back:
            return 0
        segment = self._context.journal.current[2]
        try:
            begun = segment.count_begun()
        except OSError:
            begun = 0  # it is just being closed
        return max(segment.first + begun - self._reports.front, 0)

    @property
    def last_error(self) -> str | None:
        return self._reports.last_error

    # ── the thread

    def round(self) -> None:
        """One look at everything."""
        context = self._context
        context.wakeup.take()
        if self.farewell is not None:
            self.farewell.go_on()
            self._answer()
            return
        self._keep_shipper()
        context.journal.seal_behind()
        context.journal.prepare()
        if context.store.durable:
            sync(context.journal)
        self._drop_deleted()
        self._hand_on()
        self._answer()
        self._give_back()

    def _keep_shipper(self) -> None:
        if self.offline:
            return
        if self._shipper.running and self._reports.held:
            self._shipper.renew_credentials()
        self._shipper.keep()

    def _hand_on(self) -> None:
        if not self.offline:
            self._messages.hand_on()

    def _drop_deleted(self) -> None:
        """Let go of the segments that the shipper has delivered."""
        self._context.journal.look_for_deleted(self._reports.low_water)
        self._reports.drop(self._context.journal.head)

    # ── given back, once its runs have ended

    def _give_back(self) -> None:
        """Where nothing is open and nothing left, and that for a while: a program that uses one store after another
        would have a shipper process for each."""
        context, journal = self._context, self._context.journal
        segment = journal.current[2]
        end = segment.first + segment.used
        if end != self._end or context.waiters or self.offline or self._spool.path is None:
            self._end, self._quiet_since = end, monotonic()
        if monotonic() < self._quiet_since + _RESTS_AFTER or not self._is_over():
            return
        # Who holds it is opening a run, or was interrupted there by a signal handler that waits for us.
        if context.lock.acquire(blocking=False):
            try:
                if self._is_over() and not context.ending.asked:  # a run may have been opened since
                    last, self._next_run = journal.current[2], journal.registry.next_run
                    self.farewell = Farewell(self._spool, last, self._reports, self._shipper, self._messages)
                    # Who logs to a run that another thread has ended gets the error that he would get a moment later.
                    journal.close()
            finally:
                context.lock.release()

    def _is_over(self) -> bool:
        highest = self._context.journal.registry.next_run - 1
        self._reports.refresh()
        return self._reports.is_over(self._end, highest if highest >= self.first_run else 0)

    def _is_past(self, run: int) -> bool:
        return abs(run) < self.first_run

    def _answer(self) -> None:
        context, reports = self._context, self._reports
        context.waiters.take(self._is_past)
        if context.waiters:
            if self.offline:
                context.waiters.answer(_ALL, None, _settled_offline)
            else:
                reports.refresh()
                version, over = reports.version, self.farewell is not None and self.farewell.delivered
                moved = () if version == self._answered and not (over or self._past) else None
                context.waiters.answer(_ALL if over else reports.front, moved, self._settled)
                self._answered = version
        elif reports.knows_any and reports.front >= context.journal.current[2].first:
            self._caught_up_at = monotonic()

    def _settled(self, request: Request) -> bool:
        lane = self.lane(abs(request.run))
        if self._is_past(request.run) or self.given_back:
            # Of a later run, it is for the next spool's consumer to say.
            if self.given_back and abs(request.run) >= self._next_run:
                return False
            if not all(spool.delivered for spool in (*self._earlier, self.farewell) if spool is not None):
                return False
            request.receipt.resolve(lane.info if lane else None)
            return True
        if request.mark is not None:
            if self._reports.acknowledged(request.run) < request.mark:
                return False
            request.receipt.resolve(lane.info if lane else None)
        else:
            return answer_creation(request, lane, self._context.settings)
        return True

    # ── the end

    @property
    def deleted(self) -> bool:
        """Whether somebody has deleted the spool, so that no shipper can deliver the rest."""
        return not (self.offline or self.given_back) and self._spool.deleted

    def give_up(self) -> Positions:
        """End the shipper; how far it had come at least. It can be more: the cursor is deleted, too."""
        self._shipper.kill()
        self._reports.refresh()
        self._hand_on()
        self._messages.close()
        return self._reports.positions

    def finish(self) -> None:
        """Let the shipper finish, which it does when the journal's lock is free."""
        context, journal = self._context, self._context.journal
        if self.idle:
            return
        self.round()
        journal.close()
        while not journal.current[2].sealed and monotonic() < context.ending.deadline:
            time.sleep(_TICK)  # a thread is in the middle of a write, on a disk that takes its time
            journal.close()
        self._spool.release()
        self._answer()
        context.ending.left_behind = self.offline or not self._seen_through()
        self._hand_on()
        self._answer()
        self._shipper.let_go()
        self._messages.close()

    def _seen_through(self) -> bool:
        """Wait until the spool is delivered, by whomever; False at the deadline.

        How the shipper has ended proves nothing: a program that ignores SIGCHLD is told 0 of one that was killed.
        """
        self._shipper.wake()
        delivered_at: float | None = None
        while True:
            now = monotonic()
            if delivered_at is None and self._reports.delivered:
                delivered_at = now
            # It may go on with what others have left.
            if delivered_at is not None and (not self._shipper.running or now > delivered_at + _GOODBYE):
                return True
            if now >= self._context.ending.deadline:
                return delivered_at is not None
            if delivered_at is None:
                self._keep_shipper()
            self._answer()
            time.sleep(_TICK)


#: a mark that is behind everything
_ALL = 1 << 63


def _settled_offline(request: Request) -> bool:
    request.receipt.resolve(None)
    return True

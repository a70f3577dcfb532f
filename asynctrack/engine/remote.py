"""A journal that another process delivers: a shipper process, or, offline, `asynctrack sync` later.

What is left to do here: have the next segment ready, seal the last one, and, where somebody waits, read what the
shipper has written down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.engine.consumer import Context, RunStats, answer_creation, sync
from asynctrack.engine.engine import Engine
from asynctrack.engine.keeper import ShipperKeeper, ShipperMessages
from asynctrack.engine.local import LocalConsumer
from asynctrack.engine.reported import ShipperReports
from asynctrack.engine.waiters import Request
from asynctrack.journal.positions import Positions
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

__all__ = ["RemoteConsumer", "remote_engine"]

logger = logging.getLogger("asynctrack")

#: seconds between two looks at the cursor while somebody waits
_TICK = 0.02
#: seconds to wait for a shipper that has delivered everything to leave
_GOODBYE = 1.0


def remote_engine(store_uri: str, settings: Settings, store: AbstractStore | None = None) -> Engine:
    """An engine whose journal is delivered by another process."""
    return Engine(store_uri, settings, store, consumer=ShippedConsumer, consumed=False)


class RemoteConsumer:
    """Keeps a shipper process, and reads what it has written down."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings, journal, trouble = context.settings, context.journal, context.trouble
        self.offline = settings.mode == "offline"
        self._reports = ShipperReports(journal.spool, journal.head)
        self._shipper = ShipperKeeper(journal.spool, context.store.uri, settings, trouble)
        self._messages = ShipperMessages(journal.spool, settings, trouble, context.failures)
        self._caught_up_at = monotonic()
        #: the version of the reports from which answers were given last
        self._answered = (0, 0, 0)

    @property
    def idle(self) -> bool:
        return False

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
        return self._reports.lane(run)

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        reports, journal = self._reports, self._context.journal
        reports.refresh()
        lane = reports.lane_or_empty(run)
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
            spool_bytes=journal.disk_bytes() + journal.artifact_bytes(),
            lag=0.0 if not waiting else monotonic() - self._caught_up_at,
            last_error=lane.last_error,
        )

    def pending(self) -> int:
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

    def run(self) -> None:
        context = self._context
        while not (context.ending.asked or self.deleted):
            self._round()
            context.wakeup.sleep(_TICK if context.waiters else context.settings.flush_interval)

    def _round(self) -> None:
        context = self._context
        context.wakeup.take()
        self._keep_shipper()
        context.journal.seal_behind()
        context.journal.prepare()
        if context.store.durable:
            sync(context.journal)
        self._drop_deleted()
        self._hand_on()
        self._answer()

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

    def _answer(self) -> None:
        context, reports = self._context, self._reports
        context.waiters.take()
        if context.waiters:
            if self.offline:
                context.waiters.answer(_ALL, None, _settled_offline)
            else:
                reports.refresh()
                version = reports.version
                context.waiters.answer(reports.front, () if version == self._answered else None, self._settled)
                self._answered = version
        elif reports.knows_any and reports.front >= context.journal.current[2].first:
            self._caught_up_at = monotonic()

    def _settled(self, request: Request) -> bool:
        lane = self._reports.lane(request.run)
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
        return not self.offline and self._context.journal.spool.deleted

    def give_up(self) -> Positions:
        """End the shipper; how far it had come at least. It can be more: the cursor is deleted, too."""
        self._shipper.kill()
        self._reports.refresh()
        self._hand_on()
        self._messages.close()
        return self._reports.positions

    def finish(self) -> None:
        """Let the shipper finish, which it does when the journal's lock is free."""
        self._round()
        self._context.journal.close()
        self._context.journal.spool.release()
        self._answer()
        self._context.ending.left_behind = self.offline or not self._seen_through()
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


class ShippedConsumer:
    """Has a shipper deliver while there is a spool that it can read. Where somebody deletes that, this process, which
    has the files open, delivers from there on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._remote = RemoteConsumer(context)
        self._now: RemoteConsumer | LocalConsumer = self._remote

        self.offline = self._remote.offline

    @property
    def idle(self) -> bool:
        return self._now.idle

    def open(self) -> None:
        self._now.open()

    def run(self) -> None:
        self._now.run()
        if not self._context.ending.asked and self._take_back():
            self._now.run()

    def finish(self) -> None:
        self._take_back()
        self._now.finish()

    def _take_back(self) -> bool:
        """Whether the spool was deleted: then this process delivers."""
        if self._now is not self._remote or not self._remote.deleted:
            return False
        local, journal = LocalConsumer(self._context), self._context.journal
        # No shipper is started any more; and this one is gone before anything is read in its stead.
        positions = self._remote.give_up()
        journal.consume(here=True)
        journal.chain.supply.tell_deleted()
        local.take_back(positions)
        self._now = local
        return True

    def adopt(self) -> None:
        self._now.adopt()

    def wake(self) -> None:
        self._now.wake()

    def forget(self) -> None:
        self._now.forget()
        self._context.journal.consume(here=False)  # the child has another spool, and another shipper

    def lane(self, run: int) -> Lane | None:
        return self._now.lane(run)

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        return self._now.stats(run, streams)

    def pending(self) -> int:
        return self._now.pending()

    @property
    def last_error(self) -> str | None:
        return self._now.last_error


#: a mark that is behind everything
_ALL = 1 << 63


def _settled_offline(request: Request) -> bool:
    request.receipt.resolve(None)
    return True

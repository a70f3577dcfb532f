"""A journal that a shipper process delivers, for as long as there is a spool, and something to deliver."""

from __future__ import annotations

import time
from collections.abc import Container

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.engine.consumer import Context, RunStats
from asynctrack.engine.engine import Engine
from asynctrack.engine.keeper import Farewell
from asynctrack.engine.local import LocalConsumer
from asynctrack.engine.remote import RemoteConsumer
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

__all__ = ["remote_engine"]

#: seconds between two looks while somebody waits
_TICK = 0.02
#: ended runs of earlier spools that are remembered, for those who still ask
_REMEMBERED = 1000


def remote_engine(store_uri: str, settings: Settings, store: AbstractStore | None = None) -> Engine:
    """An engine whose journal is delivered by another process."""
    return Engine(store_uri, settings, store, consumer=ShippedConsumer, consumed=False)


class ShippedConsumer:
    """Has a shipper deliver while there is a spool that it can read; where all is delivered and no run is open, there
    is neither. Where somebody deletes the spool, this process, which has the files open, delivers from there on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        #: of spools that were given back, and are not gone yet; and what is known of the runs in earlier ones
        self._leaving: list[Farewell] = []
        self._past: dict[int, Lane] = {}
        self._remote = RemoteConsumer(context, self._leaving, self._past)
        self._now: RemoteConsumer | LocalConsumer = self._remote

        self.offline = self._remote.offline

    @property
    def idle(self) -> bool:
        return self._now.idle and not self._leaving

    def open(self) -> None:
        earlier = self._remote
        if self._now is earlier and earlier.given_back and not self._context.ending.asked:
            self._context.journal.begin_anew()
            if earlier.farewell is not None and not earlier.idle:
                self._leaving.append(earlier.farewell)
            self._past.update(earlier.lanes)
            while len(self._past) > _REMEMBERED:
                del self._past[next(iter(self._past))]
            self._now = self._remote = RemoteConsumer(self._context, self._leaving, self._past)
        self._now.open()

    def run(self) -> None:
        context = self._context
        while not context.ending.asked:
            self._take_back()
            if isinstance(self._now, LocalConsumer):
                self._now.run()
                return
            self._see_off()
            self._remote.round()
            if self.idle and not context.waiters:
                return
            context.wakeup.sleep(_TICK if context.waiters else context.settings.flush_interval)

    def _see_off(self) -> None:
        for earlier in list(self._leaving):
            earlier.go_on()
            if earlier.over:
                self._leaving.remove(earlier)

    def finish(self) -> None:
        self._take_back()
        self._now.finish()
        ending = self._context.ending
        self._see_off()
        while any(not earlier.delivered for earlier in self._leaving) and monotonic() < ending.deadline:
            time.sleep(_TICK)
            self._see_off()
        ending.left_behind |= any(not earlier.delivered for earlier in self._leaving)
        for earlier in self._leaving:
            earlier.leave()

    def _take_back(self) -> None:
        """Where the spool was deleted this process delivers."""
        if self._now is not self._remote or not self._remote.deleted:
            return
        local, journal = LocalConsumer(self._context), self._context.journal
        # No shipper is started any more; and this one is gone before anything is read in its stead.
        positions = self._remote.give_up()
        journal.consume(here=True)
        journal.chain.supply.tell_deleted()
        local.take_back(positions, self._remote.first_run, self._past)
        self._now = local

    def adopt(self) -> None:
        self._now.adopt()

    def wake(self) -> None:
        self._now.wake()

    def forget(self) -> None:
        for shipper in (*self._leaving, self._now):
            shipper.forget()
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

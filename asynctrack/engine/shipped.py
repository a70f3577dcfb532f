"""A journal that a shipper process delivers, for as long as there is a spool, and something to deliver."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from contextlib import suppress

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
    is neither. What nobody else can read this process delivers: a journal in memory, for there was no room for a spool
    or no right to make one, and, as it has the files open, a spool that somebody deletes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        #: of spools that were given back, and are not gone yet; and what is known of the runs in earlier ones
        self._leaving: list[Farewell] = []
        self._past: dict[int, Lane] = {}
        self._now = self._begin()

    def _begin(self) -> RemoteConsumer | LocalConsumer:
        """Who delivers the spool that there is now: the first one, the next one, a forked child's."""
        journal = self._context.journal
        if journal.spool.path is not None:
            return RemoteConsumer(self._context, self._leaving, self._past)
        local = LocalConsumer(self._context, self._see_off)
        journal.consume(here=True)
        local.follow_on(journal.registry.next_run, self._past)
        return local

    @property
    def offline(self) -> bool:
        return self._now.offline

    @property
    def idle(self) -> bool:
        return self._now.idle and not self._leaving

    def open(self) -> None:
        earlier = self._now
        if isinstance(earlier, RemoteConsumer) and earlier.given_back and not self._context.ending.asked:
            self._context.journal.begin_anew()
            if earlier.farewell is not None and not earlier.idle:
                self._leaving.append(earlier.farewell)
            self._past.update(earlier.lanes)
            while len(self._past) > _REMEMBERED:
                del self._past[next(iter(self._past))]
            self._now = self._begin()
        self._now.open()

    def run(self) -> None:
        context = self._context
        _load_what_comes_late()
        while not context.ending.asked:
            now = self._take_back()
            if isinstance(now, LocalConsumer):
                now.run()
                return
            self._see_off()
            now.round()
            if self.idle and not context.waiters:
                return
            context.wakeup.sleep(_TICK if context.waiters else context.settings.flush_interval)

    def _see_off(self) -> None:
        for earlier in list(self._leaving):
            earlier.go_on()
            if earlier.over:
                self._leaving.remove(earlier)

    def finish(self) -> None:
        self._take_back().finish()
        ending = self._context.ending
        self._see_off()
        while any(not earlier.delivered for earlier in self._leaving) and monotonic() < ending.deadline:
            time.sleep(_TICK)
            self._see_off()
        ending.left_behind |= any(not earlier.delivered for earlier in self._leaving)
        for earlier in self._leaving:
            earlier.leave()

    def _take_back(self) -> RemoteConsumer | LocalConsumer:
        """Who delivers now. Where the spool was deleted that is this process."""
        remote = self._now
        if isinstance(remote, LocalConsumer) or not remote.deleted:
            return remote
        local, journal = LocalConsumer(self._context, self._see_off), self._context.journal
        # No shipper is started any more; and this one is gone before anything is read in its stead.
        positions = remote.give_up()
        journal.consume(here=True)
        journal.chain.supply.tell_deleted()
        local.take_back(positions, remote.first_run, self._past)
        self._now = local
        return local

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


def _load_what_comes_late() -> None:
    """What delivering in this process takes, where a program of root's may give up the right to read it before that is
    needed: for a forked worker that may not write in the spool's folder either."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(OSError, ImportError):
            import anyio

            anyio.run(anyio.sleep, 0)

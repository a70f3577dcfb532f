"""Which store a service talks to, how it waits, and how its log verbs get to the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from asynctrack.run import attached_run, wait_blocking, wait_on_loop
from asynctrack.stores.io import InlineIO, StoreIO, ThreadedIO
from asynctrack.stores.uri import open_store, resolve_store_uri
from asynctrack.tracking import get_tracking_uri, store_for

if TYPE_CHECKING:
    from asynctrack.engine.receipts import Receipt
    from asynctrack.runlog import RunLog, RunState
    from asynctrack.stores.base import AbstractStore

__all__ = ["Given", "InThread", "Located", "OnLoop", "Target", "Waits"]


class Waits(Protocol):
    """How a face waits: for the store, and for the engine."""

    io: StoreIO

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        """Whether the receipt was settled in that time."""


class InThread:
    """Blocking the calling thread; no coroutine ever suspends."""

    io: StoreIO = InlineIO()

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        return wait_blocking(state, receipt, seconds)


class OnLoop:
    """In a task, on asyncio or trio."""

    io: StoreIO = ThreadedIO()

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        return await wait_on_loop(receipt, seconds)


class Target(Protocol):
    """A store, wherever it comes from."""

    #: canonical, without credentials
    uri: str
    waits: Waits

    @property
    def store(self) -> AbstractStore:
        """For verbs that wait."""

    def attach(self, run_id: str) -> RunLog:
        """For verbs that log."""

    async def aclose(self) -> None:
        """Let go of the connections that are this target's own."""


class Located:
    """A store by its URI. Blocking faces share one store a process, on a loop each has its own."""

    def __init__(self, tracking_uri: str | os.PathLike[str] | None, waits: Waits) -> None:
        self._located = resolve_store_uri(tracking_uri) if tracking_uri is not None else get_tracking_uri()
        self.waits = waits
        self._own = open_store(self._located, waits.io) if isinstance(waits, OnLoop) else None
        self.uri = self.store.uri

    @property
    def store(self) -> AbstractStore:
        return self._own or store_for(self._located)

    def attach(self, run_id: str) -> RunLog:
        return attached_run(run_id, self._located)

    async def aclose(self) -> None:
        if self._own is not None:
            await self._own.aclose()


class Given:
    """A store object of the user's."""

    def __init__(self, store: AbstractStore, waits: Waits) -> None:
        self._given = store
        self.store = store.over(waits.io)
        self.uri = store.uri
        self.waits = waits

    def attach(self, run_id: str) -> RunLog:
        if self._given.uri_says_all:
            return attached_run(run_id, self.uri)
        return attached_run(run_id, store=self._given)

    async def aclose(self) -> None:
        if self.store is not self._given:  # which its owner closes
            await self.store.aclose()

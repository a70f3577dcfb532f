"""Which store a service talks to, how it waits for the store, and how its log verbs reach the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from asynctrack.current import current_store_uri, store_for
from asynctrack.runs.active import attached_run
from asynctrack.runs.waiting import wait_blocking, wait_on_loop
from asynctrack.stores.io import InlineIO, StoreIO, ThreadedIO
from asynctrack.stores.uri import open_store, resolve_store_uri

if TYPE_CHECKING:
    from asynctrack.delivery.receipts import Receipt
    from asynctrack.runs.log import RunLog
    from asynctrack.runs.state import RunState
    from asynctrack.stores.base import AbstractStore

__all__ = ["Given", "InThread", "Located", "OnLoop", "Target", "Waits"]


class Waits(Protocol):
    """How a service waits for its store and for the engine."""

    io: StoreIO

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        """Wait for at most ``seconds``; whether the receipt is settled."""


class InThread:
    """Waits by blocking the calling thread. No coroutine ever suspends."""

    io: StoreIO = InlineIO()

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        return wait_blocking(state, receipt, seconds)


class OnLoop:
    """Waits in a task, on asyncio or trio."""

    io: StoreIO = ThreadedIO()

    async def wait(self, state: RunState, receipt: Receipt[Any], seconds: float) -> bool:
        return await wait_on_loop(receipt, seconds)


class Target(Protocol):
    """The store of a service."""

    #: canonical, without credentials
    uri: str
    waits: Waits

    @property
    def store(self) -> AbstractStore:
        """The store, for verbs that wait."""

    def attach(self, run_id: str, *, asks: bool) -> RunLog:
        """The log verbs of a run, for verbs that log. ``asks``: whether the run is there, if that can be asked without
        holding up a loop."""

    async def aclose(self) -> None:
        """Close the connections that this target opened."""


class Located:
    """A store given by its URI. All blocking services of the process share one store. On a loop, each service has its
    own."""

    def __init__(self, tracking_uri: str | os.PathLike[str] | None, waits: Waits) -> None:
        self._located = resolve_store_uri(tracking_uri) if tracking_uri is not None else current_store_uri()
        self.waits = waits
        self._own = open_store(self._located, waits.io) if isinstance(waits, OnLoop) else None
        self.uri = self.store.uri

    @property
    def store(self) -> AbstractStore:
        return self._own or store_for(self._located)

    def attach(self, run_id: str, *, asks: bool) -> RunLog:
        return attached_run(run_id, self._located, asks=asks and self.waits.io.blocking)

    async def aclose(self) -> None:
        if self._own is not None:
            await self._own.aclose()


class Given:
    """A store given as an object by the user."""

    def __init__(self, store: AbstractStore, waits: Waits) -> None:
        self._given = store
        self.store = store.over(waits.io)
        self.uri = store.uri
        self.waits = waits

    def attach(self, run_id: str, *, asks: bool) -> RunLog:
        asks = asks and self.waits.io.blocking
        if self._given.uri_says_all:
            return attached_run(run_id, self.uri, asks=asks)
        return attached_run(run_id, store=self._given, asks=asks)

    async def aclose(self) -> None:
        if self.store is not self._given:  # the user closes the store they gave
            await self.store.aclose()

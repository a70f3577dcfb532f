"""`AsyncMLflowService`: the verbs, to be awaited."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from asynctrack.service.target import Given, Located, OnLoop
from asynctrack.service.verbs import Verbs
from asynctrack.stores.base import AbstractStore

__all__ = ["AsyncMLflowService"]


class AsyncMLflowService(Verbs):
    """`MLflowService` on an event loop, asyncio or trio: the same verbs, awaited, except that logging stays a plain
    call. One object serves one loop and any number of its tasks; leaving its ``async with`` block closes the
    connections it holds, and leaves alone what is still on its way to the store.
    """

    def __init__(self, store: AbstractStore) -> None:
        super().__init__(Given(store, OnLoop()))

    @classmethod
    def at(cls, tracking_uri: str | os.PathLike[str] | None = None) -> Self:
        """The service of the store at a URI; see `asynctrack.tracking.get_async_service`."""
        service = cls.__new__(cls)
        Verbs.__init__(service, Located(tracking_uri, OnLoop()))
        return service

    async def aclose(self) -> None:
        """Close the connections of this object; a store that was given to it stays open."""
        await self._target.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

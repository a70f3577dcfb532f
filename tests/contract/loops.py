"""Contract classes for stores that wait on an event loop: one loop a test, as connections belong to a loop."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from asynctrack.testing import StoreContract

__all__ = ["OnLoopContract"]

T = TypeVar("T")


class OnLoopContract(StoreContract):
    """The contract with every call made on an event loop in a thread of its own."""

    backend: str

    @pytest.fixture
    def portal(self) -> Iterator[BlockingPortal]:
        """The way to the loop."""
        with start_blocking_portal(self.backend) as portal:
            self._portal = portal
            yield portal

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def main() -> T:
            return await work

        return self._portal.call(main)

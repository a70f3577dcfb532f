"""FileStore keeps the contract: in a plain thread, and on both event loops."""

from __future__ import annotations

import pathlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
import pytest

from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO
from asynctrack.testing import StoreContract

T = TypeVar("T")


class TestInline(StoreContract):
    """Without an event loop."""

    @pytest.fixture
    def store(self, tmp_path: pathlib.Path) -> FileStore:
        return FileStore(tmp_path / "ml runs", InlineIO())


class _OnLoop(StoreContract):
    backend: str

    @pytest.fixture
    def store(self, tmp_path: pathlib.Path) -> FileStore:
        return FileStore(tmp_path / "mlruns")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def main() -> T:
            return await work

        return anyio.run(main, backend=self.backend)


class TestAsyncio(_OnLoop):
    """On asyncio, through worker threads."""

    backend = "asyncio"


class TestTrio(_OnLoop):
    """On trio, through worker threads."""

    backend = "trio"

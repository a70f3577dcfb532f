"""FileStore keeps the contract: in a plain thread, and on both event loops."""

from __future__ import annotations

import pathlib

import pytest
from anyio.from_thread import BlockingPortal

from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO
from asynctrack.testing import StoreContract
from tests.contract.loops import OnLoopContract


class TestInline(StoreContract):
    """Without an event loop."""

    @pytest.fixture
    def store(self, tmp_path: pathlib.Path) -> FileStore:
        return FileStore(tmp_path / "ml runs", InlineIO())


class _OnLoop(OnLoopContract):
    @pytest.fixture
    def store(self, tmp_path: pathlib.Path, portal: BlockingPortal) -> FileStore:
        return FileStore(tmp_path / "mlruns")


class TestAsyncio(_OnLoop):
    """On asyncio, through worker threads."""

    backend = "asyncio"


class TestTrio(_OnLoop):
    """On trio, through worker threads."""

    backend = "trio"

"""SqlStore keeps the contract over SQLite: in a plain thread, and on both event loops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal

from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from asynctrack.testing import StoreContract
from tests.contract.loops import OnLoopContract
from tests.inputs import check_inputs


class TestSqlite(StoreContract):
    """Without an event loop."""

    keeps_infinities = False

    @pytest.fixture
    def store(self, memory_path: Path) -> Iterator[AbstractStore]:
        store = open_store(f"sqlite:///{memory_path}/ml flow.db", InlineIO())
        yield store
        drive(store.aclose())

    def test_datasets_and_models_are_kept(self, store: AbstractStore) -> None:
        check_inputs(store)


class _OnLoop(OnLoopContract):
    keeps_infinities = False

    @pytest.fixture
    def store(self, memory_path: Path, portal: BlockingPortal) -> Iterator[AbstractStore]:
        store = open_store(f"sqlite:///{memory_path}/mlflow.db")
        yield store
        portal.call(store.aclose)


class TestSqliteOnAsyncio(_OnLoop):
    """On asyncio, through worker threads."""

    backend = "asyncio"


class TestSqliteOnTrio(_OnLoop):
    """On trio, through worker threads."""

    backend = "trio"

"""SqlStore keeps the contract over PostgreSQL: in a plain thread, and on an event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal

from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from asynctrack.testing import StoreContract
from tests.contract.loops import OnLoopContract


class TestPostgres(StoreContract):
    """Without an event loop."""

    keeps_infinities = False

    @pytest.fixture
    def store(self, postgres_database: str) -> Iterator[AbstractStore]:
        store = open_store(postgres_database, InlineIO())
        yield store
        drive(store.aclose())


class TestPostgresOnTrio(OnLoopContract):
    """On trio, through worker threads."""

    backend = "trio"
    keeps_infinities = False

    @pytest.fixture
    def store(self, postgres_database: str, portal: BlockingPortal) -> Iterator[AbstractStore]:
        store = open_store(postgres_database)
        yield store
        portal.call(store.aclose)

"""RestStore keeps the contract against real MLflow servers, on every kind of backend, and against Databricks's
stand-in: in a plain thread, and on both event loops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal

from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.uri import open_store
from asynctrack.testing import StoreContract
from tests.contract.loops import OnLoopContract
from tests.databricks import DatabricksHost
from tests.inputs import check_inputs
from tests.servers import MlflowServer


def opened(uri: str) -> Iterator[AbstractStore]:
    """A store for a plain thread, closed at the end."""
    store = open_store(uri, InlineIO())
    yield store
    drive(store.aclose())


class TestSqlite(StoreContract):
    """MLflow on SQLite, whose columns hold no infinities."""

    keeps_infinities = False

    @pytest.fixture
    def store(self, sqlite_server: MlflowServer) -> Iterator[AbstractStore]:
        yield from opened(sqlite_server.url)

    def test_datasets_and_models_are_kept(self, store: AbstractStore) -> None:
        check_inputs(store)


class _OnLoop(OnLoopContract):
    keeps_infinities = False

    @pytest.fixture
    def store(self, sqlite_server: MlflowServer, portal: BlockingPortal) -> Iterator[AbstractStore]:
        store = open_store(sqlite_server.url, ThreadedIO())
        yield store
        portal.call(store.aclose)


class TestSqliteOnAsyncio(_OnLoop):
    """The same on asyncio."""

    backend = "asyncio"


class TestSqliteOnTrio(_OnLoop):
    """The same on trio."""

    backend = "trio"


class TestPostgres(StoreContract):
    """MLflow on PostgreSQL, with two workers."""

    keeps_infinities = False

    @pytest.fixture
    def store(self, postgres_server: MlflowServer) -> Iterator[AbstractStore]:
        yield from opened(postgres_server.url)


class TestFiles(StoreContract):
    """MLflow on its file layout, which keeps doubles."""

    merges_identical_points = False

    @pytest.fixture
    def store(self, file_server: MlflowServer) -> Iterator[AbstractStore]:
        yield from opened(file_server.url)


class TestDatabricks(StoreContract):
    """A workspace's stand-in: names are paths, a run names its experiment, doubles are looked for."""

    keeps_infinities = False
    has_default_experiment = False
    artifact_location = None

    def experiment_name(self, name: str) -> str:
        return f"/Shared/{super().experiment_name(name)}"

    @pytest.fixture
    def store(
        self, sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[AbstractStore]:
        with DatabricksHost(sqlite_server.url, tmp_path / "dbfs") as host:
            monkeypatch.setenv("DATABRICKS_HOST", host.url)
            monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
            yield from opened("databricks")

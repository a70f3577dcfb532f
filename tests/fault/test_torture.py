"""Some rounds of the torture; ``python -m tests.fault.torture`` runs as many as one likes."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fault.torture import FileBench, PostgresBench, ServerBench, SqliteBench, torture
from tests.proxy import FaultProxy
from tests.servers import MlflowServer

if TYPE_CHECKING:
    from tests.postgres import Postgres


def test_random_deaths_with_random_faults_of_the_store_lose_and_double_nothing(tmp_path: Path) -> None:
    """Kills and signals at random moments, the store taken away, blocked or slow: each event is there, once."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    assert torture(20, seed, FileBench, tmp_path / "torture", verbose=True) > 1000


def test_random_deaths_with_random_faults_of_the_wire_lose_and_double_nothing(
    sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """The same on a server that is away, silent or slow, or behind a wire that does a bit of everything."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    with FaultProxy(sqlite_server.url) as proxy:
        make_bench = functools.partial(ServerBench, sqlite_server, proxy)
        assert torture(10, seed, make_bench, tmp_path / "torture", verbose=True) > 1000


def test_random_deaths_beside_others_in_an_sqlite_database_lose_and_double_nothing(tmp_path: Path) -> None:
    """Others lock it, read it for long, or are killed in the middle of a transaction."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    assert torture(5, seed, SqliteBench, tmp_path / "torture", verbose=True) > 1000


def test_random_deaths_of_programs_and_of_a_postgresql_database_lose_and_double_nothing(
    postgres_cluster: Postgres, tmp_path: Path
) -> None:
    """It dies, is locked or away, and connections are cut inside a COMMIT."""
    from tests.wire import Wire  # where PostgreSQL is installed

    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    with Wire(postgres_cluster) as wire:
        make_bench = functools.partial(PostgresBench, postgres_cluster, wire)
        assert torture(5, seed, make_bench, tmp_path / "torture", verbose=True) > 1000

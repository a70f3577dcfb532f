"""Thirty rounds of the torture; ``python -m tests.fault.torture`` runs as many as one likes."""

from __future__ import annotations

import functools
import random
from pathlib import Path

from tests.fault.torture import FileBench, ServerBench, torture
from tests.proxy import FaultProxy
from tests.servers import MlflowServer


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

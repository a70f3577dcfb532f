"""PostgreSQL under a program that logs: it dies, its wire is cut in a COMMIT, others hold its locks.

Each event is in it once. (tests/fault/test_sql_kill.py and tests/unit/stores/sql/ do the like to SQLite.)"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

import asynctrack
from asynctrack.stores.sql import store
from tests.fault import programs
from tests.fault.programs import Lab
from tests.postgres import Postgres, with_tables
from tests.rest import support
from tests.wire import Wire

COUNT = 6000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.fixture
def neighbour(postgres_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Another program's connection."""
    with psycopg.connect(postgres_database.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def log(uri: str, at: dict[int, Callable[[], object]], flush: Sequence[int] = ()) -> str:
    """A run of a program that logs, and the run's id. ``at``: what is done before which step; ``flush``: before which
    of them the program waits until everything is stored."""
    with asynctrack.start_run(tracking_uri=uri, experiment_name=support.fresh(), strict=True) as run:
        for step in range(COUNT):
            if step in flush:
                run.flush()
            at.get(step, int)()
            run.log_metric("m", step * 0.25, step)
            if step % 1000 == 0:
                run.log_param(f"p{step}", step)
                run.set_tag("last", step)
    return run.run_id


def check(uri: str, run_id: str) -> None:
    """Everything is there once, read by somebody else."""
    with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as connection:
        rows = connection.execute("SELECT step, value FROM metrics WHERE run_uuid = %s ORDER BY step", (run_id,))
        assert rows.fetchall() == [(step, step * 0.25) for step in range(COUNT)]
        latest = connection.execute("SELECT step FROM latest_metrics WHERE run_uuid = %s", (run_id,))
        assert latest.fetchall() == [(COUNT - 1,)]
        found = connection.execute("SELECT key, value FROM params WHERE run_uuid = %s", (run_id,)).fetchall()
        assert dict(found) == {f"p{step}": str(step) for step in range(0, COUNT, 1000)}
        tag = connection.execute("SELECT value FROM tags WHERE run_uuid = %s AND key = 'last'", (run_id,)).fetchone()
        assert tag == (str(COUNT - 1000),)
        assert connection.execute("SELECT status FROM runs WHERE run_uuid = %s", (run_id,)).fetchone() == ("FINISHED",)


def test_a_server_that_dies_in_the_middle_and_is_started_again(postgres_cluster: Postgres) -> None:
    """As by `pg_ctl -m immediate stop`: it takes back what was not committed."""
    run_id = log(postgres_cluster.url, {2000: postgres_cluster.kill, 4000: postgres_cluster.start}, flush=[2000])
    check(postgres_cluster.url, run_id)


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_a_connection_that_is_cut_inside_a_commit(answered: bool, postgres_cluster: Postgres) -> None:
    """Nobody knows whether it was carried out: before the server had it, or after."""
    with Wire(postgres_cluster) as wire:
        cut = functools.partial(wire.cut_at_commit, answered=answered)
        run_id = log(wire.uri, {1500: cut, 3000: cut, 4500: cut}, flush=[1500, 3000, 4500])
        assert wire.cuts == 3
    check(postgres_cluster.url, run_id)


def test_a_lock_that_somebody_holds_for_long(
    postgres_database: str,
    neighbour: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a whole table, as while it is upgraded: the batch is tried again for as long as it takes, the loop does not
    wait, and the user is told."""
    monkeypatch.setattr(store, "_WAIT", 0.1)
    neighbour.execute("BEGIN")

    def lock() -> None:
        neighbour.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")

    free = threading.Timer(1.5, lambda: neighbour.execute("COMMIT"))  # fifteen times as long as a batch waits
    run_id = log(postgres_database, {1000: lock, COUNT - 1: free.start}, flush=[1000])
    free.join()
    check(postgres_database, run_id)
    told = [record.getMessage() for record in caplog.records if "lock timeout" in record.getMessage()]
    assert len(told) == 1
    assert "another transaction keeps it locked" in told[0]
    assert "trying again" in told[0]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-disk-", dir="/tmp") as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160M,mode=1777", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_of_the_server(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Until somebody makes room on it, which is after some attempts."""
    ball = small_disk / "ball"
    with with_tables(Postgres(small_disk)) as cluster:

        def fill() -> None:
            with contextlib.suppress(OSError), ball.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass

        room = threading.Timer(2.0, ball.unlink)
        run_id = log(cluster.url, {1000: fill, COUNT - 1: room.start}, flush=[1000])
        room.join()
        check(cluster.url, run_id)
    assert "No space left on device" in caplog.text
    assert "takes events again" in caplog.text


BOTH = """
import asynctrack, os, sys
ids, me = os.environ["RUNS"].split(","), os.environ["ME"]
runs = [asynctrack.start_run(run_id=run_id, nested=True) for run_id in ids]
print("ready", flush=True)
sys.stdin.readline()
for step in range(4000):
    for run in runs:
        run.log_metric(f"m{step % 5}.{me}", step, step)
        run.log_metric("shared", step, step, timestamp=step)
    if step % 200 == 0:
        for run in runs:
            run.log_param(f"p{step}", step)
            run.set_tag("mlflow.runName", f"named by {me}")
    if step % 500 == 0:
        for run in runs:
            run.flush()
for run in runs:
    run.terminate()
"""


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_two_programs_write_the_same_runs_in_opposite_orders(
    lab: Lab, postgres_database: str, neighbour: psycopg.Connection[Any]
) -> None:
    """With params, tags and points that are the same, too: the database finds no deadlock."""
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = neighbour.execute(deadlocks).fetchone()
    asynctrack.set_tracking_uri(postgres_database)
    service = asynctrack.get_service()
    experiment = service.create_experiment(lab.environment["MLFLOW_EXPERIMENT_NAME"])
    ids = [service.create_run(experiment).info.run_id for _ in range(2)]
    begun = [
        lab.start(BOTH, RUNS=",".join(order), ME=str(number), ASYNCTRACK_FLUSH_INTERVAL="0.05")
        for number, order in enumerate((ids, ids[::-1]))
    ]
    for process in begun:
        programs.line_for(process)
    for process in begun:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in begun:
        done = programs.finish(process)
        assert (done.returncode, done.stderr) == (0, "")
    for run in lab.runs().values():
        counts = {key: len(points) for key, points in run.metrics.items()}
        assert counts == {"shared": 4000} | {f"m{key}.{me}": 800 for key in range(5) for me in range(2)}
        assert len(run.params) == 20
    assert len(lab.runs()) == 2
    assert neighbour.execute(deadlocks).fetchone() == before

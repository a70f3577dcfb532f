"""What the tests against real servers share: events to log, and what a server holds of them, read with SQL or from its
files and never through asynctrack."""

from __future__ import annotations

import logging
import statistics
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import asynctrack
from asynctrack.delivery import retry
from tests.exchange import Recorded
from tests.mlflow_store import Tables
from tests.mlruns import read_runs
from tests.servers import MlflowServer

#: events that are logged while something goes wrong
EVENTS = 20_000
KEYS = ("m0", "m1", "m2", "m3")
#: seconds for what must happen, however busy the machine is
PATIENCE = 60.0


class Stored(NamedTuple):
    """One run as a server holds it."""

    status: str
    #: (key, step, value), sorted
    points: list[tuple[str, int, float]]
    params: dict[str, str]
    tags: dict[str, str]


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine looks and tries again in hundredths of a second, so that tests need not last long."""
    for name, seconds in {"_BASE": 0.02, "_CAP": 0.2, "_HELD_BASE": 0.05, "_HELD_CAP": 0.2}.items():
        monkeypatch.setattr(retry, name, seconds)
    asynctrack.configure(flush_interval=0.05, connect_timeout=5.0, close_timeout=PATIENCE)


def fresh(name: str = "tests") -> str:
    """An experiment's name that nobody has used."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def stored(server: MlflowServer | Tables, run_id: str) -> Stored:
    """What a server, or a database, holds of a run."""
    if not server.backend.startswith(("sqlite:", "postgresql")):
        run = read_runs(Path(server.backend))[run_id]
        points = sorted((key, step, value) for key, lines in run.metrics.items() for _, value, step in lines)
        return Stored(run.status, points, run.params, run.tags)
    ((status,),) = server.rows("SELECT status FROM runs WHERE run_uuid = :run", run=run_id)
    rows = server.rows("SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = :run", run=run_id)
    params = dict(server.rows("SELECT key, value FROM params WHERE run_uuid = :run", run=run_id))
    tags = dict(server.rows("SELECT key, value FROM tags WHERE run_uuid = :run", run=run_id))
    return Stored(
        status, sorted((key, step, float("nan") if nan else value) for key, step, value, nan in rows), params, tags
    )


def runs_of(server: MlflowServer | Tables, experiment: str) -> list[str]:
    """The ids of an experiment's runs."""
    statement = "SELECT r.run_uuid FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = :name"
    return [run_id for (run_id,) in server.rows(statement, name=experiment)]


def log_events(
    run: asynctrack.ActiveRun,
    count: int = EVENTS,
    *,
    pace: float = 0.005,
    at: dict[int, Callable[[], object]] | None = None,
) -> list[int]:
    """Log so many events: metrics, and a param and a tag for every thousand. How long each call took, in ns.

    Every five hundred it pauses for ``pace`` seconds, as a program computes between its log calls; ``at`` says what to
    do before some of them.
    """
    took = []
    log, clock = run.log_metric, time.perf_counter_ns
    for step in range(count):
        if step % 500 == 0:
            (at or {}).get(step, int)()
            time.sleep(pace)
        if step % 1000 == 0:
            run.log_param(f"p{step}", step)
            run.set_tag("last", step)
        begun = clock()
        log(KEYS[step % 4], step * 0.25, step)
        took.append(clock() - begun)
    return took


def expected(count: int = EVENTS, *, without: Iterable[int] = ()) -> list[tuple[str, int, float]]:
    """The points that `log_events` logs, but for the steps in ``without``."""
    return sorted((KEYS[step % 4], step, step * 0.25) for step in set(range(count)) - set(without))


def assert_all_stored(server: MlflowServer, run_id: str, count: int = EVENTS) -> None:
    """What `log_events` has logged is there, each event once, and the run has ended."""
    found = stored(server, run_id)
    assert found.points == expected(count), describe(found.points, expected(count))
    assert found.status == "FINISHED"
    params = {key: value for key, value in found.params.items() if key.startswith("p")}
    assert params == {f"p{step}": str(step) for step in range(0, count, 1000)}
    assert found.tags["last"] == str((count - 1) // 1000 * 1000)


def describe(found: list[tuple[str, int, float]], wanted: list[tuple[str, int, float]]) -> str:
    """A difference in a few words: twenty thousand points are no message."""
    extra, missing = set(found) - set(wanted), set(wanted) - set(found)
    return f"{len(found)} of {len(wanted)}, missing {sorted(missing)[:5]}, extra {sorted(extra)[:5]}"


def assert_quick(took: list[int]) -> None:
    """The log calls stayed below 50 µs at the 99th percentile, and the usual one far below."""
    took = sorted(took)
    assert statistics.median(took) < 10_000, f"median {statistics.median(took)} ns"
    assert took[len(took) * 99 // 100] < 50_000, f"p99 {took[len(took) * 99 // 100]} ns"


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Wait until the condition holds; what it says then."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} has not happened in {PATIENCE} s"
        time.sleep(0.01)
    return found


def spoken(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING, about: str = "") -> list[str]:
    """What asynctrack has said to the user; with ``about``, a store's URI, only of that store: an earlier test may have
    left another one out of order."""
    records = [record for record in caplog.records if record.name == "asynctrack" and record.levelno >= level]
    return [record.getMessage() for record in records if about in record.getMessage()]


def sent_points(records: Iterable[Recorded]) -> list[int]:
    """The steps in recorded log-batch bodies, one after another."""
    return [metric["step"] for record in records for metric in record.json().get("metrics", ())]

"""Metrics a second into MLflow's own databases, SQLite and PostgreSQL, against bare inserts into the same tables.

The tables have MLflow's keys, indexes and foreign keys, as its newest version makes them: `metrics` has three B-trees,
and without them a figure means nothing. The bare side has its rows ready and in order, SQLite's as tuples for one
`executemany` and PostgreSQL's as the bytes of one binary COPY for each transaction of 64,000. Ours gets them as the
journal has them, and keeps `latest_metrics` too. "asynctrack" is timed from the first log call to the end of the run's
block. All write in turn: each a copy of its own of the empty database, and one copy a round of those with one and with
five million points (`--no-large` leaves these out). It takes about ten minutes.

Points are logged after those that are there, as a new run's are. "A run of old" has times at which others have logged:
each of its rows comes between theirs, so that the database has to read, keep and write again as many pages as it adds.

What is left is SQLite's own work. After a million points, on a disk in memory, a point takes 4.4 µs of processor time
with `executemany`, 3.2 with ours, and 94 with MLflow's store; of ours 2.8 are the statement's, whatever its form (one
row or a thousand, with or without ON CONFLICT), which inserts into four B-trees. So no writer gets beyond 1.6 times
`executemany` and 33 times MLflow's store there; and a real disk has to take the same bytes from all, which brings the
ratios down the more the slower it is.

The neighbour is a client of a real MLflow server on the same SQLite file, which logs 100 metrics ten times a second
while a process of ours writes without a break, and then sixteen. (The server and the writers share the CPUs.)
PostgreSQL has no such table: there, programs write at the same time.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asynctrack
from asynctrack.errors import UnavailableError
from asynctrack.stores.base import Batch, RecordBlock
from asynctrack.stores.io import drive
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, in_turn, work_folder
from benchmarks.report import Report, Table
from benchmarks.rest import call, raw
from benchmarks.sql_databases import (
    BATCH,
    KEYS,
    START,
    Database,
    Postgres,
    Sqlite,
    block,
    new_run,
    on_a_copy,
    opened,
    points,
)
from tests import servers
from tests.mlflow_store import open_mlflow

T = TypeVar("T")

EVENTS, RUNS, ROUNDS = 192_000, 64, 5
#: a run whose points are as old as others that are there: its rows come between theirs
AMONG = "a run of old"
#: rounds where there are a million points already
FEW_ROUNDS = 3
FILLED = (0, 1_000_000, 5_000_000)
#: events that MLflow's own store, and its server, are given
FEW = 10_000
SECONDS = 6.0
#: what a database has to reach: against bare inserts with one run, with 64; against MLflow's store, and its server
GOALS = {"SQLite": (1.4, 0.9, 30, 25), "PostgreSQL": (0.85, 0.85, 10, 12)}


def ours(uri: str, blocks: list[RecordBlock]) -> float:
    """Seconds that our store takes for one run's batches."""
    store = opened(uri)
    run_id = new_run(store)
    begun = time.perf_counter()
    for each in blocks:
        drive(store.log_batch(run_id, Batch(blocks=[each])))
    took = time.perf_counter() - begun
    drive(store.aclose())
    return took


def whole(uri: str, events: int) -> float:
    """Seconds from the first log call to the end of a run's block."""
    with asynctrack.start_run(tracking_uri=uri) as active:
        log = active.log_metric
        begun = time.perf_counter()
        for number in range(events):
            log(KEYS[number % 10], number * 0.37, number // 10)
    took = time.perf_counter() - begun
    asynctrack.shutdown()  # a copy that is still in use is not deleted
    return took


def together(uri: str, blocks: list[RecordBlock]) -> float:
    """Seconds that our store takes for the same batches of each of 64 runs, which all log at once."""
    store = opened(uri)
    ids = [new_run(store) for _ in range(RUNS)]

    def log(run_id: str) -> None:
        for each in blocks:
            drive(store.log_batch(run_id, Batch(blocks=[each])))

    threads = [threading.Thread(target=log, args=(run_id,)) for run_id in ids]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    drive(store.aclose())
    return took


def theirs(uri: str, begin: int, events: int, root: Path) -> float:
    """Seconds that MLflow's own store takes, in its batches of 1000."""
    from mlflow.entities import Metric

    store = open_mlflow(uri, root)
    run_id = store.create_run("0", "", START, [], None).info.run_id
    batches = [
        [Metric(KEYS[metric], value, at, step) for metric, at, step, value in points(first, 1000)]
        for first in range(begin, begin + events, 1000)
    ]
    begun = time.perf_counter()
    for each in batches:
        store.log_batch(run_id, each, [], [])
    took = time.perf_counter() - begun
    store._dispose_engine()
    return took


def rates(options: Options, report: Report, work: Path, database: Database, server: float) -> None:
    """Fill the table of rates, at each size of the database. ``server``: metrics a second of MLflow's."""
    events = BATCH if options.quick else EVENTS
    columns = ["points before", "who", "metrics/s", f"against {database.bare}", "against MLflow's store"]
    table = Table(f"Into one {database.name} database with MLflow's keys and indexes", columns)
    before, few = 0, FEW // 10 if options.quick else FEW
    bare, mlflows = database.bare, "MLflow's store"
    for size in FILLED[:1] if options.quick or not options.large else FILLED:
        for first in range(before, size, 1_000_000):  # a run each
            database.fill(first, min(1_000_000, size - first))
        before = size
        # Each writes after what is there, and after what others write into the same copy.
        first, second, third, fourth, fifth = range(size, size + 5 * events, events)
        measured: dict[str, tuple[int, Callable[[str], float]]] = {
            f"{bare}, one run": (events, partial(database.insert, first=first, events=events, runs=1)),
            "our store, one run": (events, partial(ours, blocks=blocks(second, events))),
            "asynctrack, one run": (events, partial(whole, events=events)),
            f"{mlflows}, one run": (few, partial(theirs, begin=third, events=few, root=work)),
            f"{bare}, 64 runs": (events, partial(database.insert, first=fourth, events=events, runs=RUNS)),
            "our store, 64 runs": (events, partial(together, blocks=blocks(fifth, events, RUNS))),
        }
        if size:
            measured |= {
                f"{bare}, {AMONG}": (events, partial(database.insert, first=0, events=events, runs=1)),
                f"our store, {AMONG}": (events, partial(ours, blocks=blocks(size // 2, events))),
            }
        rounds = _rounds(database, [call for _, call in measured.values()], options, filled=size > 0)
        speed = {
            name: [count / took for took in took_by]
            for (name, (count, _)), took_by in zip(measured.items(), zip(*rounds, strict=True), strict=True)
        }

        def ratio(one: str, other: str, speed: dict[str, list[float]] = speed) -> float:
            return statistics.median(a / b for a, b in zip(speed[one], speed[other], strict=True))

        for name, found in speed.items():
            floor = f"{bare}, {name.partition(', ')[2]}"
            against = [f"{ratio(name, floor):.2f}×", f"{ratio(name, f'{mlflows}, one run'):.1f}×"]
            table.add(f"{size:,}", name, f"{statistics.median(found):,.0f}", *against)
        label = f"{database.name}{f', after {size:,} points' if size else ''}"
        for (name, one, other), least in zip(
            (
                ("one", "our store, one run", f"{bare}, one run"),
                ("runs", "our store, 64 runs", f"{bare}, 64 runs"),
                ("mlflow", "our store, one run", f"{mlflows}, one run"),
            ),
            GOALS[database.name][:3],
            strict=True,
        ):
            name = f"{database.name.lower()}_{name}_{size}"
            report.goal(name, f"{label}: {one}, against {other}", ratio(one, other), least, at_least=True)
        if not size:
            found_by_us = statistics.median(speed["our store, one run"]) / server
            what = f"{label}: our store against a server ({server:,.0f} metrics/s)"
            report.goal(f"{database.name.lower()}_server", what, found_by_us, GOALS[database.name][3], at_least=True)
        named = (goal for goal in report.goals if goal.name.startswith(database.name.lower()))
        said = ", ".join(f"{goal.name} {goal.found:.2f}" for goal in named if goal.name.endswith(f"_{size}"))
        print(f"{label}: {said}", file=sys.stderr, flush=True)
    report.tables.append(table)


def blocks(first: int, events: int, runs: int = 1) -> list[RecordBlock]:
    """What one of so many runs logs, for its part of each transaction."""
    return [block(at, BATCH // runs) for at in range(first, first + events // runs, BATCH // runs)]


def _rounds(
    database: Database, calls: list[Callable[[str], float]], options: Options, *, filled: bool
) -> list[list[float]]:
    """Seconds of each call, round by round: each on a copy of its own; on filled tables, to which they add little, on
    one copy a round."""
    if not filled:
        own = [partial(on_a_copy, database, call) for call in calls]
        return in_turn(own, 1 if options.quick else ROUNDS)
    uri = ""

    def begin() -> None:
        nonlocal uri
        database.drop()
        uri = database.copy(large=True)

    found = in_turn([lambda call=call: call(uri) for call in calls], FEW_ROUNDS, begin)  # type: ignore[misc]
    database.drop()
    return found


def speed_of(server: servers.MlflowServer, options: Options) -> float:
    """Metrics a second that a server takes from one client, with bodies that are ready."""
    few = FEW // 10 if options.quick else FEW
    return few / min(raw(server.url, few, 1) for _ in range(1 if options.quick else ROUNDS))


def write_on(uri: str, seconds: float, results: Any, size: int) -> None:
    """In a process of its own: write without a break; how many points that were, and the longest batch in seconds."""
    store = opened(uri)
    run_id, written, longest = _until_it_is_done(lambda: new_run(store)), 0, 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        batch = Batch(blocks=[block(written, size)])
        begun = time.monotonic()
        _until_it_is_done(lambda batch=batch: drive(store.log_batch(run_id, batch)))  # type: ignore[misc]
        longest = max(longest, time.monotonic() - begun)
        written += size
    results.put((written, longest))


def _until_it_is_done(call: Callable[[], T]) -> T:
    """What a call returns that may not come to its turn while it waits; the engine tries again, too."""
    while True:
        try:
            return call()
        except UnavailableError:
            continue


def writers(uri: str, count: int, seconds: float, size: int = BATCH) -> tuple[list[Any], Any]:
    """Processes that have begun, and where their results will be."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.SimpleQueue()
    found = [spawn.Process(target=write_on, args=(uri, seconds, results, size)) for _ in range(count)]
    for process in found:
        process.start()
    return found, results


def latencies(url: str, seconds: float) -> list[float]:
    """How long the requests of a client take, in ms, that logs 100 metrics ten times a second."""
    run_id = call(url, "runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    found, until, number = [], time.monotonic() + seconds, 0
    while time.monotonic() < until:
        metrics = [{"key": "m", "value": 1.0, "timestamp": number * 100 + i, "step": i} for i in range(100)]
        begun = time.monotonic()
        answer = call(url, "runs/log-batch", {"run_id": run_id, "metrics": metrics})
        if "error_code" in answer:
            raise RuntimeError(f"a request of the server's client failed: {answer}")
        found.append((time.monotonic() - begun) * 1e3)
        number += 1
        time.sleep(max(0.1 - (time.monotonic() - begun), 0.0))
    return found


def neighbours(options: Options, report: Report, work: Path) -> float:
    """Fill the table of neighbours; how many metrics a second the server takes when nobody disturbs it."""
    seconds, many = (2.0, 4) if options.quick else (SECONDS, 16)
    table = Table("Beside others on one file", ["who", "p50", "most", "of how many"])
    with servers.sqlite(work) as server:
        alone = speed_of(server, options)
        quiet = latencies(server.url, seconds)
        begun, results = writers(server.backend, 1, seconds + 3.0)
        time.sleep(2.0)  # it imports, and finds out that it has company
        busy = latencies(server.url, seconds)
        for process in begun:
            process.join()
        written, _ = results.get()
        begun, results = writers(server.backend, many, seconds * 4, 10_000)
        time.sleep(seconds)
        crowded = latencies(server.url, seconds * 2)  # raises where one fails
        for process in begun:
            process.join()
        together = sum(results.get()[0] for _ in begun)
    for name, found in (
        ("a server's client, quiet", quiet),
        ("the same while we write", busy),
        (f"the same beside {many} of our writers", crowded),
    ):
        table.add(name, f"{statistics.median(found):.0f} ms", f"{max(found):.0f} ms", f"{len(found)} requests")
    table.add("our writer beside it", f"{written / (seconds + 3.0):,.0f} metrics/s", "", "")
    table.add(f"these {many}, all together", f"{together / (seconds * 4):,.0f} metrics/s", "", "")
    factor = statistics.median(busy) / statistics.median(quiet)
    report.goal("neighbour", "a server's client while we write, p50 against quiet", factor, 5.0)
    what = f"longest request of a server's client beside {many} writers (it fails after 20 s)"
    report.goal("sixteen", what, max(crowded) / 1e3, 20.0, "s")
    path = work / "four.db"
    open_mlflow(path)._dispose_engine()
    begun, results = writers(f"sqlite:///{path}", 4, seconds * 2)
    for process in begun:
        process.join()
    shares = [results.get() for _ in begun]
    counts = [count for count, _ in shares]
    table.add(
        "four writers, each",
        f"{statistics.median(counts):,.0f} points",
        f"longest batch {max(s for _, s in shares):.1f} s",
        f"{min(counts):,} to {max(counts):,}",
    )
    report.goal(
        "four", "the least of four writers, of their mean", min(counts) / statistics.mean(counts), 0.5, at_least=True
    )
    report.tables.append(table)
    return alone


def programs(options: Options, report: Report, database: Postgres) -> None:
    """Fill the table of programs that write one PostgreSQL database at the same time."""
    seconds = 2.0 if options.quick else SECONDS
    table = Table("Several programs into one PostgreSQL database", ["programs", "metrics/s", "least and most of one"])

    def rate(count: int, uri: str) -> float:
        begun, results = writers(uri, count, seconds)
        for process in begun:
            process.join()
        counts: list[int] = [results.get()[0] for _ in begun]
        table.add(str(count), f"{sum(counts) / seconds:,.0f}", f"{min(counts):,} to {max(counts):,} points")
        return sum(counts) / seconds

    for count in (1, 2) if options.quick else (1, 2, 4):
        on_a_copy(database, partial(rate, count))
    report.tables.append(table)


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("sql", "MLflow's databases", __doc__ or "")
    with work_folder() as work, clean_settings(work):
        server = neighbours(options, report, work)
        with closing(Sqlite(work)) as file:
            rates(options, report, work, file, server)
        try:
            database = Postgres(work)
        except ImportError as error:
            report.notes.append(f"PostgreSQL was not measured: {error}.")
            return report
        with closing(database):
            folder = work / "postgres"
            folder.mkdir()
            with database.server(folder) as on_postgres:
                server = speed_of(on_postgres, options)
            rates(options, report, work, database, server)
            programs(options, report, database)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

"""Programs that call ``mlflow``, as they are and behind asynctrack, against one real MLflow server on SQLite.

Each way is measured in a process of its own, three times, in turn: plain MLflow; its asynchronous logging, as it is by
default and with a buffer of a second; and behind asynctrack. A call's cost is the processor time of the thread that
logs. End to end, one `log_metric` a call, is until the run has ended and all is on the server. A run with one metric,
and reading a run back after one, is what gains nothing from batching.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.command import Options, run
from benchmarks.measuring import in_turn, work_folder
from benchmarks.report import Report, Table
from tests import servers

#: the ways: environment, calls that are timed, and events that are sent end to end
WAYS: dict[str, tuple[dict[str, str], int, int]] = {
    "plain": ({}, 60, 400),
    "async": ({"MLFLOW_ENABLE_ASYNC_LOGGING": "true"}, 400, 400),
    "buffered": ({"MLFLOW_ENABLE_ASYNC_LOGGING": "true", "MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "1"}, 400, 8_000),
    "asynctrack": ({"ASYNCTRACK_MLFLOW": "1"}, 4_000, 30_000),
}
ROUNDS, SHORT_RUNS = 3, 12
#: what a worker finds: µs of processor time a call, events a second, ms
FINDINGS = {
    "call": "`mlflow.log_metric`, µs",
    "client": "`MlflowClient.log_metric`, µs",
    "model": "the same with `model_id=`, µs",
    "events": "end to end, events/s",
    "run": "run with one metric, ms",
    "read": "metric, then `get_run`, ms",
}


def work(calls: int, events: int) -> dict[str, float]:
    """What this process, with MLflow as its environment says, takes."""
    import mlflow as unmodified

    mlflow: Any = unmodified
    client = mlflow.MlflowClient()
    found = {}
    with mlflow.start_run() as active:
        run_id = active.info.run_id
        model_id = mlflow.create_external_model(name="model").model_id
        ways: dict[str, Callable[[int], Any]] = {
            "call": lambda step: mlflow.log_metric("a", 0.5, step=step),
            "client": lambda step: client.log_metric(run_id, "b", 0.5, step=step),
            "model": lambda step: client.log_metric(run_id, "c", 0.5, step=step, model_id=model_id),
        }
        for name, log in ways.items():
            for step in range(20):
                log(step)
            begun = time.thread_time()
            for step in range(calls):
                log(step)
            found[name] = (time.thread_time() - begun) / calls * 1e6
    begun = time.perf_counter()
    with mlflow.start_run():
        for step in range(events):
            mlflow.log_metric("a", step * 0.37, step=step)
    found["events"] = events / (time.perf_counter() - begun)
    runs, reads = [], []
    for _ in range(SHORT_RUNS):
        begun = time.perf_counter()
        with mlflow.start_run():
            mlflow.log_metric("a", 1.0)
        runs.append(time.perf_counter() - begun)
    with mlflow.start_run() as active:
        for step in range(SHORT_RUNS):
            begun = time.perf_counter()
            mlflow.log_metric("a", 1.0, step=step)
            client.get_run(active.info.run_id)
            reads.append(time.perf_counter() - begun)
    return {**found, "run": statistics.median(runs) * 1e3, "read": statistics.median(reads) * 1e3}


def one(way: str, url: str, folder: str, quick: bool) -> dict[str, float]:
    """What a process of its own finds."""
    settings, calls, events = WAYS[way]
    share = 10 if quick else 1
    foreign = ("MLFLOW_", "ASYNCTRACK_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"MLFLOW_TRACKING_URI": url, "ASYNCTRACK_SPOOL_DIR": folder, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", **settings}
    code = (
        "import json; from benchmarks.behind_mlflow import work; "
        f"print(json.dumps(work({calls // share}, {events // share})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("behind_mlflow", "Behind unmodified mlflow", __doc__ or "")
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with work_folder() as folder, servers.sqlite(folder) as server:

        def measured(way: str) -> float:
            rounds[way].append(one(way, server.url, str(folder / "spool"), options.quick))
            return 0.0

        in_turn([lambda way=way: measured(way) for way in WAYS], 1 if options.quick else ROUNDS)  # type: ignore[misc]
    table = Table("Medians of the rounds", ["way", *FINDINGS.values()])
    median = {way: {name: statistics.median(each[name] for each in rounds[way]) for name in FINDINGS} for way in WAYS}
    for way, found in median.items():
        table.add(way, *(f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in found.values()))
    report.tables.append(table)
    ours, plain, queued, buffered = (median[way] for way in ("asynctrack", "plain", "async", "buffered"))
    report.goal("call", "`mlflow.log_metric`", ours["call"], 1.5, "µs")
    report.goal("async", "`mlflow.log_metric`, against asynchronous logging", ours["call"] / queued["call"], 1 / 6)
    report.goal("plain", "`mlflow.log_metric`, against plain", ours["call"] / plain["call"], 1 / 60)
    report.goal("client", "`MlflowClient.log_metric`, against plain", ours["client"] / plain["client"], 1 / 60)
    report.goal("model", "a metric of a model, against plain", ours["model"] / plain["model"], 1 / 20)
    for name, theirs, least in (("plain", plain, 15.0), ("async", queued, 15.0), ("buffered", buffered, 1.5)):
        ratio = ours["events"] / theirs["events"]
        report.goal(f"end_{name}", f"end to end, against {name}", ratio, least, at_least=True)
    for name, what in (("run", "a run with one metric"), ("read", "a metric, then get_run")):
        ratios = [mine[name] / other[name] for mine, other in zip(rounds["asynctrack"], rounds["plain"], strict=True)]
        report.goal(name, f"{what}, against plain", statistics.median(ratios), 1.0)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

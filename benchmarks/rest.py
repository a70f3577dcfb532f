"""Metrics a second into a real MLflow server, against raw pre-encoded bodies sent with the best number of connections.

The raw side does nothing but send: its bodies of 1000 metrics each are made beforehand, and the best of 1, 2, 4 and 8
connections counts. Ours is timed from the first log call to the end of the run's block. Both write to the same server
in turn, into runs of their own; every point of ours is counted on the server afterwards. The server takes a CPU of its
own, and on two CPUs it competes with whoever sends. MLflow's own client logs to the same server, asynchronously, for
some seconds.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asynctrack
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, work_folder
from benchmarks.report import Chart, Report, Table
from tests import servers

CONNECTIONS, PROBES = (1, 2, 4, 8), 3
KEYS = [f"metric{number}" for number in range(10)]
SERVERS: dict[str, Callable[[Path], servers.MlflowServer]] = {
    "SQLite": lambda folder: servers.sqlite(folder),
    "PostgreSQL": lambda folder: servers.postgres(folder, workers=2),
}
EVENTS, ROUNDS, SECONDS = 40_000, 5, 3.0
QUICK_EVENTS, QUICK_ROUNDS, QUICK_SECONDS = 8_000, 1, 0.3


def call(url: str, path: str, body: dict[str, object]) -> dict[str, dict[str, dict[str, str]]]:
    """One call of the server's API."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), {"Content-Type": "application/json"})
    answer: dict[str, dict[str, dict[str, str]]] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def bodies(run_id: str, events: int) -> list[bytes]:
    """What the raw side sends."""
    now = time.time_ns() // 1_000_000
    found = []
    for first in range(0, events, 1000):
        metrics = [
            {"key": KEYS[step % 10], "value": step * 0.37, "timestamp": now + step, "step": step}
            for step in range(first, min(first + 1000, events))
        ]
        found.append(json.dumps({"run_id": run_id, "metrics": metrics}).encode())
    return found


def raw(url: str, events: int, connections: int) -> float:
    """Seconds that the bodies take over so many connections."""
    run_id = call(url, "runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    waiting = bodies(run_id, events)
    parts = urlsplit(url)
    failed: list[int] = []

    def send() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        while True:
            try:
                body = waiting.pop(0)
            except IndexError:
                break
            connection.request("POST", "/api/2.0/mlflow/runs/log-batch", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failed.append(response.status)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if failed:
        sys.exit(f"the server answered {failed}")
    return took


def ours(server: servers.MlflowServer, events: int) -> float:
    """Seconds until every point is on the server, where they are counted."""
    with asynctrack.start_run(tracking_uri=server.url) as active:
        run_id, keys, log = active.run_id, KEYS, active.log_metric
        begun = time.perf_counter()
        for step in range(events):
            log(keys[step % 10], step * 0.37, step)
    took = time.perf_counter() - begun
    [[stored]] = server.rows("select count(*) from metrics where run_uuid = :run", run=run_id)
    if stored != events:
        sys.exit(f"{stored:,} of {events:,} points are on the server")
    return took


def compare(kind: str, server: servers.MlflowServer, quick: bool, table: Table) -> tuple[float, float]:
    """Add a row for each round; the median ratio of our speed to the best raw one, and our median speed."""
    events, rounds = (QUICK_EVENTS, QUICK_ROUNDS) if quick else (EVENTS, ROUNDS)
    probe = max(events // 4, 8_000)
    # Several times: of two workers, now and then one gets all connections.
    tries: dict[int, list[float]] = {number: [] for number in (CONNECTIONS[-1:] if quick else CONNECTIONS)}
    for number in list(tries) * (1 if quick else PROBES):
        tries[number].append(raw(server.url, probe, number))
    best = min(tries, key=lambda number: statistics.median(tries[number]))
    found = []
    for number in range(1, rounds + 1):
        # The server slows down as its table grows: raw before and after ours, so that neither has the better place.
        before = raw(server.url, events, best)
        took = ours(server, events)
        floor = (before + raw(server.url, events, best)) / 2
        found.append((floor / took, events / took))
        name = f"{kind}, round {number}"
        table.add(name, str(best), f"{events / floor:,.0f}", f"{events / took:,.0f}", f"{floor / took:.2f}×")
    ratios, ours_speeds = zip(*found, strict=True)
    return statistics.median(ratios), statistics.median(ours_speeds)


def theirs(kind: str, server: servers.MlflowServer, options: Options, report: Report) -> float | None:
    """MLflow's own client's events a second, asynchronously; None where it cannot be had."""
    for subject in peers.available(options, report.notes):
        if subject.job.get("synchronous") is False:
            length = QUICK_SECONDS if options.quick else SECONDS
            try:
                found = peers.measure(subject, job="loop", seconds=length, events=500, uri=server.url)
            except RuntimeError as error:
                report.notes.append(f"Left out: {error}.")
                return None
            report.notes.append(
                f"mlflow {subject.version}, asynchronous, to {kind}: {found['p50']:.0f} µs a call (p50), "
                f"{found['events'] / found['total']:,.0f} events/s."
            )
            return float(found["events"] / found["total"])
    return None


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("rest", "Into an MLflow server", __doc__ or "")
    columns = ["server", "raw connections", "raw bodies, metrics/s", "asynctrack, metrics/s", "ratio"]
    table = Table("Against raw bodies at their best concurrency", columns)
    only_mlflow = options._replace(peers=["mlflow"] if options.peers is None or "mlflow" in options.peers else [])
    with work_folder() as work, clean_settings(work):
        for kind, make in SERVERS.items():
            folder = work / kind
            folder.mkdir()
            with make(folder) as server:
                ratio, speed = compare(kind, server, options.quick, table)
                report.goal(kind, f"{kind}, against raw bodies", ratio, 0.95, at_least=True)
                peer = theirs(kind, server, only_mlflow, report)
            if peer is not None:
                report.goal(
                    f"{kind}_mlflow", f"{kind}, against mlflow's asynchronous client", speed / peer, 30.0, at_least=True
                )
            asynctrack.shutdown()
    report.tables.append(table)
    rows = [[float(cell.replace(",", "")) for cell in row[2:4]] for row in table.rows]
    report.charts.append(
        Chart(
            "rest",
            "bars",
            "Metrics a second into a real MLflow server",
            "metrics/s",
            [row[0] for row in table.rows],
            {"raw bodies": [row[0] for row in rows], "asynctrack": [row[1] for row in rows]},
        )
    )
    return report


if __name__ == "__main__":
    run(__doc__, measure)

"""Metrics a second into a real MLflow server, against raw pre-encoded bodies sent with the best number of connections.

The raw side does nothing but send: its bodies of 1000 metrics each are made beforehand, and the best of 1, 2, 4 and 8
connections counts. Ours is timed from the first log call to the end of the run's block. Both write to the same server
in turn, into runs of their own; every point of ours is counted on the server afterwards. The server takes a CPU of its
own, and on two CPUs it competes with whoever sends.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import asynctrack
from benchmarks import at_least, machine
from tests import servers

CONNECTIONS = (1, 2, 4, 8)
KEYS = [f"metric{number}" for number in range(10)]


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
    run = call(url, "runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    waiting = bodies(run, events)
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


def ours(url: str, events: int) -> tuple[float, float, str]:
    """Seconds until every point is on the server, microseconds a call, and the run's id."""
    with asynctrack.start_run(tracking_uri=url) as run:
        run_id, keys, log = run.run_id, KEYS, run.log_metric
        begun = time.perf_counter()
        for step in range(events):
            log(keys[step % 10], step * 0.37, step)
        called = time.perf_counter() - begun
    return time.perf_counter() - begun, called / events * 1e6, run_id


def count(server: servers.MlflowServer, run_id: str) -> int:
    """How many points of a run are in the server's database."""
    return int(server.rows("select count(*) from metrics where run_uuid = :run", run=run_id)[0][0])


def compare(kind: str, server: servers.MlflowServer, events: int, rounds: int) -> float:
    """Print a table; the median ratio of our speed to the best raw one."""
    probe = events // 4
    speeds = {number: probe / raw(server.url, probe, number) for number in CONNECTIONS}
    best = max(speeds, key=lambda number: speeds[number])
    found = ", ".join(f"{number}: {speed:,.0f}" for number, speed in speeds.items())
    print(f"\n{kind}: raw metrics/s by connections: {found}")
    print(f"{f'{events:,} metrics':18} {f'raw, {best} connections':>20} {'asynctrack':>16} {'a log call':>12} {'ratio':>7}")
    ratios = []
    for number in range(1, rounds + 1):
        # The server slows down as its table grows: raw before and after ours, so that neither has the better place.
        before = raw(server.url, events, best)
        took, call_us, run_id = ours(server.url, events)
        floor = (before + raw(server.url, events, best)) / 2
        ratios.append(floor / took)
        print(
            f"{f'round {number}':18} {events / floor:16,.0f} m/s {events / took:12,.0f} m/s {call_us:9.2f} µs "
            f"{floor / took:7.2f}"
        )
        stored = count(server, run_id)
        if stored != events:
            sys.exit(f"{stored:,} of {events:,} points are on the server")
    median = statistics.median(ratios)
    print(f"median {median:.2f}; all {events:,} points of each round are in the database, once")
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", default="sqlite,postgres")
    parser.add_argument("--min-ratio", type=float, help="exit with status 1 where a median ratio is below this")
    options = parser.parse_args()

    print(machine())
    found = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        asynctrack.configure(spool_dir=str(Path(work, "spool")), close_timeout=600.0)
        for kind in options.servers.split(","):
            folder = Path(work, kind)
            folder.mkdir()
            make = {"sqlite": servers.sqlite, "postgres": servers.postgres}[kind]
            with make(folder, workers=1 if kind == "sqlite" else 2) as server:
                found[kind] = compare(kind, server, options.events, options.rounds)
            asynctrack.shutdown()
    for kind, ratio in found.items():
        at_least(f"rest, {kind}", ratio, options.min_ratio)


if __name__ == "__main__":
    main()

"""A thousand clients on one server: the rate, who gets how much when it falls behind, and what happens as it restarts.

Each client has what a logging program has: a journal, a run, a store with connections of its own, and the engine's
delivery with its batches, limits and retries. 500 of them share a process and its event loop. The server is a stand-in
of one process that answers at once, so that what is seen is the clients' doing. In turn: it keeps up; it is away, and
comes back; it can store three quarters of what is logged, one request after another; it keeps up again. Every event
must have arrived in the end.
"""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import work_folder
from benchmarks.report import Chart, Report, Table


class Size(NamedTuple):
    """So many clients, in so many processes, that log so many events a second each; and seconds of each part."""

    clients: int
    processes: int
    events: int
    flush_interval: float
    steady: float
    away: float
    back: float
    slow: float


FULL = Size(clients=1000, processes=2, events=20, flush_interval=2.0, steady=10, away=6, back=15, slow=20)
QUICK = Size(clients=100, processes=2, events=20, flush_interval=1.0, steady=2, away=2, back=4, slow=5)
#: events a second that the slow server stores, against those logged
CAPACITY = 0.75


class Times(NamedTuple):
    """When each part began (monotonic seconds)."""

    steady: float
    down: float
    up: float
    slow: float
    fast: float


@contextmanager
def process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One of our modules, run; killed at the end where it has not ended."""
    command = [sys.executable, "-m", module, *arguments]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=peers.environment()
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Give an order."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Its next line. Ends the program where it has none."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        sys.exit("a part of the fleet has died")
    return line


def play(size: Size, work: Path) -> tuple[Times, dict[str, Any], list[dict[str, Any]]]:
    """The whole story: when what began, the server's report, and the clients'."""
    with ExitStack() as stack:
        server = stack.enter_context(process("benchmarks.fleet_server"))
        job = {
            "url": f"http://127.0.0.1:{hear(server)}",
            "spool": str(work / "spool"),
            "clients": size.clients // size.processes,
            "flush_interval": size.flush_interval,
            "events": size.events // 10,
        }
        clients = [
            stack.enter_context(process("benchmarks.fleet_clients", json.dumps(job))) for _ in range(size.processes)
        ]
        for client in clients:
            hear(client)
        time.sleep(2 * size.flush_interval)  # until as much arrives as is logged
        starts = []
        capacity = CAPACITY * size.clients * size.events
        parts = [
            ("", size.steady),
            ("down", size.away),
            ("up", size.back),
            (f"slow {1 / capacity}", size.slow),
            ("slow 0", 0),
        ]
        for order, length in parts:
            if order:
                tell(server, order)
            starts.append(time.monotonic())
            time.sleep(length)
        for client in clients:
            tell(client, "stop")
        found = [json.loads(hear(client)) for client in clients]
        tell(server, "report")
        return Times._make(starts), json.loads(hear(server)), found


def rates(moments: Iterable[tuple[float, float]], start: float, end: float, width: float) -> list[float | None]:
    """Events a second in bins of ``width`` seconds; ``moments`` are (time, events)."""
    bins: Counter[int] = Counter()
    for moment, events in moments:
        if start <= moment < end:
            bins[int((moment - start) / width)] += round(events)
    return [bins[number] / width for number in range(round((end - start) / width))]


def increments(samples: list[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    """From running totals to (time, what was added)."""
    for (_, before), (moment, after) in itertools.pairwise(samples):
        yield moment, after - before


def judge(size: Size, times: Times, server: dict[str, Any], clients: list[dict[str, Any]], report: Report) -> None:
    """Fill tables, goals and the chart."""
    logged = sum(sum(client["logged"]) for client in clients)
    stored = sum(server["stored"].values())
    if logged != stored:
        sys.exit(f"the fleet logged {logged:,} events, and {stored:,} are on the server")
    offered = size.clients * size.events
    retries = [change for client in clients for change in increments(client["retries"])]
    requests = [(moment, 1.0) for moment in server["requests"]]
    batches = [(moment, float(events)) for moment, _, events in server["batches"]]
    table = Table(
        f"{size.clients:,} clients, {offered:,} events/s logged", ["part", "stored/s", "requests/s", "retries/s"]
    )
    last = max(moment for moment, _ in batches)
    names = ("keeping up", "away", "back", f"at {CAPACITY:.0%}", "catching up")
    for name, start, end in zip(names, times, [*times[1:], last], strict=True):
        length = max(end - start, 0.001)
        sums = (sum(n for at, n in moments if start <= at < end) / length for moments in (batches, requests, retries))
        table.add(name, *(f"{rate:,.0f}" for rate in sums))
    report.tables.append(table)

    steady = sum(events for at, events in batches if times.steady <= at < times.down) / (times.down - times.steady)
    report.goal("rate", "stored while the server keeps up, against logged", steady / offered, 0.95, at_least=True)
    storm = max(rate or 0.0 for rate in rates(requests, times.up, times.slow, 0.1)) / size.clients
    what = "requests a second and client in the busiest tenth of a second after a restart"
    report.goal("storm", what, storm, 3.0, "")
    tries = max(rate or 0.0 for rate in rates(retries, times.up - 1.0, times.up, 1.0)) / size.clients
    report.goal("retries", "retries a second and client, in the last second of the outage", tries, 1.0, "")
    fairness(size, times, server, report)

    width = 0.5
    start, end = times.steady, max(last, times.fast)
    series = {
        "events stored": rates(batches, start, end, width),
        "requests": rates(requests, start, end, width),
        "retries": rates(retries, start, end, width),
    }
    xs = [number * width for number in range(len(series["requests"]))]
    title = f"{size.clients:,} clients: server away after {size.steady:g} s, too slow after {times.slow - start:.0f} s"
    report.charts.append(Chart("fleet", "lines", title, "a second", [], series, xs=xs, x_axis="seconds", log=True))


def fairness(size: Size, times: Times, server: dict[str, Any], report: Report) -> None:
    """How the slow server's time was shared out."""
    table = Table(f"Shares at {CAPACITY:.0%} of what is logged", ["", "least", "median", "most"])
    shares: Counter[str] = Counter(dict.fromkeys(server["stored"], 0))
    answered: dict[str, list[float]] = {name: [times.slow] for name in server["stored"]}
    first_back: dict[str, float] = {}
    for moment, name, events in server["batches"]:
        if times.slow <= moment < times.fast:
            shares[name] += events
            answered[name].append(moment)
        if moment >= times.up:
            first_back.setdefault(name, moment - times.up)
    gaps = [max(b - a for a, b in zip(each, [*each[1:], times.fast], strict=True)) for each in answered.values()]
    rows = {
        "events stored a client": list(map(float, shares.values())),
        "longest wait for an answer, s": gaps,
        "first answer after the restart, s": list(first_back.values()),
    }
    for name, values in rows.items():
        middle = statistics.median(values)
        table.add(name, *(f"{value:,.1f}" for value in (min(values), middle, max(values))))
    report.tables.append(table)
    values = rows["events stored a client"]
    jain = sum(values) ** 2 / (len(values) * sum(value * value for value in values))
    report.goal("fair", "fairness (Jain's index) of the slow server's shares", jain, 0.9, "", at_least=True)
    least = min(values) / statistics.median(values)
    report.goal("starved", "the least share against the median", least, 0.5, at_least=True)
    report.goal("back", "every client's first answer after the restart", max(first_back.values()), 15.0, "s")


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("fleet", "A fleet", __doc__ or "")
    size = QUICK if options.quick else FULL
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    with work_folder() as work:
        judge(size, *play(size, work), report)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

"""Events a second out of spools that other programs have left behind, against the rate of a living program.

*Live*: from the first log call to the end of the run's block, into files. *Sync*: a program with ``mode="offline"`` has
logged the same events; ``asynctrack.sync`` is timed. *Recovery*: a program was killed with them in its spool; timed
is a program that starts a run in the same store, from there to the moment when the spool is delivered and gone.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import asynctrack
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, in_turn, work_folder
from benchmarks.report import Report, Table

EVENTS, ROUNDS = 1_000_000, 3

#: logs so many events, and then stops or dies as it is told: offline, or by a signal
LOG = """
import os, signal, sys
import asynctrack
store, spool, events, how = sys.argv[1:]
rests = {"mode": "offline"} if how == "offline" else {"flush_interval": 3600.0}
asynctrack.configure(spool_dir=spool, **rests)
with asynctrack.start_run(tracking_uri=store) as run:
    keys, log = [f"metric{number}" for number in range(10)], run.log_metric
    for step in range(int(events)):
        log(keys[step % 10], step * 0.37, step)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def left_behind(work: Path, events: int, how: str) -> tuple[Path, Path]:
    """A store and a spool folder with undelivered events for it."""
    here = work / f"{how}-{time.monotonic_ns()}"
    store, spool = here / "mlruns", here / "spool"
    here.mkdir()
    command = [sys.executable, "-c", LOG, str(store), str(spool), str(events), how]
    done = subprocess.run(command, env=peers.environment(), capture_output=True, text=True)
    if done.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"the program that logs failed: {done.stderr}")
    return store, spool


def live(work: Path, events: int) -> float:
    """Seconds."""
    store = work / f"live-{time.monotonic_ns()}"
    keys = [f"metric{number}" for number in range(10)]
    begun = time.perf_counter()
    with asynctrack.start_run(tracking_uri=str(store)) as active:
        log = active.log_metric
        for step in range(events):
            log(keys[step % 10], step * 0.37, step)
    took = time.perf_counter() - begun
    _check(store, events)
    return took


def synced(work: Path, events: int) -> float:
    """Seconds."""
    store, spool = left_behind(work, events, "offline")
    begun = time.perf_counter()
    asynctrack.sync(spool_dir=str(spool))
    took = time.perf_counter() - begun
    _check(store, events)
    return took


def recovered(work: Path, events: int) -> float:
    """Seconds."""
    store, spool = left_behind(work, events, "killed")
    [left] = [path for path in spool.iterdir() if path.is_dir()]
    with clean_settings(work, spool_dir=str(spool)):
        begun = time.perf_counter()
        with asynctrack.start_run(tracking_uri=str(store)):
            deadline = time.monotonic() + 300
            while os.path.exists(left):
                if time.monotonic() > deadline:
                    sys.exit(f"{left} was not delivered in five minutes")
                time.sleep(0.002)
            took = time.perf_counter() - begun
    _check(store, events)
    return took


def _check(store: Path, events: int) -> None:
    lines = sum(path.read_bytes().count(b"\n") for path in store.glob("*/*/metrics/*"))
    if lines != events:
        sys.exit(f"{lines:,} lines in {store}, but {events:,} events were logged")


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("recovery", "Sync and recovery", __doc__ or "")
    events = EVENTS // 20 if options.quick else EVENTS
    with work_folder() as work, clean_settings(work):
        calls = [lambda call=call: call(work, events) for call in (live, synced, recovered)]
        rounds = in_turn(calls, 1 if options.quick else ROUNDS)
    table = Table(f"{events:,} events over ten metrics, into files", ["how", "events/s", "against live"])
    for at, name in enumerate(("live", "sync", "recovery")):
        speed = events / statistics.median(row[at] for row in rounds)
        ratio = statistics.median(row[0] / row[at] for row in rounds)
        table.add(name, f"{speed:,.0f}", f"{ratio:.2f}×")
        if at:
            report.goal(name, f"{name}, against the live rate", ratio, 1.0, at_least=True)
    report.tables.append(table)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

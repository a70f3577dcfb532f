"""How much a process grows while millions of events wait for a hanging store, and as millions pass through.

For the first, another process holds the locks on the run's metric files, as a hung one on a shared disk would, so that
nothing can be delivered; then the locks go, and every event must arrive. For the second, the run is flushed after each
million. Resident memory counts mapped journal files too.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import asynctrack
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, work_folder
from benchmarks.report import Chart, Report, Table

KEYS = [f"metric{number}" for number in range(10)]
STEPS = 10
#: events that wait, and that are delivered
WAITING, DELIVERED = 5_000_000, 10_000_000

#: locks the files named on the command line, says so, and keeps them locked until its input ends
HOLD_LOCKS = """
import fcntl, sys
files = [open(path, "rb+") for path in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def resident_mib() -> float:
    """Resident memory of this process in MiB, mapped journal files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS line; this benchmark needs Linux")


def hold_locks(files: list[Path]) -> subprocess.Popen[str]:
    """Start a process that holds the locks; returns when it does."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCKS, *map(str, files)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != "locked\n":
        sys.exit("the metric files cannot be locked")
    return holder


def log_some(active: asynctrack.ActiveRun, first: int, count: int) -> None:
    """Log so many events."""
    keys, log = KEYS, active.log_metric
    for step in range(first, first + count):
        log(keys[step % 10], step * 0.37, step)


def pile_up(active: asynctrack.ActiveRun, events: int, table: Table) -> tuple[float, list[float | None]]:
    """Log the events, and wait a little; by how many MiB the process grew at most, and after each step."""
    before = most = resident_mib()
    steps: list[float | None] = []
    for first in range(0, events, events // STEPS):
        log_some(active, first, events // STEPS)
        now = resident_mib()
        most = max(most, now)
        steps.append(now - before)
        stats = active.stats()  # which reads the journal to count
        spooled = f"{stats.spool_bytes / 2**20:.0f} MiB"
        table.add(f"{first + events // STEPS:,}", f"{now:.1f} MiB", f"{now - before:+.1f} MiB", spooled)
    # The engine goes on trying meanwhile.
    end = time.monotonic() + 3
    while time.monotonic() < end:
        time.sleep(0.1)
        most = max(most, resident_mib())
    return most - before, steps


def store_away(events: int, report: Report) -> list[float | None]:
    """Fill the first table."""
    table = Table("Events logged while the store hangs", ["events", "resident", "growth", "journal on disk"])
    with work_folder() as work, clean_settings(work):
        store = work / "mlruns"
        with asynctrack.start_run(tracking_uri=str(store)) as active:
            active.log_metrics(dict.fromkeys(KEYS, 0.0))
            active.flush()
            files = [path for path in store.glob(f"*/{active.run_id}/metrics/*") if path.is_file()]
            holder = hold_locks(files)
            try:
                growth, steps = pile_up(active, events, table)
                paused = active.stats()
            finally:
                holder.kill()
                holder.communicate()
        lines = sum(path.read_bytes().count(b"\n") for path in files)
    if paused.pending < events:
        sys.exit("the store was not paused: the figure says nothing")
    if lines != events + len(KEYS):
        sys.exit(f"{lines:,} lines in the store, but {events + len(KEYS):,} events were logged")
    report.tables.append(table)
    report.goal("growth", f"growth with {events:,} events waiting", growth, 32.0, "MiB")
    return steps


def passing(events: int, report: Report) -> list[float | None]:
    """Fill the second table."""
    table = Table("Events logged and delivered", ["events", "resident", "since the first step"])
    steps: list[float | None] = []
    base = 0.0
    with (
        work_folder() as work,
        clean_settings(work),
        asynctrack.start_run(tracking_uri=str(work / "mlruns")) as active,
    ):
        for first in range(0, events, events // STEPS):
            log_some(active, first, events // STEPS)
            active.flush()
            now = resident_mib()
            base = base or now
            steps.append(now - base)
            table.add(f"{first + events // STEPS:,}", f"{now:.1f} MiB", f"{now - base:+.1f} MiB")
    report.tables.append(table)
    second_half = (steps[-1] or 0.0) - (steps[STEPS // 2 - 1] or 0.0)
    report.goal("flat", f"growth over the second half of {events:,} events delivered", second_half, 2.0, "MiB")
    return steps


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("memory", "Memory", __doc__ or "")
    logging.getLogger("asynctrack").setLevel(logging.ERROR)  # it warns of the hung process, rightly
    scale = 20 if options.quick else 1
    # First, in a young process: what piles up behind a hung store would leave free memory for it.
    flat = passing(DELIVERED // scale, report)
    waiting = store_away(WAITING // scale, report)
    shares = [float(step) for step in range(10, 110, 10)]
    report.charts.append(
        Chart(
            "memory",
            "lines",
            "Resident memory",
            "MiB more",
            [],
            {
                f"{WAITING // scale:,} events while the store hangs": waiting,
                f"{DELIVERED // scale:,} events delivered": flat,
            },
            xs=shares,
            x_axis="% of the events logged",
        )
    )
    return report


if __name__ == "__main__":
    run(__doc__, measure)

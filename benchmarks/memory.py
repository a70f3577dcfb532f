"""How much a process grows while events pile up that the store does not take.

Another process holds the locks on the run's metric files, as a hung one on a shared disk would, so that nothing can be
delivered; millions of events are logged meanwhile. Then the locks go, and every event must arrive.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asynctrack
from benchmarks import judge, machine

KEYS = [f"metric{number}" for number in range(10)]

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


def pile_up(run: asynctrack.ActiveRun, events: int) -> float:
    """Log the events; by how many MiB the process grew at most."""
    keys, log = KEYS, run.log_metric
    before = most = resident_mib()
    print(f"\n{'logged':>12} {'resident':>12} {'growth':>12} {'journal':>12} {'pending':>12}")
    chunk = max(events // 10, 1)
    for start in range(0, events, chunk):
        for step in range(start + 1, min(start + chunk, events) + 1):
            log(keys[step % 10], step * 0.37, step)
        # Before stats(), which reads the journal to count.
        now = resident_mib()
        most = max(most, now)
        stats = run.stats()
        spooled = stats.spool_bytes / 2**20
        print(f"{step:12,} {now:8.1f} MiB {now - before:8.1f} MiB {spooled:8.0f} MiB {stats.pending:12,}")
    # The engine goes on trying meanwhile.
    end = time.monotonic() + 3
    while time.monotonic() < end:
        time.sleep(0.1)
        most = max(most, resident_mib())
    print(f"{'at most':>12} {most:8.1f} MiB {most - before:8.1f} MiB")
    return most - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--max-mib", type=float, help="exit with status 1 where memory grows by more than this")
    options = parser.parse_args()

    print(machine())
    logging.getLogger("asynctrack").setLevel(logging.ERROR)  # it warns of the hung process, rightly
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        asynctrack.configure(spool_dir=str(Path(work, "spool")), close_timeout=600.0)
        store = Path(work, "mlruns")
        with asynctrack.start_run(tracking_uri=str(store)) as run:
            run.log_metrics(dict.fromkeys(KEYS, 0.0))
            run.flush()
            files = [path for path in store.glob(f"*/{run.run_id}/metrics/*") if path.is_file()]
            holder = hold_locks(files)
            try:
                growth = pile_up(run, options.events)
                paused = run.stats()
            finally:
                holder.kill()
                holder.communicate()
            begun = time.perf_counter()
        print(f"\nreleased: the backlog was delivered in {time.perf_counter() - begun:.1f} s")
        asynctrack.shutdown()
        lines = sum(path.read_bytes().count(b"\n") for path in files)
    if paused.pending < options.events:
        sys.exit("the store was not paused: the figure says nothing")
    if lines != options.events + len(KEYS):
        sys.exit(f"{lines:,} lines in the store, but {options.events + len(KEYS):,} events were logged")
    print(f"every one of {lines:,} lines is in mlruns, once")
    judge("growth of resident memory", growth, options.max_mib, " MiB")


if __name__ == "__main__":
    main()

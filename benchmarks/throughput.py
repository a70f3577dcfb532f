"""A million events into ``mlruns``, against one Python thread that formats the same lines and writes them to one file.

Ours is timed from the first log call to the end of the run's block, when every line is in the store: journal, engine,
ten files and their locks included. The plain writer has its timestamps for nothing, one buffered file and no other
thread. Every line of ours is then read back and compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import asynctrack
from benchmarks import judge, machine

KEYS = [f"metric{number}" for number in range(10)]


def plain(path: Path, events: int) -> float:
    """Seconds one thread takes to format and write the lines."""
    now = time.time_ns() // 1_000_000
    begun = time.perf_counter()
    with open(path, "w", buffering=1 << 20) as file:
        write = file.write
        for step in range(events):
            write(f"{now + step} {step * 0.37} {step}\n")
    return time.perf_counter() - begun


def ours(store: Path, events: int) -> tuple[float, float, str]:
    """Seconds until every line is in the store, seconds the calls took, and the run's id."""
    with asynctrack.start_run(tracking_uri=str(store)) as run:
        keys, log = KEYS, run.log_metric
        begun = time.perf_counter()
        for step in range(events):
            log(keys[step % 10], step * 0.37, step)
        called = time.perf_counter() - begun
    return time.perf_counter() - begun, called, run.run_id


def missing_lines(store: Path, run_id: str, events: int) -> int:
    """How many events are not in the store just once, as they were logged."""
    found: dict[str, list[str]] = {key: [] for key in KEYS}
    for key in KEYS:
        [path] = store.glob(f"*/{run_id}/metrics/{key}")
        found[key] = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    wanted: dict[str, list[str]] = {key: [] for key in KEYS}
    for step in range(events):
        wanted[KEYS[step % 10]].append(f"{step * 0.37} {step}")
    return sum(len(set(wanted[key]) ^ set(found[key])) + len(found[key]) - len(set(found[key])) for key in KEYS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-ratio", type=float, help="exit with status 1 where the median ratio is above this")
    options = parser.parse_args()
    events = options.events

    print(machine())
    print(f"\n{f'{events:,} events':16} {'plain writer':>14} {'asynctrack':>12} {'of it, calls':>14} {'ratio':>7}")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        asynctrack.configure(spool_dir=str(Path(work, "spool")), close_timeout=600.0)
        store = Path(work, "mlruns")
        for number in range(1, options.rounds + 1):
            floor = plain(Path(work, f"plain{number}"), events)
            took, called, run_id = ours(store, events)
            ratios.append(took / floor)
            print(f"{f'round {number}':16} {floor:12.2f} s {took:10.2f} s {called:12.2f} s {took / floor:6.2f}x")
            missing = missing_lines(store, run_id, events)
            if missing:
                sys.exit(f"{missing:,} lines are missing from {store}, or too many")
        asynctrack.shutdown()
    median = statistics.median(ratios)
    print(f"\nmedian {median:.2f}x; all {events:,} lines of each round are in mlruns, once")
    judge("throughput", median, options.max_ratio, "x")


if __name__ == "__main__":
    main()

"""What a log call costs the training loop, against the cheapest honest logger that keeps events in memory.

Both are called in turn, a few milliseconds each, many times over; the figure is the median of the rounds' ratios. The
loop around the calls is counted for both. Ours has its journal on disk and its engine running; the engine is given the
time to catch up between the rounds, so that a round holds the calls alone. What the calls cost beside a busy engine is
what the latencies at the end and ``benchmarks.throughput`` show.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asynctrack
from benchmarks import judge, machine

KEY = "train/loss"


class InMemory:
    """The floor: nothing is checked, nothing is kept beyond the process, nothing is delivered."""

    def __init__(self) -> None:
        self.events: deque[tuple[str, float, int, int]] = deque(maxlen=100_000)

    def log_metric(self, key: str, value: float, step: int | None = None, timestamp: int | None = None) -> None:
        self.events.append((key, float(value), step or 0, timestamp or time.time_ns() // 1_000_000))


class Case(NamedTuple):
    """One way to log; ``floor`` and ``ours`` each log so many items and are timed as a whole."""

    name: str
    floor: Callable[[int], None]
    ours: Callable[[int], None]


class Result(NamedTuple):
    """Per item in ns, and the rounds' ratios in ascending order."""

    floor: float
    ours: float
    ratios: list[float]


def metric_caller(log: Callable[[str, float, int], None], value: float) -> Callable[[int], None]:
    def call(items: int) -> None:
        for step in range(items):
            log(KEY, value, step)

    return call


def cases(run: asynctrack.ActiveRun) -> Iterator[Case]:
    """Every way that is measured, the one that is judged first."""
    floor, ours = InMemory().log_metric, run.log_metric

    values: list[tuple[str, Any]] = [("log_metric(key, float, step)", 0.1), ("log_metric(key, int, step)", 3)]
    try:
        import numpy
    except ImportError:
        print("numpy is not installed: its scalars are left out")
    else:
        values += [("log_metric(key, float32, step)", numpy.float32(0.1))]
        values += [("log_metric(key, float64, step)", numpy.float64(0.1))]
    for name, value in values:
        yield Case(name, metric_caller(floor, value), metric_caller(ours, value))

    def without_step(log: Callable[[str, float], None]) -> Callable[[int], None]:
        def call(items: int) -> None:
            for _ in range(items):
                log(KEY, 0.1)

        return call

    yield Case("log_metric(key, float)", without_step(floor), without_step(ours))

    ten = {f"layer{number}/grad_norm": 0.1 * number for number in range(10)}

    def ten_by_one(items: int) -> None:
        for step in range(items // len(ten)):
            for key, value in ten.items():
                floor(key, value, step)

    def ten_at_once(items: int) -> None:
        for step in range(items // len(ten)):
            run.log_metrics(ten, step)

    yield Case("log_metrics(10 floats, step), a point", ten_by_one, ten_at_once)


def seconds(call: Callable[[int], None], items: int) -> float:
    begun = time.perf_counter()
    call(items)
    return time.perf_counter() - begun


def compare(case: Case, run: asynctrack.ActiveRun, rounds: int, items: int) -> Result:
    floors, ours, ratios = [], [], []
    case.floor(items)
    case.ours(items)
    for number in range(rounds):
        run.flush()
        # Who goes first changes: the first may find the processor's caches and clock rate as flushing left them.
        if number % 2:
            floor, our = seconds(case.floor, items), seconds(case.ours, items)
        else:
            our, floor = seconds(case.ours, items), seconds(case.floor, items)
        floors.append(floor / items * 1e9)
        ours.append(our / items * 1e9)
        ratios.append(our / floor)
    return Result(statistics.median(floors), statistics.median(ours), sorted(ratios))


def latencies(log: Callable[[str, float, int], None], length: float) -> list[int]:
    """Single calls at 1 kHz for ``length`` seconds, in ns, ascending. The thread computes in between, as training
    loops do, so the engine must take the interpreter from it."""
    found = []
    end = time.perf_counter() + length
    step = 0
    while (now := time.perf_counter()) < end:
        step += 1
        begun = time.perf_counter_ns()
        log(KEY, 0.1, step)
        found.append(time.perf_counter_ns() - begun)
        while time.perf_counter() < now + 0.001:
            pass
    return sorted(found)


@contextmanager
def run_in_temporary_store() -> Iterator[asynctrack.ActiveRun]:
    """An open run in a file store, with its journal beside it, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        asynctrack.configure(spool_dir=str(Path(work, "spool")))
        with asynctrack.start_run(tracking_uri=str(Path(work, "mlruns"))) as run:
            yield run
        # Its journal lies in the folder that is about to go.
        asynctrack.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--items", type=int, default=20_000, help="points logged in a round by each of the two")
    parser.add_argument("--latency-seconds", type=float, default=3.0)
    parser.add_argument("--max-ratio", type=float, help="exit with status 1 where the first ratio is above this")
    options = parser.parse_args()

    print(machine())
    judged: float | None = None
    with run_in_temporary_store() as run:
        print(f"\n{'per point':38} {'in memory':>10} {'asynctrack':>11} {'ratio':>7}   quartiles, range")
        for case in cases(run):
            result = compare(case, run, options.rounds, options.items)
            ratios = result.ratios
            median, last = statistics.median(ratios), len(ratios) - 1
            low, high = ratios[last // 4], ratios[last * 3 // 4]
            print(
                f"{case.name:38} {result.floor:7.0f} ns {result.ours:8.0f} ns {median:6.2f}x"
                f"   {low:.2f}-{high:.2f}, {ratios[0]:.2f}-{ratios[-1]:.2f}"
            )
            judged = median if judged is None else judged

        print(f"\n{'one call, at 1 kHz':38} {'p50':>10} {'p99':>11} {'max':>10}")
        for name, log in (("in memory", InMemory().log_metric), ("asynctrack, beside its engine", run.log_metric)):
            found = latencies(log, options.latency_seconds)
            p50, p99, most = found[len(found) // 2], found[len(found) * 99 // 100], found[-1]
            print(f"{name:38} {p50 / 1e3:7.2f} µs {p99 / 1e3:8.2f} µs {most / 1e3:7.0f} µs")
    judge("log_metric(key, float, step)", judged or 0.0, options.max_ratio, "x")


if __name__ == "__main__":
    main()

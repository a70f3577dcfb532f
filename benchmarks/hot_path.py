"""What a log call costs the training loop, against the cheapest honest logger that keeps events in memory.

*The price of a call*: both are called in turn, a few milliseconds each, many times over; the figure is the median of
the rounds' ratios, the loop around the calls counted for both. The flusher rests meanwhile. *In a tight loop* the
flusher works beside the calls. *At 1 kHz* single calls are timed, while the thread computes in between, as training
loops do (of four threads each sleeps, or they would wait for one another and not for the logger).
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import asynctrack
from benchmarks.command import Options, run
from benchmarks.measuring import InMemory, Tails, between, clean_settings, in_turn, seconds, work_folder
from benchmarks.report import Chart, Report, Table

KEY = "train/loss"
TWENTY = {f"layer{number}/grad_norm": 0.1 * number for number in range(20)}
#: seconds that the flusher does not look at the journal by itself: long enough to rest all the time
RESTS = 3600.0
Log = Callable[[str, float, int], None]


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    items: int
    tight: int
    seconds: float
    backlog: int


FULL = Size(rounds=41, items=10_000, tight=400_000, seconds=4.0, backlog=2_500_000)
QUICK = Size(rounds=9, items=2_000, tight=40_000, seconds=0.4, backlog=200_000)


@contextmanager
def open_run(shipper: str, flush_interval: float | None = None) -> Iterator[asynctrack.ActiveRun]:
    """A run in a file store of its own, gone afterwards."""
    with (
        work_folder() as work,
        clean_settings(work, shipper=shipper, flush_interval=flush_interval),
        asynctrack.start_run(tracking_uri=str(work / "mlruns")) as run,
    ):
        yield run


# ── the price of a call


def cases(run: asynctrack.ActiveRun) -> Iterator[tuple[str, int, Callable[[int], None]]]:
    """Every kind of call: its name, how much more it does than the floor, and a loop of so many calls."""

    def metric(value: Any, *step: int) -> Callable[[int], None]:
        log = run.log_metric

        def call(items: int) -> None:
            if step:
                for at in range(items):
                    log(KEY, value, at)
            else:
                for _ in range(items):
                    log(KEY, value)

        return call

    def metrics(values: dict[str, float]) -> Callable[[int], None]:
        def call(items: int) -> None:
            for at in range(items // len(values)):
                run.log_metrics(values, at)

        return call

    def texts(log: Callable[[str, str], None], names: Iterator[int]) -> Callable[[int], None]:
        def call(items: int) -> None:
            for _ in range(items // 100):
                log(f"name{next(names)}", "a value")

        return call

    numbers = iter(range(10**9))
    yield "log_metric(key, float, step)", 1, metric(0.1, 0)
    yield "log_metric(key, float)", 1, metric(0.1)
    yield "log_metric(key, int, step)", 1, metric(3, 0)
    try:
        import numpy
    except ImportError:
        pass  # its scalars are left out
    else:
        yield "log_metric(key, numpy.float32, step)", 1, metric(numpy.float32(0.1), 0)
        yield "log_metric(key, numpy.float64, step)", 1, metric(numpy.float64(0.1), 0)
    yield "log_metrics(20 floats, step)", 20, metrics(TWENTY)
    yield "log_param(new key, text)", 100, texts(run.log_param, numbers)
    yield "set_tag(new key, text)", 100, texts(run.set_tag, numbers)


def prices(size: Size, report: Report) -> None:
    """Fill the first table."""
    table = Table("The price of a call, flusher resting", ["call", "in memory", "asynctrack", "ratio", "middle half"])
    floor = InMemory().log_metric

    def floors() -> float:
        def call() -> None:
            for at in range(size.items):
                floor(KEY, 0.1, at)

        return seconds(call) / size.items

    with open_run("thread", RESTS) as run:
        for name, weight, call in cases(run):
            count = max(size.items // weight, 1)
            call(size.items)

            def ours(call: Callable[[int], None] = call, count: int = count) -> float:
                return seconds(lambda: call(size.items)) / count

            rounds = in_turn([floors, ours], size.rounds, before=run.flush)
            ratios = [our / floor for floor, our in rounds]
            ratio = statistics.median(ratios)
            floor_ns, our_ns = (statistics.median(column) * 1e9 for column in zip(*rounds, strict=True))
            table.add(name, f"{floor_ns:.0f} ns", f"{our_ns:,.0f} ns", f"{ratio:.2f}×", between(ratios))
            if name == "log_metric(key, float, step)":
                report.goal("log_metric", "log_metric(key, float, step) against one append in memory", ratio, 2.2)
            elif weight == 20:
                report.goal("log_metrics", "log_metrics of 20 keys against one append in memory", ratio, 25.0)
    report.tables.append(table)


# ── tight loops


def tight(log: Log, items: int, threads: int) -> float:
    """Seconds a call while so many threads log without a pause."""

    def work() -> None:
        for at in range(items // threads):
            log(KEY, 0.1, at)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - begun) / items


def tight_loops(size: Size, report: Report) -> None:
    """Fill the second table."""
    columns = ["flusher, threads", "in memory", "asynctrack", "ratio", "middle half"]
    table = Table("In a tight loop, flusher working", columns)
    floor = InMemory().log_metric
    for shipper in ("thread", "process"):
        with open_run(shipper) as run:
            for threads in (1, 4):
                calls = [lambda log=log: tight(log, size.tight, threads) for log in (floor, run.log_metric)]  # noqa: B023
                rounds = in_turn(calls, max(size.rounds // 4, 3))
                floor_ns, our_ns = (statistics.median(column) * 1e9 for column in zip(*rounds, strict=True))
                ratios = [our / floor for floor, our in rounds]
                ratio = f"{statistics.median(ratios):.2f}×"
                table.add(f"{shipper}, {threads}", f"{floor_ns:.0f} ns", f"{our_ns:.0f} ns", ratio, between(ratios))
    report.tables.append(table)


# ── single calls


def at_1_khz(call: Callable[[int], None], length: float, *, compute: bool = True) -> list[int]:
    """How long single calls took, in ns, a thousand a second for ``length`` seconds."""
    laps = []
    now = time.perf_counter()
    end, step = now + length, 0
    while now < end:
        step += 1
        begun = time.perf_counter_ns()
        call(step)
        laps.append(time.perf_counter_ns() - begun)
        due = now + 0.001
        if not compute:
            time.sleep(max(due - time.perf_counter(), 0.0))
        while (now := time.perf_counter()) < due:
            pass
    return laps


def single_calls(call: Callable[[int], None], length: float, threads: int) -> Tails:
    """The same from so many threads at once."""
    laps: list[int] = []
    if threads == 1:
        return Tails.of(at_1_khz(call, length))
    workers = [
        threading.Thread(target=lambda: laps.extend(at_1_khz(call, length, compute=False))) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Tails.of(laps)


def tails(size: Size, report: Report) -> None:
    """Fill the third table."""
    columns = ["logger, flusher, threads", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "over 1 ms"]
    table = Table("log_metric at 1 kHz", columns)
    found: dict[str, Tails] = {}
    floor = InMemory().log_metric

    def note(name: str, log: Log) -> None:
        for threads in (1, 4):
            tail = single_calls(lambda step: log(KEY, 0.1, step), size.seconds, threads)
            found[f"{name}, {threads}"] = tail
            table.add(f"{name}, {threads}", *tail.cells())

    note("in memory, none", floor)
    for shipper in ("thread", "process"):
        with open_run(shipper, RESTS) as run:
            run.log_metric(KEY, 0.0)
            run.flush()
            note(f"{shipper}, resting", run.log_metric)
        with open_run(shipper) as run:
            for threads in (1, 4):
                for step in range(size.backlog):
                    run.log_metric(KEY, 0.1, step)
                tail = single_calls(lambda step: run.log_metric(KEY, 0.1, step), size.seconds, threads)
                found[f"{shipper}, busy, {threads}"] = tail
                table.add(f"{shipper}, busy, {threads}", *tail.cells())
    report.tables.append(table)
    usual, shipped = found["thread, resting, 1"], found["process, busy, 1"]
    report.goal("p99", "log_metric at 1 kHz, p99", usual.p99, 20.0, "µs")
    report.goal(
        "p99_busy", "log_metric at 1 kHz beside a busy flusher thread, p99", found["thread, busy, 1"].p99, 20.0, "µs"
    )
    most = f"longest call at 1 kHz beside a busy shipper process ({shipped.over_1_ms} over 1 ms"
    control = f"in memory {found['in memory, none, 1'].over_1_ms})"
    report.goal("max_process", f"{most}; {control}", shipped.most, 1000.0, "µs")
    series: dict[str, list[float | None]] = {
        "p50": [tail.p50 for tail in found.values()],
        "p99": [tail.p99 for tail in found.values()],
        "longest": [tail.most for tail in found.values()],
    }
    title = "One log_metric call at 1 kHz, by flusher and threads"
    report.charts.append(Chart("hot_path", "dots", title, "µs", list(found), series, log=True))


def other_calls(size: Size, report: Report) -> None:
    """Fill the fourth table."""
    table = Table(
        "Other calls at 1 kHz, flusher resting", ["call", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "over 1 ms"]
    )
    with open_run("thread", RESTS) as run:
        ten = {f"option{number}": number for number in range(10)}
        calls: dict[str, Callable[[int], Any]] = {
            "log_metrics(20 floats, step)": lambda step: run.log_metrics(TWENTY, step),
            "log_param(new key, text)": lambda step: run.log_param(f"name{step}", "a value"),
            "log_params(10, the same again)": lambda _: run.log_params(ten),
            "set_tag(key, text)": lambda step: run.set_tag("phase", str(step)),
            "log_text(text, path)": lambda step: run.log_text("a note", f"notes/{step}.txt"),
        }
        for name, call in calls.items():
            table.add(name, *Tails.of(at_1_khz(call, size.seconds / 2)).cells())
    report.tables.append(table)


def measure(options: Options) -> Report:
    """The benchmark."""
    size = QUICK if options.quick else FULL
    report = Report("hot_path", "What a log call costs", __doc__ or "")
    prices(size, report)
    tight_loops(size, report)
    tails(size, report)
    other_calls(size, report)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

"""Processor time for a million events, of everything that a client starts: threads, service processes, daemons.

Each client logs twice into files, a few events and many; the difference is what the events cost, without imports and
start. ``The engine'' is what other threads than the logging one use, from the first call to the end of the run's block.
"""

from __future__ import annotations

import statistics
import time

import asynctrack
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, work_folder
from benchmarks.report import Chart, Report, Table

#: seconds that a peer may log; ours logs this many events
SECONDS, EVENTS = 3.0, 1_000_000
FEW = 100


def of_tree(subject: peers.Subject, length: float, events: int) -> tuple[float, float]:
    """CPU seconds for a million events, and how many events that was measured with. Raises RuntimeError."""
    start = peers.measure(subject, job="loop", seconds=length, events=FEW)
    found = peers.measure(subject, job="loop", seconds=length, events=events)
    more = found["events"] - start["events"]
    return (found["cpu"] - start["cpu"]) / max(more, 1) * 1e6, more


def of_engine(events: int, keys: int) -> tuple[float, float]:
    """µs an event of the logging thread, and of all others."""
    names = [f"metric{number}" for number in range(keys)]
    with work_folder() as work, clean_settings(work):
        asynctrack.start_run(tracking_uri=str(work / "mlruns")).__enter__().log_metric("warm", 1.0)
        with asynctrack.start_run(tracking_uri=str(work / "mlruns"), nested=True) as active:
            log = active.log_metric
            process, thread = time.process_time(), time.thread_time()
            for step in range(events):
                log(names[step % keys], step * 0.37, step)
        thread, process = time.thread_time() - thread, time.process_time() - process
    return thread / events * 1e6, (process - thread) / events * 1e6


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("cpu", "Processor time", __doc__ or "")
    length, events = (0.5, 50_000) if options.quick else (SECONDS, EVENTS)
    rounds = 1 if options.quick else 3
    engine = Table("Of it, the engine's, into files", ["metrics", "log calls, µs an event", "engine, µs an event"])
    for keys in (1, 10, 1000):
        found = [of_engine(events, keys) for _ in range(rounds)]
        calls, own = (statistics.median(column) for column in zip(*found, strict=True))
        engine.add(str(keys), f"{calls:.2f}", f"{own:.2f}")
        if keys == 10:
            report.goal("engine", "the engine's CPU time to file, ten metrics", own, 2.0, "µs an event")
    table = Table("The whole process tree", ["client", "CPU s per million events", "of ours", "measured with, events"])
    spent: dict[str, float] = {}
    for subject in [*peers.OURS, *peers.available(options, report.notes)]:
        try:
            spent[subject.name], count = of_tree(subject, length, events)
        except RuntimeError as error:
            report.notes.append(f"Left out: {error}.")
            continue
        share = spent[subject.name] / spent[peers.OURS[0].name]
        table.add(subject.name, f"{spent[subject.name]:.1f}", f"{share:.1f}×", f"{count:,.0f}")
    report.tables += [table, engine]
    theirs = [cpu for name, cpu in spent.items() if not name.startswith("asynctrack")]
    if theirs:
        lowest = spent[peers.OURS[0].name] / min(theirs)
        report.goal("lowest", "CPU time an event, against the most frugal peer", lowest, 1.0)
    report.charts.append(
        Chart(
            "cpu",
            "bars",
            "CPU seconds per million events, whole process tree",
            "s",
            list(spent),
            {"": list[float | None](spent.values())},
            log=True,
        )
    )
    return report


if __name__ == "__main__":
    run(__doc__, measure)

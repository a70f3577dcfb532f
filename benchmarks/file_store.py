"""Events into complete files in MLflow's layout, against one Python thread that formats and writes the same lines.

Ours is timed from the first log call to the moment when every line of every run is in the store: journal, engine, files
and their locks included. The plain writer has its timestamps for nothing and no other thread; it writes everything into
one buffered file, and, where there is more than one file to make, into the same number of files as well. Every line of
ours is read back and counted. The peers log to ten metrics of one run, for some seconds, through their ordinary calls.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import asynctrack
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, in_turn, work_folder
from benchmarks.report import Chart, Report, Table


class Case(NamedTuple):
    """So many events over so many metrics of each run."""

    events: int
    keys: int
    runs: int

    @property
    def files(self) -> int:
        """How many metric files that makes."""
        return self.keys * self.runs

    def __str__(self) -> str:
        metrics, runs = "" if self.keys == 1 else "s", "" if self.runs == 1 else "s"
        return f"{self.events:,} over {self.keys:,} metric{metrics} of {self.runs} run{runs}"


#: at the end two events for each of 64,000 files
CASES = (
    Case(1_000_000, 10, 1),
    Case(1_000_000, 1, 1),
    Case(1_000_000, 1_000, 1),
    Case(1_000_000, 1, 64),
    Case(1_000_000, 10, 64),
    Case(128_000, 1_000, 64),
)
ROUNDS = 3


def to_one_file(folder: Path, case: Case) -> float:
    """Seconds one thread takes to format and write the lines."""
    now = time.time_ns() // 1_000_000
    begun = time.perf_counter()
    with open(folder / f"plain-{time.monotonic_ns()}", "w", buffering=1 << 20) as file:
        write = file.write
        for step in range(case.events):
            write(f"{now + step} {step * 0.37} {step}\n")
    return time.perf_counter() - begun


def to_same_files(folder: Path, case: Case) -> float:
    """The same into as many files as there are metrics, a visit for every 64 lines of one at the most."""
    now = time.time_ns() // 1_000_000
    here = folder / f"plain-{time.monotonic_ns()}"
    begun = time.perf_counter()
    here.mkdir()
    lines: list[list[str]] = [[] for _ in range(case.files)]
    for step in range(case.events):
        of_file = lines[step % case.files]
        of_file.append(f"{now + step} {step * 0.37} {step}\n")
        if len(of_file) == 64:
            _append(here / str(step % case.files), of_file)
    for number, rest in enumerate(lines):
        if rest:
            _append(here / str(number), rest)
    return time.perf_counter() - begun


def _append(path: Path, lines: list[str]) -> None:
    with open(path, "a") as file:
        file.write("".join(lines))
    lines.clear()


def ours(folder: Path, case: Case) -> float:
    """Seconds until every line is in the store."""
    store = folder / f"mlruns-{time.monotonic_ns()}"
    keys = [f"metric{number}" for number in range(case.keys)]
    with ExitStack() as open_runs:
        service = asynctrack.get_service(str(store))
        experiment = service.create_experiment("benchmark")
        ids = [service.create_run(experiment).info.run_id for _ in range(case.runs)]
        runs = [open_runs.enter_context(_open(store, run_id)) for run_id in ids]
        logs = [run.log_metric for run in runs]
        begun = time.perf_counter()
        for step in range(case.events):
            logs[step % case.runs](keys[step // case.runs % case.keys], step * 0.37, step)
    took = time.perf_counter() - begun
    _check(store, case)
    return took


def _open(store: Path, run_id: str) -> asynctrack.ActiveRun:
    return asynctrack.start_run(run_id, tracking_uri=str(store), nested=True)


def _check(store: Path, case: Case) -> None:
    """Every line is there, once. Ends the program otherwise."""
    files = [path.read_bytes().splitlines() for path in store.glob("*/*/metrics/*")]
    lines, different = sum(map(len, files)), sum(len(set(lines)) for lines in files)
    if not lines == different == case.events:
        sys.exit(f"{case}: {lines:,} lines in {store}, {different:,} different, but {case.events:,} events were logged")


def against_a_thread(options: Options, report: Report) -> None:
    """Fill the first table."""
    columns = ["events", "asynctrack, events/s", "against one file", "against the same files"]
    table = Table("Against one thread that formats and writes the same lines", columns)
    speeds = []
    for whole in CASES:
        case = whole._replace(events=whole.events // 20) if options.quick else whole
        with work_folder() as work, clean_settings(work):
            floors = [to_one_file] if case.files == 1 else [to_one_file, to_same_files]
            calls = [lambda call=call: call(work, case) for call in (ours, *floors)]  # noqa: B023
            rounds = in_turn(calls, 1 if options.quick or case.files > 10_000 else ROUNDS)
        ratios = [statistics.median(row[0] / row[at] for row in rounds) for at in range(1, len(calls))]
        speed = case.events / statistics.median(row[0] for row in rounds)
        speeds.append(speed)
        cells = [f"{ratio:.2f}×" for ratio in ratios]
        table.add(str(case), f"{speed:,.0f}", cells[0], cells[-1])
        if case[1:] == (10, 1):
            report.goal("files", "a million events over ten metrics against one plain file", ratios[0], 2.0)
        elif case.files < 10_000:
            name = f"files_{case.keys}_{case.runs}"
            report.goal(name, f"{case}, against the same lines in the same files", ratios[-1], 2.0)
    report.tables.append(table)


def against_peers(options: Options, report: Report) -> None:
    """Fill the second table."""
    columns = ["client", "events/s to complete files", "of ours", "p50 µs a call", "p99 µs", "version"]
    table = Table("Against every peer that writes files, ten metrics of one run", columns)
    length = 0.3 if options.quick else 1.5
    speeds: dict[str, float] = {}
    for subject in [*peers.OURS, *peers.available(options, report.notes)]:
        try:
            rounds = [
                peers.measure(subject, job="loop", seconds=length, events=1_000_000)
                for _ in range(1 if options.quick else 2)
            ]
        except RuntimeError as error:
            report.notes.append(f"Left out: {error}.")
            continue
        found = max(rounds, key=lambda each: each["events"] / each["total"])
        if found["stored"] is not None and found["stored"] < found["events"]:
            lost = found["events"] - found["stored"]
            report.notes.append(
                f"{subject.name} stored {lost:,} fewer than the {found['events']:,} events it was given."
            )
        speeds[subject.name] = found["events"] / found["total"]
        share = speeds[subject.name] / speeds[peers.OURS[0].name]
        p50, p99 = f"{found['p50']:.1f}", f"{found['p99']:.0f}"
        table.add(subject.name, f"{speeds[subject.name]:,.0f}", f"1/{1 / share:.1f}", p50, p99, subject.version)
        if subject.version:
            report.versions[subject.job["client"]] = subject.version
    report.tables.append(table)
    theirs = [speed for name, speed in speeds.items() if not name.startswith("asynctrack")]
    if theirs:
        best = speeds[peers.OURS[0].name] / max(theirs)
        report.goal("peers", "against the fastest peer that writes files", best, 15.0, at_least=True)
    report.charts.append(
        Chart(
            "file_store",
            "bars",
            "Events a second into complete files",
            "events/s",
            list(speeds),
            {"": list[float | None](speeds.values())},
            log=True,
        )
    )


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("file_store", "Into files", __doc__ or "")
    against_a_thread(options, report)
    against_peers(options, report)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

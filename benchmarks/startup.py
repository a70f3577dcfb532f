"""What a program pays before its first event and after its last: import, start of a run, first log, end, exit.

Each figure is the median of fresh interpreters. ``import`` is what ``import asynctrack`` adds to an interpreter that
does nothing. ``exit`` is from the script's last line to the end of the process and of all that it has started.

``start_run`` in a program that has logged before is mostly the work of the file system, so it is shown beside what the
same folders and files take in plain Python, in the same minute (ext4 needs ten times as long for them in the minute
after many files were deleted: it does not use their inodes again so soon). It is measured first.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence

import asynctrack
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import clean_settings, in_turn, work_folder
from benchmarks.report import Chart, Report, Table

ROUNDS, PEER_ROUNDS = 15, 3
MODULES = {"neptune-scale": "neptune_scale", "tensorboard": "tensorboard.summary"}


def run_of(python: str, code: str) -> float:
    """Milliseconds that an interpreter takes for some code."""
    begun = time.perf_counter()
    subprocess.run([python, "-c", code], check=True, env=peers.environment(), capture_output=True)
    return (time.perf_counter() - begun) * 1e3


def import_of(subject: peers.Subject, rounds: int) -> float:
    """Milliseconds that importing the client adds. Raises CalledProcessError."""
    client = str(subject.job["client"])
    module = MODULES.get(client, client)
    run_of(subject.python, f"import {module}")  # compiles it
    calls = [lambda: run_of(subject.python, "pass"), lambda: run_of(subject.python, f"import {module}")]
    return statistics.median(row[1] - row[0] for row in in_turn(calls, rounds))


def parts_of(subject: peers.Subject, rounds: int, events: int) -> Sequence[float]:
    """Milliseconds for start (with the import), first log, end of the block, and exit. Raises RuntimeError."""
    found = [peers.measure(subject, job="startup", events=events) for _ in range(rounds)]
    rows = [(each["start"], each["first"], each["close"], (each["gone"] - each["ended"]) * 1e3) for each in found]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("startup", "Start and exit", __doc__ or "")
    starts, bare = started(options)
    report.goal("start", "start_run on files, in a program that has logged before", starts, 5.0, "ms")
    table = Table("The start of a run in a program that has logged before", ["", "ms"])
    table.add("with start_run()", f"{starts:.2f}")
    table.add("its folders and files alone, in plain Python", f"{bare:.2f}")
    report.tables.append(table)
    columns = ["client", "import ms", "start of a run ms", "first log ms", "end of the run ms", "exit ms"]
    table = Table("A run with one event, into files", columns)
    totals: dict[str, float] = {}
    for subject in [*peers.OURS, *peers.available(options, report.notes)]:
        mine = subject in peers.OURS
        rounds = 3 if options.quick else ROUNDS if mine else PEER_ROUNDS
        try:
            imported = import_of(subject, rounds)
            start, first, close, leave = parts_of(subject, rounds, 1)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            report.notes.append(f"Left out: {subject.name}: {error}.")
            continue
        cells = [f"{cell:,.1f}" for cell in (imported, max(start - imported, 0.0), first, close, leave)]
        table.add(subject.name, *cells)
        totals[subject.name] = start + first + close + leave
        if subject == peers.OURS[0]:
            _, _, close, leave = parts_of(subject, rounds, 0)
            report.goal("import", "import asynctrack", imported, 60.0, "ms")
            report.goal("exit", "end of an empty run, and exit", close + leave, 50.0, "ms")
    report.tables.append(table)
    report.charts.append(
        Chart(
            "startup",
            "bars",
            "A whole program that logs one event",
            "ms",
            list(totals),
            {"": list[float | None](totals.values())},
            log=True,
        )
    )
    return report


def started(options: Options) -> tuple[float, float]:
    """Milliseconds of entering ``with start_run()``: the run exists when the block begins; and of creating its folders
    and files again without us."""
    ours, bare = [], []
    with work_folder() as work, clean_settings(work):
        for number in range(5 if options.quick else 50):
            begun = time.perf_counter()
            with asynctrack.start_run(tracking_uri=str(work / "mlruns")) as run:
                ours.append((time.perf_counter() - begun) * 1e3)
            folder = work / "mlruns" / run.info.experiment_id / run.run_id
            found = [(os.path.relpath(path, folder), files) for path, _, files in os.walk(folder)]
            begun = time.perf_counter()
            for path, files in found:
                os.mkdir(work / str(number) / path)
                for file in files:
                    (work / str(number) / path / file).write_bytes(b"RUNNING")
            bare.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(ours[1:]), statistics.median(bare[1:])


if __name__ == "__main__":
    run(__doc__, measure)

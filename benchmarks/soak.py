"""The page over a run that goes on for 40 minutes: what memory and processor time it takes by the minute.

A program logs 500 points a second, one page is open, and its chart is drawn again and again. The server keeps all
points that are looked at, up to 20 million; so its memory grows with them, and with nothing else. Processor time is the
server's, with its share of reading, and Chromium's, which has no GPU.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import work_folder
from benchmarks.page import (
    browser,
    browser_seconds,
    heap,
    ours,
    processor_seconds,
    resident,
    serving,
    until_there,
    window,
)
from benchmarks.report import Report, Table

#: seconds, and points a second
LENGTH, RATE = 2400.0, 500
#: seconds between two marks, and every how many of them there is a row
_MINUTE, _ROWS = 60.0, 5
_WRITER = """
import sys, time
import asynctrack
run = asynctrack.start_run(tracking_uri=sys.argv[1], run_name="live")
print(run.run_id, flush=True)
rate, step, due = int(sys.argv[2]), 0, time.monotonic()
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(rate // 100):
        run.log_metrics({"loss": 1 / (step + 1)}, step)
        step += 1
    due += 0.01
    time.sleep(max(due - time.monotonic(), 0))
asynctrack.end_run()
print(step, flush=True)
"""


class Mark(NamedTuple):
    """``after``: seconds. ``server``, ``page``: MB. ``spent``, ``browser``: processor seconds so far."""

    after: float
    server: float
    page: float
    spent: float
    browser: float


def soak(options: Options, report: Report, work: Path) -> None:
    """A page over a run that goes on."""
    length, minute, root = (10.0, 1.0, str(work / "soak")) if options.quick else (LENGTH, _MINUTE, str(work / "soak"))
    marks: list[Mark] = []
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, root, str(RATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**peers.environment(), "ASYNCTRACK_SPOOL_DIR": str(work / "spool")},
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        with browser() as opened, window(opened) as page, serving(ours(work, [], "soak"), work) as served:
            page.goto(served[0], wait_until="commit")
            until_there(page)
            server, begun = served[1].pid, time.perf_counter()
            while not marks or marks[-1].after < length:
                time.sleep(max(begun + (len(marks) + 1) * minute - time.perf_counter(), 0))
                after = time.perf_counter() - begun
                marks.append(Mark(after, resident(server), heap(page), processor_seconds(server), browser_seconds()))
                print(*(f"{each:.1f}" for each in marks[-1]), flush=True)
        logged = int(writer.communicate("\n")[0])
    _told(report, marks, logged, 1 if options.quick else _ROWS)


def _told(report: Report, marks: list[Mark], logged: int, rows: int) -> None:
    table = Table(
        f"a page over a run that logs {RATE} points a second",
        ["after, min", "points", "server, MB", "page, MB", "server, CPU s a minute", "browser, CPU s a minute"],
    )
    before = marks[0]
    for mark in marks[rows - 1 :: rows]:
        if mark is not before:
            share = 60 / (mark.after - before.after)
            spent = ((mark.spent - before.spent) * share, (mark.browser - before.browser) * share)
            table.add(
                f"{mark.after / 60:.0f}", f"{mark.after * RATE:,.0f}", f"{mark.server:.0f}", f"{mark.page:.1f}",
                *(f"{each:.1f}" for each in spent),
            )  # fmt: skip
        before = mark
    report.tables.append(table)
    report.notes.append(f"{logged:,} points were logged.")
    first, last = marks[0], marks[-1]
    points = (last.after - first.after) * RATE
    report.goal("server", "growth of the server by the point, from the first minute to the last",
                (last.server - first.server) * 1e6 / points, 72.0, "bytes")  # fmt: skip
    report.goal("page", "growth of the page meanwhile", last.page - first.page, 5.0, "MB")
    part = max(len(marks) // 4, 1)
    early, late = marks[part].spent - marks[0].spent, marks[-1].spent - marks[-1 - part].spent
    report.goal("cpu", "processor time of the server in the last quarter, of that in the first", late / early, 1.5)


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("soak", "The page over a long run", __doc__ or "")
    if shutil.which("chromium") is None:
        report.notes.append("Left out: there is no chromium here.")
        return report
    with work_folder() as work:
        soak(options, report, work)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

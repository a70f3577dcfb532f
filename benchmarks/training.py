"""Steps a second of a real training loop that logs, against the same loop that does not.

A perceptron on the handwritten digits, in NumPy on one processor (and in PyTorch where that is installed), logs so many
metrics a step that 1,000, 10,000 or 100,000 a second are logged at full speed: with one call a step (or one metric
every few steps), through each client's ordinary calls. Every loop is a process of its own. They take turns of a second;
each turn's speed is compared with that of the same loop, with a logger that does nothing, before and after it, and the
median of these ratios counts. A turn begins with a part that does not count, so that background work is under way, and
ends with the wait until the client's processes are quiet: how long that takes (at most half a minute) is how far it
was behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import work_folder
from benchmarks.report import Chart, Report, Table

RATES = (1_000, 10_000, 100_000)
#: our goals, by rate: % slower, with the thread and with the shipper process
GOALS: dict[int, tuple[float | None, float | None]] = {1_000: (1.0, None), 10_000: (3.0, 1.0), 100_000: (None, 5.0)}
#: images a step
BATCH = 128
#: seconds to wait for a client's background work after a turn
PATIENCE = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Size(NamedTuple):
    """How much is measured: turns of so many seconds, so many of ours and of the peers' at each rate."""

    seconds: float
    warm_up: float
    turns: int
    peer_turns: int


FULL = Size(seconds=1.0, warm_up=0.6, turns=13, peer_turns=1)
QUICK = Size(seconds=0.2, warm_up=0.1, turns=1, peer_turns=1)


class Turn(NamedTuple):
    """Steps a second, and seconds until the client was quiet afterwards."""

    speed: float
    behind: float


def save_digits(path: Path) -> None:
    """For workers in environments without scikit-learn."""
    import numpy
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.data / 16.0).astype(numpy.float32)
    numpy.savez(path, images=images, labels=digits.target.astype(numpy.int64))


class Loop:
    """One client's training loop, waiting for its turn."""

    def __init__(self, subject: peers.Subject, process: subprocess.Popen[str]) -> None:
        self.subject = subject
        self._process = process

    def ready(self) -> None:
        """Wait until its run is started. Raises RuntimeError where that failed."""
        self._answer()

    def turn(self, size: Size, metrics: int, every: int) -> Turn:
        """Train for a while, logging so many metrics every so many steps. Raises RuntimeError."""
        plain = self.subject == peers.NOTHING
        warm_up = size.warm_up / 6 if plain else size.warm_up
        self._tell({"seconds": size.seconds, "warm_up": warm_up, "metrics": metrics, "every": every})
        found = self._answer()
        return Turn(found["steps"] / found["seconds"], 0.0 if plain else self._quiet())

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.subject.name} failed to train")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _quiet(self) -> float:
        """Wait until it and everything that it started use (nearly) no processor; how many seconds that took."""
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + PATIENCE:
            before = _tree_ticks(self._process.pid)
            time.sleep(0.25)
            if _tree_ticks(self._process.pid) - before <= 1:
                break
        return now - begun


def _tree_ticks(root: int) -> int:
    """Clock ticks that a process and its descendants have used."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += parents.get(pid, [])
    return total


@contextlib.contextmanager
def loops(subjects: list[peers.Subject], notes: list[str], **job: Any) -> Iterator[list[Loop]]:
    """Everybody's loop, started."""
    with contextlib.ExitStack() as stack:
        found = []
        for subject in subjects:
            loop = Loop(subject, stack.enter_context(peers.start(subject, job="train", batch=BATCH, **job)))
            try:
                loop.ready()
            except RuntimeError as error:
                notes.append(f"Left out: {error}.")
            else:
                found.append(loop)
        yield found


def at_rate(
    rate: int, usual: Loop, others: list[Loop], size: Size, plain: float, notes: list[str]
) -> dict[str, tuple[float, float]]:
    """By client: the median of its speed against no logging, and the median of how far it was behind."""
    metrics = max(round(rate / plain), 1)
    every = max(round(plain / rate), 1)
    found: dict[str, list[tuple[float, float]]] = {loop.subject.name: [] for loop in others}
    alive = list(others)
    for number in range(size.turns):
        before = usual.turn(size, metrics, every).speed
        turn = alive[number % len(alive) :] + alive[: number % len(alive)]
        for loop in turn:
            if number >= size.peer_turns and loop.subject not in peers.OURS:
                continue
            try:
                mine = loop.turn(size, metrics, every)
            except RuntimeError as error:
                notes.append(f"Left out from {rate:,} metrics/s on: {error}.")
                alive.remove(loop)
                others.remove(loop)
                continue
            after = usual.turn(size, metrics, every).speed
            found[loop.subject.name].append((mine.speed / ((before + after) / 2), mine.behind))
            before = after
    return {
        name: (statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows))
        for name, rows in found.items()
        if rows
    }


def compare(
    title: str, subjects: list[peers.Subject], size: Size, report: Report, **job: Any
) -> dict[int, dict[str, float]]:
    """Add a table; by rate and client, its speed as a share of that without logging."""
    columns = ["client", *(f"{rate:,}/s" for rate in RATES), *(f"behind at {rate:,}/s" for rate in RATES)]
    table = Table(title, columns)
    shares: dict[int, dict[str, float]] = {}
    behind: dict[int, dict[str, float]] = {}
    with loops([peers.NOTHING, *subjects], report.notes, **job) as (usual, *others):
        plain = max(usual.turn(size, 0, 1).speed for _ in range(3))
        names = [loop.subject.name for loop in others]
        for rate in RATES:
            found = at_rate(rate, usual, others, size, plain, report.notes)
            shares[rate] = {name: share for name, (share, _) in found.items()}
            behind[rate] = {name: seconds for name, (_, seconds) in found.items()}
    for name in names:
        slower = [f"{(1 - shares[rate][name]) * 100:+.1f} %" if name in shares[rate] else "failed" for rate in RATES]
        late = [f"{behind[rate][name]:.1f} s" if name in behind[rate] else "" for rate in RATES]
        table.add(name, *slower, *late)
    report.tables.append(table)
    report.notes.append(f"{title}: {plain:,.0f} steps/s without logging.")
    return shares


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("training", "A training loop", __doc__ or "")
    size = QUICK if options.quick else FULL
    with work_folder() as work:
        digits = work / "digits.npz"
        save_digits(digits)
        everybody = [*peers.OURS, *peers.available(options, report.notes)]
        shares = compare("How much slower, NumPy", everybody, size, report, digits=str(digits))
        if importlib.util.find_spec("torch"):
            few = size._replace(turns=size.turns // 3 + 1)
            compare("How much slower, PyTorch", list(peers.OURS), few, report, digits=str(digits), torch=True)
        else:
            report.notes.append("PyTorch is not installed: its loop is left out.")
    for rate, limits in GOALS.items():
        for subject, limit, short in zip(peers.OURS, limits, ("thread", "process"), strict=True):
            if limit is not None:
                slower = (1 - shares[rate][subject.name]) * 100
                what = f"{subject.name}: slower at {rate:,} metrics/s"
                report.goal(f"{short}_{rate}", what, slower, limit, "%")
    names = list(shares[RATES[0]])
    report.charts.append(
        Chart(
            "training",
            "dots",
            "Training speed while logging",
            "% of the speed without logging",
            names,
            {f"{rate:,} metrics/s": [_percent(shares[rate].get(name)) for name in names] for rate in RATES},
            mark=100.0,
            mark_label="no logging",
        )
    )
    return report


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


if __name__ == "__main__":
    if not sys.platform.startswith("linux"):
        sys.exit("this benchmark reads /proc; it needs Linux")
    run(__doc__, measure)

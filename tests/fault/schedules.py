"""Random schedules of ranks that share one run: they begin, end, fail, are killed and started again, in real processes,
with the store away for a while. What is there in the end is compared with a model that shares no code with the package.

    python -m tests.fault.schedules --rounds 1000 --store sqlite
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.fault import programs
from tests.fault.programs import LIMIT, Lab, file_lab, spools, sqlite_lab

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, ForkServerProcess

    from tests.mlruns import StoredRun

#: what a rank keeps in a shared file, one machine word each
_BEGUN, _LOGGED, _ENDING, _ENDED = range(4)
_STEPS = 4096.0


class Life(NamedTuple):
    """One process of one rank. ``number``: of all lives of the schedule. Times in seconds after its generation's
    beginning."""

    number: int
    generation: int
    rank: int
    size: int
    attempt: int
    points: int
    starts_at: float
    pause: float
    raises: bool
    offline: bool
    #: signals that are sent to it, if it is still there
    signals: list[tuple[float, int]]


class Outcome(NamedTuple):
    """What is known of a life that is over."""

    life: Life
    begun: bool
    logged: int
    ending: bool
    ended: bool
    by_signal: bool

    @property
    def statuses(self) -> set[str | None]:
        """How it may stand in the store; None: not at all."""
        wanted = "FAILED" if self.life.raises else "FINISHED"
        if self.ended or not self.by_signal:
            return {wanted}
        if self.ending:
            return {wanted, "KILLED"}
        return {"KILLED"} if self.begun else {"KILLED", None}


def value_of(life: Life, step: int) -> float:
    """No two points of a schedule have the same."""
    return life.number + step / _STEPS


def marks_of(folder: Path, life: Life) -> memoryview:
    with open(folder / f"marks-{life.number}", "a+b") as file:
        file.truncate(32)
        return memoryview(mmap.mmap(file.fileno(), 32)).cast("q")


def live(life: Life, folder: Path, environment: dict[str, str]) -> None:
    """A rank's program."""
    _be_a_program(folder, environment, f"life-{life.number}")
    os.environ.update(
        RANK=str(life.rank), WORLD_SIZE=str(life.size), ASYNCTRACK_JOB="job",
        TORCHELASTIC_RESTART_COUNT=str(life.attempt), ASYNCTRACK_MODE="offline" if life.offline else "online",
        ASYNCTRACK_CLOSE_TIMEOUT="3",
    )  # fmt: skip
    import asynctrack

    marks = marks_of(folder, life)
    with asynctrack.start_run(shared=True, run_name="together") as run:
        marks[_BEGUN] = 1
        for step in range(life.points):
            run.log_metric("loss", value_of(life, step), step)
            marks[_LOGGED] = step + 1
            if step % 50 == 0:
                time.sleep(life.pause)
        marks[_ENDING] = 1
        if life.raises:
            raise ValueError("as told")
    marks[_ENDED] = 1


def deliver(folder: Path, environment: dict[str, str]) -> None:
    """What a user runs in the end."""
    _be_a_program(folder, environment, "sync")
    import asynctrack

    asynctrack.sync(timeout=3)


def _be_a_program(folder: Path, environment: dict[str, str], name: str) -> None:
    os.chdir(folder)
    out = os.open(folder / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for variable in [each for each in os.environ if each.startswith(("MLFLOW_", "ASYNCTRACK_"))]:
        del os.environ[variable]
    os.environ.update(environment, XDG_STATE_HOME=str(folder / "state"), XDG_CACHE_HOME=str(folder / "cache"))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ── a schedule


def random_absence(chance: random.Random) -> tuple[float, float]:
    """When the store is taken away, and for how long, in seconds; 0: it is not."""
    return (0.0, 0.0) if chance.random() < 0.6 else (chance.uniform(0.0, 1.0), chance.uniform(0.0, 1.0))


def random_lives(chance: random.Random) -> list[list[Life]]:
    """One or two jobs of the same id, each started again up to twice: lives that are there at the same time."""
    numbers = itertools.count(1)
    generations: list[list[Life]] = []
    for _ in range(chance.choice([1, 1, 2])):
        for attempt in range(chance.choice([1, 1, 2, 3])):
            size = chance.randint(1, 4)
            end_all = chance.uniform(0.0, 1.5)  # as a launcher does that starts all of them again
            signals: list[tuple[float, int]] = []
            if chance.random() < 0.4:
                signals = [(end_all, signal.SIGTERM), (end_all + chance.uniform(0, 0.3), signal.SIGKILL)]
            generations.append(
                [
                    _random_life(chance, next(numbers), len(generations), rank, size, attempt, signals)
                    for rank in range(size)
                ]
            )
    return generations


def _random_life(
    chance: random.Random,
    number: int,
    generation: int,
    rank: int,
    size: int,
    attempt: int,
    signals: list[tuple[float, int]],
) -> Life:
    if not signals and chance.random() < 0.3:
        signals = [(chance.uniform(0.0, 1.0), chance.choice([signal.SIGKILL, signal.SIGTERM]))]
    return Life(
        number, generation, rank, size, attempt, points=chance.choice([0, 1, 50, 500, 3000]),
        starts_at=chance.uniform(0.0, 0.5),
        pause=chance.choice([0.0, 0.001, 0.01]), raises=chance.random() < 0.15, offline=chance.random() < 0.1,
        signals=signals,
    )  # fmt: skip


def exchange(one: Path, other: Path) -> None:
    """Give each the other's name, at once. Raises OSError."""
    exchanged, here = 2, -100
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanged):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))


class Schedule:
    """One of them, carried out in a folder."""

    def __init__(self, chance: random.Random, lab: Lab, context: ForkServerContext) -> None:
        self._chance, self._lab, self._context = chance, lab, context
        self.outcomes: list[Outcome] = []

    def carry_out(self) -> None:
        """To the end: nobody is left, and all is delivered."""
        away = threading.Thread(target=self._take_away, args=random_absence(self._chance))
        away.start()
        for lives in random_lives(self._chance):
            if not lives[0].attempt and any(each.life.offline for each in self.outcomes):
                self._deliver()  # the job is begun anew: see docs/many-processes.md
            self._run(lives)
        away.join()
        self._deliver()

    def _deliver(self) -> None:
        last = self._context.Process(target=deliver, args=(self._lab.folder, self._lab.environment))
        last.start()
        _join(last, "sync")
        assert last.exitcode == 0, "sync has failed"

    def _take_away(self, after: float, long: float) -> None:
        """The store, for a while. A link to itself, at which every call fails, takes its place meanwhile: where nothing
        is, whoever begins makes a new store."""
        time.sleep(after)
        store, away = self._lab.folder / "mlruns", self._lab.folder / "away"
        if long and store.is_dir():  # an SQLite file that is moved away is another database afterwards
            away.symlink_to("mlruns")
            exchange(store, away)
            time.sleep(long)
            exchange(store, away)

    def _run(self, lives: list[Life]) -> None:
        """All of one generation; over when the last has ended."""
        began = time.monotonic()
        processes: dict[int, ForkServerProcess] = {}
        todo: list[tuple[float, Life, int]] = [(life.starts_at, life, 0) for life in lives]
        todo += [(life.starts_at + at, life, number) for life in lives for at, number in life.signals]
        for at, life, number in sorted(todo, key=lambda what: what[0]):
            time.sleep(max(began + at - time.monotonic(), 0.0))
            if not number:
                args = (life, self._lab.folder, self._lab.environment)
                processes[life.number] = self._context.Process(target=live, args=args)
                processes[life.number].start()
            elif processes[life.number].exitcode is None:
                with suppress(ProcessLookupError):  # it ends just now
                    os.kill(processes[life.number].pid or 0, number)
        for life in lives:
            process = processes[life.number]
            _join(process, f"life {life.number}")
            marks = marks_of(self._lab.folder, life)
            by_signal = process.exitcode not in (0, 1) or bool(life.signals and process.exitcode)
            self.outcomes.append(
                Outcome(life, bool(marks[_BEGUN]), marks[_LOGGED], bool(marks[_ENDING]), bool(marks[_ENDED]), by_signal)
            )

    # ── what has to be there

    def check(self) -> int:
        """Compare with the model; how many points there are."""
        for path in self._lab.folder.glob("*.txt"):
            text = path.read_text().replace("ValueError: as told", "")
            raised = "Traceback" in text and not any(
                path.stem == f"life-{each.life.number}" and each.life.raises for each in self.outcomes
            )
            assert not raised, f"{path.name}: {text}"
        runs = self._lab.runs()
        created = {each.life.rank == 0 and each.begun for each in self.outcomes}
        if not runs:
            assert True not in created, "rank 0 had begun, and there is no run"
            return 0
        assert len(runs) == 1, f"{len(runs)} runs instead of one"
        left = spools(self._lab.folder)
        assert not left, f"spools are left: {left}"
        (run,) = runs.values()
        points = self._check_points(run)
        allowed = self._allowed()
        assert run.status in allowed, f"the run is {run.status}, and should be one of {sorted(allowed)}"
        ended = run.meta["end_time"]
        assert (ended is None) == (run.status == "RUNNING"), f"{run.status}, ended at {ended}"
        return points

    def _check_points(self, run: StoredRun) -> int:
        found = [(value, step) for _, value, step in run.metrics.get("loss", [])]
        assert len(found) == len(set(found)), "points are doubled"
        for outcome in self.outcomes:
            steps = sorted(step for value, step in found if int(value) == outcome.life.number)
            assert steps == list(range(len(steps))), f"life {outcome.life.number}: wrong points"
            most = outcome.logged + (outcome.by_signal and outcome.logged < outcome.life.points)
            assert outcome.logged <= len(steps) <= most, (
                f"life {outcome.life.number} logged {outcome.logged} points, and {len(steps)} are there"
            )
        return len(found)

    def _allowed(self) -> set[str]:
        """The statuses that the run may have, over everything that is not known for sure."""
        allowed = set()
        for statuses in itertools.product(*(sorted(each.statuses, key=str) for each in self.outcomes)):
            stands = [(each.life, status) for each, status in zip(self.outcomes, statuses, strict=True) if status]
            allowed |= _status(stands)
        return allowed


def _status(stands: list[tuple[Life, str]]) -> set[str]:
    """By the last life of each rank, in the order in which they began. Lives of an earlier start of the job do not
    count, but where nobody has said that it was started again: then a rank that has not begun anew may count as it
    ended before."""
    if not stands:
        return {"RUNNING"}
    last, highest = stands[-1][0], 0
    starts = {}
    for life, _ in stands:
        starts[life.number] = highest = max(highest, life.attempt)
    allowed = set()
    for counts in (
        lambda life: life.generation == last.generation,
        lambda life: starts[life.number] == starts[last.number],
    ):
        here = {life.rank: status for life, status in stands if counts(life) and life.rank < last.size}
        worst = min(here.values(), key=["FAILED", "KILLED", "FINISHED"].index)
        everybody = here.keys() >= set(range(last.size))
        allowed.add(worst if everybody or worst != "FINISHED" else "RUNNING")
    return allowed


def _join(process: ForkServerProcess, name: str) -> None:
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{name} hangs")


def schedules(
    rounds: int, seed: int, make_lab: Callable[[Path], Lab], folder: Path, say: Callable[[str], Any] = lambda _: None
) -> int:
    """Carry out so many; how many points they have logged. Raises AssertionError with the number of the schedule."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asynctrack.engine.engine", "asynctrack.stores.file.store", "tests.fault.programs"])
    points = 0
    for number in range(rounds):
        home = folder / str(number)
        home.mkdir(parents=True)
        schedule = Schedule(random.Random(seed + number), make_lab(home), context)
        try:
            schedule.carry_out()
            points += schedule.check()
        except AssertionError as error:
            known = "\n".join(json.dumps([each, sorted(map(str, each.statuses))]) for each in schedule.outcomes)
            raise AssertionError(f"schedule {number} of seed {seed} in {home}: {error}\n{known}") from None
        say(f"{number}: {len(schedule.outcomes)} lives")
        shutil.rmtree(home)
    return points


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--store", choices=["file", "sqlite"], default="file")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    programs.heed_signals()
    folder = Path(tempfile.mkdtemp(prefix="asynctrack-schedules-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    make_lab = sqlite_lab if options.store == "sqlite" else file_lab
    say: Callable[[str], Any] = print if options.verbose else lambda _: None
    try:
        points = schedules(options.rounds, options.seed, make_lab, folder, say)
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    folder.rmdir()
    print(f"{options.rounds} schedules, {points:,} points: none lost, none doubled, each run with the right end")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Many runs of one program on their way to one store: how much of them is loaded, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrack.engine.pump import _CROWD, Pump
from asynctrack.engine.source import Loaded, Source
from asynctrack.errors import UnavailableError
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import Batch, Limits
from asynctrack.stores.io import drive
from tests.journals import ExactStore, let_go, new_journal, register, uid

RUNS = 64
#: as the file store takes it
LIMITS = Limits(metrics=32768, params=32768, tags=32768, entities=32768)


class Program:
    """A journal with many runs, each with one metric, and a pump for it."""

    def __init__(self, folder: Path) -> None:
        self.store = ExactStore(LIMITS)
        self.down = False
        self.batches = 0
        self.store.before_batch = lambda run_id, batch, keep: self._answer(batch)
        self.pump = Pump(self.store, Settings())
        self.journal: Journal = new_journal(folder, segment_bytes=64 << 20)
        self.source = Source(self.journal.spool, self.journal.head, LIMITS)
        self.pump.sources.append(self.source)
        self.streams: list[int] = []
        for number in range(1, RUNS + 1):
            run = register(self.journal, number)
            self.journal.write_frame(["start", run])
            stream = self.journal.register_stream(run, "m")
            assert stream is not None
            self.streams.append(stream)
        self.deliver()

    def _answer(self, batch: Batch) -> None:
        if self.down:
            raise UnavailableError("down")
        self.batches += 1

    def log(self, steps: int) -> None:
        for step in range(steps):
            for stream in self.streams:
                assert self.journal.write(1, step, 1.0, stream)

    def load(self) -> None:
        while Loaded.MORE in self.pump.load():
            pass

    def step(self) -> int:
        works = list(self.pump.due())
        for work in works:
            drive(self.pump.step(*work))
        return len(works)

    def deliver(self) -> None:
        self.load()
        while self.step():
            self.load()

    def loaded(self) -> int:
        return sum(lane.loaded_weight for lane in self.source.lanes.values())

    def stored(self) -> list[int]:
        return [len(self.store.kept.get((uid(number), "metric", "m"), [])) for number in range(1, RUNS + 1)]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.journal.close()
    let_go(program.journal.spool, program.source.reader.head)


def test_a_store_that_is_down_does_not_fill_the_memory(program: Program) -> None:
    """However many runs there are, what waits for it waits in the journal; once it is back, each gets all of it."""
    program.log(1)
    program.down = True
    program.load()
    program.step()
    program.log(8000)
    for _ in range(20):
        program.load()
    assert program.loaded() < _CROWD + 2 * LIMITS.entities
    program.down = False
    for lane in program.source.lanes.values():
        lane.retry_at = 0.0
    program.deliver()
    assert program.stored() == [8001] * RUNS


def test_a_store_that_is_slow_does_not_either(program: Program) -> None:
    """What is loaded beside batches that are under way stays within a bound for all runs together."""
    program.log(8000)
    program.load()
    works = list(program.pump.due())
    for _ in range(20):
        program.load()
    assert program.loaded() < _CROWD + 2 * LIMITS.entities
    for work in works:
        drive(program.pump.step(*work))
    program.deliver()
    assert program.stored() == [8000] * RUNS


def test_runs_that_share_the_journal_get_batches_worth_their_while(program: Program) -> None:
    """A chunk of the journal holds 512 events of each: several are loaded before the first batch is sent."""
    before = program.batches
    program.log(8000)
    program.deliver()
    assert program.stored() == [8000] * RUNS
    assert program.batches - before <= RUNS * 6


def test_a_run_whose_store_fails_holds_nobody_up(program: Program) -> None:
    """One run's batches fail for ever: the others' arrive, however much more is logged."""
    failing = uid(1)

    def answer(run_id: str, batch: Batch, keep: object) -> None:
        if run_id == failing:
            raise UnavailableError("not this one")

    program.store.before_batch = answer
    for _ in range(5):
        program.log(2000)
        program.deliver()
    assert program.stored() == [0] + [10_000] * (RUNS - 1)
    assert program.loaded() <= LIMITS.entities * 2

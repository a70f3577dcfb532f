"""Many runs of one program on their way to one store: how much of them is loaded, and when."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrack.delivery import pump as module
from asynctrack.delivery.crowd import Crowd, load_of
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.oldest import Oldest
from asynctrack.delivery.progress import Front, RunProgress
from asynctrack.delivery.pump import _CROWD, Pump
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.work import Part
from asynctrack.errors import SpoolFullError, UnavailableError
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import Batch, Limits, RunSpec
from asynctrack.stores.io import drive
from tests.journals import ExactStore, die, journal_in, let_go, new_journal, register, segment_bytes, uid

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
        lane.backoff.retry_at = 0.0
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


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ZeroDivisionError("a bug")])
def test_a_spool_that_cannot_be_read_holds_no_other_up(
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """One line says so; it is not looked at all the time, and not deleted."""
    with journal_in(tmp_path / "neighbour") as neighbour:
        register(neighbour, 900)
        dead = die(neighbour, tmp_path / "dead")
    spool = Spool.adopt(str(dead))
    assert spool is not None
    source = program.pump.add(spool)
    assert source is not None
    looks = []

    def fail() -> None:
        looks.append(1)
        raise error

    monkeypatch.setattr(source, "refresh", fail)
    for _ in range(50):
        program.log(1)
        program.deliver()
    assert program.stored() == [50] * RUNS
    assert 1 <= len(looks) < 20
    assert len([record for record in caplog.records if str(dead) in record.getMessage()]) == 1
    assert str(dead) in str(program.pump.trouble_of(source))
    assert (dead / "owner").exists()
    program.pump.let_go(source)


def test_one_s_own_events_come_before_what_dead_programs_have_left(program: Program, tmp_path: Path) -> None:
    """With a server that takes one request at a time, a program's block ends when its own events are delivered."""
    with journal_in(tmp_path / "neighbour") as neighbour:
        run = register(neighbour, 900)
        neighbour.write_frame(["start", run])
        stream = neighbour.register_stream(run, "m")
        assert stream is not None
        for step in range(3000):
            assert neighbour.write(1, step, 1.0, stream)
        dead = die(neighbour, tmp_path / "dead")
    spool = Spool.adopt(str(dead))
    assert spool is not None
    source = program.pump.add(spool)
    assert source is not None
    program.log(1)
    program.load()
    order = [due[0].adopted for due in program.pump.due()]
    assert order == sorted(order)
    assert order[-1], "the neighbour's too"
    program.pump.let_go(source)


def test_the_end_of_a_program_leaves_what_others_have_left_after_a_moment(program: Program, tmp_path: Path) -> None:
    """It is polite, and does not wait for what is not its own."""
    with journal_in(tmp_path / "neighbour") as neighbour:
        run = register(neighbour, 900)
        neighbour.write_frame(["start", run])
        dead = die(neighbour, tmp_path / "dead")
    program.pump.adopt_orphans([str(tmp_path)])
    program.down = True
    program.store.before_batch = None
    spool = Spool.adopt(str(dead))
    assert spool is not None
    source = program.pump.add(spool)
    assert source is not None
    program.pump.wind_up()
    assert 0 < program.pump.others_left <= 10.0
    assert not program.pump.intake.more, "none is taken up any more"
    program.pump.let_go(source)


def test_runs_that_come_one_after_another_while_the_store_is_away_do_not_fill_the_memory(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a batch to try again, and many have: most let go of it until then. Nothing is lost, or doubled."""
    monkeypatch.setattr(module, "_CROWD", 1 << 13)
    program.down = True
    for number, stream in enumerate(program.streams, 1):
        for step in range(400):
            assert program.journal.write(1, step, 1.0, stream)
        if number % 2 == 0:
            program.load()
            program.step()
    for _ in range(5):
        program.load()
        program.step()
    assert sum(lane.load for lane in program.source.active) <= (2 << 13) + 2 * 400
    assert program.stored() == [0] * RUNS
    program.down = False
    for _ in range(40):
        for lane in program.source.active:
            lane.backoff.retry_at = 0.0
        program.deliver()
        if program.source.drained:
            break
    assert program.stored() == [400] * RUNS


def test_a_piece_of_work_done_looks_at_no_other_run(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each one, segments that everybody is past are deleted: with thousands of runs that alone took the time."""
    program.log(100)
    program.load()
    assert program.source.reader.head is not None
    assert program.source.reader.head.next is not None, "there is one that could be deleted"
    asked = 0

    def acknowledged(progress: RunProgress) -> int:
        nonlocal asked
        asked += 1
        return min([progress.watermark, *progress.late])

    monkeypatch.setattr(RunProgress, "acknowledged", property(acknowledged))
    works = list(program.pump.due())
    assert len(works) == RUNS
    for work in works:
        drive(program.pump.step(*work))
    assert asked < 4 * RUNS
    program.deliver()
    assert program.stored() == [100] * RUNS


def test_what_is_kept_to_find_the_oldest_event_does_not_grow_with_the_runs_that_were_active() -> None:
    active: dict[Lane, None] = {}
    oldest, front = Oldest(active), Front(0)
    stuck = Lane(1, RunSpec(uid="1"), attached=False, front=front)
    stuck.add(Part(0, 1))
    active[stuck] = None
    oldest.add(stuck)
    for number in range(2, 1000):
        front.at = number
        lane = Lane(number, RunSpec(uid=f"{number}"), attached=False, front=front)
        active[lane] = None
        oldest.add(lane)
        del active[lane]
        oldest.tidy(len(active))
        assert oldest.number() == 0
    kept = [found for found in gc.get_objects() if isinstance(found, Lane) and found.progress.front is front]
    assert len(kept) < 100


def test_long_params_and_tags_do_not_fill_the_memory(program: Program) -> None:
    """They count by their length."""
    for number in range(200):
        assert program.journal.write_frame(["tags", 1, {f"t{number}": "x" * 100_000}])
    program.load()
    assert sum(lane.load for lane in program.source.active) < 60_000
    program.deliver()
    assert sum(kind == "tag" for _, kind, _ in program.store.kept) == 200


def test_a_segment_that_is_left_after_its_last_event_was_delivered_makes_room(tmp_path: Path) -> None:
    """On a full disk a program waits for that room, so nothing comes whose delivery would be an occasion."""
    pump = Pump(ExactStore(LIMITS), Settings())
    with journal_in(tmp_path, slots=4, max_spool_bytes=segment_bytes(4) + 300, spool_full="raise") as journal:
        source = Source(journal.spool, journal.head, LIMITS)
        pump.sources.append(source)
        run = register(journal)
        journal.write_frame(["start", run])
        stream = journal.register_stream(run, "m")
        assert stream is not None
        for step in range(3):
            assert journal.write(1, step, 1.0, stream)
        pump.load()
        while works := list(pump.due()):
            for work in works:
                drive(pump.step(*work))
        full = source.reader.head
        assert full is journal.current[2]
        assert source.low_water() == full.end
        with pytest.raises(SpoolFullError):
            journal.write(1, 3, 1.0, stream)
        assert full.sealed
        pump.load()
        assert source.reader.head is not full
        journal.head = source.reader.head or journal.head
        journal.room_made()
        assert journal.write(1, 3, 1.0, stream)


def test_what_is_loaded_is_counted_as_if_all_runs_were_walked(program: Program) -> None:
    now = 0.0
    crowd = Crowd(clock=lambda: now)
    program.log(5)
    program.load()
    lanes = program.source.active
    assert crowd.gets_on(program.pump.sources) == (load_of(program.source.loader.front), RUNS) == (5 * RUNS, RUNS)
    lanes[0].backoff.retry_at = lanes[1].backoff.retry_at = float("inf")
    assert crowd.gets_on(program.pump.sources) == (5 * RUNS, RUNS), "believed for a moment"
    now = 1.0
    assert crowd.gets_on(program.pump.sources) == (5 * (RUNS - 2), RUNS - 2)
    while program.step():
        assert load_of(program.source.loader.front) == sum(lane.load for lane in program.source.active)
    assert program.source.loader.front.laden == len(program.source.active) == 2
    assert crowd.gets_on(program.pump.sources) == (0, 0)
    assert lanes[0].unload() == set()
    assert (program.source.loader.front.weight, program.source.loader.front.laden) == (5, 1)


def test_whether_runs_get_on_is_looked_at_again_when_a_quarter_of_them_has(program: Program) -> None:
    crowd = Crowd(clock=lambda: 1.0)
    program.log(1)
    program.load()
    assert crowd.gets_on(program.pump.sources) == (RUNS, RUNS)
    lanes = program.source.active
    lanes[-1].backoff.retry_at = float("inf")
    for done in range(1, RUNS // 4 + 1):
        assert lanes[done].unload() == set()
        stalled = done == RUNS // 4
        assert crowd.gets_on(program.pump.sources) == (RUNS - done - stalled, RUNS - done - stalled)


def test_what_waited_for_another_spool_of_its_run_is_seen_to_have_room(program: Program, tmp_path: Path) -> None:
    lane = program.source.lanes[1]
    older = Source(new_journal(tmp_path / "older").spool, None, LIMITS, queues=program.pump.queues)
    before = Lane(1, lane.spec, attached=False, front=older.loader.front, queue=lane.queue)
    assert not program.pump.can_catch_up(older, before)
    lane.progress.position = 0
    assert program.pump.can_catch_up(older, before), "the other spool has nothing that is behind"
    other = Lane(2, RunSpec(uid=uid(7)), attached=False)
    assert not program.pump.can_catch_up(program.source, other), "nothing of this run was dealt with"
    program.pump.sender.well_again = True
    assert program.pump.can_catch_up(older, before)
    assert not program.pump.sender.well_again


def test_what_cannot_be_read_is_said_by_whoever_lets_go_of_a_spool(
    program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one goes on behind it. Once, however often the spool makes room for others; more, if it is more."""
    with journal_in(tmp_path / "neighbour") as neighbour:
        register(neighbour, 900)
        dead = die(neighbour, tmp_path / "dead")

    def let_go_with(problems: dict[str, int]) -> list[str]:
        spool = Spool.adopt(str(dead))
        assert spool is not None
        source = program.pump.add(spool)
        assert source is not None
        source.reader.problems.update(problems)
        caplog.clear()
        program.pump.let_go(source)
        return [record.getMessage() for record in caplog.records]

    assert let_go_with({"damaged records": 3}) == [f"asynctrack: {dead}: damaged records (3)"]
    assert let_go_with({"damaged records": 3}) == []
    assert let_go_with({"damaged records": 4}) == [f"asynctrack: {dead}: damaged records (4)"]
    said = let_go_with({f"segment {number} is gone": number for number in range(100)})
    assert said[9:] == [
        f"asynctrack: {dead}: segment 9 is gone (9)",
        f"asynctrack: {dead}: 90 more losses like these ({sum(range(10, 100))})",
    ]

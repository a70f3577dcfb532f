"""Spools on their way to one store: what goes before what, what is settled, and what becomes of dead programs' runs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.queues import RunQueues
from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Loaded, Source
from asynctrack.entities import RunInfo
from asynctrack.errors import RefusedError, UnavailableError
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.slots import FRAME, PACK
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import read_rejected
from asynctrack.journal.writer import Journal
from asynctrack.stores.base import Limits, RunSpec
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore
from tests.journals import ExactStore, die, let_go, new_journal, register, uid


class ServerLike(ExactStore):
    """Gives runs ids of its own, and finds them by the uids that they were created with."""

    chooses_run_ids = True

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.ids: dict[str, str] = {}
        self.specs: dict[str, RunSpec] = {}

    async def create_run(self, spec: RunSpec) -> RunInfo:
        info = await super().create_run(spec)
        if spec.run_id is None:
            self.ids[spec.uid] = f"server-{spec.uid}"
            self.specs[spec.uid] = spec
            info = await super().create_run(RunSpec(uid=self.ids[spec.uid]))
        return info

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        known = self.ids.get(spec.uid)
        return None if known is None else await self.get_run_info(known)


class Delivery:
    """Programs' journals, and everything that delivers them to one store."""

    def __init__(self, folder: Path, store: ExactStore) -> None:
        self.folder = folder
        self.store = store
        self.sender = Sender(store)
        self.queues = RunQueues()
        self.sources: list[Source] = []
        self.journals: list[Journal] = []

    def program(self, **settings: Any) -> Journal:
        """A journal; the later, the younger."""
        journal = new_journal(self.folder / f"program{len(self.journals)}", **settings)
        self.journals.append(journal)
        return journal

    def own(self, journal: Journal) -> Source:
        """This process's own journal."""
        source = Source(journal.spool, journal.head, self.store.limits, queues=self.queues)
        self.sources.append(source)
        return source

    def adopt(self, journal: Journal) -> Source:
        """The program is killed, and its spool taken over."""
        path = die(journal, self.folder / f"dead{self.journals.index(journal)}")
        return self.take(path)

    def take(self, path: Path) -> Source:
        spool = Spool.adopt(str(path))
        assert spool is not None
        head = spool.segments.look(None, living=False)
        source = Source(spool, head, self.store.limits, adopted=True, queues=self.queues)
        self.sources.append(source)
        return source

    def load(self) -> None:
        for source in self.sources:
            source.refresh()
            while source.load() is Loaded.MORE:
                pass

    def step(self) -> int:
        """Carry out what is due now; how much that was."""
        lanes = [(source, lane) for source in self.sources for lane in source.active]
        for _, lane in lanes:
            lane.backoff.retry_at = lane.backoff.not_before = 0.0
        works = list(self.sender.due(iter(lanes)))
        for source, lane, work in works:
            drive(self.sender.step(source, lane, work))
        return len(works)

    def deliver(self) -> None:
        """Everything that can be."""
        self.load()
        while self.step():
            self.load()

    def close(self) -> None:
        for source in self.sources:
            let_go(source.spool, source.reader.head)
        for journal in self.journals:
            journal.close()
            let_go(journal.spool, journal.head)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Delivery]:
    """A store in which a run's id is its uid."""
    delivery = Delivery(tmp_path, ExactStore(Limits(metrics=8, params=8, tags=8, entities=8)))
    yield delivery
    delivery.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Delivery]:
    """A store that gives runs ids of its own."""
    delivery = Delivery(tmp_path, ServerLike())
    yield delivery
    delivery.close()


def start(journal: Journal, run: int, **spec: Any) -> int:
    number = register(journal, run, **spec)
    journal.write_frame(["start", number])
    return number


def log(journal: Journal, number: int, *values: float, key: str = "m", timestamp: int = 1) -> None:
    stream = journal.register_stream(number, key)
    assert stream is not None
    for step, value in enumerate(values):
        assert journal.write(timestamp, step, value, stream)


def attach(journal: Journal, run_id: str) -> int:
    """Log to a run by its id, without starting or ending it."""
    return journal.register_run({**RunSpec(uid=os.urandom(16).hex(), run_id=run_id)._asdict(), "attached": True})


def put_aside(source: Source, name: str) -> list[object]:
    """A snapshot of an artifact, as a frame has it."""
    folder = Path(source.spool.artifacts())
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    return [name, False, 1, 1, 0]


def lane_of(source: Source, number: int) -> Lane:
    lane = source.lane(number)
    assert lane is not None
    return lane


# ── run lanes and upload lanes


def test_a_nested_run_does_not_wait_for_its_parents_artifacts(files: Delivery) -> None:
    """These are no run: nothing that looks for the parent, by number or by uid, finds their lane."""
    journal = files.program()
    source = files.own(journal)
    parent = start(journal, 1)
    files.deliver()
    journal.write_frame(["artifact", parent, put_aside(source, "snapshot"), "a.txt"])
    child = start(journal, 2, tags={PARENT_RUN_TAG: uid(1)})
    files.load()
    assert lane_of(source, child).parent is lane_of(source, parent)
    files.deliver()
    assert files.store.started == [uid(1), uid(2)]


def test_a_finished_runs_artifacts_do_not_keep_a_spool(files: Delivery) -> None:
    """Also where another run, which has fallen behind, reads the same slots again."""
    journal = files.program()
    one, other = start(journal, 1), start(journal, 2)
    log(journal, one, *range(100))
    source = files.own(journal)
    journal.write_frame(["artifact", other, put_aside(source, "snapshot"), ""])
    journal.write_frame(["end", other, "FINISHED", 1])
    log(journal, one, *range(100, 200))
    journal.write_frame(["end", one, "FINISHED", 1])
    files.sources.remove(source)
    dead = files.adopt(journal)
    files.deliver()
    assert not dead.lanes
    assert dead.end_orphans(set())


# ── the order of one run's events


def test_a_run_that_is_ended_and_taken_up_again_and_again_keeps_its_order(files: Delivery) -> None:
    """While the store is away: each start waits for the end before it, and none overtakes."""
    journal = files.program()
    calls: list[str] = []
    create, update = files.store.create_run, files.store.update_run
    failing = True

    async def create_run(spec: RunSpec) -> RunInfo:
        if failing:
            raise UnavailableError("away")
        calls.append("start")
        return await create(spec)

    async def update_run(run_id: str, **changes: Any) -> RunInfo:
        calls.append("end")
        return await update(run_id, **changes)

    files.store.create_run, files.store.update_run = create_run, update_run  # type: ignore[method-assign]
    source = files.own(journal)
    for again in range(3):
        number = register(journal, 1 + 10 * again, run_id=uid(1) if again else None)
        journal.write_frame(["start", number])
        if again < 2:
            journal.write_frame(["end", number, "FINISHED", again])
    files.load()
    files.step()
    failing = False
    files.deliver()
    assert calls == ["start", "end", "start", "end", "start"]
    assert source.drained


def test_ended_runs_of_one_id_are_let_go(files: Delivery) -> None:
    """A service that logs to a run, and ends it, a thousand times: what is done holds nothing."""
    journal = files.program()
    source = files.own(journal)
    source.directory.remembered = 3
    start(journal, 1)
    for _ in range(20):
        number = attach(journal, uid(1))
        log(journal, number, 1.0)
        journal.write_frame(["end", number, "", 0])
        files.deliver()
    assert len(source.lanes) == 1
    assert len(source.directory.finished) == 3
    queue = lane_of(source, 1).queue
    assert len(queue.live) + len(queue.ended) == 4


def test_what_an_older_program_has_logged_to_a_run_goes_first(files: Delivery) -> None:
    """A program is killed before anything is delivered, the next one takes the run up again: its tag is the last word,
    the first one's param the first."""
    first, second = files.program(), files.program()
    number = start(first, 1)
    log(first, number, *range(60))
    first.write_frame(["tags", number, {"phase": "train"}])
    first.write_frame(["params", number, {"lr": "0.1"}])
    again = start(second, 9, run_id=uid(1))
    second.write_frame(["tags", again, {"phase": "eval"}])
    second.write_frame(["params", again, {"lr": "0.2"}])
    files.own(second)
    files.adopt(first)
    files.deliver()
    assert files.store.kept[uid(1), "tag", "phase"] == ["train", "eval"]
    assert files.store.kept[uid(1), "param", "lr"] == ["0.1", "0.2"]


def test_a_spool_that_is_put_back_keeps_its_place(files: Delivery) -> None:
    """It did not get on, and made room: what a younger one has for the same run waits, and other runs do not."""
    first, second = files.program(), files.program()
    number = start(first, 1)
    first.write_frame(["tags", number, {"phase": "train"}])
    again = start(second, 9, run_id=uid(1))
    second.write_frame(["tags", again, {"phase": "eval"}])
    other = start(second, 2)
    second.write_frame(["tags", other, {"phase": "alone"}])
    older, younger = files.adopt(first), files.adopt(second)
    older.directory.put_back()
    older.close()
    older.spool.leave()
    files.sources.remove(older)
    files.deliver()
    assert (uid(1), "tag", "phase") not in files.store.kept
    assert files.store.kept[uid(2), "tag", "phase"] == ["alone"]
    files.take(Path(str(older.spool.path)))
    files.deliver()
    assert files.store.kept[uid(1), "tag", "phase"] == ["train", "eval"]
    assert younger.drained
    assert not files.queues.put_back


def test_a_tag_that_is_being_written_slowly_does_not_overtake_a_later_one(files: Delivery) -> None:
    """A thread has claimed its slot and waits for the disk; another sets the same tag behind it, and is done first."""
    journal = files.program()
    source = files.own(journal)
    number = start(journal, 1)
    files.deliver()
    frame = encode_frame(["tags", number, {"k": "first"}])
    claim, slots, segment = journal.current
    at = claim()
    journal.write_frame(["tags", number, {"k": "second"}])
    files.deliver()
    assert (uid(1), "tag", "k") not in files.store.kept
    offset = segment.append_frame(frame)
    PACK(slots, at, offset, len(frame), 0.0, FRAME, offset, len(frame), 0.0, FRAME, at)
    files.deliver()
    assert files.store.kept[uid(1), "tag", "k"] == ["first", "second"]
    assert source.drained


def test_a_slot_that_is_never_written_holds_nothing_up_for_long(
    files: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread was killed between claim and write."""
    from asynctrack.delivery import loader

    now = [1000.0]
    monkeypatch.setattr(loader, "monotonic", lambda: now[0])
    journal = files.program()
    files.own(journal)
    number = start(journal, 1)
    journal.current[0]()
    journal.write_frame(["tags", number, {"k": "second"}])
    files.deliver()
    assert (uid(1), "tag", "k") not in files.store.kept
    now[0] += 6.0
    files.deliver()
    assert files.store.kept[uid(1), "tag", "k"] == ["second"]


# ── what is settled


def test_nothing_is_settled_before_what_was_written_late(files: Delivery) -> None:
    """A thread loses the interpreter between claim and write; what it then logged is waited for by a flush after it."""
    journal = files.program()
    source = files.own(journal)
    number = start(journal, 1)
    log(journal, number, 0.0)
    claim, slots, _ = journal.current
    at = claim()
    log(journal, number, 2.0, key="other")
    files.deliver()
    stream = journal.register_stream(number, "m")
    assert stream is not None
    PACK(slots, at, 1, 5, 1.0, stream, 1, 5, 1.0, stream, at)
    mark = journal.mark()
    files.load()
    assert source.acknowledged(number) < mark
    files.deliver()
    assert source.acknowledged(number) >= mark
    assert len(files.store.kept[uid(1), "metric", "m"]) == 2


def test_a_run_that_is_registered_late_is_not_taken_for_one_that_ended_long_ago(files: Delivery) -> None:
    """Its number was given out before that of a run whose registration came first."""
    journal = files.program()
    source = files.own(journal)
    number = journal.register_run({**RunSpec(uid=uid(2))._asdict(), "attached": False})
    spec = {**RunSpec(uid=uid(1))._asdict(), "attached": False}
    later = number + 5
    journal.spool.registry.append(encode_frame(["run", later, {**spec, "uid": uid(3)}]))
    journal.write_frame(["start", later])
    files.deliver()
    journal.spool.registry.append(encode_frame(["run", later - 1, spec]))
    journal.write_frame(["start", later - 1])
    files.deliver()
    assert not lane_of(source, later - 1).ended
    files.sources.remove(source)
    dead = files.adopt(journal)
    files.deliver()
    dead.end_orphans(set())
    files.deliver()
    assert (uid(1), "KILLED") in [ended[:2] for ended in files.store.ended]


# ── the system's errors


def test_an_error_of_the_system_says_nothing_about_a_cursor(files: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptors, say: the spool stays as it is, and is not compared with the store from its beginning."""
    journal = files.program()
    start(journal, 1)
    path = die(journal, files.folder / "dead")

    def fails(_spool: Spool) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "load_cursor", fails)
        with pytest.raises(OSError, match="too many open files"):
            files.take(path)
    assert not files.sources


def test_an_error_of_the_system_while_reading_loses_nothing(files: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that cannot be sorted now is read again."""
    journal = files.program()
    source = files.own(journal)
    number = start(journal, 1)
    log(journal, number, 1.0, 2.0)
    with monkeypatch.context() as patched:

        def fails() -> None:
            raise OSError(errno.EIO, "i/o error")

        patched.setattr(source.reader.registry, "refresh", fails)
        with pytest.raises(OSError, match="i/o error"):
            source.load()
    files.deliver()
    assert len(files.store.kept[uid(1), "metric", "m"]) == 2


def test_segments_stay_while_the_cursor_cannot_be_saved_and_go_afterwards(
    files: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, say. They stay in the chain, so that they count, and are deleted when that is possible."""
    journal = files.program(slots=8)
    source = files.own(journal)
    number = start(journal, 1)
    log(journal, number, *range(60))
    files.load()
    files.step()
    before = len(list(source.reader.chain()))
    real, full = source.spool.save_cursor, True

    def save_cursor(cursor: dict[str, Any], *, sync: bool = False) -> None:
        if full:
            raise OSError(errno.ENOSPC, "no space left")
        real(cursor, sync=sync)

    monkeypatch.setattr(source.spool, "save_cursor", save_cursor)
    monkeypatch.setattr(source, "_saved_low_water", 0)
    journal.seal_behind()
    with pytest.raises(OSError, match="no space"):
        source.retire()
    assert len(list(source.reader.chain())) == before
    full = False
    files.deliver()
    assert source.retire() > 0
    assert len(list(Path(str(source.spool.path)).glob("*.slots"))) == len(list(source.reader.chain()))


def test_a_segment_that_cannot_be_deleted_now_is_deleted_later(
    files: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted before it stays deleted."""
    journal = files.program(slots=8)
    source = files.own(journal)
    number = start(journal, 1)
    log(journal, number, *range(60))
    files.deliver()
    journal.seal_behind()
    unlink = os.unlink

    def fails(path: str) -> None:
        if str(path).endswith("000002.slots"):
            raise OSError(errno.EIO, "i/o error")
        unlink(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        with pytest.raises(OSError, match="i/o error"):
            source.retire()
    assert str(source.reader.head and source.reader.head.path).endswith("000002.slots")
    assert source.retire() > 0
    assert len(list(Path(str(source.spool.path)).glob("*.slots"))) == len(list(source.reader.chain()))


# ── dead programs' runs


def test_a_killed_programs_run_ends_when_that_was_alive_last(files: Delivery) -> None:
    """Not when somebody delivers it, two days later, and writes a cursor beside its files."""
    journal = files.program()
    log(journal, start(journal, 1), 1.0)
    path = die(journal, files.folder / "dead")
    then = time.time() - 2 * 86400
    for name in os.listdir(path):
        os.utime(path / name, (then, then))
    dead = files.take(path)
    files.deliver()
    dead.end_orphans(set())
    files.deliver()
    ((_, status, end_time),) = files.store.ended
    assert status == "KILLED"
    assert end_time == int(then * 1000)


def test_its_last_event_tells_that_better_than_the_files(files: Delivery) -> None:
    """A copy of the spool has new files; and other runs of the program may have gone on."""
    journal = files.program()
    began = int(time.time() * 1000) - 3_600_000
    log(journal, start(journal, 1, start_time=began), 1.0, 2.0, timestamp=began + 5000)
    dead = files.adopt(journal)
    files.deliver()
    dead.end_orphans(set())
    files.deliver()
    assert files.store.ended == [(uid(1), "KILLED", began + 5000)]


def test_a_dead_programs_run_waits_for_whoever_still_logs_to_it(files: Delivery) -> None:
    """A forked child that has taken over its parent's spool: the run is KILLED once the child is done."""
    parent, child = files.program(), files.program()
    start(parent, 1)
    own = files.own(child)
    number = child.register_run({**RunSpec(uid=uid(1))._asdict(), "attached": True})
    child.write_frame(["start", number])
    dead = files.adopt(parent)
    files.deliver()
    assert not dead.end_orphans(set(), {uid(1)})
    files.deliver()
    assert not files.store.ended
    assert own.drained
    assert not dead.end_orphans(set())
    files.deliver()
    assert dead.end_orphans(set())
    assert [ended[:2] for ended in files.store.ended] == [(uid(1), "KILLED")]


def test_an_earlier_owners_death_does_not_overwrite_a_later_owners_end(files: Delivery) -> None:
    """``os.execv`` into the same program: the run is taken up again, and ended there."""
    first, second, third = files.program(), files.program(), files.program()
    start(first, 1)
    start(second, 8, run_id=uid(1))
    log(second, 1, 1.0)
    again = start(third, 9, run_id=uid(1))
    third.write_frame(["end", again, "FINISHED", 7])
    own, dead = files.own(third), [files.adopt(first), files.adopt(second)]
    statuses = files.store.update_run

    async def update_run(run_id: str, **changes: Any) -> RunInfo:
        await statuses(run_id, **changes)
        return await MemoryStore.update_run(files.store, run_id, **changes)

    files.store.update_run = update_run  # type: ignore[method-assign]
    files.deliver()
    assert own.drained
    for source in dead:
        source.end_orphans(set())
    files.deliver()
    assert [ended[1] for ended in files.store.ended] == ["FINISHED"]
    assert drive(files.store.get_run_info(uid(1))).status == "FINISHED"


# ── runs that another spool creates


def test_a_run_that_is_created_by_another_spool_is_created_first(server: Delivery) -> None:
    """Whichever spool is the older one; and its uid, by which the other program logs to it, becomes the store's id."""
    later, earlier = server.program(), server.program()
    number = attach(later, uid(1))
    log(later, number, 1.0)
    later.write_frame(["tags", number, {"k": "v"}])
    start(earlier, 1)
    log(earlier, 1, 2.0, key="n")
    server.adopt(later)
    server.adopt(earlier)
    server.deliver()
    assert set(server.store.kept) == {
        (f"server-{uid(1)}", "metric", "m"),
        (f"server-{uid(1)}", "tag", "k"),
        (f"server-{uid(1)}", "metric", "n"),
    }


def test_a_run_nested_in_one_that_another_spool_creates_gets_its_parents_id(server: Delivery) -> None:
    """Not its uid, which says nothing to whoever looks at the server."""
    child, parent = server.program(), server.program()
    start(child, 2, tags={PARENT_RUN_TAG: uid(1)})
    start(parent, 1)
    server.adopt(child)
    server.adopt(parent)
    server.deliver()
    assert isinstance(server.store, ServerLike)
    assert server.store.specs[uid(2)].tags[PARENT_RUN_TAG] == f"server-{uid(1)}"


def test_a_spool_that_is_let_go_holds_nobody_up(server: Delivery) -> None:
    """What it would have gone before goes on without it."""
    creating, other = server.program(), server.program()
    start(creating, 1)
    gone = server.adopt(creating)
    number = attach(other, uid(1))
    log(other, number, 1.0)
    own = server.own(other)
    server.load()
    assert lane_of(own, number).blocked()
    gone.close()
    server.sources.remove(gone)
    assert not lane_of(own, number).blocked()


# ── what is written down for others


def follow(delivery: Delivery, path: Path) -> Source:
    """A shipper takes a spool up beside its owner."""
    spool = Spool.follow(str(path))
    assert spool is not None
    head = spool.segments.look(None, living=True)
    source = Source(spool, head, delivery.store.limits, followed=True, queues=RunQueues())
    source.start_reporting()
    delivery.sources = [source]
    return source


def test_a_shipper_that_replaces_another_goes_on_with_all_that_it_has_reported(files: Delivery) -> None:
    """What the program asks for then (`run.info`, say) is not lost with the first one."""
    journal = files.program()
    number = start(journal, 1)
    log(journal, number, 1.0, 2.0)
    path = die(journal, files.folder / "followed")
    first = follow(files, path)
    files.deliver()
    lane = lane_of(first, number)
    lane.retries, lane.last_error = 3, "slow"
    first.save_cursor()
    first.close()
    first.spool.leave()
    again = lane_of(follow(files, path), number)
    assert again.info is not None
    assert again.info == lane.info
    assert (again.accepted, again.delivered, again.retries, again.last_error) == (2, 2, 3, "slow")


def test_of_a_run_that_could_not_be_created_is_kept_what_it_takes_to_create_it(files: Delivery) -> None:
    """In `rejected.jsonl`, beside its events."""

    async def refuse(spec: RunSpec) -> RunInfo:
        raise RefusedError("the experiment is deleted")

    files.store.create_run = refuse  # type: ignore[method-assign]
    journal = files.program()
    source = files.own(journal)
    number = start(journal, 1, run_name="lost", experiment_id="7", start_time=5, tags={"a": "b"})
    log(journal, number, 1.0, 2.0)
    files.deliver()
    events = list(read_rejected([str(source.spool.path)]))
    assert [event.value for event in events] == ["1.0", "2.0"]
    (spec,) = [event.spec for event in events if event.spec is not None]
    assert RunSpec(**spec) == RunSpec(uid=uid(1), run_name="lost", experiment_id="7", start_time=5, tags={"a": "b"})


# ── frames are input


@pytest.mark.parametrize(
    "frame",
    [
        ["params", 1, {"k": 5}],
        ["params", 1, {5: "v"}],
        ["tags", 1, ["k", "v"]],
        ["tags", "1", {"k": "v"}],
        ["end", 1, "FINISHED", "yesterday"],
        ["end", 1, "DONE", 1],
        ["artifact", 1, ["../../secret", False, 1, 1, 0], "a.txt"],
        ["artifact", 1, ["/etc/passwd", False, 1, 1, 0], "a.txt"],
        ["artifact", 1, ["..", True, 1, 1, 0], ""],
        ["artifact", 1, ["name"], ""],
        ["start"],
        "start",
        [["params"], 1, {}],
    ],
)
def test_a_frame_that_cannot_be_used_is_counted_and_named(files: Delivery, frame: Any) -> None:
    """Its checksum is right, and what stands in it is not: whatever it is, the others are delivered."""
    journal = files.program()
    number = start(journal, 1)
    journal.write_frame(frame)
    journal.write_frame(["tags", number, {"good": "yes"}])
    dead = files.adopt(journal)
    files.deliver()
    assert files.store.kept == {(uid(1), "tag", "good"): ["yes"]}
    assert sum(dead.reader.problems.values()) == 1
    assert "frames" in next(iter(dead.reader.problems))


def test_a_registration_that_cannot_be_used_is_damage(files: Delivery) -> None:
    """Its run's events are counted, and named."""
    journal = files.program()
    bad = journal.register_run({"uid": 5, "attached": False})
    log(journal, bad, 1.0)
    journal.write_frame(["tags", bad, {"k": "v"}])
    good = start(journal, 1)
    journal.write_frame(["tags", good, {"good": "yes"}])
    dead = files.adopt(journal)
    files.deliver()
    assert files.store.kept == {(uid(1), "tag", "good"): ["yes"]}
    assert sum(dead.reader.problems.values()) == 2

"""The writing end: from any thread, from signal handlers, over any number of segments, and when there is no room."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.errors import RunEndedError, SpoolFullError
from asynctrack.journal import frames as frames_module
from asynctrack.journal import room as room_module
from asynctrack.journal import segment as segment_module
from asynctrack.journal.disk import allocate, fill, new_file, write_all
from asynctrack.journal.frames import FrameFile
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import HEADER_SIZE
from asynctrack.journal.slots import LAST_STREAM, SLOT_SIZE, PackError
from asynctrack.journal.writer import Journal
from tests.journals import journal_in, read_events, register, segment_bytes, segments, spool_path

#: seconds after which what a test waits for counts as never coming
LIMIT = 30


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Segments of four slots."""
    with journal_in(tmp_path / "spools", slots=4) as made:
        yield made


def stream_of(journal: Journal, key: str = "loss") -> int:
    stream = journal.register_stream(register(journal), key)
    assert stream is not None
    return stream


def log(journal: Journal, stream: int, *steps: int) -> list[bool]:
    return [journal.write(1, step, 0.5, stream) for step in steps]


def events(journal: Journal) -> list[Any]:
    """Everything in the journal: steps of points, frames as they are."""
    reader = JournalReader(journal.spool.registry, journal.head)
    return [event[4] if event[0] == "metric" else list(event) for event in read_events(reader)]


class Disk:
    """A disk that is full, or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        monkeypatch.setattr(segment_module, "allocate", self._allocate)
        monkeypatch.setattr(frames_module, "write_all", self._write_all)
        monkeypatch.setattr(room_module, "_RETRY_FULL", 0.01)

    def _check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _allocate(self, fd: int, size: int) -> None:
        self._check()
        allocate(fd, size)

    def _write_all(self, fd: int, data: bytes, offset: int) -> None:
        self._check()
        write_all(fd, data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


# ── rolling


def test_a_full_segment_is_followed_by_the_next(journal: Journal) -> None:
    """Sequence numbers go on, what is full is sealed, and the callback is told."""
    rolled: list[int] = []
    journal.chain._rolled = lambda: rolled.append(journal.current[2].first)
    log(journal, stream_of(journal), *range(10))
    assert [(segment.first, segment.capacity) for segment in segments(journal.head)] == [(0, 4), (4, 4), (8, 4)]
    assert [segment.sealed for segment in segments(journal.head)] == [True, True, False]
    assert rolled == [4, 8]
    assert events(journal) == list(range(10))
    assert sorted(os.listdir(spool_path(journal))) == [
        "000001.slots", "000002.slots", "000003.slots", "cursor.room", "owner", "registry",
    ]  # fmt: skip


def test_segments_grow_up_to_their_limit(tmp_path: Path) -> None:
    """A short run takes little disk; a long one seldom rolls."""
    with journal_in(tmp_path, segment_bytes=2 * 1024**2) as journal:
        stream = stream_of(journal)
        for step in range(60_000):
            journal.write(1, step, 0.5, stream)
        sizes = [segment.size for segment in segments(journal.head)]
        assert sizes == [256 * 1024, 1024**2, 2 * 1024**2, 2 * 1024**2]
        assert journal.disk_bytes() == sum(sizes)


def test_rolling_takes_the_segment_at_hand(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no log call waits for the disk. A run that logs little gets none."""
    stream = stream_of(journal)
    journal.prepare()
    assert not (spool_path(journal) / "000002.slots").exists()
    log(journal, stream, *range(3))
    journal.prepare()
    journal.prepare()
    assert (spool_path(journal) / "000002.slots").exists()
    assert not (spool_path(journal) / "000003.slots").exists()

    def unexpected(fd: int, size: int) -> None:
        raise AssertionError("a log call made a segment")

    monkeypatch.setattr(segment_module, "allocate", unexpected)
    log(journal, stream, *range(3, 6))
    assert events(journal) == list(range(6))


def test_a_log_call_that_makes_a_segment_does_not_make_its_pages(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what takes time. It takes the room; pages are made as they are written to, or by the engine ahead."""
    made: list[int] = []

    def noting(make: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
        def noted(where: Any, size: int) -> None:
            made.append(size)
            make(where, size)

        return noted

    monkeypatch.setattr(segment_module, "fill", noting(fill))
    monkeypatch.setattr(segment_module, "_map_all", noting(segment_module._map_all))
    stream = stream_of(journal)
    log(journal, stream, *range(6))
    segment = journal.current[2]
    assert segment.path is not None
    assert os.stat(segment.path).st_blocks * 512 >= segment.size
    assert not made
    log(journal, stream, 6)
    journal.prepare()
    assert made == [segment.size] * 2
    log(journal, stream, *range(7, 14))
    assert events(journal) == list(range(14))


def test_a_segment_made_for_a_place_that_is_taken_is_deleted(journal: Journal) -> None:
    """The engine made it while a log call made its own."""
    stream = stream_of(journal)
    log(journal, stream, *range(4))
    journal.prepare()
    stale = journal.chain.supply._prepared
    journal.chain.supply._prepared = None
    log(journal, stream, 4)
    journal.chain.supply._prepared = stale
    log(journal, stream, *range(5, 10))
    assert events(journal) == list(range(10))
    assert stale is not None
    assert stale.path is not None
    assert not os.path.exists(stale.path)


def test_frames_and_points_keep_one_order(journal: Journal) -> None:
    """Over segments' ends too."""
    stream = stream_of(journal)
    for step in range(5):
        log(journal, stream, step)
        assert journal.write_frame(["tags", 1, {"step": str(step)}])
    assert events(journal) == [item for step in range(5) for item in (step, ["tag", 1, "step", str(step)])]


def test_a_mark_stands_behind_every_event_logged(journal: Journal) -> None:
    """flush() waits for everything before it; it is no event itself."""
    stream = stream_of(journal)
    assert journal.mark() == 0
    log(journal, stream, 1, 2)
    assert journal.mark() == 3
    assert journal.mark() == 4  # the segment is full: everything in it
    log(journal, stream, 3)
    assert journal.mark() == 5
    assert events(journal) == [1, 2, 3]


@pytest.mark.parametrize("step", [2**63, 1.5, "7"])
def test_a_point_that_does_not_fit_leaves_no_trace(journal: Journal, step: Any) -> None:
    """Its slot is given up, so nobody waits for it, and nobody takes it for damage."""
    stream = stream_of(journal)
    log(journal, stream, 1)
    with pytest.raises(PackError):
        journal.write(1, step, 0.5, stream)
    log(journal, stream, 2)
    reader = JournalReader(journal.spool.registry, journal.head)
    assert [event[4] for event in read_events(reader)] == [1, 2]
    assert not reader.pending


def test_a_frame_that_cannot_be_encoded_is_an_error(journal: Journal) -> None:
    """Before anything is claimed."""
    with pytest.raises(TypeError):
        journal.write_frame(["tags", 1, {"a": object()}])
    assert journal.mark() == 0


def test_stream_numbers_end_before_those_with_a_meaning(journal: Journal) -> None:
    """Four thousand million metrics are enough for one process."""
    journal.registry._streams = iter([LAST_STREAM + 1])  # type: ignore[assignment]  # the next number is all it is asked for
    with pytest.raises(ValueError, match=r"'loss'.*used up"):
        journal.register_stream(1, "loss")


def test_files_are_for_their_owner_only(journal: Journal) -> None:
    """Directories 0700, files 0600."""
    journal.write_frame(["start", 1])
    journal.spool.save_cursor({"front": 0})
    journal.spool.reject([{"key": "loss"}])
    spool = spool_path(journal)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (spool.parent, spool)] == [0o700] * 2
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.iterdir()}
    assert modes == dict.fromkeys(
        ["000001.frames", "000001.slots", "cursor", "cursor.room", "owner", "registry", "rejected.jsonl"], 0o600
    )


# ── many at once


def test_eight_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    """Points and frames, over hundreds of segments; each thread's own events stay in order."""
    with journal_in(tmp_path, slots=32) as journal:
        streams = [stream_of(journal, f"m{thread}") for thread in range(8)]
        start = threading.Barrier(8)

        def work(stream: int) -> None:
            start.wait(LIMIT)
            for step in range(2000):
                if step % 50 == 0:
                    journal.write_frame(["tags", stream, {"step": str(step)}])
                else:
                    journal.write(1, step, 0.5, stream)

        threads = [threading.Thread(target=work, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal.seal_behind()
        found: dict[Any, list[int]] = {}
        for event in read_events(JournalReader(journal.spool.registry, journal.head)):
            found.setdefault(event[1], []).append(event[4] if event[0] == "metric" else int(event[3]))
        assert found == {stream: list(range(2000)) for stream in streams}


def test_a_signal_handler_logs_in_the_middle_of_everything(tmp_path: Path) -> None:
    """Of a log call, of a roll, of an append: no deadlock, nothing lost, nothing doubled."""
    with journal_in(tmp_path, slots=5) as journal:
        stream, handlers = stream_of(journal), stream_of(journal, "handler")
        handled = logged = 0

        def handler(*_: object) -> None:
            nonlocal handled
            journal.write(1, handled, 0.5, handlers)
            journal.write_frame(["tags", 9, {"n": str(handled)}])
            handled += 1
            if handled < 60:  # and only now: handlers within handlers would never end
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002)

        before = signal.signal(signal.SIGVTALRM, handler)
        deadline = time.monotonic() + LIMIT
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002)
        try:
            while handled < 60 and time.monotonic() < deadline:
                journal.write(1, logged, 0.5, stream)
                journal.write_frame(["tags", 8, {"n": str(logged)}])
                logged += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        assert handled == 60
        journal.seal_behind()
        found = read_events(JournalReader(journal.spool.registry, journal.head))
        points = Counter((event[2], event[4]) for event in found if event[0] == "metric")
        tags = Counter((event[1], int(event[3])) for event in found if event[0] == "tag")
        assert points == Counter([("loss", n) for n in range(logged)] + [("handler", n) for n in range(handled)])
        assert tags == Counter([(8, n) for n in range(logged)] + [(9, n) for n in range(handled)])


def test_a_signal_handler_may_roll_in_the_middle_of_a_roll(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes through the lock that this very thread holds; the segment made for nothing is deleted."""
    stream = stream_of(journal)

    def interrupted(fd: int, size: int) -> None:
        monkeypatch.setattr(segment_module, "allocate", allocate)
        allocate(fd, size)
        signal.raise_signal(signal.SIGUSR1)

    log(journal, stream, *range(4))
    monkeypatch.setattr(segment_module, "allocate", interrupted)
    before = signal.signal(signal.SIGUSR1, lambda *_: log(journal, stream, 100))
    try:
        log(journal, stream, 4)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert events(journal) == [0, 1, 2, 3, 100, 4]
    slots = {segment.path for segment in segments(journal.head)}
    assert {str(path) for path in spool_path(journal).glob("*.slots")} == slots


# ── no room


@pytest.fixture
def full(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Journal]:
    """A journal of one segment of four slots, all of it used, with room for one more; by policy."""
    limit = 2 * segment_bytes(4) + 300
    with journal_in(tmp_path, slots=4, max_spool_bytes=limit, spool_full=request.param) as journal:
        log(journal, stream_of(journal), *range(8))
        yield journal


def make_room(journal: Journal) -> None:
    """What the engine does once the first segment is delivered."""
    reader = JournalReader(journal.spool.registry, journal.head)
    while (end := reader.read(0, 100).end) < 4:
        assert end
    (retired,) = reader.retirable(4)
    retired.remove()
    reader.drop(retired)
    assert reader.head is not None
    journal.head = reader.head
    journal.room_made()


@pytest.mark.parametrize("full", ["drop_new"], indirect=True)
def test_at_its_limit_drop_new_drops_counts_and_says_so_once(full: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """What was accepted stays; when there is room again, log calls are accepted again."""
    assert log(full, 1, 8, 9) == [False, False]
    assert not full.write_frame(["tags", 1, {"a": "b"}])
    assert full.dropped == 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(spool_path(full)) in record.message
    assert "max_spool_bytes" in record.message
    assert events(full) == list(range(8))
    make_room(full)
    assert log(full, 1, 10, 11) == [True, True]
    assert events(full) == [4, 5, 6, 7, 10, 11]
    assert full.disk_bytes() <= full.settings.max_spool_bytes


@pytest.mark.parametrize("full", ["raise"], indirect=True)
def test_at_its_limit_raise_raises_and_nothing_is_logged(full: Journal) -> None:
    """With an error that says where, why and what to do; when there is room again, log calls are accepted again."""
    with pytest.raises(SpoolFullError, match=r"max_spool_bytes=\d+ is reached.*was not logged; make room"):
        full.write(1, 8, 0.5, 1)
    with pytest.raises(SpoolFullError, match=str(spool_path(full))):
        full.write_frame(["tags", 1, {"a": "b"}])
    assert full.dropped == 0
    make_room(full)
    assert log(full, 1, 9) == [True]
    assert events(full) == [4, 5, 6, 7, 9]


class Blocked:
    """A thread in a log call that has to wait, until it has done its work."""

    def __init__(self, journal: Journal, steps: range) -> None:
        self.woken = threading.Event()
        journal._room._wake = self.woken.set
        self.thread = threading.Thread(target=log, args=(journal, 1, *steps))
        self.thread.start()
        assert self.woken.wait(LIMIT)  # whoever waits has the engine deliver at once

    def join(self) -> None:
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("full", ["block"], indirect=True)
def test_at_its_limit_block_waits_until_there_is_room(full: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Then the call goes on, and nothing is lost; that it waits is said once."""
    blocked = Blocked(full, range(8, 12))
    assert blocked.thread.is_alive()
    assert events(full) == list(range(8))
    make_room(full)
    blocked.join()
    assert events(full) == list(range(4, 12))
    assert full.dropped == 0
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "wait until there is room" in caplog.text


@pytest.mark.parametrize("full", ["block"], indirect=True)
def test_a_call_that_waits_for_room_ends_when_the_journal_is_closed(full: Journal) -> None:
    """It raises, and does not wait for ever."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            full.write(1, 8, 0.5, 1)
        except RunEndedError as error:
            raised.append(error)

    woken = threading.Event()
    full._room._wake = woken.set
    thread = threading.Thread(target=work)
    thread.start()
    assert woken.wait(LIMIT)
    full.close()
    thread.join(LIMIT)
    assert len(raised) == 1


@pytest.mark.parametrize("full", ["drop_new", "raise"], indirect=True)
def test_patience_waits_whatever_the_policy(full: Journal, disk: Disk) -> None:
    """For a run's end, which must not be dropped as long as there is hope. (It need not wait where the disk has a
    block, or where this process delivers: see the next tests.)"""
    full.chain.supply.consumed = False
    disk.full = True
    waiting = threading.Event()
    full._room._wake = waiting.set
    frame: list[Any] = ["end", 1, "FINISHED", 5]
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(full.write_frame(frame, patience=LIMIT)))
    thread.start()
    assert waiting.wait(LIMIT)
    make_room(full)
    disk.full = False
    thread.join(LIMIT)
    assert done == [True]
    assert events(full) == [4, 5, 6, 7, frame]


@pytest.mark.parametrize("full", ["drop_new", "raise", "block"], indirect=True)
def test_an_end_needs_no_room_where_this_process_delivers(full: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk it is kept in memory, in its place behind what was logged."""

    def in_memory_alone(path: str | None) -> int:
        if path is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return new_file(path)

    monkeypatch.setattr(segment_module, "new_file", in_memory_alone)
    frame: list[Any] = ["end", 1, "FINISHED", 5]
    assert full.write_frame(frame, patience=LIMIT)
    assert events(full) == [*range(8), frame]


@pytest.mark.parametrize("consumed", [True, False], ids=["thread", "shipper"])
@pytest.mark.parametrize("full", ["drop_new", "raise", "block"], indirect=True)
def test_an_end_is_on_the_disk_although_points_have_used_up_the_limit(full: Journal, consumed: bool) -> None:
    """It takes one block beyond that, at once, whoever delivers: in memory alone it would die with the process."""
    full.chain.supply.consumed = consumed
    if full.settings.spool_full == "drop_new":
        assert log(full, 1, 8) == [False]  # there is no room, as was noted a moment ago
    before = full.disk_bytes()
    frames: list[Any] = [["end", run, "FINISHED", 5] for run in range(1, 4)]
    assert all(full.write_frame(frame, patience=0.0) for frame in frames)
    assert full.current[2].path is not None
    assert before < full.disk_bytes() <= before + 4096 + 200
    assert events(full) == [*range(8), *frames]


@pytest.mark.parametrize("consumed", [True, False], ids=["thread", "shipper"])
def test_an_end_whose_file_of_frames_takes_no_more_goes_into_another(
    consumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the limit of a file's size (`ulimit -f`). Where no file takes it, memory does, and no file is tried
    twice."""
    append, limited = FrameFile.append, ["000001.frames"]

    def append_up_to_the_limit(file: FrameFile, frame: bytes) -> int:
        if file.path is not None and file.path.endswith(tuple(limited)):
            raise OSError(errno.EFBIG, "File too large")
        return append(file, frame)

    with journal_in(tmp_path, consumed=consumed) as journal:
        run = register(journal)
        monkeypatch.setattr(FrameFile, "append", append_up_to_the_limit)
        assert journal.write_frame(["end", run, "FINISHED", 5], patience=0.0)
        assert all(segment.path is not None for segment in segments(journal.head))
        limited.append(".frames")
        assert journal.write_frame(["end", run, "FINISHED", 6], patience=0.0) is consumed
        assert len(list(spool_path(journal).glob("*.slots"))) == 2


def test_a_full_disk_is_met_when_a_segment_is_made(tmp_path: Path, disk: Disk) -> None:
    """Not in the middle of one: what has been accepted stays, what is not is counted, and no file is left over."""
    with journal_in(tmp_path, slots=4) as journal:
        stream = stream_of(journal)
        log(journal, stream, 0)
        disk.full = True
        assert log(journal, stream, *range(1, 6)) == [True, True, True, False, False]
        assert (journal.dropped, len(list(spool_path(journal).glob("*.slots")))) == (2, 1)
        disk.full = False
        journal.room_made()
        assert log(journal, stream, 6, 7) == [True, True]
        assert events(journal) == [0, 1, 2, 3, 6, 7]


def test_a_full_disk_can_raise(tmp_path: Path, disk: Disk) -> None:
    """SpoolFullError, with what the system says."""
    with journal_in(tmp_path, slots=4, spool_full="raise") as journal:
        log(journal, stream_of(journal), *range(4))
        disk.full = True
        with pytest.raises(SpoolFullError, match="No space left on device"):
            journal.write(1, 4, 0.5, 1)
        with pytest.raises(SpoolFullError, match="No space left on device"):
            journal.register_stream(1, "acc")
        with pytest.raises(SpoolFullError, match="No space left on device"):
            journal.write_frame(["start", 1])
        assert events(journal) == [0, 1, 2, 3]


def test_a_full_disk_can_be_waited_for(tmp_path: Path, disk: Disk) -> None:
    """Until somebody has made room; nothing tells us, so it is tried again and again."""
    with journal_in(tmp_path, slots=4, spool_full="block") as journal:
        log(journal, stream_of(journal), *range(4))
        disk.full = True
        blocked = Blocked(journal, range(4, 10))
        disk.full = False
        blocked.join()
        assert events(journal) == list(range(10))


@pytest.mark.parametrize("policy", ["drop_new", "block"])
def test_however_fast_one_logs_the_disk_is_tried_again(tmp_path: Path, disk: Disk, policy: str) -> None:
    """Calls that fail, or wait, without having tried themselves do not put the next attempt off."""
    with journal_in(tmp_path, slots=4, spool_full=policy) as journal:
        log(journal, stream_of(journal), *range(4))
        disk.full = True
        done = threading.Event()

        def work(thread: int) -> None:
            while not done.is_set():
                if journal.write(1, thread, 0.5, 1):
                    return

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        while not journal._room._told:
            assert threads[0].is_alive()
        disk.full = False
        for thread in threads:
            thread.join(LIMIT)
        done.set()
        assert sorted(events(journal)[4:]) == [0, 1, 2, 3]


def test_a_frame_for_which_there_is_no_room_leaves_no_hole(tmp_path: Path, disk: Disk) -> None:
    """Its slot is given up; the next one stands behind it."""
    with journal_in(tmp_path, slots=8) as journal:
        disk.full = True
        assert not journal.write_frame(["tags", 1, {"a": "lost"}])
        disk.full = False
        assert journal.write_frame(["tags", 1, {"a": "kept"}])
        reader = JournalReader(journal.spool.registry, journal.head)
        assert read_events(reader) == [("tag", 1, "a", "kept")]
        assert not reader.pending
        assert not reader.problems


def test_a_metric_that_could_not_be_registered_can_be_later(tmp_path: Path, disk: Disk) -> None:
    """Its first events are dropped and counted, later ones are not."""
    with journal_in(tmp_path) as journal:
        run = register(journal)
        disk.full = True
        assert journal.register_stream(run, "loss") is None
        assert journal.dropped == 1
        disk.full = False
        stream = journal.register_stream(run, "loss")
        assert stream is not None
        journal.write(1, 7, 0.5, stream)
        assert events(journal) == [7]


def test_preparing_on_a_full_disk_is_left_to_the_roll(tmp_path: Path, disk: Disk) -> None:
    """The engine does not fail for it, and does not apply the policy."""
    with journal_in(tmp_path, slots=4) as journal:
        disk.full = True
        log(journal, 1, *range(3))
        journal.prepare()
        assert journal.dropped == 0
        disk.full = False
        assert log(journal, stream_of(journal), *range(3, 6)) == [True] * 3


# ── no disk at all


def test_without_a_directory_everything_is_kept_in_memory_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same journal; the warning says what is no longer promised, why, and what to do."""
    (tmp_path / "file").write_text("")
    with journal_in(tmp_path / "file" / "spools", slots=4) as journal:
        log(journal, stream_of(journal), *range(3))
        journal.write_frame(["start", 1])
        log(journal, 1, *range(4, 10))
        assert events(journal) == [0, 1, 2, ["start", 1], *range(4, 10)]
        assert journal.spool.path is None
        journal.spool.save_cursor({"front": 4})
        journal.spool.reject([{"key": "loss"}])
        assert journal.spool.load_cursor() is None
    record, refused = caplog.records
    assert '{"key": "loss"}' in refused.message
    assert record.levelno == logging.WARNING
    for part in ("memory only", "do not survive", str(tmp_path / "file" / "spools"), "ASYNCTRACK_SPOOL_DIR"):
        assert part in record.message
    assert os.listdir(tmp_path) == ["file"]


def test_a_disk_without_room_for_the_first_segment_is_no_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are kept in memory, and nothing is left on the disk."""

    def on_disk_full(fd: int, size: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, size)

    monkeypatch.setattr(segment_module, "allocate", on_disk_full)
    with journal_in(tmp_path / "spools", slots=4) as journal:
        log(journal, stream_of(journal), *range(6))
        assert events(journal) == list(range(6))
        assert journal.spool.path is None
    assert "No space left on device" in caplog.text
    assert os.listdir(tmp_path / "spools") == [".gitignore"]


# ── the end


def test_a_closed_journal_takes_nothing(journal: Journal) -> None:
    """Points, frames, new metrics: each call says that asynctrack has been shut down. A mark can still be had."""
    stream = stream_of(journal)
    log(journal, stream, 0, 1, 2)
    journal.prepare()
    assert len(list(spool_path(journal).glob("*.slots"))) == 2
    journal.close()
    with pytest.raises(RunEndedError, match="shut down"):
        journal.write(1, 2, 0.5, stream)
    with pytest.raises(RunEndedError, match="shut down"):
        journal.write_frame(["start", 1])
    journal.spool.registry.close()
    with pytest.raises(RunEndedError, match="shut down"):
        journal.register_stream(1, "acc")
    assert journal.mark() == 4
    assert [segment.sealed for segment in segments(journal.head)] == [True]
    assert len(list(spool_path(journal).glob("*.slots"))) == 1
    assert journal.dropped == 0


def test_sync_hands_everything_to_the_disk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registry, slots and frames since the last time, and of those before it nothing again."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    stream = stream_of(journal)
    journal.write_frame(["start", 1])
    log(journal, stream, *range(5))
    journal.sync()
    assert sorted(synced) == ["000001.frames", "000001.slots", "000002.slots", "registry"]
    synced.clear()
    log(journal, stream, *range(4))
    journal.sync()
    assert sorted(synced) == ["000002.slots", "000003.slots", "registry"]


def test_the_space_of_a_header_and_a_slot_is_known() -> None:
    """max_spool_bytes counts 64 bytes an event."""
    assert (HEADER_SIZE, SLOT_SIZE) == (128, 64)


def test_two_threads_that_end_runs_without_a_descriptor_left_close_the_spare_one_once(tmp_path: Path) -> None:
    """Closed twice, the second time it would be somebody else's."""
    with journal_in(tmp_path / "spools") as journal:
        error = OSError(errno.EMFILE, "Too many open files")
        assert not journal.chain.supply.give_up_spare(OSError(errno.ENOSPC, "No space left on device"))
        before = len(os.listdir("/proc/self/fd"))
        assert [journal.chain.supply.give_up_spare(error) for _ in range(3)] == [True, False, False]
        assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_program_without_a_null_device_or_a_descriptor_to_spare_logs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "devnull", str(tmp_path / "nowhere"))
    with journal_in(tmp_path / "spools") as journal:
        register(journal)
        assert not journal.chain.supply.give_up_spare(OSError(errno.EMFILE, "Too many open files"))


def test_a_forked_child_keeps_none_of_the_parents_files_open(journal: Journal) -> None:
    """Else what is delivered and deleted keeps its room on the disk for as long as a worker lives."""
    log(journal, stream_of(journal), *range(11))
    assert journal.write_frame(["tags", 1, {"a": "b"}])
    journal.prepare()
    folder = str(spool_path(journal))

    def open_files() -> list[str]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        found = [os.readlink(link) for link in links if os.path.islink(link)]
        return [name for name in found if name.startswith(folder) and name.endswith((".slots", ".frames"))]

    assert open_files()
    journal.forget()  # as in a child, but that the files are closed here
    assert open_files() == []


def test_what_artifacts_take_is_a_sum_and_no_walk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for each artifact that is logged, with thousands waiting."""
    folder = Path(journal.spool.artifacts())
    folder.mkdir()
    for number in range(10):
        (folder / str(number)).write_bytes(bytes(100))
        journal.put_aside(str(number))
    monkeypatch.setattr(os, "walk", lambda _: pytest.fail("walked"))
    left = journal.settings.max_spool_bytes - journal.disk_bytes()
    assert (journal.room(), journal.artifact_bytes()) == (left - 1000, 1000)
    journal.budget.drop_snapshot("3")
    assert (journal.room(), journal.artifact_bytes()) == (left - 900, 900)

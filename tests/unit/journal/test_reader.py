"""The reading end: everything once, never behind a hole, and a word about what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.journal.frames import FrameFile, encode_frame
from asynctrack.journal.reader import JournalReader, Stream
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import PACK, SLOT_SIZE
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from tests.journals import die, journal_in, let_go, read_events, register, segments

UNFINISHED = "unfinished records (log calls cut short by the end of the process, or damage)"


class Written:
    """A journal with one run and one metric, and its reader."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.run = register(journal)
        stream = journal.register_stream(self.run, "loss")
        assert stream is not None
        self.stream = stream
        self.reader = JournalReader(journal.spool.registry, journal.head)

    def log(self, *steps: int) -> None:
        for step in steps:
            assert self.journal.write(1, step, 0.5, self.stream)

    def claim(self) -> tuple[Any, int]:
        """A slot that is not written: the mapping it is in, and where."""
        claim, slots, segment = self.journal.current
        at = claim()
        if segment.holds(at):
            return slots, at
        assert self.journal.roll(segment)
        return self.claim()

    def fill(self, claimed: tuple[Any, int], step: int) -> None:
        PACK(*claimed, 1, step, 0.5, self.stream, 1, step, 0.5, self.stream)

    def half(self, claimed: tuple[Any, int], step: int) -> None:
        slots, at = claimed
        self.fill(claimed, step)
        slots[at + 32 : at + 64] = bytes(32)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Segments of four slots."""
    with journal_in(tmp_path / "spools", slots=4) as journal:
        yield Written(journal)


def steps(reader: JournalReader, start: int = 0, count: int = 100) -> list[int]:
    """The steps of all points that reading from ``start`` on brings."""
    return [event[4] for event in read_events(reader, start, count=count) if event[0] == "metric"]


def late_steps(reader: JournalReader) -> list[int]:
    return [step for chunk in reader.read_pending() for records in chunk.streams.values() for _, step, _, _ in records]


class Dead:
    """A journal whose process is dead."""

    def __init__(self, written: Written, to: Path) -> None:
        self.path = die(written.journal, to)
        self.open()

    def open(self) -> None:
        spool = Spool.adopt(str(self.path))
        assert spool is not None
        self.spool = spool
        self.head, self.problems = spool.segments()
        self.reader = JournalReader(spool.registry, self.head)

    def close(self) -> None:
        let_go(self.spool, self.head)

    def change(self, file: str, data: bytes, at: int = 0) -> None:
        """Overwrite some bytes."""
        path = self.path / file
        old = path.read_bytes()
        path.write_bytes(old[:at] + data + old[at + len(data) :])


@pytest.fixture
def died(written: Written, tmp_path: Path) -> Iterator[Dead]:
    """Six points: a full segment, and half of one."""
    written.log(*range(6))
    dead = Dead(written, tmp_path / "dead")
    yield dead
    dead.close()


# ── in order


@pytest.mark.parametrize("count", [1, 3, 100])
def test_a_chunk_never_reaches_over_a_segment_s_end(written: Written, count: int) -> None:
    """And says whether there is more."""
    written.log(*range(10))
    assert steps(written.reader, 0, count) == list(range(10))
    assert steps(written.reader, 3, count) == list(range(3, 10))
    chunk = written.reader.read(2, 100)
    assert (chunk.start, chunk.end, chunk.more) == (2, 4, True)
    assert not written.reader.read(8, 100).more
    end = written.reader.read(10, 100)
    assert (end.start, end.end, end.more) == (10, 10, False)


def test_points_alone_are_handed_on_undecoded(written: Written) -> None:
    """Decoding them costs more than writing them to a file."""
    written.log(1, 2)
    chunk = written.reader.read(0, 100)
    assert (chunk.plain, chunk.streams) == ({written.stream}, {})
    chunk.decode()
    assert (chunk.plain, chunk.streams) == (None, {written.stream: [(1, step, 0.5, written.stream) for step in (1, 2)]})
    written.journal.write_frame(["params", written.run, {"a": "1"}])
    mixed = written.reader.read(0, 100)
    assert mixed.plain is None
    assert (len(mixed.streams[written.stream]), mixed.frames) == (2, [["params", written.run, {"a": "1"}]])


@pytest.mark.parametrize("events", [0, 1, 999, 1024, 1025, 1100, 4000])
def test_a_look_at_a_few_events_does_not_read_the_empty_rest_of_their_segment(
    events: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many it reads them in one go."""
    read: list[int] = []
    with journal_in(tmp_path / "spools", slots=20_000) as journal:
        written = Written(journal)
        written.log(*range(events))
        original = Segment.read

        def counted(segment: Segment, index: int, count: int) -> bytes:
            read.append(count)
            return original(segment, index, count)

        monkeypatch.setattr(Segment, "read", counted)
        chunk = written.reader.read(journal.head.first, 65536)
    assert chunk.end - chunk.start == events
    assert sum(read) <= 4 * max(events, 1024) + 64 * len(read)


def test_counting_changes_nothing(written: Written) -> None:
    """Any thread may ask how many points there are."""
    written.log(*range(4))
    written.claim()
    written.log(5)
    assert written.reader.count(0, {written.stream}) == 5
    assert written.reader.count(4, {written.stream}) == 1
    assert written.reader.count(0, set()) == 0
    assert not written.reader.pending


# ── holes


def test_a_hole_blocks_nothing_and_is_found_when_it_is_written_late(written: Written) -> None:
    """Once."""
    written.log(0)
    hole = written.claim()
    written.log(2)
    assert steps(written.reader) == [0, 2]
    assert written.reader.pending == {1}
    assert late_steps(written.reader) == []
    written.fill(hole, 1)
    (late,) = written.reader.read_pending()
    assert (late.late, list(late.streams.values())) == (1, [[(1, 1, 0.5, written.stream)]])
    assert not written.reader.pending
    assert late_steps(written.reader) == []


def test_what_is_read_again_does_not_bring_a_hole_s_event_a_second_time(written: Written) -> None:
    """A run that is behind reads the same slots later; until the late event has come, it comes from there alone."""
    hole = written.claim()
    written.log(1)
    assert steps(written.reader) == [1]
    written.fill(hole, 0)
    assert steps(written.reader) == [1]
    assert late_steps(written.reader) == [0]


def test_a_call_that_is_just_writing_is_waited_for_without_waiting(written: Written) -> None:
    """The first half is there, the second not yet."""
    claimed = written.claim()
    written.half(claimed, 0)
    written.log(1)
    assert steps(written.reader) == [1]
    assert late_steps(written.reader) == []
    written.fill(claimed, 0)
    assert late_steps(written.reader) == [0]
    assert not written.reader.problems


def test_the_slots_behind_the_last_one_begun_are_no_holes(written: Written) -> None:
    """They are read when they are written."""
    written.log(0)
    written.claim()
    assert steps(written.reader) == [0]
    assert not written.reader.pending
    assert written.reader.read(1, 100).end == 1


def test_a_hole_is_final_once_its_segment_is_sealed(written: Written) -> None:
    """Nobody can write it any more: who had claimed it has logged in the next segment. So it is not missing."""
    written.log(0)
    slots, at = written.claim()
    written.log(2, 3)
    assert steps(written.reader) == [0, 2, 3]
    assert written.reader.pending == {1}
    written.log(4)  # rolls
    with pytest.raises((ValueError, TypeError), match=r"closed|mmap"):
        written.fill((slots, at), 1)
    assert late_steps(written.reader) == []
    assert not written.reader.pending
    assert steps(written.reader, 4) == [4]
    assert not written.reader.problems


def test_a_given_up_slot_is_no_hole(written: Written) -> None:
    """A log call with a step that does not fit leaves no trace."""
    _, _, segment = written.journal.current
    written.log(0)
    segment.void(segment.claim())
    written.log(2)
    assert steps(written.reader) == [0, 2]
    assert not written.reader.pending


def test_a_hole_of_a_dead_process_is_reported(written: Written, tmp_path: Path) -> None:
    """Its call had not returned; or it is damage, which looks alike. Slots that were never used are neither."""
    written.log(0)
    written.claim()
    written.log(2, 3, 4)
    written.half(written.claim(), 5)
    dead = Dead(written, tmp_path / "dead")
    try:
        assert steps(dead.reader) == [0, 2, 3, 4]
        assert dead.reader.problems == {UNFINISHED: 2}
        assert not dead.reader.pending
    finally:
        dead.close()


def test_a_hole_in_the_cursor_that_was_never_written_is_reported(written: Written, tmp_path: Path) -> None:
    """The process died before it wrote there; one that it did write is delivered."""
    holes = [written.claim(), written.claim()]
    written.log(2)
    written.fill(holes[1], 1)
    dead = Dead(written, tmp_path / "dead")
    try:
        reader = JournalReader(dead.spool.registry, dead.head, pending=[0, 1])
        assert steps(reader, 3) == []
        assert late_steps(reader) == [1]
        assert reader.problems == {UNFINISHED: 1}
        assert not reader.pending
    finally:
        dead.close()


# ── damage


def test_a_damaged_record_costs_itself(died: Dead) -> None:
    """It is counted, and never read."""
    died.change("000001.slots", b"\x77", HEADER_SIZE + SLOT_SIZE + 40)
    assert steps(died.reader) == [0, 2, 3, 4, 5]
    assert died.reader.problems == {"damaged records": 1}


def test_a_cut_segment_costs_its_end(died: Dead) -> None:
    """What it lacks is counted, and the next segment is read."""
    path = died.path / "000001.slots"
    path.write_bytes(path.read_bytes()[: HEADER_SIZE + SLOT_SIZE + 10])
    assert steps(died.reader) == [0, 4, 5]
    assert died.reader.problems == {f"{path} is cut": 3}


def test_a_missing_segment_is_passed_over(died: Dead) -> None:
    """Spool.segments reports it, with how much may be lost."""
    died.close()
    (died.path / "000001.slots").unlink()
    died.open()
    assert steps(died.reader) == [4, 5]
    assert died.reader.read(0, 100).start == 4


def test_a_damaged_frame_costs_itself(written: Written, tmp_path: Path) -> None:
    """The frames beside it and the points around it are read."""
    written.log(0)
    for number in range(2):
        written.journal.write_frame(["tags", written.run, {"n": str(number)}])
    written.log(3)
    dead = Dead(written, tmp_path / "dead")
    try:
        dead.change("000001.frames", b"\xff", 15)
        events = read_events(dead.reader)
        assert [event[:2] for event in events] == [("metric", 1), ("tag", 1), ("metric", 1)]
        assert events[1] == ("tag", 1, "n", "1")
        assert list(dead.reader.problems.values()) == [1]
    finally:
        dead.close()


def test_a_missing_file_of_frames_is_damage_like_any_other(written: Written, tmp_path: Path) -> None:
    """It costs the frames."""
    written.journal.write_frame(["start", written.run])
    written.log(1)
    dead = Dead(written, tmp_path / "dead")
    try:
        (dead.path / "000001.frames").unlink()
        assert steps(dead.reader) == [1]
        assert list(dead.reader.problems.values()) == [1]
    finally:
        dead.close()


# ── the registry


@pytest.fixture
def registry() -> Iterator[FrameFile]:
    file = FrameFile(None, create=True)
    yield file
    file.close()


def test_streams_are_found_when_they_are_needed(registry: FrameFile) -> None:
    """Registered since the last look too; None for one whose entry is damaged."""
    reader = JournalReader(registry, None)
    registry.append(encode_frame(["stream", 1, 7, "loss"]))
    assert reader.stream(1) == Stream(7, "loss")
    assert reader.stream(2) is None
    registry.append(encode_frame(["stream", 2, 7, "acc"]))
    assert reader.stream(2) == Stream(7, "acc")


def test_an_entry_that_another_thread_was_writing_is_found_later(registry: FrameFile) -> None:
    """It stands before entries that have been read already."""
    slow, fast = encode_frame(["stream", 1, 7, "slow"]), encode_frame(["stream", 2, 7, "fast"])
    registry.append(bytes(len(slow)))
    registry.append(fast)
    reader = JournalReader(registry, None)
    assert (reader.stream(2), reader.stream(1)) == (Stream(7, "fast"), None)
    registry._end = 0
    registry.append(slow)
    assert reader.stream(1) == Stream(7, "slow")


def test_a_forgotten_run_is_read_again(registry: FrameFile) -> None:
    """Memory does not grow with the number of runs; an event behind a run's end still finds it."""
    registry.append(encode_frame(["run", 1, {"uid": "a"}]))
    registry.append(encode_frame(["stream", 1, 1, "loss"]))
    registry.append(encode_frame(["unknown kind", 5]))
    reader = JournalReader(registry, None)
    reader.refresh_registry()
    assert reader.runs == {1: {"uid": "a"}}
    reader.forget(1)
    assert reader.runs == {}
    assert reader.run(1) == {"uid": "a"}
    assert reader.stream(1) == Stream(1, "loss")
    assert reader.run(2) is None


# ── retiring


def test_a_segment_is_let_go_when_everybody_is_past_it(written: Written) -> None:
    """Sealed, wholly before the low-water mark, and without a hole that may be written yet."""
    written.log(*range(4))
    hole = written.claim()
    written.log(*range(5, 9))
    first, second, third = segments(written.journal.head)
    assert steps(written.reader) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert written.reader.retire(3) == []
    assert written.reader.retire(4) == [first]
    assert written.reader.head is second
    assert written.reader.retire(8) == [second]
    assert written.reader.retire(100) == []  # the one in use never goes
    assert written.reader.head is third
    assert hole[1] == HEADER_SIZE


def test_a_segment_with_a_pending_slot_stays(written: Written) -> None:
    """Until the slot is written, or the segment sealed."""
    written.log(0)
    hole = written.claim()
    written.log(2, 3)
    steps(written.reader)
    with memoryview(hole[0]):  # a write is under way: the roll cannot seal
        written.log(4)
        assert not written.journal.head.sealed
        assert written.reader.retire(4) == []
    assert late_steps(written.reader) == []
    assert written.reader.retire(4) == []
    written.journal.seal_behind()
    assert late_steps(written.reader) == []
    assert len(written.reader.retire(4)) == 1

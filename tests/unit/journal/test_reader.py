"""The reading end: everything once, never behind a hole, and a word about what is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.journal import reader as module
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import FRAME, PACK, SLOT_SIZE, Slots
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
        assert self.journal.chain.roll(segment)
        return self.claim()

    def fill(self, claimed: tuple[Any, int], step: int) -> None:
        PACK(*claimed, 1, step, 0.5, self.stream, 1, step, 0.5, self.stream, claimed[1])

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
        self.head = spool.segments.look(None, living=False)
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

        def counted(segment: Segment, index: int, count: int) -> Slots:
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


def every_slot(count: int) -> Iterator[tuple[int, int]]:
    """Stretches of four slots, aligned or not."""
    return ((start, min(start + 4, count)) for start in range(count))


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x01, 0x77])
def test_a_stretch_overwritten_with_one_byte_is_counted_slot_by_slot(
    byte: int, written: Written, tmp_path: Path
) -> None:
    """Not taken for void slots, for slots never used, or for points; also where it is the end of what was written, once
    the engine has had a look, or the journal was closed."""
    written.log(*range(4), *range(4, 7))
    written.journal.prepare()
    for number, (first, last) in enumerate(every_slot(7)):
        dead = Dead(written, tmp_path / str(number))
        for at in range(first, last):
            dead.change(f"{at // 4 + 1:06d}.slots", bytes([byte]) * SLOT_SIZE, HEADER_SIZE + at % 4 * SLOT_SIZE)
        dead.close()
        dead.open()
        try:
            assert steps(dead.reader) == [step for step in range(7) if not first <= step < last]
            assert sum(dead.reader.problems.values()) == last - first
        finally:
            dead.close()


def test_a_record_in_another_s_place_is_damage(died: Dead) -> None:
    """A block copied over its neighbour: whole records, both halves, that are not the ones logged there."""
    path = died.path / "000001.slots"
    data = path.read_bytes()
    half = HEADER_SIZE + 2 * SLOT_SIZE
    path.write_bytes(data[:half] + data[HEADER_SIZE:half])
    assert steps(died.reader) == [0, 1, 4, 5]
    assert died.reader.problems == {"damaged records": 2}


@pytest.mark.parametrize("copy", [0, 64])
def test_how_much_was_used_is_known_from_one_copy_of_the_header(copy: int, written: Written, tmp_path: Path) -> None:
    """A count that is damaged says nothing, and nothing wrong."""
    written.log(0, 1, 2)
    written.journal.prepare()
    dead = Dead(written, tmp_path / "dead")
    dead.change("000001.slots", bytes(SLOT_SIZE), HEADER_SIZE + 2 * SLOT_SIZE)
    dead.change("000001.slots", b"\x04", copy + 44)
    dead.close()
    dead.open()
    assert steps(dead.reader) == [0, 1]
    assert dead.reader.problems == {UNFINISHED: 1}
    dead.change("000001.slots", b"\x04", 64 - copy + 44)
    dead.close()
    dead.open()
    assert steps(dead.reader) == [0, 1]
    assert dead.reader.problems == {}
    dead.close()


def test_slots_that_were_never_used_are_no_loss(written: Written, tmp_path: Path) -> None:
    """Of a journal that was closed, and of one whose process died."""
    written.log(0, 1)
    written.journal.prepare()
    for name in ("killed", "closed"):
        dead = Dead(written, tmp_path / name)
        assert steps(dead.reader) == [0, 1]
        assert dead.reader.problems == {}
        dead.close()
        written.journal.close()


def test_a_cut_segment_costs_its_end(died: Dead) -> None:
    """What it lacks is counted, and the next segment is read."""
    path = died.path / "000001.slots"
    path.write_bytes(path.read_bytes()[: HEADER_SIZE + SLOT_SIZE + 10])
    assert steps(died.reader) == [0, 4, 5]
    assert died.reader.problems == {f"{path} is cut": 3}


def test_a_missing_segment_is_passed_over(died: Dead) -> None:
    """`SegmentChain` reports it, with how much may be lost."""
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


# ── retiring


def retire(reader: JournalReader, before: int) -> list[Segment]:
    """Take what is done with out of the chain, as whoever deletes it does."""
    retired = reader.retirable(before)
    for segment in retired:
        reader.drop(segment)
    return retired


def test_a_segment_is_let_go_when_everybody_is_past_it(written: Written) -> None:
    """Sealed, wholly before the low-water mark, and without a hole that may be written yet."""
    written.log(*range(4))
    hole = written.claim()
    written.log(*range(5, 9))
    first, second, third = segments(written.journal.head)
    assert steps(written.reader) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert retire(written.reader, 3) == []
    assert retire(written.reader, 4) == [first]
    assert written.reader.head is second
    assert retire(written.reader, 8) == [second]
    assert retire(written.reader, 100) == []  # the one in use never goes
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
        assert retire(written.reader, 4) == []
    assert late_steps(written.reader) == []
    assert retire(written.reader, 4) == []
    written.journal.seal_behind()
    assert late_steps(written.reader) == []
    assert len(retire(written.reader, 4)) == 1


# ── bounds, and files that go away


def test_a_chunk_ends_where_its_frames_are_large_enough(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tags of 100 kB are not read into memory at once; each is read, however large, and once."""
    monkeypatch.setattr(module, "_FRAME_BYTES", 1000)
    written.log(0)
    sizes = [10, 900, 900, 5000, 10, 10]
    for size in sizes:
        written.journal.write_frame(["tags", written.run, {"t": "x" * size}])
    written.log(1)
    found: list[int] = []
    start = 0
    while (chunk := written.reader.read(start, 100)).end > start:
        lengths = [len(frame[2]["t"]) for frame in chunk.frames]
        assert sum(lengths) <= 1000 or len(lengths) == 1
        assert chunk.more or chunk.end == 8
        found += lengths
        start = chunk.end
    assert found == sizes
    assert steps(written.reader) == [0, 1]
    assert not written.reader.problems


@pytest.mark.parametrize(("offset", "length"), [(0, 1 << 62), (1 << 62, 10), (-5, 10), (0, -1), (-(1 << 63), 1 << 40)])
def test_a_slot_that_points_nowhere_costs_itself_and_no_memory(
    offset: int, length: int, written: Written, tmp_path: Path
) -> None:
    """Both numbers come from a file."""
    written.journal.write_frame(["tags", written.run, {"a": "b"}])
    slots, at = written.claim()
    PACK(slots, at, offset, length, 0.0, FRAME, offset, length, 0.0, FRAME, at)
    written.log(1)
    dead = Dead(written, tmp_path / "dead")
    try:
        assert [event[:2] for event in read_events(dead.reader)] == [("tag", 1), ("metric", 1)]
        assert sum(dead.reader.problems.values()) == 1
    finally:
        dead.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
def test_a_segment_that_cannot_be_read_now_is_read_later(
    code: int, died: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system says nothing about the data: it is not passed over, and nothing is counted as lost."""

    def no(*some: object, **more: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no)
        with pytest.raises(OSError, match=os.strerror(code)):
            died.reader.read(0, 100)
    assert steps(died.reader) == list(range(6))
    assert not died.reader.problems


def test_a_segment_that_is_deleted_before_it_is_read_is_missed_and_the_next_one_read(died: Dead) -> None:
    """By somebody who tidied up: nobody waits for it for ever."""
    (died.path / "000001.slots").unlink()
    assert steps(died.reader) == [4, 5]
    ((problem, records),) = died.reader.problems.items()
    assert "000001.slots was deleted" in problem
    assert records == 4


def test_slots_of_a_living_program_that_somebody_has_erased_are_counted(tmp_path: Path) -> None:
    """A hole punched into its file reads as zeros, and so does a slot that no thread has written. There are not that
    many threads."""
    with journal_in(tmp_path / "spools", slots=400) as journal:
        written = Written(journal)
        written.log(*range(401))
        first = journal.head
        assert first.sealed
        assert first.path is not None
        with open(first.path, "r+b") as file:
            file.seek(HEADER_SIZE + 100 * SLOT_SIZE)
            file.write(bytes(200 * SLOT_SIZE))
        assert steps(written.reader) == [*range(100), *range(300, 401)]
        assert written.reader.problems == {"records that were erased": 200}

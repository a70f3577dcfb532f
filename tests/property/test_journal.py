"""Whatever is written to the journal is read again; whatever is done to its files, nothing wrong is."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from asynctrack.delivery.pump import Pump
from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Source
from asynctrack.delivery.supervision import Supervision
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import HEADER_SIZE
from asynctrack.journal.slots import SLOT_SIZE
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import Limits
from asynctrack.stores.io import drive
from tests.journals import (
    Event,
    ExactStore,
    Recovered,
    bits,
    by_metric,
    die,
    journal_in,
    let_go,
    read_events,
    register,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too

METRIC = st.tuples(st.just("metric"), st.integers(1, 2), st.sampled_from("abc"), INT64, INT64, FLOATS)
ENTRIES = st.dictionaries(TEXT, TEXT, min_size=1, max_size=4)
FRAME = st.tuples(st.sampled_from(["params", "tags"]), st.integers(1, 2), ENTRIES)


class Program:
    """Two runs that log what hypothesis tells them to."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.streams: dict[tuple[int, str], int] = {}
        #: every event, in order, and the sequence number of its slot
        self.events: list[Event] = []
        self.slots: list[int] = []
        self._next_slot = 0
        for run in (1, 2):
            assert register(journal, run) == run
            self._frame(["start", run], [("start", run)])

    def log(self, event: tuple[Any, ...]) -> None:
        kind, run, *rest = event
        if kind == "metric":
            key, timestamp, step, value = rest
            if (run, key) not in self.streams:
                stream = self.journal.register_stream(run, key)
                assert stream is not None
                self.streams[run, key] = stream
            assert self.journal.write(timestamp, step, value, self.streams[run, key])
            self._logged([("metric", run, key, timestamp, step, bits(value))])
        else:
            self._frame([kind, run, rest[0]], [(kind[:-1], run, *item) for item in rest[0].items()])

    def end(self, run: int) -> None:
        self._frame(["end", run, "FINISHED", 5], [("end", run, "FINISHED", 5)])

    def _frame(self, frame: list[Any], events: list[Event]) -> None:
        assert self.journal.write_frame(frame)
        self._logged(events)

    def _logged(self, events: list[Event]) -> None:
        self.events += events
        self.slots += [self._next_slot] * len(events)
        self._next_slot += 1


@settings(max_examples=60, deadline=None)
@given(events=st.lists(METRIC | FRAME, max_size=40), slots=st.integers(1, 16), count=st.integers(1, 20))
def test_what_is_written_is_read(events: list[tuple[Any, ...]], slots: int, count: int) -> None:
    """In order, to the last bit, over any number of segments: live, and after the writer's death."""
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), slots=slots) as journal:
        program = Program(journal)
        for event in events:
            program.log(event)
        assert read_events(JournalReader(journal.spool.registry, journal.head)) == program.events
        in_chunks = read_events(JournalReader(journal.spool.registry, journal.head), count=count)
        assert by_metric(in_chunks) == by_metric(program.events)
        recovered = Recovered(die(journal, Path(folder, "dead")))
        assert without_ends(recovered.events) == without_ends(program.events)
        assert not recovered.problems


def without_ends(events: list[Event]) -> dict[tuple[Any, ...], list[Event]]:
    return by_metric(event for event in events if event[0] not in ("start", "end"))


# ── damage


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, Callable[[bytes], tuple[bytes, int, int]]]:
    """What happens to a file: its description, and a function that gives the new bytes, and which were zeroed."""
    where = draw(st.floats(0, 1, exclude_max=True))
    how = draw(st.sampled_from(["cut", "flip", "zero", "ones", "copied over its neighbour"]))
    mask = draw(st.integers(1, 255))
    size = 2 ** draw(st.integers(0, 12))

    def apply(data: bytes) -> tuple[bytes, int, int]:
        at = int(where * len(data))
        if how == "cut":
            return data[:at], 0, 0
        if how == "flip":
            return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :], 0, 0
        at -= at % size
        end = min(at + size, len(data))
        if how == "ones":
            return data[:at] + b"\xff" * (end - at) + data[end:], 0, 0
        if how == "copied over its neighbour":
            return data[: at + size] + data[at:end] + data[at + 2 * size :], 0, 0
        return data[:at] + bytes(end - at) + data[end:], at, end

    return f"{how} at {where:.4f} mask {mask} size {size}", apply


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_damage_to_a_file_brings_a_wrong_record_or_hides_a_missing_one(data: st.DataObject) -> None:
    """Cut anywhere, any byte changed, any aligned range zeroed, set to ones or copied over its
    neighbour, in any file: what is read is what was written, in
    order; whatever is missing and was not delivered before is reported; and the next journal works.

    One thing is past finding: records zeroed, slot by slot, up to the very end of what was written look like slots
    that were never used.
    """
    events = data.draw(st.lists(METRIC | FRAME, min_size=5, max_size=25), "events")
    delivered_after = data.draw(st.integers(0, len(events)) | st.none(), "delivered after")
    ends = data.draw(st.booleans(), "ends")
    slots = data.draw(st.integers(2, 8), "slots")
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), slots=slots) as journal:
        program = Program(journal)
        store = ExactStore(Limits(entities=3))
        for number, event in enumerate(events):
            program.log(event)
            if number == delivered_after:
                deliver_some(journal, store)
        if ends:
            program.end(1)
        path = die(journal, Path(folder, "dead"))
        name = data.draw(st.sampled_from(sorted(file.name for file in path.iterdir())), "file")
        description, damage = data.draw(damages(), "damage")
        note(description)
        sound = (path / name).read_bytes()
        damaged, zero_from, zero_to = damage(sound)
        (path / name).write_bytes(damaged)

        recovered = Recovered(path)
        written, read = without_ends(program.events), without_ends(recovered.events)
        for key, found in read.items():
            assert is_subsequence(found, written.get(key, [])), (key, found, written.get(key))
        there = by_metric(recovered.events + store.events())
        missing = [
            (event, slot)
            for event, slot in zip(program.events, program.slots, strict=True)
            if event[0] != "start" and event not in there.get(event[:3], [])
        ]
        if name.endswith(".slots") and zero_to > zero_from:
            unused_from = last_written(path)
            missing = [(event, slot) for event, slot in missing if slot <= unused_from]
        assert not missing or sum(recovered.problems.values()) > 0, (name, description, missing)

        with journal_in(Path(folder), slots=slots) as fresh:
            again = Program(fresh)
            again.log(("metric", 1, "a", 0, 0, 1.0))
            assert read_events(JournalReader(fresh.spool.registry, fresh.head)) == again.events


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_missing_segments_cost_what_was_in_them_and_are_reported(data: st.DataObject) -> None:
    """Any of them, the first and the last too, if it was not empty."""
    events = data.draw(st.lists(METRIC, min_size=5, max_size=25), "events")
    slots = data.draw(st.integers(2, 6), "slots")
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), slots=slots) as journal:
        program = Program(journal)
        for event in events:
            program.log(event)
        path = die(journal, Path(folder, "dead"))
        numbers = range((program.slots[-1]) // slots + 1)
        # Without the last one nothing tells that there was one.
        lost = data.draw(st.sets(st.sampled_from(numbers[:-1]), min_size=1), "lost")
        for number in lost:
            (path / f"{number + 1:06d}.slots").unlink()
        recovered = Recovered(path)
        kept = [
            event
            for event, slot in zip(program.events, program.slots, strict=True)
            if slot // slots not in lost and event[0] == "metric"
        ]
        assert without_ends(recovered.events) == by_metric(kept)
        assert sum(recovered.problems.values()) >= len(program.events) - len(kept) - 2  # the starts of two runs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=st.lists(METRIC | FRAME, min_size=5, max_size=25),
    slots=st.integers(2, 8),
    nth=st.integers(0, 60),
    times=st.integers(1, 8),
    code=st.sampled_from([errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ENOMEM]),
)
def test_an_error_of_the_system_whenever_a_file_is_opened_loses_nothing(
    events: list[tuple[Any, ...]], slots: int, nth: int, times: int, code: int
) -> None:
    """Whoever delivers a dead program's spool meets it at any call, for a while: everything is delivered, once, and
    the spool is deleted after that and not before."""
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), slots=slots) as journal:
        program = Program(journal)
        for event in events:
            program.log(event)
        path = die(journal, Path(folder, "dead"))
        store = ExactStore(Limits(entities=3))
        pump = Pump(store, Settings())
        pump._supervision = Supervision(itertools.count(0, 1000).__next__)
        with failing_opens(range(nth, nth + times), code):
            for _ in range(200):
                deliver_round(pump, path, store)
                if not path.exists():
                    break
                assert (path / "owner").exists()
        assert not path.exists()
        assert without_ends(store.events()) == without_ends(program.events)


def deliver_round(pump: Pump, path: Path, store: ExactStore) -> None:
    if not pump.sources:
        try:
            spool = Spool.adopt(str(path))
        except OSError:
            return
        if spool is None or pump.add(spool) is None:
            return
    pump.load()
    for source in pump.sources:
        for lane in source.lanes.values():
            lane.backoff.retry_at = lane.disk.retry_at = 0.0
    for source, lane, work in list(pump.due()):
        drive(pump.step(source, lane, work))


@contextlib.contextmanager
def failing_opens(which: range, code: int) -> Iterator[None]:
    """Some of the next calls that open or list something fail."""
    calls = itertools.count()
    originals = {name: getattr(os, name) for name in ("open", "listdir", "scandir")}

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*some: Any, **more: Any) -> Any:
            if next(calls) in which:
                raise OSError(code, os.strerror(code))
            return original(*some, **more)

        return call

    with contextlib.ExitStack() as patched:
        for name, original in originals.items():
            patched.enter_context(mock.patch.object(os, name, failing(original)))
        yield


def deliver_some(journal: Journal, store: ExactStore) -> None:
    """Deliver a part of the journal as its own process would, and leave a cursor behind."""
    source = Source(journal.spool, journal.head, store.limits, adopted=False)
    for _ in range(3):
        source.refresh()
        source.load()
        delivery = Sender(store)
        for _, lane, work in delivery.due((source, lane) for lane in list(source.lanes.values())):
            drive(delivery.step(source, lane, work))
        source.retire()
    assert source.reader.head is not None
    journal.head = source.reader.head


def last_written(path: Path) -> int:
    """The sequence number of the last slot that is not all zeros; -1 where there is none."""
    last = -1
    with contextlib.closing(Opened(path)) as opened:
        for segment in opened.segments:
            content = segment.read(0, segment.capacity)
            for index in range(len(content) // SLOT_SIZE):
                if any(content[index * SLOT_SIZE : (index + 1) * SLOT_SIZE]):
                    last = max(last, segment.first + index)
    return last


class Opened:
    """A dead process's segments."""

    def __init__(self, path: Path) -> None:
        spool = Spool.adopt(str(path))
        assert spool is not None
        self.spool = spool
        self.head = spool.segments.look(None, living=False)
        self.segments = []
        segment = self.head
        while segment is not None:
            self.segments.append(segment)
            segment = segment.next

    def close(self) -> None:
        let_go(self.spool, self.head)


def is_subsequence(part: list[Event], whole: list[Event]) -> bool:
    rest = iter(whole)
    return all(event in rest for event in part)


def test_the_header_takes_two_slots() -> None:
    """So that a range aligned to a slot's size holds whole slots."""
    assert HEADER_SIZE == 2 * SLOT_SIZE

"""What follows a full segment: each case, and that a full disk or a full budget never is the end."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from asynctrack.errors import SpoolFullError
from asynctrack.journal import room as room_module
from asynctrack.journal import segment as segment_module
from asynctrack.journal.disk import allocate
from asynctrack.journal.found import SegmentChain
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.rolling import Action, Situation, decide
from asynctrack.journal.slots import SLOT_SIZE
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from tests.journals import journal_in, read_events, register, segment_bytes, segments, spool_path

LIMIT = 30
USUAL = Situation(
    forked=False, rolled=False, closed=False, prepared=False, ending=False, consumed=True, aside=False
)  # fmt: skip
FULL = frozenset({Action.MAKE})
NO_BLOCK = FULL | {Action.MAKE_FOR_END}


@pytest.mark.parametrize(
    ("situation", "action"),
    [
        (USUAL, Action.MAKE),
        (USUAL._replace(prepared=True), Action.TAKE_PREPARED),
        (USUAL._replace(prepared=True, failed=FULL), Action.TAKE_PREPARED),
        (USUAL._replace(closed=True, prepared=True), Action.CLOSED),
        (USUAL._replace(rolled=True, closed=True), Action.GO_ON),
        (USUAL._replace(forked=True, closed=True), Action.REOPEN),
        (USUAL._replace(failed=FULL), Action.STEP_ASIDE),
        (USUAL._replace(failed=FULL, consumed=False), Action.STEP_ASIDE),
        (USUAL._replace(failed=FULL, aside=True), Action.REFUSE),
        (USUAL._replace(failed=FULL | {Action.STEP_ASIDE}), Action.REFUSE),
        (USUAL._replace(ending=True), Action.MAKE),
        (USUAL._replace(failed=FULL, ending=True), Action.MAKE_FOR_END),
        (USUAL._replace(failed=FULL, ending=True, consumed=False, aside=True), Action.MAKE_FOR_END),
        (USUAL._replace(failed=NO_BLOCK, ending=True), Action.MAKE_IN_MEMORY),
        (USUAL._replace(failed=NO_BLOCK, ending=True, aside=True), Action.MAKE_IN_MEMORY),
        (USUAL._replace(failed=NO_BLOCK, ending=True, consumed=False), Action.STEP_ASIDE),
        (USUAL._replace(failed=NO_BLOCK, ending=True, consumed=False, aside=True), Action.REFUSE),
        (USUAL._replace(failed=NO_BLOCK | {Action.MAKE_IN_MEMORY}, ending=True), Action.STEP_ASIDE),
    ],
)
def test_each_situation_has_its_action(situation: Situation, action: Action) -> None:
    assert decide(situation) is action


def test_every_way_that_fails_leads_to_another_and_to_an_end() -> None:
    """So a roll ends, whatever fails."""
    for ending in (False, True):
        for consumed in (False, True):
            situation = USUAL._replace(ending=ending, consumed=consumed, prepared=True)
            seen: list[Action] = []
            while seen[-1:] != [Action.REFUSE]:
                seen.append(decide(situation))
                situation = situation._replace(failed=situation.failed | {seen[-1]})
            assert len(seen) == len(set(seen)) <= 6


def deliver(journal: Journal) -> None:
    """What the engine does once everything is delivered."""
    journal.seal_behind()
    reader = JournalReader(journal.spool.registry, journal.head)
    for retired in reader.retirable(journal.current[2].first):
        reader.drop(retired)
        if journal.chain.supply.consumed:
            retired.remove()
        else:
            os.unlink(str(retired.path))
    if journal.chain.supply.consumed:
        assert reader.head is not None
        journal.head = reader.head
        journal.room_made()
    else:
        journal.look_for_deleted(lambda: journal.current[2].first)


def test_a_segment_that_takes_no_event_needs_no_free_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a shipper it must be a file: one is kept for it while there is room."""

    def full(fd: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with journal_in(tmp_path, slots=4, spool_full="drop_new", consumed=False) as journal:
        stream = journal.register_stream(register(journal), "loss")
        assert stream is not None
        journal.prepare()
        for step in range(4):
            assert journal.write(1, step, 0.5, stream)
        room = spool_path(journal) / "slots.room"
        kept = room.stat()
        with monkeypatch.context() as patch:
            patch.setattr(segment_module, "allocate", full)
            assert not journal.write(1, 4, 0.5, stream)
        aside = journal.current[2]
        assert aside.path is not None
        assert os.stat(aside.path).st_ino == kept.st_ino
        assert kept.st_blocks * 512 >= 4096
        found = SegmentChain(str(spool_path(journal))).look(None, living=True)
        assert found is not None
        assert found.next is not None
        assert found.next.read(0, 1) == aside.read(0, 1) != bytes(SLOT_SIZE)
        deliver(journal)
        assert journal.head is aside
        journal.prepare()
        assert not room.exists()  # it would be taken from what was just made for the segment that is waited for
        assert journal.write(1, 4, 0.5, stream)
        deliver(journal)
        journal.prepare()
        assert room.exists()
        assert journal.budget.bytes == sum(path.stat().st_size for path in spool_path(journal).glob("*.slots"))


class Disk:
    """Has room for so many segments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, room: int) -> None:
        self.room = room
        self._folder = folder
        monkeypatch.setattr(segment_module, "allocate", self._allocate)
        monkeypatch.setattr(room_module, "_RETRY_FULL", 0.0)

    def _allocate(self, fd: int, size: int) -> None:
        there = [path for path in self._folder.rglob("*.slots") if path.stat().st_size > segment_bytes(1)]
        on_disk = os.readlink(f"/proc/self/fd/{fd}").startswith(str(self._folder))
        if on_disk and size > segment_bytes(1) and len(there) >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, size)


@pytest.mark.parametrize("consumed", [True, False], ids=["thread", "shipper"])
def test_on_a_full_disk_what_is_delivered_makes_room(
    consumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one segment: when it is full and delivered it is deleted, and the call that waits goes on."""
    Disk(monkeypatch, tmp_path, room=1)
    with journal_in(tmp_path, slots=4, spool_full="block", consumed=consumed) as journal:
        stream = journal.register_stream(register(journal), "loss")
        assert stream is not None
        done = threading.Event()

        def work() -> None:
            for step in range(20):
                journal.write(1, step, 0.5, stream)
            done.set()

        threading.Thread(target=work, daemon=True).start()
        found: list[int] = []
        position = 0
        deadline = time.monotonic() + LIMIT
        while not done.wait(0.01):
            assert time.monotonic() < deadline
            reader = JournalReader(journal.spool.registry, journal.head)
            events = read_events(reader, position)
            position += sum(1 for event in events)
            found += [event[4] for event in events]
            position = max(position, journal.current[2].first)
            deliver(journal)
        found += [event[4] for event in read_events(JournalReader(journal.spool.registry, journal.head), position)]
        assert sorted(set(found)) == list(range(20))
        assert journal.dropped == 0


@pytest.mark.parametrize("policy", ["drop_new", "raise", "block"])
def test_a_budget_too_small_for_a_larger_segment_gets_a_smaller_one(policy: str, tmp_path: Path) -> None:
    """Segments grow fourfold; 600 KiB are not enough for the second, and are used all the same."""
    limit = 600 * 1024
    with journal_in(tmp_path, max_spool_bytes=limit, spool_full=policy) as journal:
        stream = journal.register_stream(register(journal), "loss")
        assert stream is not None
        for step in range(8000):
            assert journal.write(1, step, 0.5, stream)
        assert journal.disk_bytes() <= limit
        assert len(list(segments(journal.head))) == 2


# ── frames


def test_frames_count_against_the_limit(tmp_path: Path) -> None:
    """3,000 tags of 10 kB into a spool of 1 MiB: what is accepted fits, and what does not is dropped and counted."""
    limit = 1024**2
    with journal_in(tmp_path, max_spool_bytes=limit) as journal:
        run = register(journal)
        accepted = sum(journal.write_frame(["tags", run, {"note": "x" * 10_000}]) for _ in range(3000))
        assert 60 < accepted < 100
        assert journal.dropped == 3000 - accepted
        found = sum(path.stat().st_size for path in spool_path(journal).iterdir())
        assert found <= limit + 25_000  # the smallest segment, behind the one that is to make room; room for cursors
        assert len(read_events(JournalReader(journal.spool.registry, journal.head))) == accepted


@pytest.mark.parametrize("policy", ["drop_new", "block"])
def test_frames_that_are_delivered_make_room_although_their_segment_is_not_full(policy: str, tmp_path: Path) -> None:
    with journal_in(tmp_path, max_spool_bytes=1024**2, spool_full=policy) as journal:
        run = register(journal)

        def tag() -> bool:
            return journal.write_frame(["tags", run, {"note": "x" * 100_000}])

        for _ in range(7):
            assert tag()
        if policy == "block":
            thread = threading.Thread(target=tag, daemon=True)
            thread.start()
            deadline = time.monotonic() + LIMIT
            while thread.is_alive():
                assert time.monotonic() < deadline
                deliver(journal)
        else:
            assert not tag()
            deliver(journal)
            assert tag()
        assert len(list(segments(journal.head))) == 1


def test_a_frame_larger_than_the_whole_spool_may_be_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    with journal_in(tmp_path, max_spool_bytes=1024**2, spool_full="block") as journal:
        run = register(journal)
        with pytest.raises(SpoolFullError, match="max_spool_bytes=1048576"):
            journal.write_frame(["tags", run, {"note": "x" * 2_000_000}])


def test_the_end_of_a_run_has_room_beside_any_frames(tmp_path: Path) -> None:
    """On the disk, where it survives the process, though the limit is reached."""
    with journal_in(tmp_path, max_spool_bytes=300 * 1024) as journal:
        run = register(journal)
        while journal.write_frame(["tags", run, {"note": "x" * 10_000}]):
            pass
        assert journal.write_frame(["end", run, "FINISHED", 5], patience=LIMIT)
        assert all(segment.path is not None for segment in segments(journal.head))


def test_a_segment_whose_file_is_gone_is_kept_until_it_is_known_to_be_delivered(tmp_path: Path) -> None:
    """Somebody else may have deleted it: this program, which has it open, can still read it."""
    settings = Settings(spool_dir=str(tmp_path), segment_bytes=segment_bytes(2))
    journal = Journal("memory://", settings, lambda: None, lambda: None, consumed=False)
    stream = journal.register_stream(journal.register_run({"uid": "a"}), "loss")
    assert stream is not None
    for step in range(5):
        journal.write(1, step, 0.5, stream)
    journal.seal_behind()
    first = journal.head
    os.unlink(str(first.path))
    journal.look_for_deleted(lambda: first.end - 1)
    assert journal.head is first
    assert len(first.read(0, 2)) == 2 * SLOT_SIZE
    journal.look_for_deleted(lambda: first.end)
    assert journal.head is first.next
    journal.close()


def test_where_one_block_is_free_a_segment_takes_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was deleted on a full disk, others may have taken all the rest."""

    def nearly_full(fd: int, size: int) -> None:
        if size > 4096:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, size)

    with journal_in(tmp_path, slots=1000, spool_full="raise") as journal:
        stream = journal.register_stream(register(journal), "loss")
        assert stream is not None
        monkeypatch.setattr(segment_module, "allocate", nearly_full)
        for step in range(1100):
            assert journal.write(1, step, 0.5, stream)
        assert journal.current[2].size <= 4096

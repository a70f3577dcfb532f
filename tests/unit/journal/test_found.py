"""What a look at a spool's folder makes of its segments: a chain, what is missing in it, and what must wait."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asynctrack.journal.found import SegmentChain, State
from asynctrack.journal.refusals import RefusalLog
from asynctrack.journal.removal import SpoolRemoval
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import PACK
from tests.journals import segments

SLOTS = 4
SYSTEM_ERRORS = [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ENOMEM]


def make(folder: Path, number: int, first: int, *, used: int = SLOTS, sealed: bool = False) -> Path:
    """A segment file with so many points in it."""
    path = folder / f"{number:06d}.slots"
    segment = Segment.create(str(path), first, SLOTS)
    assert segment.slots is not None
    for step in range(used):
        at = segment.claim()
        PACK(segment.slots, at, 1, step, 0.5, 1, 1, step, 0.5, 1, at)
    if sealed:
        assert segment.seal()
    segment.close()
    return path


def places(head: Segment | None) -> list[int]:
    return [segment.first for segment in segments(head)]


def names(chain: SegmentChain, state: State) -> list[str]:
    return sorted(name for name, found in chain.states.items() if found is state)


Fail = Callable[[str, int], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Have every attempt to open a file of that name end with an error of the system; 0: no more."""
    failing: dict[str, int] = {}
    original = os.open

    def opened(path: Any, *rest: Any, **more: Any) -> int:
        code = failing.get(os.path.basename(str(path)))
        if code:
            raise OSError(code, os.strerror(code), path)
        return original(path, *rest, **more)

    monkeypatch.setattr(os, "open", opened)
    return failing.__setitem__


# ── of a dead owner


@pytest.mark.parametrize("code", SYSTEM_ERRORS)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_segment_that_the_system_does_not_open_now_is_not_damaged(
    number: int, code: int, tmp_path: Path, fail: Fail
) -> None:
    """No descriptors, no rights, no memory: what stands before it can be had, nothing is reported as lost, and a later
    look finds the rest."""
    for index in range(4):
        make(tmp_path, index + 1, index * SLOTS)
    chain = SegmentChain(str(tmp_path))
    fail(f"{number:06d}.slots", code)
    head = chain.look(None, living=False)
    assert names(chain, State.UNREADABLE_NOW) == [f"{number:06d}.slots"]
    assert not chain.complete
    assert os.strerror(code) in chain.unreadable[0]
    # The last one before it is held back: whether something is missing in that shows in the one behind it.
    assert places(head) == [index * SLOTS for index in range(number - (number == 4) - 1)]
    assert not chain.problems
    fail(f"{number:06d}.slots", 0)
    head = chain.look(head, living=False)
    assert places(head) == [0, 4, 8, 12]
    assert chain.unreadable == []
    assert not chain.problems


@pytest.mark.parametrize("code", SYSTEM_ERRORS)
def test_a_folder_that_cannot_be_listed_now_is_not_empty(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing takes a descriptor, too."""
    make(tmp_path, 1, 0)
    chain = SegmentChain(str(tmp_path))

    def no(path: str) -> list[str]:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", no)
        assert chain.look(None, living=False) is None
        assert not chain.complete
    assert places(chain.look(None, living=False)) == [0]
    assert chain.complete


def test_a_segment_of_a_newer_format_waits_for_a_newer_asynctrack(tmp_path: Path) -> None:
    """It is not damage, and its spool is not to be deleted."""
    path = make(tmp_path, 1, 0)
    data = bytearray(path.read_bytes())
    for copy in (0, 64):
        struct.pack_into("<I", data, copy + 8, 99)
        struct.pack_into("<I", data, copy + 40, zlib.crc32(data[copy : copy + 40]))
    path.write_bytes(data)
    chain = SegmentChain(str(tmp_path))
    assert chain.look(None, living=False) is None
    assert names(chain, State.UNREADABLE_NOW) == ["000001.slots"]
    assert "format 99" in chain.account(None, 100).unreadable[0]


@pytest.mark.parametrize("make_other", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_segment_and_is_not_waited_for(
    make_other: Callable[[Path], None], tmp_path: Path
) -> None:
    """A pipe would block whoever opens it until somebody writes into it."""
    make(tmp_path, 1, 0)
    make_other(tmp_path / "000002.slots")
    chain = SegmentChain(str(tmp_path))
    assert places(chain.look(None, living=False)) == [0]
    assert names(chain, State.DAMAGED) == ["000002.slots"]


def test_two_segments_with_records_for_one_place_are_reported(tmp_path: Path) -> None:
    """Nobody writes such: one of them was copied over another. One is read, the other is not lost in silence."""
    make(tmp_path, 1, 0)
    make(tmp_path, 2, 0)
    chain = SegmentChain(str(tmp_path))
    assert places(chain.look(None, living=False)) == [0]
    ((problem, records),) = chain.problems.items()
    assert "000002.slots holds records for a place that another segment holds" in problem
    assert records == SLOTS


def test_no_descriptor_stays_open_for_a_segment(tmp_path: Path) -> None:
    """However many there are: a backlog of gigabytes is read by a program that has other files, too."""
    for index in range(300):
        make(tmp_path, index + 1, index * SLOTS)
    before = os.listdir("/proc/self/fd")
    head = SegmentChain(str(tmp_path)).look(None, living=False)
    assert sum(len(segment.read(0, SLOTS)) // 64 for segment in segments(head)) == 300 * SLOTS
    assert len(os.listdir("/proc/self/fd")) == len(before)


# ── of a living owner


def follow(folder: Path) -> tuple[SegmentChain, Segment | None]:
    chain = SegmentChain(str(folder))
    return chain, chain.look(None, living=True)


def test_a_segment_counts_once_it_is_in_use(tmp_path: Path) -> None:
    """One that was only prepared may be deleted, and another made for its place."""
    make(tmp_path, 1, 0)
    prepared = make(tmp_path, 2, 4, used=0)
    chain, head = follow(tmp_path)
    assert places(head) == [0]
    assert names(chain, State.PREPARED) == ["000002.slots"]
    prepared.unlink()
    make(tmp_path, 3, 4, used=1)
    assert places(chain.look(head, living=True)) == [0, 4]
    assert not chain.problems


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_hole_is_passed_once_a_later_segment_is_in_use(how: str, tmp_path: Path) -> None:
    """The owner goes on only when the one before is made: nothing will come there any more. It is said, once."""
    for index in range(3):
        make(tmp_path, index + 1, index * SLOTS)
    second = tmp_path / "000002.slots"
    second.unlink() if how == "missing" else second.write_bytes(b"\xff" * 128 + second.read_bytes()[128:])
    chain, head = follow(tmp_path)
    assert places(head) == [0, 8]
    assert sum("a segment is missing, with up to 4 records" in problem for problem in chain.problems) == 1
    assert any("000002.slots: both copies" in problem for problem in chain.problems) == (how == "damaged")
    said = dict(chain.problems)
    make(tmp_path, 4, 12, used=1)
    assert places(chain.look(head, living=True)) == [0, 8, 12]
    assert chain.problems == said


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_hole_is_waited_for_while_nothing_behind_it_is_in_use(how: str, tmp_path: Path) -> None:
    """It may be in the making, whatever its header says as yet."""
    make(tmp_path, 1, 0)
    if how == "damaged":
        (tmp_path / "000002.slots").write_bytes(bytes(128 + 64 * SLOTS))
    make(tmp_path, 3, 8, used=0)
    chain, head = follow(tmp_path)
    assert places(head) == [0]
    assert not chain.problems
    (tmp_path / "000002.slots").unlink(missing_ok=True)
    make(tmp_path, 2, 4, used=1)
    assert places(chain.look(head, living=True)) == [0, 4]
    assert not chain.problems


def test_a_file_that_a_listing_has_just_missed_is_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be listed while files are made in it: the later of two may be seen without the earlier one."""
    for index in range(3):
        make(tmp_path, index + 1, index * SLOTS)
    listdir = os.listdir
    listings: list[list[str]] = []

    def racing(path: str) -> list[str]:
        found = listdir(path)
        listings.append([name for name in found if listings or name != "000002.slots"])
        return listings[-1]

    monkeypatch.setattr(os, "listdir", racing)
    chain, head = follow(tmp_path)
    assert places(head) == [0, 4, 8]
    assert not chain.problems
    assert len(listings) == 2


@pytest.mark.parametrize("code", SYSTEM_ERRORS)
def test_no_hole_is_passed_while_something_cannot_be_read_now(code: int, tmp_path: Path, fail: Fail) -> None:
    """The segment that seems to be missing may be that one."""
    for index in range(3):
        make(tmp_path, index + 1, index * SLOTS)
    fail("000002.slots", code)
    chain, head = follow(tmp_path)
    assert places(head) == [0]
    assert not chain.problems
    fail("000002.slots", 0)
    assert places(chain.look(head, living=True)) == [0, 4, 8]


def test_an_owner_that_dies_leaves_what_adopting_would_find(tmp_path: Path) -> None:
    """Following and adopting read by the same code: what the last segment lacks is known from then on."""
    for index in range(3):
        make(tmp_path, index + 1, index * SLOTS, used=2 if index == 2 else SLOTS)
    chain, head = follow(tmp_path)
    head = chain.look(head, living=False)
    assert [(segment.first, segment.sealed, segment.begun) for segment in segments(head)] == [
        (0, True, 4),
        (4, True, 4),
        (8, True, 2),
    ]


def test_a_look_lists_the_folder_once_and_opens_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands of segments, and somebody looks twice a second."""
    for index in range(200):
        make(tmp_path, index + 1, index * SLOTS, sealed=True)
    chain, head = follow(tmp_path)
    make(tmp_path, 201, 200 * SLOTS, used=1)
    calls: list[str] = []
    listdir, opened = os.listdir, os.open

    def counted_list(path: str) -> list[str]:
        calls.append("list")
        return listdir(path)

    def counted_open(*some: Any, **more: Any) -> int:
        calls.append("open")
        return opened(*some, **more)

    monkeypatch.setattr(os, "listdir", counted_list)
    monkeypatch.setattr(os, "open", counted_open)
    assert len(places(chain.look(head, living=True))) == 201
    assert calls.count("list") == 1
    assert calls.count("open") <= 2


# ── the account


def test_the_account_names_what_was_read_to_its_end(tmp_path: Path) -> None:
    """A segment counts when no event stands behind what is delivered; a damaged one, once it was reported."""
    for index in range(3):
        make(tmp_path, index + 1, index * SLOTS, used=2 if index == 2 else SLOTS)
    (tmp_path / "000004.slots").write_bytes(b"rubbish")
    chain = SegmentChain(str(tmp_path))
    head = chain.look(None, living=False)
    expected = {4: {"000001.slots"}, 9: {"000001.slots", "000002.slots"}}
    for front, read in expected.items():
        assert chain.account(head, front).read == read
    whole = chain.account(head, 10)
    assert whole.read == {"000001.slots", "000002.slots", "000003.slots"}
    assert whole.damaged == {"000004.slots"}
    assert whole.unreadable == ()


def test_how_far_a_living_owner_was_is_known_when_it_dies(tmp_path: Path) -> None:
    """It notes that in the header every now and then; what somebody has zeroed behind that place is missing, and was
    not just never used."""
    path = tmp_path / "000001.slots"
    segment = Segment.create(str(path), 0, SLOTS)
    chain, head = follow(tmp_path)
    for _ in range(3):
        segment.void(segment.claim())
    segment.note_used()
    segment.close()
    path.write_bytes(path.read_bytes()[:128] + bytes(64 * SLOTS))
    assert head is not None
    chain.look(head, living=False)
    assert head.begun == 3


# ── killed while a segment was being made


@pytest.mark.parametrize("size", [0, 128 + 64 * SLOTS], ids=["empty", "zeros"])
def test_a_segment_over_whose_making_its_owner_was_killed_is_no_damage(size: int, tmp_path: Path) -> None:
    """It never held a record, and the spool can be deleted with it."""
    make(tmp_path, 1, 0, used=SLOTS - 1)
    (tmp_path / "000002.slots").write_bytes(bytes(size))
    chain = SegmentChain(str(tmp_path))
    head = chain.look(None, living=False)
    assert places(head) == [0]
    assert not chain.problems
    assert names(chain, State.PREPARED) == ["000002.slots"]
    SpoolRemoval(str(tmp_path), RefusalLog(str(tmp_path))).carry_out(chain.account(head, SLOTS))
    assert not tmp_path.exists()


@pytest.mark.parametrize("how", ["slots", "frames", "turn"])
def test_a_segment_that_was_used_and_has_lost_its_header_is_damaged(how: str, tmp_path: Path) -> None:
    """A slot is left, or its frames are; or its turn had come."""
    make(tmp_path, 1, 0, used=SLOTS if how == "turn" else SLOTS - 1)
    (tmp_path / "000002.slots").write_bytes(bytes(128 + 64 * SLOTS - 1) + (b"x" if how == "slots" else b"\0"))
    if how == "frames":
        (tmp_path / "000002.frames").touch()
    chain = SegmentChain(str(tmp_path))
    chain.look(None, living=False)
    assert names(chain, State.DAMAGED) == ["000002.slots"]
    assert any("000002.slots: both copies" in problem for problem in chain.problems)

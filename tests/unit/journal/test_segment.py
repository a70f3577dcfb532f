"""One file of slots: made whole, written by anybody at once, sealed for good, found again."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import stat
import struct
import sys
import threading
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from asynctrack.journal import segment as module
from asynctrack.journal import slots
from asynctrack.journal.disk import CHUNK, allocate, new_file, write_all
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import PACK, SLOT_SIZE, decode_block

FIRST = 1000
#: seconds after which what a test waits for counts as never coming
LIMIT = 30


@pytest.fixture(params=["on disk", "in memory"])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Segment]:
    """A new segment of four slots."""
    made = Segment.create(str(tmp_path / "000001.slots") if request.param == "on disk" else None, FIRST, 4)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "000001.slots")


def put(segment: Segment, step: int, stream: int = 1) -> int:
    """Log a point; its offset."""
    at = segment.claim()
    assert segment.slots is not None
    PACK(segment.slots, at, 1, step, 2.5, stream, 1, step, 2.5, stream, at)
    return at


def steps(segment: Segment) -> list[int]:
    return [step for _, step, _, _ in decode_block(segment.read(0, segment.capacity)).streams.get(1, [])]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ── made


def test_a_new_segment_has_all_its_blocks_and_is_private(path: str) -> None:
    """The disk's space is taken when it is made, so that no later write can fail for want of it."""
    segment = Segment.create(path, 0, 1000)
    found = os.stat(path)
    assert found.st_size == HEADER_SIZE + 1000 * SLOT_SIZE == segment.size
    assert found.st_blocks * 512 >= found.st_size
    assert stat.S_IMODE(found.st_mode) == 0o600
    segment.close()


def test_a_segment_is_never_made_over_another(path: str) -> None:
    """A file that is there stays as it is."""
    Path(path).write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Segment.create(path, 0, 4)
    assert Path(path).read_bytes() == b"mine"


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor an open descriptor."""

    def full(fd: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "allocate", full)
    before = open_files()
    with pytest.raises(OSError, match="No space"):
        Segment.create(path, 0, 4)
    assert not os.path.exists(path)
    assert open_files() == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are mapped as they are touched")
def test_no_page_fault_waits_for_the_log_calls() -> None:
    """In memory, where no file system maps many pages at one fault."""
    segment = Segment.create(None, 0, 3 * CHUNK // SLOT_SIZE + 7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for step in range(segment.capacity):
        put(segment, step)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < segment.size // mmap.PAGESIZE // 10  # some are Python's own
    assert steps(segment) == list(range(segment.capacity))
    segment.seal()
    segment.close()


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 70 * CHUNK + 9])
def test_a_file_has_all_its_blocks_and_zeros_alone(size: int, tmp_path: Path) -> None:
    fd = new_file(str(tmp_path / "file"))
    allocate(fd, size)
    assert (tmp_path / "file").read_bytes() == bytes(size)
    assert os.fstat(fd).st_blocks * 512 >= size
    os.close(fd)


# ── written


def test_slots_are_claimed_in_order_and_end(segment: Segment) -> None:
    """Past the end nothing is held, again and again."""
    offsets = [put(segment, step) for step in range(4)]
    assert offsets == [HEADER_SIZE + i * SLOT_SIZE for i in range(4)]
    assert all(segment.holds(at) for at in offsets)
    assert not segment.holds(segment.claim())
    assert not segment.holds(segment.claim())
    assert steps(segment) == [0, 1, 2, 3]


def test_no_two_threads_claim_one_slot(path: str) -> None:
    """Eight at once."""
    segment = Segment.create(path, 0, 8000)
    claimed: list[list[int]] = [[] for _ in range(8)]

    def claim(mine: list[int]) -> None:
        mine.extend(segment.claim() for _ in range(1000))

    threads = [threading.Thread(target=claim, args=(mine,)) for mine in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = sorted(at for mine in claimed for at in mine)
    assert together == list(range(HEADER_SIZE, segment.size, SLOT_SIZE))
    segment.close()


def test_a_slot_given_up_is_neither_a_point_nor_waited_for(segment: Segment) -> None:
    """void() fills it."""
    put(segment, 1)
    segment.void(segment.claim())
    put(segment, 2)
    block = decode_block(segment.read(0, 3))
    assert steps(segment) == [1, 2]
    assert not block.empty


def test_frames_stand_beside_the_slots(segment: Segment) -> None:
    """In a file that is made for the first of them; none is read before."""
    assert segment.frames.read([(0, 9)]) == [b""]
    offsets = [segment.append_frame(frame) for frame in (b"first", b"second")]
    assert segment.frames.read([(at, 6) for at in offsets]) == [b"firsts", b"second"]
    assert segment.frames.size() == 11
    if segment.path is not None:
        assert stat.S_IMODE(os.stat(segment.path.replace(".slots", ".frames")).st_mode) == 0o600


# ── sealed


def test_nothing_can_be_written_once_it_is_sealed(segment: Segment) -> None:
    """Whoever had claimed a slot before learns it from holds(), and logs elsewhere."""
    put(segment, 1)
    slots, at = segment.slots, segment.claim()
    assert slots is not None
    assert segment.seal()
    assert segment.sealed
    with pytest.raises((ValueError, TypeError), match=r"closed|mmap"):
        PACK(slots, at, 1, 2, 3.0, 1, 1, 2, 3.0, 1, at)
    assert not segment.holds(at)
    segment.void(at)
    assert steps(segment) == [1]
    assert segment.seal()


def test_it_is_not_sealed_in_the_middle_of_a_write(segment: Segment) -> None:
    """But takes no new ones from then on; asked again, it is sealed."""
    slots = segment.slots
    assert slots is not None
    with memoryview(slots):  # as PACK holds it while a value's __index__ runs
        assert not segment.seal()
        assert not segment.sealed
        assert not segment.holds(HEADER_SIZE)
    assert segment.seal()
    assert segment.sealed


def test_a_seal_whose_mark_cannot_be_written_is_one_all_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is for other processes; a log call does not fail for it."""

    def fail(fd: int, data: bytes, offset: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    segment = Segment.create(path, 0, 4)
    monkeypatch.setattr(module, "write_all", fail)
    assert segment.seal()
    assert segment.sealed
    segment.close()


def test_two_that_seal_it_at_once_wait_for_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One may be suspended by a signal handler that waits for the other. The other seals it alone, and deletes it; the
    mark that comes late goes to the deleted file, and not to whatever file has got the descriptor's number since."""
    segment = Segment.create(path, 0, 4)
    elsewhere = Path(path).with_name("another file")
    places: list[str] = []

    def seal_and_remove() -> None:
        assert segment.seal()
        assert segment.sealed
        segment.remove()

    def write(fd: int, data: bytes, offset: int) -> None:
        if not places:
            places.append("")
            other = threading.Thread(target=seal_and_remove)
            other.start()
            other.join(LIMIT)
            assert not other.is_alive()
            with elsewhere.open("w"):
                places[0] = os.readlink(f"/proc/self/fd/{fd}")
                write_all(fd, data, offset)
        else:
            write_all(fd, data, offset)

    monkeypatch.setattr(module, "write_all", write)
    assert segment.seal()
    assert places == [f"{path} (deleted)"]
    assert elsewhere.read_bytes() == b""


@pytest.mark.parametrize("line", range(8))
def test_how_far_it_is_used_may_be_noted_while_another_thread_seals_it(line: int, path: str) -> None:
    segment = Segment.create(path, 0, 600)
    for step in range(300):
        put(segment, step)
    lines: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_name != "_look":
            return None
        lines.append(frame.f_lineno)
        if len(lines) == line + 1:
            segment.seal()  # here the other thread has its turn
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        segment.note_used()
    except OSError:
        pass  # sealed: its files are not open for writing any more
    finally:
        sys.settrace(before)
    assert len(lines) > line
    assert segment.seal()
    assert Segment.open(path).used == 300


# ── found


def test_sealing_makes_no_places_to_compare_with(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for whoever reads what stands there. The log call that rolls first took half its time for them."""
    made = Segment.create(path, 0, 4094)
    for _ in range(4094):
        made.put(made.claim(), 1, 2, 3.0, 1)
    monkeypatch.setattr(slots, "_all_places", memoryview(array("I")))
    assert made.seal()
    assert not len(slots._all_places)


def test_a_segment_is_found_as_it_was_left(path: str) -> None:
    """By another process: place, size, slots, frames, and whether it is sealed."""
    segment = Segment.create(path, FIRST, 4)
    put(segment, 5)
    offset = segment.append_frame(b"frame")
    found = Segment.open(path)
    assert (found.first, found.capacity, found.sealed, steps(found)) == (FIRST, 4, False, [5])
    assert found.frames.read([(offset, 5)]) == [b"frame"]
    put(segment, 6)
    segment.seal()
    found.refresh()
    assert (found.sealed, steps(found)) == (True, [5, 6])
    found.close()
    again = Segment.open(path)
    assert again.sealed
    again.close()
    segment.close()


@pytest.mark.parametrize("copy", [0, 64])
def test_one_damaged_header_is_made_good_by_the_other(path: str, copy: int) -> None:
    """At any byte of it."""
    Segment.create(path, FIRST, 4).close()
    sound = Path(path).read_bytes()
    for at in range(copy, copy + 44):
        Path(path).write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        found = Segment.open(path)
        assert (found.first, found.capacity) == (FIRST, 4)
        found.close()


def test_a_file_without_a_header_is_no_segment(path: str) -> None:
    """Two damaged copies, a cut file, an empty one: an error that names it; no descriptor stays open."""
    Segment.create(path, 0, 4).close()
    sound = Path(path).read_bytes()
    before = open_files()
    for data in (b"\0" * 128 + sound[128:], sound[:40], b""):
        Path(path).write_bytes(data)
        with pytest.raises(ValueError, match=r"000001\.slots: both copies"):
            Segment.open(path)
    assert open_files() == before


def test_a_segment_of_another_version_is_refused(path: str) -> None:
    """Not taken for damaged: a newer asynctrack can read it."""
    Segment.create(path, 0, 4).close()
    data = bytearray(Path(path).read_bytes())
    for copy in (0, 64):
        struct.pack_into("<I", data, copy + 8, 4)
        struct.pack_into("<I", data, copy + 40, zlib.crc32(data[copy : copy + 40]))
    Path(path).write_bytes(data)
    with pytest.raises(ValueError, match="format 4 is not known here; read it with a newer asynctrack"):
        Segment.open(path)


def test_a_cut_file_gives_the_slots_it_has(path: str) -> None:
    """Whole ones only."""
    segment = Segment.create(path, 0, 4)
    for step in range(4):
        put(segment, step)
    segment.close()
    os.truncate(path, HEADER_SIZE + 2 * SLOT_SIZE + 63)
    found = Segment.open(path)
    assert steps(found) == [0, 1]
    found.close()


def test_removing_deletes_both_files(segment: Segment, tmp_path: Path) -> None:
    """Those that are there, and although the user was faster."""
    segment.append_frame(b"frame")
    segment.remove()
    assert os.listdir(tmp_path) == []
    segment.remove()


def test_a_segment_that_could_not_be_mapped_closes_no_file_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor's number may be another file's a moment later."""

    def fail(*_: object, **__: object) -> object:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", fail)
    with pytest.raises(OSError, match="memory") as failed:
        Segment.create(str(tmp_path / "1.slots"), 0, 10)
    assert os.listdir(tmp_path) == []
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    failed.value.__traceback__ = None
    del failed
    gc.collect()
    for fd in others:
        os.close(fd)  # it is still ours: OSError else

"""Where a mapping cannot be trusted: each file system is known, and the journal is the same on all."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrack.errors import SpoolFullError
from asynctrack.journal import filesystem as module
from asynctrack.journal import segment as segment_module
from asynctrack.journal import unmapped as unmapped_module
from asynctrack.journal.disk import write_all
from asynctrack.journal.filesystem import keeps_room
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import PACK, PackError, Slots
from asynctrack.journal.writer import Journal
from tests.fault.programs import PACKAGE
from tests.journals import journal_in, read_events, register, segments

#: seconds after which what a test waits for counts as never coming
LIMIT = 30


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("name", ["ext4", "xfs", "tmpfs"])
def test_file_systems_that_write_in_place_keep_room(name: str, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {os.fstat(fd).st_dev: name})
    assert keeps_room(fd) == ""


@pytest.mark.parametrize("name", ["zfs", "nfs4", "fuse.sshfs", "9p", "unknown"])
def test_all_others_are_not_believed(name: str, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come later, too."""
    monkeypatch.setattr(module, "_known", {os.fstat(fd).st_dev: name})
    assert keeps_room(fd) == name


@pytest.mark.parametrize(
    ("inodes", "block", "fragment", "kept"),
    [(1000, 4096, 4096, True), (0, 4096, 4096, False), (1000, 131072, 512, False)],
    ids=["ext4", "btrfs", "zfs"],
)
def test_an_overlay_is_what_lies_below_it(
    inodes: int, block: int, fragment: int, kept: bool, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers have it: it gives the figures of that."""
    monkeypatch.setattr(module, "_known", {os.fstat(fd).st_dev: "overlay"})
    found = os.statvfs_result((block, fragment, 0, 0, 0, inodes, 0, 0, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: found)
    assert (keeps_room(fd) == "") is kept


@pytest.mark.parametrize(("release", "kept"), [("6.16.12-300.fc42", False), ("6.17.0", True), ("7.0-rc1", True)])
def test_btrfs_is_believed_where_its_kernel_writes_mapped_files_in_place(
    release: str, kept: bool, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a page of a full disk that had been written back could not be written again, whatever the file owned."""
    about = os.uname()
    monkeypatch.setattr(module, "_known", {os.fstat(fd).st_dev: "btrfs"})
    monkeypatch.setattr(module, "_write_in_place", lambda fd: True)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*about[:2], release, *about[3:])))
    assert (keeps_room(fd) == "") is kept


def test_the_file_system_of_a_file_is_asked_of_the_kernel(fd: int, tmp_path: Path) -> None:
    """By the mount that the file was opened through."""
    found = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True)
    assert module.filesystem_of(fd)[:3] in ("unk", "ove", *[name[:3] for name in found.stdout.split("/")])
    assert module.filesystem_of(10**6) == "unknown"


# ── a journal without mappings


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """Segments of four slots."""
    monkeypatch.setattr(segment_module, "keeps_room", lambda fd: "zfs")
    with journal_in(tmp_path / "spools", slots=4, spool_full="raise") as made:
        yield made


def stream_of(journal: Journal) -> int:
    stream = journal.register_stream(register(journal), "loss")
    assert stream is not None
    return stream


def steps(journal: Journal) -> list[int]:
    events = read_events(JournalReader(journal.spool.registry, journal.head))
    return [event[4] for event in events if event[0] == "metric"]


def test_the_hot_path_comes_to_the_slow_one(journal: Journal) -> None:
    """Its one call cannot write, whatever it is given."""
    claim, slots, _ = journal.chain.current
    at = claim()
    with pytest.raises(PackError):
        PACK(slots, at, 1, 2, 0.5, 1, 1, 2, 0.5, 1, at)


def test_what_is_written_is_read_and_no_slot_is_wasted(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Points, frames and marks, over segments' ends, into a slot that the hot path has claimed; said once."""
    stream = stream_of(journal)
    for step in range(10):
        claim, _, segment = journal.chain.current
        assert journal.write(1, step, 0.5, stream, segment, claim())
    assert journal.write_frame(["tags", 1, {"a": "b"}])
    assert journal.mark() == 11
    journal.seal_behind()
    assert steps(journal) == list(range(10))
    assert [segment.sealed for segment in segments(journal.head)] == [True, True, False]
    assert sum("file system (zfs)" in record.message for record in caplog.records) <= 1


def test_a_step_that_does_not_fit_leaves_no_trace(journal: Journal) -> None:
    stream = stream_of(journal)
    with pytest.raises(PackError):
        journal.write(1, 2**63, 0.5, stream)
    assert journal.write(1, 7, 0.5, stream)
    reader = JournalReader(journal.spool.registry, journal.head)
    assert [event[4] for event in read_events(reader)] == [7]
    assert not reader.pending


def test_a_full_disk_is_met_by_the_policy(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the call that meets it; what was accepted stays."""
    stream = stream_of(journal)
    assert journal.write(1, 0, 0.5, stream)

    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(unmapped_module, "write_all", full)
        with pytest.raises(SpoolFullError, match="No space left on device"):
            journal.write(1, 1, 0.5, stream)
    journal.room_made()
    assert journal.write(1, 2, 0.5, stream)
    journal.seal_behind()
    assert steps(journal) == [0, 2]


def test_it_is_not_sealed_in_the_middle_of_a_write(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, or by a signal handler in the thread that writes: what is empty then is final."""
    segment, answers = journal.head, []

    def write(fd: int, data: bytes, offset: int) -> None:
        thread = threading.Thread(target=lambda: answers.append(segment.seal()))
        thread.start()
        thread.join(LIMIT)
        signal.raise_signal(signal.SIGUSR1)
        write_all(fd, data, offset)

    before = signal.signal(signal.SIGUSR1, lambda *_: answers.append(segment.seal()))
    monkeypatch.setattr(unmapped_module, "write_all", write)
    try:
        segment.put(segment.claim(), 1, 7, 0.5, 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [False, False]
    assert segment.seal()
    with pytest.raises(ValueError, match="closed"):
        segment.put(segment.claim(), 1, 8, 0.5, 1)
    assert any(segment.read(0, 1))
    assert not any(segment.read(1, 1))


def test_eight_threads_lose_and_double_nothing(journal: Journal) -> None:
    """While their segments are sealed behind them."""
    stream = stream_of(journal)
    start = threading.Barrier(8)
    numbers = itertools.count()

    def work() -> None:
        start.wait(LIMIT)
        for _ in range(200):
            assert journal.write(1, next(numbers), 0.5, stream)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.seal_behind()
    assert sorted(steps(journal)) == list(range(1600))


# ── real ones


FILL = """
    import glob, os, sys, asynctrack
    asynctrack.configure(spool_dir="disk/spools", mode="offline", segment_bytes=1 << 20)
    asynctrack.set_tracking_uri("mlruns")
    run = asynctrack.start_run()
    for step in range(5000):
        run.log_metric("loss", 0.5, step)
    fill = os.open("disk/fill", os.O_RDWR | os.O_CREAT)
    for size in (1 << 20, 1 << 16):  # in smaller pieces the last of it takes btrfs a minute
        try:
            while True:
                os.write(fill, os.urandom(size))
        except OSError:
            pass
        try:
            os.fsync(fill)
        except OSError:
            pass
    for step in range(5000, 60_000):
        run.log_metric("loss", 0.5, step)
        if step % 10_000 == 0:  # what is written goes to the disk now: only that shows whether it has room
            for name in glob.glob("disk/spools/*/*.slots"):
                try:
                    with open(name) as file:
                        os.fsync(file)
                except FileNotFoundError:
                    pass  # the engine could not have it at hand, for want of room
    print(run.stats().dropped)
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.parametrize("name", ["btrfs", "ext4"])
def test_a_disk_that_fills_up_under_a_program_never_kills_it(name: str, tmp_path: Path) -> None:
    """On a real one: the policy applies, and what was accepted is there for sync."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(150 << 20)
    try:
        made = subprocess.run([f"mkfs.{name}", "-q", str(image)], capture_output=True).returncode
    except FileNotFoundError:
        made = 1
    if made or subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True).returncode:
        pytest.skip(f"needs {name} and the right to mount it")
    try:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FILL)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, (result.returncode, result.stderr)
        dropped = int(result.stdout)
        assert dropped > 0
        (spool,) = [path for path in (disk / "spools").iterdir() if path.is_dir()]
        # One that is only being made when the program goes has no header yet, and nothing else.
        files = [file for file in sorted(spool.glob("*.slots")) if any(file.read_bytes())]
        found = sum(any(slot) for file in files for slot in slots_of(Segment.open(str(file))))
        assert 60_000 - dropped <= found
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def slots_of(segment: Segment) -> Iterator[Slots]:
    data = segment.read(0, segment.capacity)
    return (data[at : at + 64] for at in range(0, len(data), 64))

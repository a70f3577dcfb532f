"""What stands in a spool is input: a name does not say that there is a file behind it."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrack.journal.frames import FrameFile, encode_frame, scan_frames
from asynctrack.journal.homes import find_orphans
from asynctrack.journal.locks import is_held, locked_file
from asynctrack.journal.opening import Descriptor, SpoolFile, open_regular
from asynctrack.journal.owner import read_owner
from asynctrack.journal.spool import Spool


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_link(path: Path) -> None:
    (path.parent / "target").write_text("secret")
    path.symlink_to(path.parent / "target")


OTHERS = [os.mkfifo, os.mkdir, make_link, make_socket]


@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_what_is_no_file_is_an_error_and_never_waited_for(
    make: Callable[[Path], None], flags: int, tmp_path: Path
) -> None:
    """A pipe that nobody writes to would block `open` for ever; a link leads out of the spool."""
    make(tmp_path / "x")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="is no regular file"):
        open_regular(str(tmp_path / "x"), flags)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize("name", ["owner", "registry", "cursor", "rejected.jsonl"])
def test_nobody_waits_for_a_spool_with_a_pipe_or_a_folder_in_a_file_s_place(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """It is not delivered, and looking at it ends."""
    spool = Spool.create(str(tmp_path), "file:///nowhere")
    path = Path(str(spool.path))
    spool.leave()
    (path / name).unlink(missing_ok=True)
    make(path / name)
    done = threading.Event()

    def look() -> None:
        read_owner(str(path))
        list(find_orphans(str(tmp_path), "file:///nowhere"))
        with pytest.raises(ValueError, match=r"no regular file|is no file or folder"):
            Spool.adopt(str(path))
        if name == "owner":
            with pytest.raises(ValueError, match="no regular file"):
                is_held(str(path))
        if name == "rejected.jsonl":
            with pytest.raises(ValueError, match="no regular file"), locked_file(str(path / name), create=True):
                pass
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert done.wait(30)
    assert os.path.lexists(path / name)


def test_a_file_that_is_let_go_of_beside_a_read_is_closed_after_it(tmp_path: Path) -> None:
    """The number of a closed file is given to the next one that is opened: a read must not get at that."""
    (tmp_path / "x").write_bytes(b"right")
    file = SpoolFile(str(tmp_path / "x"), os.open(tmp_path / "x", os.O_RDONLY))
    under_way: Descriptor | None = file.opened()
    assert under_way is not None
    number = under_way.fd
    file.close()
    assert os.pread(number, 9, 0) == b"right"
    under_way = None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert file.read(9, 0) == b"right"  # by its name again


def test_letting_go_of_a_file_closes_it_without_a_step_of_python(tmp_path: Path) -> None:
    """In a destructor of Python's a Ctrl-C would be lost, and the program would go on."""
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    descriptor: Descriptor | None = Descriptor(fd)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        descriptor = None
    finally:
        sys.setprofile(None)
    assert (descriptor, calls) == (None, [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_kernel_gives_in_pieces_is_read_whole_or_not_at_all(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives what it has got where it meets an error. Taken for the end of the file, that would be damage, and what
    stands behind it lost."""
    (tmp_path / "file").write_bytes(bytes(range(100)))
    file = Descriptor(open_regular(str(tmp_path / "file"), os.O_RDONLY))
    reads, reads_into = os.pread, os.preadv

    def check(at: int) -> None:
        if fails and at >= 60:
            raise OSError(errno.EIO, "Input/output error")

    def read(fd: int, size: int, at: int) -> bytes:
        check(at)
        return reads(fd, min(size, 30), at)

    def read_into(fd: int, buffers: list[bytearray], at: int) -> int:
        check(at)
        return reads_into(fd, [memoryview(buffers[0])[:30]], at)

    monkeypatch.setattr(os, "pread", read)
    monkeypatch.setattr(os, "preadv", read_into)
    whole = bytearray(100)
    if fails:
        with pytest.raises(OSError, match="Input/output error"):
            file.read(100, 0)
        with pytest.raises(OSError, match="Input/output error"):
            file.read_into(whole, 0)
    else:
        assert (file.read(100, 0), file.read(200, 50)) == (bytes(range(100)), bytes(range(50, 100)))
        assert (file.read_into(whole, 0), whole) == (100, bytearray(range(100)))
        assert file.read_into(whole, 50) == 50


# ── a program closes what is not its own


def _taken(number: int, path: Path) -> None:
    """The number of a file that is in use leads to another one."""
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(other, number)
    os.close(other)


def test_a_file_whose_number_is_another_s_is_opened_again(tmp_path: Path) -> None:
    """A program that becomes a daemon closes all that is open: nothing of ours goes to what it opens next, nor is that
    closed."""
    number = os.open(tmp_path / "ours", os.O_RDWR | os.O_CREAT)
    os.write(number, b"ours")
    file = SpoolFile(str(tmp_path / "ours"), number)
    _taken(number, tmp_path / "other")
    assert file.read(100, 0) == b"ours"
    os.pwrite(file.opened().fd, b"more", 4)
    assert (tmp_path / "ours").read_bytes() == b"oursmore"
    file.close()
    assert (tmp_path / "other").samefile(f"/proc/self/fd/{number}")
    os.close(number)
    assert (tmp_path / "other").read_bytes() == b""


def test_frames_are_not_written_to_another_file(tmp_path: Path) -> None:
    """The same of the registry, and of what a segment's slots point at."""
    file = FrameFile(str(tmp_path / "frames"), create=True)
    file.append(encode_frame("first"))
    number = file._opened().fd
    _taken(number, tmp_path / "other")
    file.append(encode_frame("second"))
    assert scan_frames((tmp_path / "frames").read_bytes())[0] == ["first", "second"]
    file.close()
    os.close(number)
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize("gone", [True, False])
def test_a_closed_file_that_is_gone_or_another_by_now_is_an_error(gone: bool, tmp_path: Path) -> None:
    """And what was in memory, too: nothing is read that might be anything."""
    file = FrameFile(str(tmp_path / "frames"), create=True)
    memory = FrameFile(None, create=True)
    for each in (file, memory):
        os.close(each._opened().fd)
    os.rename(tmp_path / "frames", tmp_path / "kept")
    if not gone:
        (tmp_path / "frames").write_bytes(b"another")
    for each in (file, memory, file):
        with pytest.raises(OSError, match="somebody has closed its descriptor") as caught:
            each.append(encode_frame("lost"))
        assert caught.value.errno == errno.EBADF
    assert (tmp_path / "kept").read_bytes() == b""

"""How far the consumer is: known after a crash, and never a reason to stop delivering."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asynctrack.journal.cursor import CursorFile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where cursors are replaced at each third save or so."""
    monkeypatch.setattr("asynctrack.journal.cursor._CURSOR_BYTES", 100)
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def test_a_cursor_is_saved_where_the_folder_has_been_deleted(folder: Path) -> None:
    """Nobody comes after; and the events go on being delivered, however many cursors that takes."""
    cursor = CursorFile(str(folder))
    cursor.save({"front": 1})
    shutil.rmtree(folder)
    for front in range(20):
        cursor.save({"front": front, "padding": "x" * 40})
    folder.mkdir()
    cursor.save({"front": 20})
    assert cursor.load() == {"front": 20}
    cursor.close()


def test_a_folder_without_room_for_the_cursor_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may come after: what is not acknowledged on the disk is not deleted. Nothing stays open."""

    def full(*some: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cursor = CursorFile(str(folder))
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr("asynctrack.journal.frames.write_all", full)
        with pytest.raises(OSError, match="No space"):
            cursor.save({"front": 1})
    assert len(os.listdir("/proc/self/fd")) == before
    cursor.save({"front": 2})
    assert cursor.load() == {"front": 2}
    cursor.close()


def test_a_new_cursor_is_on_the_disk_before_it_takes_the_old_one_s_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`durability="system"`: after a power cut there is the old one or the new one. The folder comes last."""
    done: list[str] = []
    replace = os.replace

    def replaced(source: Any, target: Any) -> None:
        done.append("replaced")
        replace(source, target)

    def name(fd: int) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "fdatasync", lambda fd: done.append(name(fd)))
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(name(fd)))
    cursor = CursorFile(str(folder))
    cursor.save({"front": 1}, sync=True)
    assert done == ["cursor.room", "replaced", "spool"]
    cursor.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
def test_a_cursor_that_cannot_be_read_now_is_not_a_damaged_one(
    code: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged one means that everything is compared with the store again."""

    def no(*some: object, **more: object) -> int:
        raise OSError(code, os.strerror(code))

    cursor = CursorFile(str(folder))
    cursor.save({"front": 1})
    monkeypatch.setattr(os, "open", no)
    with pytest.raises(OSError, match=os.strerror(code)):
        cursor.load()
    cursor.close()


class FullDisk:
    """Has no block left from now on: what is written must lie in blocks that its file has."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("asynctrack.journal.frames.write_all", self._write)
        patch.setattr("asynctrack.journal.cursor.allocate", self._allocate)

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        self._allocate(fd, offset + len(data))
        os.pwrite(fd, data, offset)

    def _allocate(self, fd: int, size: int) -> None:
        if os.fstat(fd).st_blocks * 512 < size:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full(tmp_path: Path) -> tuple[Path, CursorFile]:
    folder = tmp_path / "spool"
    folder.mkdir()
    cursor = CursorFile(str(folder))
    cursor.keep_room()
    return folder, cursor


def test_on_a_full_disk_any_number_of_cursors_is_saved(
    full: tuple[Path, CursorFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted as delivered is deleted, and only that makes room. The first file of cursors is made before."""
    folder, cursor = full
    cursor.save({"front": 0})
    FullDisk(monkeypatch)
    for front in range(1, 500):
        cursor.save({"front": front, "padding": "x" * 100})
        assert cursor.load() == {"front": front, "padding": "x" * 100}
    assert sorted(path.name for path in folder.iterdir()) == ["cursor", "cursor.room"]
    cursor.close()


def test_a_full_disk_takes_a_first_cursor_and_whoever_comes_next_goes_on(
    full: tuple[Path, CursorFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is killed while its disk is full: the next one delivers what it has left."""
    folder, cursor = full
    with monkeypatch.context() as patch:
        FullDisk(patch)
        cursor.save({"front": 1})
        cursor.close()
    cursor.keep_room()  # takes the block that the first cursor had too many
    FullDisk(monkeypatch)
    for front in range(2, 200):
        cursor = CursorFile(str(folder))
        cursor.save({"front": front, "padding": "x" * 100})
        assert cursor.load() == {"front": front, "padding": "x" * 100}
        cursor.close()


def test_room_is_kept_for_a_cursor_that_grows(full: tuple[Path, CursorFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand runs one is as large as many blocks."""
    folder, cursor = full
    for size in (100, 20_000, 30_000, 30_000, 30_000):
        cursor.save({"padding": "x" * size})
    assert (folder / "cursor.room").stat().st_blocks * 512 >= 60_000
    FullDisk(monkeypatch)
    for front in range(30):
        cursor.save({"front": front, "padding": "x" * 30_000})
        assert cursor.load() == {"front": front, "padding": "x" * 30_000}
    cursor.close()


def test_a_file_of_many_cursors_gives_its_room_back(folder: Path) -> None:
    """When it is replaced, it is the room for the next."""
    cursor = CursorFile(str(folder))
    for front in range(3):
        cursor.save({"front": front, "padding": "x" * 100})
    (folder / "cursor").write_bytes((folder / "cursor").read_bytes() * 1000)
    cursor.save({"front": 3})
    assert cursor.load() == {"front": 3}
    assert (folder / "cursor.room").stat().st_size == 8192
    cursor.close()


@pytest.mark.parametrize("where", ["cursor.new", "cursor.room"])
def test_a_consumer_that_died_while_it_changed_files_leaves_a_cursor(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step between the two files: the old one, or the new one."""

    def dies(source: Any, target: Any) -> None:
        if where in (os.path.basename(source), os.path.basename(target)):
            raise KeyboardInterrupt
        os.rename(source, target)

    cursor = CursorFile(str(folder))
    cursor.save({"front": 1, "padding": "x" * 100})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            cursor.save({"front": 2})
    cursor.close()
    assert cursor.load() in ({"front": 1, "padding": "x" * 100}, {"front": 2})
    cursor = CursorFile(str(folder))
    for front in range(3, 10):
        cursor.save({"front": front, "padding": "x" * 100})
        assert cursor.load() == {"front": front, "padding": "x" * 100}
    assert sorted(path.name for path in folder.iterdir()) == ["cursor", "cursor.room"]
    cursor.close()


def test_what_stands_in_the_room_s_place_and_is_no_file_is_never_written_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (folder / "cursor.room").symlink_to(tmp_path / "mine")
    cursor = CursorFile(str(folder))
    cursor.keep_room()
    for front in range(9):
        cursor.save({"front": front, "padding": "x" * 100})
    assert cursor.load() == {"front": 8, "padding": "x" * 100}
    assert (tmp_path / "mine").read_bytes() == b"mine"
    cursor.close()


@pytest.mark.parametrize("free", [0, 1 << 20])
def test_a_cursor_takes_no_block_of_a_disk_that_is_nearly_full(
    free: int, full: tuple[Path, CursorFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a delivery has made free there is for the events that wait for it."""
    folder, cursor = full
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_frsize=4096))
    sizes = []
    for number in range(1000):
        cursor.save({"front": number, "padding": "x" * 50})
        sizes.append((folder / "cursor").stat().st_size)
        assert cursor.load() == {"front": number, "padding": "x" * 50}
    assert (max(sizes) > 50_000) == (free > 0), max(sizes)
    assert max(sizes) <= 8192 or free
    cursor.close()

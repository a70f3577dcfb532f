"""The caller's file as it was when it was logged, whatever the caller does with it afterwards."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from asynctrack.artifacts import files
from asynctrack.artifacts.snapshot import (
    Snapshot,
    SnapshotMode,
    check_snapshot,
    remove_snapshot,
    remove_snapshots,
    take_snapshot,
    write_snapshot,
)
from asynctrack.errors import InvalidInputError, RefusedError, SpoolError, SpoolFullError, UnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where snapshots go; it is not there yet."""
    return str(tmp_path / "spool" / "artifacts")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights of step 1")
    return path


def content(snapshot: Snapshot, folder: str, below: str = "") -> bytes:
    return Path(snapshot.path(folder), below).read_bytes()


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_caller_may_overwrite_its_file_at_once(source: Path, folder: str) -> None:
    snapshot = take_snapshot(source, folder)
    with source.open("r+b") as file:  # in place: the same file, as open("w") does
        file.write(b"HALF OF STEP 2")
    check_snapshot(snapshot, folder)
    assert content(snapshot, folder) == b"weights of step 1"


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_the_caller_may_delete_its_file_or_put_another_in_its_place(
    mode: SnapshotMode, source: Path, folder: str, tmp_path: Path
) -> None:
    snapshot = take_snapshot(source, folder, mode)
    (tmp_path / "new").write_bytes(b"weights of step 2")
    os.replace(tmp_path / "new", source)
    source.unlink()
    check_snapshot(snapshot, folder)
    assert content(snapshot, folder) == b"weights of step 1"


def test_a_linked_file_takes_no_room_and_keeps_its_permissions(source: Path, folder: str) -> None:
    source.chmod(0o644)
    snapshot = take_snapshot(source, folder, "link", room=0)
    assert os.path.samefile(snapshot.path(folder), source)
    remove_snapshot(snapshot, folder)
    assert mode_of(str(source)) == 0o644
    assert source.read_bytes() == b"weights of step 1"


def test_a_linked_file_that_was_written_into_is_not_taken_for_the_one_logged(source: Path, folder: str) -> None:
    snapshot = take_snapshot(source, folder, "link")
    with source.open("r+b") as file:
        file.write(b"WEIGHTS OF STEP 2")
    os.utime(source, ns=(0, 1))  # on file systems with coarse times too
    with pytest.raises(RefusedError, match="written into after it was logged with snapshot='link'"):
        check_snapshot(snapshot, folder)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_what_cannot_be_linked_is_copied(code: int, source: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    snapshot = take_snapshot(source, folder, "link")
    source.write_bytes(b"changed")
    assert content(snapshot, folder) == b"weights of step 1"
    with pytest.raises(SpoolFullError):
        take_snapshot(source, folder, "link", room=3)


def test_only_the_user_can_read_what_was_put_aside(source: Path, folder: str, tmp_path: Path) -> None:
    source.chmod(0o644)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x")
    one, many, written = take_snapshot(source, folder), take_snapshot(tree, folder), write_snapshot(b"x", folder)
    assert mode_of(folder) == 0o700
    assert mode_of(one.path(folder)) == mode_of(written.path(folder)) == 0o600
    assert mode_of(many.path(folder)) == mode_of(os.path.join(many.path(folder), "sub")) == 0o700
    assert mode_of(os.path.join(many.path(folder), "sub", "file")) == 0o600


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_a_folder_is_put_aside_with_all_that_is_in_it(mode: SnapshotMode, folder: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a", "b/c", "b/d/e"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    (tree / "latest").symlink_to("b/c")
    snapshot = take_snapshot(tree, folder, mode)
    shutil.rmtree(tree)
    check_snapshot(snapshot, folder)
    assert (snapshot.is_dir, snapshot.files, snapshot.bytes) == (True, 4, 1 + 3 + 5 + 3)
    assert [content(snapshot, folder, name) for name in ("a", "b/c", "b/d/e", "latest")] == [
        b"a",
        b"b/c",
        b"b/d/e",
        b"b/c",
    ]


def test_the_spool_itself_is_not_taken_along(source: Path, tmp_path: Path) -> None:
    home = tmp_path / ".asynctrack"
    folder = str(home / "spool" / "artifacts")
    take_snapshot(source, folder)
    snapshot = take_snapshot(tmp_path, folder, leave_out=[str(home), str(tmp_path / "nowhere")])
    assert snapshot.files == 1
    assert os.listdir(snapshot.path(folder)) == ["model.pt"]
    with pytest.raises(InvalidInputError, match="own events"):
        take_snapshot(home, folder, leave_out=[str(home)])


def test_a_snapshot_survives_as_plain_values(source: Path, folder: str) -> None:
    snapshot = take_snapshot(source, folder)
    fields: list[Any] = list(snapshot)
    again = Snapshot(*fields)
    check_snapshot(again, folder)
    assert again.bytes == 17


@pytest.mark.parametrize("data", [b"", b"content", b"x" * 3_000_000])
def test_content_is_put_aside_like_a_file_given_whole_or_as_a_stream(data: bytes, folder: str) -> None:
    for given in (data, io.BytesIO(data)):
        snapshot = write_snapshot(given, folder, durable=True)
        assert (snapshot.files, snapshot.bytes) == (1, len(data))
        assert content(snapshot, folder) == data


def test_delivered_snapshots_are_removed_and_removing_them_twice_is_no_error(source: Path, folder: str) -> None:
    one, other = take_snapshot(source, folder), take_snapshot(source, folder)
    for _ in range(2):
        remove_snapshot(one, folder)
        assert os.listdir(folder) == [other.name]
    for _ in range(2):
        remove_snapshots(folder)
        assert not os.path.exists(folder)
    with pytest.raises(RefusedError, match="is gone"):
        check_snapshot(other, folder)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_one_that_cannot_be_read_now_is_neither_gone_nor_refused(
    number: int, source: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that has used up its file descriptors, say: it is delivered later."""
    snapshot = take_snapshot(source, folder)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        patch.setattr(os, "lstat", fail)
        with pytest.raises(UnavailableError, match="cannot be read now"):
            check_snapshot(snapshot, folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(UnavailableError, match="cannot be read now"):
            files.open_source(snapshot.path(folder))
    check_snapshot(snapshot, folder)


@pytest.mark.parametrize("kind", ["missing", "pipe", "folder with a pipe", "folder with a dangling link"])
def test_what_cannot_be_read_is_refused_in_the_caller_and_leaves_nothing(
    kind: str, folder: str, tmp_path: Path
) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("folder"):
        path.mkdir()
        (path / "before").write_bytes(b"x")
        if kind.endswith("pipe"):
            os.mkfifo(path / "pipe")
        else:
            (path / "dangling").symlink_to("nowhere")
    reason = "there is no such file|neither a file nor a folder|is not a file"
    with pytest.raises(InvalidInputError, match=f"artifact {path}.* ({reason})"):
        take_snapshot(path, folder)
    assert not os.path.exists(folder) or os.listdir(folder) == []


def test_what_the_spool_has_no_room_for_is_refused_before_it_is_copied(
    source: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(files, "copy_piece")
    with pytest.raises(SpoolFullError, match="17 bytes are to be copied and the spool has room for 16"):
        take_snapshot(source, folder, room=16)


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, SpoolFullError), (errno.EIO, SpoolError)])
def test_a_disk_that_fails_is_reported_and_leaves_nothing(
    code: int, kind: type[SpoolError], source: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "copy_piece", fail)
    with pytest.raises(kind, match="cannot be put aside for delivery"):
        take_snapshot(source, folder)
    assert os.listdir(folder) == []


def test_a_durable_snapshot_is_on_the_disk_with_the_folders_that_name_it(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x")
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), folder))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    snapshot = take_snapshot(tree, folder, durable=True)
    name = snapshot.name
    assert sorted(synced) == sorted([".", name, f"{name}/sub", f"{name}/sub/file"])

"""Artifacts in a directory: whole, in their place, as MLflow finds them, and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from asynctrack.artifacts import files
from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.local import LocalArtifacts
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.entities import FileInfo
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.io import InlineIO, StoreIO, drive
from tests.artifact_clients import WAYS, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The artifact root; it is not there yet."""
    return tmp_path / "store" / "artifacts"


@pytest.fixture
def artifacts(root: Path) -> LocalArtifacts:
    return LocalArtifacts(root.as_uri(), str(root), InlineIO())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to be logged."""
    folder = tmp_path / "model"
    for name in ("config.yaml", "weights/layer 1.bin", "weights/deep/ü.bin", "empty"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() if name != "empty" else b"")
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_goes_up_is_listed_and_comes_down_again(way: str, root: Path, tree: Path, tmp_path: Path) -> None:
    async def there_and_back(io: StoreIO) -> tuple[list[FileInfo], str]:
        artifacts: ArtifactRepository = open_artifacts(root.as_uri(), None, io)
        await artifacts.log_artifacts(tree, "m/v1")
        await artifacts.log_artifact(tree / "config.yaml")
        return await artifacts.list_artifacts("m/v1"), await artifacts.download_artifacts("m", tmp_path / "down")

    listed, downloaded = run(way, there_and_back)
    assert listed == [
        FileInfo("m/v1/config.yaml", is_dir=False, file_size=11),
        FileInfo("m/v1/empty", is_dir=False, file_size=0),
        FileInfo("m/v1/weights", is_dir=True),
    ]
    assert downloaded == str(tmp_path / "down" / "m")
    assert names_in(tmp_path / "down" / "m" / "v1") == names_in(tree) == names_in(root / "m" / "v1")
    assert (root / "config.yaml").read_bytes() == b"config.yaml"
    assert (tmp_path / "down/m/v1/weights/deep/ü.bin").read_bytes() == "weights/deep/ü.bin".encode()


def test_a_folder_given_as_an_artifact_is_stored_under_its_own_name(artifacts: LocalArtifacts, tree: Path) -> None:
    drive(artifacts.log_artifact(tree, "models"))
    assert [info.path for info in drive(artifacts.list_artifacts("models"))] == ["models/model"]


def test_a_stored_file_has_the_permissions_of_a_new_file_whatever_its_source_has(
    artifacts: LocalArtifacts, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "secretive"
    source.write_bytes(b"x")
    source.chmod(0o400)
    drive(artifacts.log_artifact(source))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((root / "secretive").stat().st_mode) == 0o666 & ~umask


def test_an_artifact_logged_again_is_replaced_in_one_step(
    artifacts: LocalArtifacts, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(b"old and longer")
    drive(artifacts.log_artifact(source))
    reader = (root / "a.txt").open("rb")
    source.write_bytes(b"new")
    drive(artifacts.log_artifact(source))
    with reader:
        assert reader.read() == b"old and longer"  # whoever has it open reads on in the old one
    assert (root / "a.txt").read_bytes() == b"new"
    assert names_in(root) == ["a.txt"]


@pytest.mark.parametrize("nameless", [True, False])
def test_a_copy_that_fails_leaves_what_was_there_and_no_trace(
    nameless: bool, artifacts: LocalArtifacts, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    source = tmp_path / "a.txt"
    source.write_bytes(b"first")
    drive(artifacts.log_artifact(source))
    source.write_bytes(b"second")
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(files, "copy_piece", full)
        with pytest.raises(UnavailableError, match=r"a\.txt: No space left on device; free some space"):
            drive(artifacts.log_artifact(source))
    assert os.listdir(root) == ["a.txt"]
    assert (root / "a.txt").read_bytes() == b"first"
    drive(artifacts.log_artifact(source))
    assert (root / "a.txt").read_bytes() == b"second"


def test_a_file_that_is_written_to_while_it_is_copied_is_not_stored_half_old_half_new(
    artifacts: LocalArtifacts, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(b"old")
    copy_piece = files.copy_piece

    def disturbed(reading: int, writing: int) -> int:
        copied = copy_piece(reading, writing)
        source.write_bytes(b"new!")
        return copied

    monkeypatch.setattr(files, "copy_piece", disturbed)
    with pytest.raises(UnavailableError, match="written to while it was being stored"):
        drive(artifacts.log_artifact(source))
    assert names_in(root) == []


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_a_cancelled_copy_stops_and_leaves_nothing(
    way: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"x")
    begun = threading.Event()

    def endless(*_: object) -> int:
        begun.set()
        return 1

    async def cancelled(io: StoreIO) -> bool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_artifacts(root.as_uri(), None, io).log_artifact, tmp_path / "a.txt")
            await anyio.to_thread.run_sync(begun.wait, 30)
            tasks.cancel_scope.cancel()
        return True

    monkeypatch.setattr(files, "copy_piece", endless)
    assert run(way, cancelled)
    assert names_in(root) == []


def test_bytes_are_copied_also_where_the_kernel_will_not(
    artifacts: LocalArtifacts, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    data = os.urandom(3 * (1 << 20) + 7)
    (tmp_path / "a").write_bytes(data)
    drive(artifacts.log_artifact(tmp_path / "a"))
    assert (root / "a").read_bytes() == data


def test_uploads_under_way_are_not_listed(artifacts: LocalArtifacts, root: Path) -> None:
    root.mkdir(parents=True)
    (root / ".artifact.uploading.123").write_bytes(b"half")
    (root / ".hidden").write_bytes(b"whole")
    assert [info.path for info in drive(artifacts.list_artifacts())] == [".hidden"]


@pytest.mark.parametrize("path", [None, "", "nothing", "a.txt", "a.txt/x"])
def test_listing_what_is_no_folder_gives_nothing(artifacts: LocalArtifacts, root: Path, path: str | None) -> None:
    if path:
        root.mkdir(parents=True)
        (root / "a.txt").write_bytes(b"x")
    assert drive(artifacts.list_artifacts(path)) == []


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../x", "a\0", "..\\x"])
def test_no_path_leads_out_of_the_root(artifacts: LocalArtifacts, tree: Path, path: str) -> None:
    source = str(tree / "config.yaml")
    for call in (
        artifacts.log_artifact(source, path),
        artifacts.log_artifacts(tree, path),
        artifacts.upload(source, path),
        artifacts.list_artifacts(path),
        artifacts.download_artifacts(path),
        artifacts.delete_artifacts(path),
    ):
        with pytest.raises(InvalidInputError, match="artifact path"):
            drive(call)


def test_a_link_that_leads_out_of_the_root_is_neither_written_through_nor_read(
    artifacts: LocalArtifacts, root: Path, tree: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root.mkdir(parents=True)
    (root / "out").symlink_to(outside)
    (root / "secret").symlink_to(outside / "secret")
    source = str(tree / "config.yaml")
    for call in (
        artifacts.log_artifact(source, "out"),
        artifacts.log_artifact(source, "out/deeper"),
        artifacts.list_artifacts("out"),
        artifacts.download_artifacts("out"),
        artifacts.download_artifacts("secret", tmp_path / "down"),
        artifacts.delete_artifacts("out/secret"),
    ):
        with pytest.raises(RefusedError, match="leads out"):
            drive(call)
    assert drive(artifacts.list_artifacts()) == []
    drive(artifacts.upload(source, "secret"))  # takes the link's place
    assert (outside / "secret").read_bytes() == b"secret"
    drive(artifacts.delete_artifacts("out"))  # the link, not what it leads to
    assert names_in(outside) == ["secret"]
    assert names_in(root) == ["secret"]


def test_links_in_a_circle_are_followed_once(artifacts: LocalArtifacts, root: Path, tree: Path, tmp_path: Path) -> None:
    (tree / "weights" / "up").symlink_to(tree)
    (tree / "latest").symlink_to(tree / "config.yaml")
    (tree / "again").symlink_to(tree / "weights" / "deep")
    drive(artifacts.log_artifacts(tree))
    stored = ["again/ü.bin", "config.yaml", "empty", "latest", "weights/deep/ü.bin", "weights/layer 1.bin"]
    assert names_in(root) == stored
    assert not (root / "latest").is_symlink()
    (root / "weights" / "round").symlink_to(root)
    downloaded = drive(artifacts.download_artifacts("", tmp_path / "down"))
    assert names_in(Path(downloaded)) == stored


def test_one_file_that_cannot_be_stored_keeps_none_of_the_others_back(
    artifacts: LocalArtifacts, root: Path, tree: Path
) -> None:
    (tree / "a\\..\\b").write_bytes(b"x")
    (tree / ".artifact.uploading.x").write_bytes(b"x")
    with pytest.raises(RefusedError, match=r"2 of the files in .*model were not stored") as caught:
        drive(artifacts.log_artifacts(tree))
    assert "contains '..'" in str(caught.value)
    assert names_in(root) == ["config.yaml", "empty", "weights/deep/ü.bin", "weights/layer 1.bin"]


def test_an_attempt_goes_on_where_the_last_one_stopped(
    artifacts: LocalArtifacts, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: set[str] = set()
    sent: list[str] = []
    upload = artifacts.upload

    async def third_time_unlucky(local_file: str, artifact_file: str) -> None:
        if len(sent) == 2:
            sent.append("failed")
            raise UnavailableError("the server is gone")
        sent.append(artifact_file)
        await upload(local_file, artifact_file)

    monkeypatch.setattr(artifacts, "upload", third_time_unlucky)
    with pytest.raises(UnavailableError):
        drive(artifacts.log_artifacts(tree, "m", done=done))
    assert done == {"m/config.yaml", "m/empty"}
    drive(artifacts.log_artifacts(tree, "m", done=done))
    assert sent == ["m/config.yaml", "m/empty", "failed", "m/weights/deep/ü.bin", "m/weights/layer 1.bin"]


@pytest.mark.parametrize("kind", ["missing", "pipe"])
def test_a_source_that_is_no_file_is_refused_by_name(artifacts: LocalArtifacts, tmp_path: Path, kind: str) -> None:
    source = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(source)
    with pytest.raises(RefusedError, match=kind):
        drive(artifacts.log_artifact(source))


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(artifacts: LocalArtifacts, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(RefusedError, match="pipe is neither a file nor a folder"):
        drive(artifacts.log_artifacts(tree))


def test_a_name_too_long_for_the_disk_is_refused_for_good(root: Path, tree: Path) -> None:
    artifacts = LocalArtifacts("", f"{root}/{'/'.join(['d' * 250] * 4)}", InlineIO())
    with pytest.raises(RefusedError, match="File name too long; log it under another name"):
        drive(artifacts.upload(str(tree / "config.yaml"), "/".join(["n" * 250] * 13)))
    with pytest.raises(InvalidInputError, match="longer than 3500 bytes"):
        drive(artifacts.upload(str(tree / "config.yaml"), "/".join(["n" * 250] * 20)))


def test_without_a_destination_a_local_artifact_is_returned_where_it_is(
    artifacts: LocalArtifacts, root: Path, tree: Path
) -> None:
    drive(artifacts.log_artifacts(tree))
    assert drive(artifacts.download_artifacts("config.yaml")) == str(root / "config.yaml")
    assert drive(artifacts.download_artifacts()) == str(root)


def test_downloading_what_is_not_there_says_so(artifacts: LocalArtifacts, root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no artifact 'x'"):
        drive(artifacts.download_artifacts("x"))
    assert drive(artifacts.download_artifacts("", tmp_path / "down")) == str(tmp_path / "down")
    (root / "empty").mkdir(parents=True)
    assert os.listdir(drive(artifacts.download_artifacts("empty", tmp_path / "down"))) == []


def test_a_download_is_not_written_through_a_link_out_of_its_destination(
    artifacts: LocalArtifacts, tree: Path, tmp_path: Path
) -> None:
    drive(artifacts.log_artifacts(tree))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="leads out"):
        drive(artifacts.download_artifacts("", tmp_path / "down"))
    assert os.listdir(tmp_path / "elsewhere") == []


def test_artifacts_are_deleted_and_deleting_them_again_is_no_error(
    artifacts: LocalArtifacts, root: Path, tree: Path
) -> None:
    drive(artifacts.log_artifacts(tree))
    for _ in range(2):
        drive(artifacts.delete_artifacts("weights"))
        drive(artifacts.delete_artifacts("empty"))
    assert names_in(root) == ["config.yaml"]


def test_durable_artifacts_are_on_the_disk_before_they_have_a_name(
    artifacts: LocalArtifacts, root: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        seen.append((root / "config.yaml").exists())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    artifacts.durable = True
    drive(artifacts.log_artifact(tree / "config.yaml"))
    assert seen == [False, True]  # the file, and then the folder that names it


def test_mlflow_lists_and_downloads_what_was_stored(root: Path, tree: Path, tmp_path: Path) -> None:
    from mlflow.artifacts import download_artifacts, list_artifacts

    run("inline", lambda io: open_artifacts(root.as_uri(), None, io).log_artifacts(tree, "m"))
    listed = list_artifacts(artifact_uri=root.as_uri() + "/m")
    assert [(info.path, info.is_dir, info.file_size) for info in listed] == [
        ("m/config.yaml", False, 11),
        ("m/empty", False, 0),
        ("m/weights", True, None),
    ]
    downloaded = download_artifacts(artifact_uri=root.as_uri() + "/m", dst_path=str(tmp_path / "down"))
    assert names_in(Path(downloaded)) == names_in(tree)


def test_a_new_artifact_never_has_another_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between two names leaves the first. One that replaces another needs two."""
    names: list[str] = []
    link = os.link

    def noted(source: str, target: str, **options: Any) -> None:
        link(source, target, **options)
        names.append(os.path.basename(target))

    monkeypatch.setattr(os, "link", noted)
    for text in (b"first", b"second"):
        staged = files.StagedFile(str(tmp_path))
        os.write(staged.fd, text)
        staged.publish(str(tmp_path / "a.txt"))
        staged.close()
    assert (tmp_path / "a.txt").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.txt"]
    assert names[0] == "a.txt"
    assert names[1].startswith(".artifact.uploading.")

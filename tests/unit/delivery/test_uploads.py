"""Artifacts on their way from the spool to where the run's artifacts are."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from asynctrack.artifacts.snapshot import take_snapshot, write_snapshot
from asynctrack.delivery.uploads import Upload, deliver_upload
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from tests.thief import Thief

UID = "a" * 32


def test_one_that_may_be_stored_and_cannot_be_seen_now_is_not_taken_for_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one whose snapshot is gone is: whoever stored it has deleted that."""
    folder, place = str(tmp_path / "spool"), tmp_path / "place"
    upload = Upload(write_snapshot(b"content", folder), "a.txt", set())

    def deliver() -> None:
        store = FileStore(str(tmp_path / "mlruns"), InlineIO())
        info = drive(store.create_run(RunSpec(uid=UID)))
        drive(deliver_upload(store, folder, info.run_id, str(place), upload, may_be_stored=True, suspected=False))

    def fail(_path: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail)
        with pytest.raises(OSError, match="Input/output error"):
            deliver()
    deliver()
    assert (place / "a.txt").read_bytes() == b"content"
    os.unlink(upload.snapshot.path(folder))
    deliver()
    assert (place / "a.txt").read_bytes() == b"content"


def _opened(disk: Path, kind: str) -> tuple[AbstractStore, str]:
    """A store on the disk, with a run, and where that has its artifacts."""
    name = "mlruns" if kind == "files" else "data/mlflow.db"
    store = open_store(disk / name if kind == "files" else f"sqlite:///{disk / name}", InlineIO())
    place = None if kind == "database" else str(disk / "artifacts")
    experiment = drive(store.create_experiment("e", place))
    info = drive(store.create_run(RunSpec(uid=UID, experiment_id=experiment)))
    return store, info.artifact_uri or ""


def _deliver(store: AbstractStore, place: str, upload: Upload, spool: str) -> None:
    drive(deliver_upload(store, spool, UID, place, upload, may_be_stored=False, suspected=False))


def _uploads(tmp_path: Path) -> tuple[str, list[Upload]]:
    """A file's, and a folder's."""
    spool, folder = str(tmp_path / "spool"), tmp_path / "folder"
    (folder / "nothing" / "in it").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    file = Upload(write_snapshot(b"content", spool), "folder/a.txt", set())
    return spool, [file, Upload(take_snapshot(str(folder), spool), "more", set())]


@pytest.mark.parametrize("leaves", [False, True], ids=["renamed", "unmounted"])
@pytest.mark.parametrize("kind", ["database", "database, artifacts apart", "files"])
def test_none_is_stored_where_the_store_was(
    kind: str, leaves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their disk is taken away between any two calls of the system. What was then written in its place would be hidden
    when it is back: nothing is taken for stored that is not on it."""
    disk = tmp_path / "disk"
    thief = Thief(disk, monkeypatch, leaves=leaves)
    store, place = _opened(disk, kind)
    spool, (_, upload) = _uploads(tmp_path)
    for number in range(1000):
        shutil.rmtree(place, ignore_errors=True)
        upload.done.clear()
        thief.come(number)
        stored = True
        try:
            _deliver(store, place, upload, spool)
        except UnavailableError:
            stored = False
        came = thief.give_back(hides=kind != "database" or leaves)
        if not stored:
            assert came
            _deliver(store, place, upload, spool)
        names = {os.path.relpath(path, place) for path in Path(place).rglob("*") if path.is_file()}
        assert names == {"more/a", "more/b", "more/c"}
        assert (Path(place) / "more/nothing/in it").is_dir()
        if not came:
            assert number > 5
            drive(store.aclose())
            return
    raise AssertionError("it never ends")


def test_one_waits_for_the_database_that_has_gone_with_all_that_is_beside_it(tmp_path: Path) -> None:
    """Also where this program has not opened it yet: a sync of what another one has left."""
    disk = tmp_path / "disk"
    store, place = _opened(disk, "database")
    drive(store.aclose())
    spool, uploads = _uploads(tmp_path)
    for mounted in (False, True):
        disk.rename(tmp_path / "away")
        if mounted:
            disk.mkdir()
        for again in (store, open_store(store.uri, InlineIO())):
            for upload in uploads:
                with pytest.raises(UnavailableError, match="tried again"):
                    _deliver(again, place, upload, spool)
        assert not disk.exists() or not list(disk.iterdir())
        if mounted:
            disk.rmdir()
        (tmp_path / "away").rename(disk)
    _deliver(store, place, uploads[0], spool)
    assert (Path(place) / "folder/a.txt").read_bytes() == b"content"
    drive(store.aclose())


@pytest.mark.parametrize("kind", ["database", "database, artifacts apart", "files"])
def test_another_store_in_the_place_of_a_runs_own_takes_none(kind: str, tmp_path: Path) -> None:
    """Then it is refused, and kept, as the run's metrics are: once the old one is back it can be retried."""
    disk = tmp_path / "disk"
    store, place = _opened(disk, kind)
    drive(store.aclose())
    disk.rename(tmp_path / "away")
    other = open_store(store.uri, InlineIO())
    drive(other.create_run(RunSpec(uid="b" * 32)))
    spool, uploads = _uploads(tmp_path)
    with pytest.raises(NotFoundError, match="no run"):
        _deliver(other, place, uploads[0], spool)
    assert not list(disk.rglob("a.txt"))
    drive(other.aclose())
    shutil.rmtree(disk)
    (tmp_path / "away").rename(disk)
    _deliver(store, place, uploads[0], spool)
    assert (Path(place) / "folder/a.txt").read_bytes() == b"content"
    drive(store.aclose())

"""Artifacts on their way from the spool to where the run's artifacts are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asynctrack.artifacts.snapshot import write_snapshot
from asynctrack.delivery.uploads import Upload, deliver_upload
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive


def test_one_that_may_be_stored_and_cannot_be_seen_now_is_not_taken_for_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one whose snapshot is gone is: whoever stored it has deleted that."""
    folder, place = str(tmp_path / "spool"), tmp_path / "place"
    upload = Upload(write_snapshot(b"content", folder), "a.txt", set())

    def deliver() -> None:
        store = FileStore(str(tmp_path / "mlruns"))
        store.io = InlineIO()
        drive(deliver_upload(store, folder, "run", str(place), upload, may_be_stored=True, suspected=False))

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

"""A file store that is taken away between any two calls of the system: nothing is written in its old place.

What was written there would be hidden as soon as the file system is mounted again: lost, though it was acknowledged.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive
from tests.mlruns import read_runs
from tests.thief import Thief

UID, OTHER = "a" * 32, "b" * 32
BATCH = Batch(
    metrics={"loss": [(1, step, 0.5 * step) for step in range(300)], "train/loss": [(1, 0, 2.0)]},
    params=[("lr", "0.1"), ("opt/name", "adam")],
    tags=[("phase", "train"), ("mlflow.runName", "renamed"), ("a/b", "c")],
)


async def _create(store: FileStore, artifacts: ArtifactRepository) -> None:
    await store.create_run(RunSpec(uid=OTHER, run_name="other", experiment_name="new", tags={"t": "1"}))


async def _log(store: FileStore, artifacts: ArtifactRepository) -> None:
    await store.log_batch(UID, BATCH, {"loss": 0, "train/loss": 0})  # as the engine does when it tries again


async def _end(store: FileStore, artifacts: ArtifactRepository) -> None:
    await store.update_run(UID, status="FINISHED", end_time=7, run_name="renamed")


async def _resume(store: FileStore, artifacts: ArtifactRepository) -> None:
    await store.create_run(RunSpec(uid=OTHER, run_id=UID, tags={"t": "1"}))


async def _upload(store: FileStore, artifacts: ArtifactRepository) -> None:
    await artifacts.upload(__file__, "folder/below/file.py")


@pytest.mark.parametrize("work", [_create, _log, _end, _resume, _upload])
def test_nothing_is_written_where_the_store_was(
    work: Callable[[FileStore, ArtifactRepository], Coroutine[Any, Any, None]],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thief = Thief(tmp_path / "disk", monkeypatch)
    for number in range(1000):
        root = tmp_path / "disk" / str(number)
        (tmp_path / "disk").mkdir(exist_ok=True)
        store = FileStore(root, InlineIO())
        info = drive(store.create_run(RunSpec(uid=UID, run_name="r")))
        artifacts = open_artifacts(info.artifact_uri or "", store.uri, store.io)
        # Whoever delivers an artifact asks the store what it means that its folder is not found.
        passing = (UnavailableError, NotFoundError) if work is _upload else (UnavailableError,)
        thief.come(number)
        with contextlib.suppress(*passing):
            drive(work(store, artifacts))
        came = thief.give_back()
        drive(work(store, artifacts))
        _check(root, work)
        if not came:
            assert number > 5
            return
    raise AssertionError("it never ends")


def _check(root: pathlib.Path, work: Any) -> None:
    runs = read_runs(root)
    if work is _create:
        assert runs[OTHER].tags["t"] == "1"
    elif work is _log:
        found = runs[UID]
        assert {key: len(points) for key, points in found.metrics.items()} == {"loss": 300, "train/loss": 1}
        assert found.params == {"lr": "0.1", "opt/name": "adam"}
        assert found.tags.items() >= {"phase": "train", "mlflow.runName": "renamed", "a/b": "c"}.items()
    elif work is _end:
        assert (runs[UID].status, runs[UID].tags["mlflow.runName"]) == ("FINISHED", "renamed")
    elif work is _resume:
        assert runs[UID].tags["t"] == "1"
    else:
        (stored,) = root.glob("0/*/artifacts/folder/below/file.py")
        assert stored.read_bytes() == pathlib.Path(__file__).read_bytes()


def test_another_store_in_the_place_of_a_runs_own_refuses_nothing(tmp_path: pathlib.Path) -> None:
    """While it was not mounted, another program began a new one there. A run that was deleted in its own is refused."""
    root = tmp_path / "mlruns"
    store = FileStore(root, InlineIO())
    drive(store.create_run(RunSpec(uid=UID)))
    drive(store.log_batch(UID, Batch(params=[("a", "1")])))
    root.rename(tmp_path / "away")
    drive(FileStore(root, InlineIO()).create_run(RunSpec(uid=OTHER)))
    with pytest.raises(UnavailableError, match="mounted"):
        drive(store.log_batch(UID, Batch(params=[("b", "2")])))
    shutil.rmtree(root)
    (tmp_path / "away").rename(root)
    drive(store.log_batch(UID, Batch(params=[("b", "2")])))
    assert read_runs(root)[UID].params == {"a": "1", "b": "2"}
    shutil.rmtree(root / "0" / UID)
    with pytest.raises(NotFoundError):
        drive(store.log_batch(UID, Batch(params=[("c", "3")])))

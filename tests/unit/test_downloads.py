"""`asynctrack.artifacts` has MLflow's functions of `mlflow.artifacts`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy
import pytest

import asynctrack
from asynctrack import artifacts, downloads
from asynctrack.errors import AuthenticationError, FlushTimeoutError, InvalidInputError, NotFoundError
from asynctrack.stores.base import Batch, Refusal
from asynctrack.stores.file import FileStore
from tests.servers import MlflowServer


@pytest.fixture(params=["file", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A tracking URI of each kind."""
    if request.param == "file":
        return str(tmp_path / "mlruns")
    server: MlflowServer = request.getfixturevalue("sqlite_server")
    return server.url


def test_what_was_just_logged_is_listed_downloaded_and_read(uri: str, tmp_path: Path) -> None:
    """In the middle of the run, by run id, by runs: URI and by the run's own artifact URI; files and folders."""
    asynctrack.set_tracking_uri(uri)
    with asynctrack.start_run() as run:
        asynctrack.log_text("ü", "notes/a b.txt")
        asynctrack.log_dict({"a": [1]}, "notes/some.json")
        found = artifacts.list_artifacts(run_id=run.run_id, artifact_path="notes")
        assert [(info.path, info.is_dir) for info in found] == [("notes/a b.txt", False), ("notes/some.json", False)]
        assert [info.path for info in artifacts.list_artifacts(f"runs:/{run.run_id}")] == ["notes"]
        for path in (f"runs:/{run.run_id}/notes", f"runs:/{run.run_id}/./notes"):
            assert [info.path for info in artifacts.list_artifacts(path)] == ["notes/a b.txt", "notes/some.json"]
        asynctrack.log_text("deep", "one/two/three.txt")
        assert [info.path for info in artifacts.list_artifacts(f"runs:/{run.run_id}/one/two")] == ["two/three.txt"]
        deep = artifacts.list_artifacts(run_id=run.run_id, artifact_path="one/two")
        assert [info.path for info in deep] == ["one/two/three.txt"]
        assert [info.path for info in artifacts.list_artifacts(asynctrack.get_artifact_uri("notes"))] == [
            "notes/a b.txt", "notes/some.json",
        ]  # fmt: skip
        assert artifacts.load_text(f"runs:/{run.run_id}/notes/a b.txt") == "ü"
        assert artifacts.load_dict(asynctrack.get_artifact_uri("notes/some.json")) == {"a": [1]}
        folder = Path(artifacts.download_artifacts(run_id=run.run_id, dst_path=tmp_path / "got"))
        assert (folder / "notes" / "a b.txt").read_text() == "ü"
        file = Path(artifacts.download_artifacts(asynctrack.get_artifact_uri("notes/a b.txt"), dst_path=folder))
        assert file.read_text() == "ü"
        # Nothing to copy for a file store; a server's goes to a folder of its own.
        assert Path(artifacts.download_artifacts(f"runs:/{run.run_id}/notes/a b.txt")).read_text() == "ü"


def test_what_is_not_there_or_not_clear_is_an_error(uri: str) -> None:
    """Named; NotFoundError for runs and artifacts that do not exist."""
    asynctrack.set_tracking_uri(uri)
    with asynctrack.start_run() as run:
        asynctrack.log_text("text", "folder/a.txt")
    with pytest.raises(NotFoundError, match=r"missing\.txt"):
        artifacts.download_artifacts(run_id=run.run_id, artifact_path="missing.txt")
    with pytest.raises(NotFoundError, match="0" * 32):
        artifacts.list_artifacts(run_id="0" * 32)
    with pytest.raises(InvalidInputError, match="folder"):
        artifacts.load_text(f"runs:/{run.run_id}/folder")
    with pytest.raises(InvalidInputError, match="not JSON"):
        artifacts.load_dict(f"runs:/{run.run_id}/folder/a.txt")
    with pytest.raises(InvalidInputError, match=r"\.\."):
        artifacts.download_artifacts(run_id=run.run_id, artifact_path="../x")
    for arguments in ({}, {"artifact_uri": "x/y", "run_id": "x"}, {"artifact_uri": "x/y", "artifact_path": "x"}):
        with pytest.raises(InvalidInputError, match="artifact_"):
            artifacts.download_artifacts(**arguments)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = artifacts.nothing


def test_a_text_that_is_too_large_for_the_memory_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how else to have it."""
    with asynctrack.start_run() as run:
        run.log_text("x" * 2000, "a.txt")
        run.log_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "deep.json")
    with pytest.raises(InvalidInputError, match="is not JSON"):
        artifacts.load_dict(f"runs:/{run.run_id}/deep.json")
    monkeypatch.setattr(downloads, "_MOST_TEXT", 1000)
    with pytest.raises(InvalidInputError, match=r"2000 bytes.*download_artifacts"):
        artifacts.load_text(f"runs:/{run.run_id}/a.txt")


def test_an_image_is_read_back() -> None:
    """As it was logged, and gone from the disk; what is no image is said to be none."""
    pixels = numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)
    with asynctrack.start_run() as run:
        run.log_image(pixels, "plots/i.png")
        run.log_text("text", "a.png")
    image = artifacts.load_image(f"runs:/{run.run_id}/plots/i.png")
    assert image.size == (4, 3)
    assert numpy.array_equal(numpy.asarray(image), pixels)
    with pytest.raises(InvalidInputError, match=r"a\.png.* is no image"):
        artifacts.load_image(f"{run.info.artifact_uri}/a.png")
    with pytest.raises(InvalidInputError, match="is a folder"):
        artifacts.load_image(f"runs:/{run.run_id}/plots")


@pytest.mark.parametrize("name", ["download_artifacts", "list_artifacts", "load_text", "load_dict", "load_image"])
def test_the_arguments_are_mlflows(name: str) -> None:
    """Same names, same order, same defaults."""
    import mlflow.artifacts

    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (artifacts, mlflow.artifacts))
    assert [(one.name, one.default) for one in ours.values()] == [(one.name, one.default) for one in theirs.values()]


def test_reading_one_run_s_artifacts_does_not_wait_for_another_s_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the store does not take (403), as an artifact's path, a run's id or an address say what is read."""
    asynctrack.configure(close_timeout=0.5)
    asynctrack.set_tracking_uri(tmp_path / "runs")
    with asynctrack.start_run() as run:
        run.log_text("hello", "a.txt")
    address = str(run.info.artifact_uri)
    other = asynctrack.get_service().create_run(asynctrack.create_experiment("other")).info.run_id
    stored = FileStore.log_batch

    async def log_batch(self: FileStore, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        if run_id == other:
            raise AuthenticationError("403: may not do this")
        return await stored(self, run_id, batch, bookmark)

    monkeypatch.setattr(FileStore, "log_batch", log_batch)
    asynctrack.get_service().log_metric(other, "m", 1)
    assert [found.path for found in asynctrack.artifacts.list_artifacts(run_id=run.run_id)] == ["a.txt"]
    assert asynctrack.artifacts.load_text(f"runs:/{run.run_id}/a.txt") == "hello"
    assert asynctrack.artifacts.load_text(f"{address}/a.txt") == "hello"
    for read in ({"run_id": other}, {"artifact_uri": f"{address.replace(run.run_id, other)}/x"}):
        with pytest.raises(FlushTimeoutError, match=other):
            asynctrack.artifacts.list_artifacts(**read)

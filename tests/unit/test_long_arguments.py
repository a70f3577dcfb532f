"""Texts that are longer than anything has a name: refused at the call, in a sentence that does not repeat them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack import artifacts
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.tracking import MlflowClient

#: one name, folders in one another, lines, quotes, what no path has
LONG = [
    "x" * 100_000,
    "/".join(["y" * 50] * 2_000),
    "z/" * 1_500 + "z",
    "a\n" * 50_000,
    "'\"\\" * 30_000,
    "a\0" * 9_999,
]

#: characters; a path of 4095 bytes may be quoted once
_LONGEST_MESSAGE = 1_000


def calls(run_id: str, uri: str) -> dict[str, Callable[[str], object]]:
    """What takes a text that says where something is."""
    client, service = MlflowClient(), asynctrack.get_service()
    return {
        "dst_path": lambda text: client.download_artifacts(run_id, "a.txt", text),
        "dst_path of the module": lambda text: artifacts.download_artifacts(
            run_id=run_id, artifact_path="a.txt", dst_path=text
        ),
        "path": lambda text: client.download_artifacts(run_id, text),
        "folder": lambda text: client.list_artifacts(run_id, text),
        "runs:": lambda text: artifacts.load_dict(f"runs:/{run_id}/{text}"),
        "artifact_uri": lambda text: artifacts.load_text(f"{uri}/{text}"),
        "file:": lambda text: service.log_artifact(f"file:///{text}", __file__),
        "http:": lambda text: artifacts.list_artifacts(f"http://host/{text}"),
        "no scheme of ours": lambda text: artifacts.list_artifacts(f"nowhere://{text}"),
        "artifact_path": lambda text: client.log_artifact(run_id, __file__, text),
        "of a run": lambda text: asynctrack.log_text("text", text, run_id=run_id),
        "local_path": lambda text: client.log_artifact(run_id, text),
        "local_path of a run": lambda text: asynctrack.log_artifact(text, run_id=run_id),
        "tracking_uri": lambda text: artifacts.list_artifacts(run_id=run_id, tracking_uri=text),
        "a path": lambda text: asynctrack.set_tracking_uri(f"./{text}"),
        "sqlite:": lambda text: asynctrack.set_tracking_uri(f"sqlite:///{text}"),
        "file: URI": lambda text: asynctrack.set_tracking_uri(f"file:{text}"),
        "nowhere:": lambda text: asynctrack.set_tracking_uri(f"nowhere://{text}"),
        "mysql:": lambda text: asynctrack.set_tracking_uri(f"mysql://{text}"),
        "location": lambda text: client.create_experiment("e", text),
        "spool_dir": lambda text: asynctrack.configure(spool_dir=text),
        "sync": lambda text: asynctrack.sync(to=f"nowhere://{text}"),
        "spools": lambda text: asynctrack.sync([text]),
    }


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """With one artifact, in files."""
    asynctrack.set_tracking_uri(tmp_path / "store")
    with asynctrack.start_run() as run:
        run.log_text("text", "a.txt")
    return run


@pytest.mark.parametrize("at", range(len(LONG)))
def test_what_is_too_long_is_refused_in_a_short_sentence(
    run: Any, at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By whatever takes it. Nothing is made, sent or tried again."""
    caplog.set_level(logging.WARNING, "asynctrack")
    before = made_in(tmp_path)
    wrong = []
    for name, call in calls(run.run_id, run.info.artifact_uri).items():
        try:
            call(LONG[at])
        except AsynctrackError as error:
            if len(str(error)) > _LONGEST_MESSAGE:
                wrong.append(f"{name}: {len(str(error))} characters: {str(error)[:100]!r}")
        else:
            wrong.append(f"{name}: accepted")
    assert wrong == []
    assert caplog.records == []
    assert made_in(tmp_path) == before


def made_in(folder: Path) -> list[Path]:
    """What is there, spools aside: they come and go."""
    return sorted(path for path in folder.rglob("*") if ".asynctrack" not in path.parts)


@pytest.mark.parametrize("make", ["download", "tracking URI", "spool_dir", "location", "artifact"])
def test_a_path_that_is_long_and_possible_is_one(run: Any, make: str, tmp_path: Path) -> None:
    """400 folders in one another, each part as long as a name can be where that fits."""
    text = "/".join(["d"] * 350)
    if make == "download":
        asynctrack.artifacts.download_artifacts(run_id=run.run_id, artifact_path="a.txt", dst_path=tmp_path / text)
        assert (tmp_path / text / "a.txt").read_text() == "text"
    elif make == "artifact":
        MlflowClient().log_artifact(run.run_id, __file__, text)
        assert MlflowClient().list_artifacts(run.run_id, text)[0].path == f"{text}/{Path(__file__).name}"
    elif make == "location":
        found = asynctrack.create_experiment("deep", artifact_location=str(tmp_path / text))
        with asynctrack.start_run(experiment_id=found) as deep:
            deep.log_text("text", "b.txt").wait()
        assert len(list((tmp_path / text).rglob("b.txt"))) == 1
    else:
        if make == "spool_dir":
            asynctrack.configure(spool_dir=tmp_path / ("n" * 255))
        else:
            asynctrack.set_tracking_uri(tmp_path / text)
        with asynctrack.start_run() as deep:
            deep.log_metric("m", 1.0)
        assert asynctrack.get_run(deep.run_id).data.metrics == {"m": 1.0}


def test_a_text_of_the_wrong_kind_for_a_setting() -> None:
    """Whatever its own methods do."""

    class Odd:
        def __fspath__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(InvalidInputError, match="spool_dir"):
        asynctrack.configure(spool_dir=Odd())

"""The files of a run on the page: shown as what their content is, and never as what a browser would run."""

from __future__ import annotations

import base64
import dataclasses
import os
import shutil
from pathlib import Path

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import InvalidInputError
from asynctrack.stores.io import drive
from asynctrack.ui import files
from asynctrack.ui.board import Board
from tests.unit.ui.conftest import Get

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EVIL = "<script>parent.hacked=1</script>"


@pytest.fixture
def run() -> str:
    """The id of a run with files of all kinds."""
    Path("pixel.txt").write_bytes(PNG)  # a picture, whatever it is called
    Path("page.png").write_text(f"<!doctype html>{EVIL}")
    Path("weights.bin").write_bytes(b"\0\xff" * 100)
    Path("cut.txt").write_bytes("é".encode() * (files.MOST_TEXT // 2 + 5))
    with asynctrack.start_run() as run:
        for name in ("pixel.txt", "page.png", "weights.bin", "cut.txt"):
            run.log_artifact(name, "in/side")
        run.log_text(EVIL, "page.html")
        run.log_text(f'<svg xmlns="http://www.w3.org/2000/svg">{EVIL}</svg>', "drawing.svg")
    asynctrack.shutdown()
    return run.run_id


def kind(get: Get, run: str, path: str) -> str:
    return str(get("/api/file", run=run, path=path).json["kind"])


def test_folders_are_listed_and_files_have_sizes(get: Get, run: str) -> None:
    listed = get("/api/files", run=run[:8], path="").json["files"]
    assert [(each["path"], each["folder"]) for each in listed] == [
        ("in", True), ("drawing.svg", False), ("page.html", False),
    ]  # fmt: skip
    inside = get("/api/files", run=run, path="in/side").json["files"]
    assert {each["path"]: each["size"] for each in inside}["in/side/pixel.txt"] == len(PNG)


def test_content_says_what_a_file_is_and_its_name_does_not(get: Get, run: str) -> None:
    assert kind(get, run, "in/side/pixel.txt") == "image"
    assert kind(get, run, "in/side/page.png") == "text"
    assert kind(get, run, "in/side/weights.bin") == "other"
    assert kind(get, run, "drawing.svg") == "text"  # a browser would run what is in it
    said = get("/api/file", run=run, path="page.html").json
    assert (said["text"], said["cut"]) == (EVIL, False)
    cut = get("/api/file", run=run, path="in/side/cut.txt").json
    assert cut["cut"]
    assert set(cut["text"]) == {"é"}


def test_a_picture_is_sent_as_one_and_nothing_else_is(get: Get, run: str) -> None:
    answer = get("/api/image", run=run, path="in/side/pixel.txt").response
    assert answer.content == PNG
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("page.html", "drawing.svg", "in/side/page.png", "in/side/weights.bin"):
        assert get("/api/image", run=run, path=path).response.status_code == 400


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "in/../../x", "in", "none.txt", "a\0b", "in\\..\\x"])
def test_nothing_outside_the_run_is_read(get: Get, run: str, path: str) -> None:
    for api in ("file", "image"):
        assert get(f"/api/{api}", run=run, path=path).response.status_code in (400, 404)


def test_a_link_that_leads_out_is_not_followed(get: Get, run: str, board: Board) -> None:
    Path("secret.txt").write_text("secret")
    root = drive(board.store.get_run_info(run)).artifact_uri
    assert root is not None
    os.symlink(Path("secret.txt").resolve(), Path(root.removeprefix("file://")) / "link.txt")
    assert get("/api/file", run=run, path="link.txt").response.status_code == 404
    os.mkfifo(Path(root.removeprefix("file://")) / "pipe.txt")
    assert get("/api/file", run=run, path="pipe.txt").response.status_code == 404


def test_what_is_too_large_is_not_shown(get: Get, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", len(PNG) - 1)
    assert get("/api/file", run=run, path="in/side/pixel.txt").json["kind"] == "other"
    assert get("/api/image", run=run, path="in/side/pixel.txt").response.status_code == 400


def test_the_files_of_a_folder_that_was_copied_from_elsewhere_are_found(run: str) -> None:
    shutil.move("mlruns", "copied")
    store = store_for("copied")
    info = drive(store.get_run_info(run))
    assert files.shown(store, info, "page.html")["text"] == EVIL


@pytest.mark.parametrize(
    "uri",
    [
        "http://evil.example/api/2.0/mlflow-artifacts/artifacts/1",
        "mlflow-artifacts://evil.example:1/x",
        "s3://bucket/x",
    ],
)
def test_no_other_server_is_asked(uri: str, run: str) -> None:
    store = store_for("http://127.0.0.1:9")
    info = drive(store_for("mlruns").get_run_info(run))
    with pytest.raises(InvalidInputError, match=r"another server|cannot be reached"):
        files.listed(store, dataclasses.replace(info, artifact_uri=uri), "")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (b"RIFF\0\0\0\0WAVE", None), (b"<svg", None),
        (b"", None),
    ],
)  # fmt: skip
def test_a_picture_is_known_by_how_it_begins(data: bytes, kind: str | None) -> None:
    assert files.sniffed(data) == kind

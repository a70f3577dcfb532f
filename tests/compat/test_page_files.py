"""Files and notes of runs on a real MLflow server, as the page asks for them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.ui import files
from asynctrack.ui.board import Board
from asynctrack.ui.single import NOTE, change_tag, described_in_full
from tests.servers import MlflowServer


def test_a_server_passes_files_on_and_takes_notes(
    sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.url)
    (tmp_path / "pixel.bin").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0, 3)
        run.log_text("<b>hällo</b>", "a/page.html")
        run.log_artifact(str(tmp_path / "pixel.bin"))
    asynctrack.shutdown()
    store = store_for(sqlite_server.url)
    board = Board(store)
    info = board.run(run.run_id).run.info
    assert [each["path"] for each in files.listed(store, info, "")] == ["a", "pixel.bin"]
    assert files.shown(store, info, "a/page.html") == {"kind": "text", "text": "<b>hällo</b>", "cut": False}
    assert files.image_of(store, info, "pixel.bin") == ("image/png", b"\x89PNG\r\n\x1a\nrest")
    with pytest.raises(InvalidInputError):
        files.shown(store, info, "../x")
    with pytest.raises(NotFoundError):
        files.shown(store, info, "none.txt")
    change_tag(store, run.run_id, NOTE, "a note")
    change_tag(store, run.run_id, "stage", "sweep")
    change_tag(store, run.run_id, "stage", None)
    deadline = time.monotonic() + 30
    while True:  # a server that needs more than 2 s to answer keeps the page as it was
        board.refresh()
        said = described_in_full(store, board.run(run.run_id))
        if NOTE in said["tags"] or time.monotonic() > deadline:
            break
    assert said["tags"][NOTE] == "a note"
    assert "stage" not in said["tags"]
    assert said["metrics"] == [["loss", 1.0, 1.0, 3, 1.0, 3]]

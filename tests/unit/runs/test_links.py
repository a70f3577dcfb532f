"""Where to look at a run: MLflow's two lines at its end."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.entities import RunInfo
from asynctrack.errors import UnavailableError
from asynctrack.runs import active
from asynctrack.runs.links import print_links
from asynctrack.runs.state import RunState
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO
from asynctrack.stores.uri import open_store
from asynctrack.tracking import MlflowClient

INFO = RunInfo(run_id="a1", experiment_id="7", user_id="", status="FINISHED", start_time=0, run_name="tame-crane")
LINES = "🏃 View run tame-crane at: {0}/runs/a1\n🧪 View experiment at: {0}\n"


@pytest.fixture(autouse=True)
def _printing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunState:
    """A run whose store shows it at a URL."""
    monkeypatch.setattr(
        FileStore, "experiment_page", lambda _, experiment_id: f"http://host/#/experiments/{experiment_id}"
    )
    asynctrack.start_run(tracking_uri=str(tmp_path / "store"))
    (state,) = active.states_of_process()
    return state


def test_they_are_printed_when_a_run_has_ended(state: RunState, capsys: pytest.CaptureFixture[str]) -> None:
    """By its end, and at the end of the process."""
    run = asynctrack.active_run()
    assert run is not None
    info = run.info
    asynctrack.end_run()
    page = f"http://host/#/experiments/{info.experiment_id}"
    lines = f"🏃 View run {info.run_name} at: {page}/runs/{info.run_id}\n🧪 View experiment at: {page}\n"
    assert capsys.readouterr().out == lines
    asynctrack.start_run(tracking_uri=state.engine.store.uri)
    asynctrack.shutdown()
    assert capsys.readouterr().out.count("View run") == 1


def test_a_client_that_ends_a_run_prints_them_too(state: RunState, capsys: pytest.CaptureFixture[str]) -> None:
    client = MlflowClient(state.engine.store.uri)
    run = client.create_run("0", run_name="tame-crane")
    client.set_terminated(run.info.run_id)
    assert capsys.readouterr().out == LINES.format("http://host/#/experiments/0").replace("a1", run.info.run_id)


@pytest.mark.parametrize("value", ["true", "1", "True"])
def test_a_variable_turns_them_off(
    value: str, state: RunState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", value)
    print_links(state, INFO)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "false")
    print_links(state, INFO)
    assert capsys.readouterr().out == LINES.format("http://host/#/experiments/7")


def test_a_run_of_files_and_one_that_is_not_created_have_none(
    state: RunState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_links(state, None)
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    print_links(state, INFO)
    assert capsys.readouterr().out == ""


def test_no_standard_output_spoils_a_run_s_end(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, a closed one, one that knows no emoji; nor a store that cannot say where it is."""
    closed = io.StringIO()
    closed.close()
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    outputs: list[Any] = [None, closed, ascii_only]
    for output in outputs:
        monkeypatch.setattr(sys, "stdout", output)
        print_links(state, INFO)
    ascii_only.seek(0)
    assert ascii_only.read().startswith("? View run tame-crane at: http://host/")

    def nowhere(*_: object) -> None:
        raise UnavailableError("no")

    monkeypatch.setattr(FileStore, "experiment_page", nowhere)
    print_links(state, INFO)


@pytest.mark.parametrize(
    ("uri", "workspace", "page"),
    [
        ("http://host:5000", "", "http://host:5000/#/experiments/7"),
        ("http://user:secret@host:5000/prefix/", "", "http://host:5000/prefix/#/experiments/7"),
        ("http://host", "team-a", "http://host/#/experiments/7?workspace=team-a"),
        ("databricks", "", "https://dbc.example/ml/experiments/7"),
    ],
)
def test_a_server_s_pages_are_where_mlflow_s_are(
    uri: str, workspace: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials."""
    monkeypatch.setenv("MLFLOW_WORKSPACE", workspace)
    monkeypatch.setenv("DATABRICKS_HOST", "https://dbc.example")
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    assert open_store(uri, InlineIO()).experiment_page("7") == page

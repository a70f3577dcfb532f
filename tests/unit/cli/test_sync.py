"""The command `asynctrack sync`, as a user or a script meets it."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asynctrack.cli.command import app
from tests.mlruns import only_run
from tests.unit.recovery.test_sync import leave


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A spool whose store cannot be written."""
    (tmp_path / "disk").write_text("a file where a folder should be")
    return leave(tmp_path, MLFLOW_TRACKING_URI=str(tmp_path / "disk" / "mlruns"))


def apart() -> CliRunner:
    """What the command writes on its two streams, each for itself: before click 8.2 only on request."""
    options: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**options)


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["sync", *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result.stdout


def told(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(*arguments, "--json", code=code))
    return found


def test_all_that_is_there_is_delivered_with_a_line_for_each_and_a_sum(tmp_path: Path) -> None:
    """Exit status 0; the next time there is nothing to do, and that is no failure."""
    first, second = leave(tmp_path), leave(tmp_path)
    lines = call().splitlines()
    assert sorted(lines[:2]) == sorted(
        f"{path}: 501 events delivered to file://{tmp_path}/mlruns" for path in (first, second)
    )
    assert lines[2] == "2 spools (2 delivered), 1,002 events delivered"
    assert call() == "Nothing waits: there are no spools here.\n"
    assert told() == []


def test_a_spool_by_its_name(tmp_path: Path) -> None:
    """As `asynctrack spool` shows it."""
    first, second = leave(tmp_path), leave(tmp_path)
    assert [entry["spool"] for entry in told(second.name)] == [str(second)]
    assert first.exists()


def test_a_dry_run_delivers_nothing_and_says_what_would_go_where(tmp_path: Path) -> None:
    """A password in the address is not shown."""
    spool = leave(tmp_path)
    assert told("--dry-run") == [
        {"spool": str(spool), "store": f"file://{tmp_path}/mlruns", "events": 501, "delivering": False}
    ]
    said = call("--dry-run", "--to", "http://ada:s3cr3t@127.0.0.1:5000")
    assert said == f"{spool}: 501 events, would go to http://127.0.0.1:5000\n"
    assert not (tmp_path / "mlruns").exists()
    assert spool.exists()


def test_json_says_what_became_of_each(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    assert told("--to", "elsewhere", "--experiment", "rescued") == [
        {
            "spool": str(spool),
            "store": f"file://{tmp_path}/elsewhere",
            "state": "delivered",
            "delivered": 501,
            "rejected": 0,
            "left": 0,
            "problem": None,
        }
    ]
    assert only_run(tmp_path / "elsewhere").status == "FINISHED"


def test_json_has_the_fields_that_are_asked_for(tmp_path: Path) -> None:
    leave(tmp_path)
    assert json.loads(call("--dry-run", "--json", "events")) == [{"events": 501}]
    assert "the fields are spool, store, events, delivering" in apart().invoke(
        app, ["sync", "--dry-run", "--json", "events,state"]).stderr  # fmt: skip
    assert json.loads(call("--json", "state,delivered")) == [{"state": "delivered", "delivered": 501}]


def test_status_1_when_something_is_left(broken: Path) -> None:
    """It says why, and the spool stays."""
    (entry,) = told("--timeout", "0.5", code=1)
    assert (entry["state"], entry["delivered"]) == ("partly", 0)
    assert entry["left"] >= 500
    assert "disk/mlruns" in entry["problem"]
    assert f"about {entry['left']:,} left: " in call("--timeout", "0.5", code=1)
    assert broken.exists()


def test_status_1_when_events_were_refused(tmp_path: Path) -> None:
    leave(tmp_path, MLFLOW_EXPERIMENT_ID="999")
    assert "501 refused (see `asynctrack spool rejected`)" in call(code=1)


def test_status_3_for_what_is_no_spool(tmp_path: Path) -> None:
    result = apart().invoke(app, ["sync", "nothing"])
    assert (result.exit_code, result.stderr) == (
        3,
        "asynctrack: nothing is not a spool; `asynctrack spool` lists them\n",
    )


def test_a_folder_with_spools_is_all_of_them(tmp_path: Path) -> None:
    """As it comes from a cluster; a spool that is named twice is delivered once."""
    for program in ("first", "second"):
        (tmp_path / program).mkdir()
        leave(tmp_path / program)
    (tmp_path / "copied").mkdir()
    spools = [next((tmp_path / program / ".asynctrack").glob("*-*-*")) for program in ("first", "second")]
    moved = [str(spool.rename(tmp_path / "copied" / spool.name)) for spool in spools]
    found = told(str(tmp_path / "copied"), moved[0], "--to", str(tmp_path / "mlruns"))
    assert sorted(entry["spool"] for entry in found) == sorted(moved)
    assert [entry["delivered"] for entry in found] == [501, 501]


@pytest.mark.parametrize("arguments", [("--to", "mysql://host/mlflow"), ("--to", "mysql://host/mlflow", "--dry-run")])
def test_status_2_for_a_store_of_no_known_kind(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Said in one line."""
    leave(tmp_path)
    result = apart().invoke(app, ["sync", *arguments])
    assert result.exit_code == 2
    assert "mlflow server --backend-store-uri" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_status_2_for_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["sync", "--timeout", "soon"]).exit_code == 2
    assert CliRunner().invoke(app, ["sync", "--nonsense"]).exit_code == 2


def test_another_folder(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    os.rename(tmp_path / ".asynctrack", tmp_path / "moved")
    assert told() == []
    (entry,) = told("--dir", "moved")
    assert (entry["spool"], entry["state"]) == (str(tmp_path / "moved" / spool.name), "delivered")


@pytest.mark.parametrize("arguments", [["--to", ""], ["--experiment", ""], ["--dir", "/mistyped"], ["--dir", ""]])
def test_an_empty_variable_is_wrong_usage_and_delivers_nothing(arguments: list[str], tmp_path: Path) -> None:
    """Everything once went into ./mlruns, and the spool was deleted."""
    path = leave(tmp_path)
    found = CliRunner().invoke(app, ["sync", *arguments])
    assert found.exit_code == 2, found.output
    assert os.path.exists(path)

"""The command `asynctrack doctor`, as a user in a shell meets it."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from asynctrack.cli.installed import installed
from tests.servers import free_port


def doctor(status: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == status, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_says_what_is_installed_and_that_the_store_answers(tmp_path: Path) -> None:
    found = doctor()
    assert found["tracking URI"] == f"file://{tmp_path}/mlruns"
    assert found["answers after"].endswith(" ms")
    assert found["waiting"] == "nothing"
    assert found["mlflow"].startswith("3.")
    assert found["mlflow logs through asynctrack"].startswith("not asked for")
    assert "tracking URI" in CliRunner().invoke(app, ["doctor"]).stdout


def test_where_nothing_is_set_it_names_the_default_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    found = doctor()
    assert found["tracking URI"] == f"sqlite:///{tmp_path}/mlflow.db (MLFLOW_TRACKING_URI is not set)"
    assert found["database"].startswith("not there yet")
    assert list(tmp_path.iterdir()) == []
    asynctrack.create_experiment("vision")
    assert doctor()["answers after"].endswith(" ms")


def test_it_shows_no_credentials_of_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"asynctrack+http://me:s3cret@127.0.0.1:{free_port()}")
    found = doctor(status=1)
    assert found["mlflow logs through asynctrack"].startswith("yes")
    assert "127.0.0.1" in found["no answer"]
    assert "s3cret" not in json.dumps(found)


def test_it_says_where_mlflow_is_asked_for_a_store_that_asynctrack_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MLFLOW", "1")
    assert doctor()["mlflow logs through asynctrack"].startswith("yes")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://me:s3cret@host/runs")
    found = doctor(status=1)
    assert found["mlflow logs through asynctrack"].startswith("no: asynctrack has no store")
    assert "s3cret" not in json.dumps(found)


def test_it_counts_what_waits() -> None:
    asynctrack.configure(mode="offline")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    asynctrack.shutdown()
    assert doctor()["waiting"].startswith("1 events, and 0 refused, in 1 spools")


def test_a_uri_that_leads_nowhere_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://host")
    assert "ftp" in doctor(status=1)["no answer"]


def test_it_says_where_each_setting_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor()["settings"] == {}
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "3")
    assert doctor()["settings"] == {"flush_interval": {"value": 3.0, "from": "ASYNCTRACK_FLUSH_INTERVAL"}}
    assert "flush_interval=3.0 (ASYNCTRACK_FLUSH_INTERVAL)" in CliRunner().invoke(app, ["doctor"]).stdout


def test_it_says_which_store_it_asked_and_why(tmp_path: Path) -> None:
    assert doctor()["from"] == "MLFLOW_TRACKING_URI"
    done = CliRunner().invoke(app, ["doctor", "--store", "other", "--json", "from,tracking URI"])
    assert json.loads(done.stdout) == {"tracking URI": f"file://{tmp_path}/other", "from": "--store"}


def test_it_lists_the_spools_in_which_something_waits() -> None:
    asynctrack.configure(mode="offline")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    asynctrack.shutdown()
    (spool,) = doctor()["spools"]
    assert spool["events"] == 1
    assert spool["store"].endswith("/mlruns")


def test_what_is_installed_is_what_pythons_own_library_finds() -> None:
    mine = {name: package.version for name, package in installed().items()}
    theirs: dict[str, str] = {}
    for each in distributions():
        theirs.setdefault(each.name.lower().replace("_", "-").replace(".", "-"), each.version)
    assert {name: mine.get(name) for name in theirs} == theirs


def test_of_two_installed_the_one_that_is_imported_is_named(tmp_path: Path) -> None:
    for place, name in (("a", "some_thing-2.0.dist-info"), ("b", "Some.Thing-1.0-py3.11.egg-info")):
        (tmp_path / place / name).mkdir(parents=True)
    found = installed([str(tmp_path / "none.zip"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert {name: package.version for name, package in found.items()} == {"some-thing": "2.0"}
    assert installed([str(tmp_path / "b")])["some-thing"].version == "1.0"
    assert found["some-thing"].read("entry_points.txt") == ""

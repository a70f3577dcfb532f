"""Old versions of MLflow, each in an environment of its own: they read our folder and what we write into a database of
theirs, and their servers take our runs.

``OLD_MLFLOW`` names their interpreters, separated by colons. `.ci/old_mlflow` makes such environments.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.constants import UID_TAG
from asynctrack.entities import ViewType
from asynctrack.errors import NotFoundError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from tests import servers

INTERPRETERS = [path for path in os.environ.get("OLD_MLFLOW", "").split(":") if path]
SCRIPT = Path(__file__).with_name("old_mlflow.py")
#: seconds for an old MLflow on a busy machine
PATIENCE = 180

pytestmark = pytest.mark.skipif(not INTERPRETERS, reason="OLD_MLFLOW names no interpreter of an old MLflow")


@pytest.fixture(scope="module", params=INTERPRETERS)
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MlflowServer]:
    with servers.old(tmp_path_factory.mktemp("old-server"), interpreter) as server:
        yield server


def old(interpreter: str, what: str, where: str) -> Any:
    """What the old MLflow answers."""
    done = subprocess.run(
        [interpreter, "-I", SCRIPT, what, where], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])  # some tell where to see the run, first


def everything() -> dict[str, Any]:
    """What we read of the store, in the form of `old_mlflow.read`."""
    service = asynctrack.get_service()
    ours: dict[str, Any] = {"experiments": {}, "runs": {}}
    for found in service.search_experiments(ViewType.ALL):
        ours["experiments"][found.experiment_id] = [
            found.name, found.artifact_location, found.lifecycle_stage, found.tags,
        ]  # fmt: skip
        for one in service.search_runs([found.experiment_id], run_view_type=ViewType.ALL):
            info = one.info
            ours["runs"][info.run_id] = {
                "info": [
                    info.experiment_id, info.user_id, info.status, info.start_time, info.end_time, info.lifecycle_stage,
                    info.artifact_uri, info.run_name,
                ],
                "params": one.data.params,
                "tags": one.data.tags,
                "points": {
                    key: [[p.timestamp, p.step, repr(p.value)] for p in service.get_metric_history(info.run_id, key)]
                    for key in one.data.metrics
                },
            }  # fmt: skip
    return ours


def test_an_old_mlflow_reads_our_folder_as_we_do(interpreter: str, tmp_path: Path) -> None:
    """Every run, field and point of it; the program that wrote it is an ordinary one."""
    asynctrack.set_tracking_uri(tmp_path / "ml rüns")
    asynctrack.set_experiment("visión: 1")
    with asynctrack.start_run(run_name="äb", tags={"a b": "ü"}, description="# note") as run:
        run.log_params({"lr": 0.1, "text": "a\nb é", "empty": "", "a/b": "x"})
        for step in range(300):
            run.log_metric("loss/train x", step / 7, step)
        for step, value in enumerate((math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -0.0)):
            run.log_metric("odd.m-1", value, step)
        with asynctrack.start_run(nested=True) as deleted:
            deleted.log_metric("m", 1)
    with pytest.raises(ZeroDivisionError), asynctrack.start_run():
        raise ZeroDivisionError
    asynctrack.delete_run(deleted.run_id)
    asynctrack.delete_experiment(asynctrack.create_experiment("gone", tags={"k": "v"}))
    ours = everything()
    assert len(ours["runs"]) == 3
    assert len(ours["experiments"]) == 3
    assert old(interpreter, "read", str(tmp_path / "ml rüns")) == ours


def test_an_old_mlflow_reads_what_we_write_into_its_database(interpreter: str, tmp_path: Path) -> None:
    """It has made the SQLite database; every run, field and point of ours, and of its own."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    its_own = old(interpreter, "log", uri)
    asynctrack.set_tracking_uri(uri)
    asynctrack.set_experiment("visión: 1")
    with asynctrack.start_run(run_name="äb", tags={"a b": "ü"}) as run:
        run.log_params({"lr": 0.1, "text": "a\nb é", "a/b": "x"})
        for step in range(300):
            run.log_metric("loss/train x", step / 7, step, timestamp=step)
        for step, value in enumerate((math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -0.0)):
            run.log_metric("odd.m-1", value, step, timestamp=step)
    ours = everything()
    assert set(ours["runs"]) == {its_own, run.run_id}
    assert len(ours["runs"][run.run_id]["points"]["loss/train x"]) == 300
    assert old(interpreter, "read", uri) == ours


def rows(server: servers.MlflowServer, run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """What a server's database holds of a run, without what is of that run alone."""
    queries = {
        "runs": "name, status, start_time, end_time, lifecycle_stage, experiment_id FROM runs WHERE run_uuid = :run",
        "metrics": "key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = :run ORDER BY key, step",
        "latest": "key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid = :run ORDER BY key",
        "params": "key, value FROM params WHERE run_uuid = :run ORDER BY key",
        "tags": "key, value FROM tags WHERE run_uuid = :run AND key != :uid ORDER BY key",
    }
    database = sqlite3.connect(server.backend.removeprefix("sqlite:///"))
    try:
        given = {"run": run_id, "uid": UID_TAG}
        return {table: database.execute(f"SELECT {query}", given).fetchall() for table, query in queries.items()}
    finally:
        database.close()


def test_an_old_server_stores_what_its_own_client_would_have_it_store(
    interpreter: str, server: servers.MlflowServer
) -> None:
    """Row by row in its database, a batch sent twice included."""
    store = open_store(server.url, InlineIO())
    spec = RunSpec("e" * 32, run_name="näme", start_time=5, tags={"a b": "c"})
    run_id = drive(store.create_run(spec)).run_id
    points = [(1000 + step, step, step / 7) for step in range(900)]
    odd = [(1, step, value) for step, value in enumerate((math.nan, math.inf, -0.0))]
    batch = Batch({"loss/train": list(points), "odd": list(odd)}, [("lr", "0.1"), ("é/x", "")], [("t", "ü")])
    for bookmark in (None, True):
        assert drive(store.log_batch(run_id, batch, bookmark)) == []
    drive(store.update_run(run_id, status="FAILED", end_time=9))
    ours, theirs = rows(server, run_id), rows(server, old(interpreter, "log", server.url))
    assert ours == theirs
    assert len(ours["metrics"]) == 903
    drive(store.aclose())


def test_an_old_server_s_limits_are_kept_and_said(
    server: servers.MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """All values arrive, shortened; a warning says how much the server keeps. What is not there is not found."""
    asynctrack.set_tracking_uri(server.url)
    with asynctrack.start_run(run_name="long") as run:
        for length in (500, 501, 6000, 9000):
            run.log_param(f"p{length}", "v" * length)
            run.set_tag(f"t{length}", "v" * length)
        run.log_text("hello", "a/b.txt")
    found = asynctrack.get_run(run.run_id)
    assert found.info.run_name == "long"
    said = [record.getMessage() for record in caplog.records]
    for kind, values in (("p", found.data.params), ("t", found.data.tags)):
        kept = {key: len(value) for key, value in values.items() if key[1:].isdecimal()}
        most = kept[f"{kind}9000"]
        assert kept == {f"{kind}{length}": min(length, most) for length in (500, 501, 6000, 9000)}
        assert any(f"'{kind}" in text and f"keeps {most} of them" in text for text in said)
    assert asynctrack.artifacts.load_text(f"runs:/{run.run_id}/a/b.txt") == "hello"
    with pytest.raises(NotFoundError, match=r"a/none\.txt"):
        asynctrack.artifacts.download_artifacts(run_id=run.run_id, artifact_path="a/none.txt")

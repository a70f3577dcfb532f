"""What asynctrack promises about events holds behind ``mlflow``: dead programs, servers that are away, honest ends."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import asynctrack
from asynctrack.constants import UID_TAG
from asynctrack.recovery.sync import sync
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

#: logs, says which run, and dies in the middle of it
DIES = """
import mlflow, os, signal
mlflow.start_run(run_name="dies")
mlflow.log_param("lr", 0.1)
for step in range(500):
    mlflow.log_metric("loss", 1 / (step + 1), step=step)
print(mlflow.active_run().info.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
#: fails outside of any block, after a forked child has logged to its run
FAILS = """
import mlflow, multiprocessing
run = mlflow.start_run(run_name="fails")
log = mlflow.MlflowClient().log_metric
child = multiprocessing.get_context("fork").Process(target=log, args=(run.info.run_id, "child", 1.0))
child.start()
child.join()
mlflow.log_metric("loss", 1.0)
print(run.info.run_id, flush=True)
raise KeyError("no such thing")
"""


def started(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_program_loses_nothing_and_a_failed_one_is_called_failed(
    sqlite_server: servers.MlflowServer, tmp_path: Path
) -> None:
    url = sqlite_server.url
    killed = started(DIES, tmp_path / "killed", MLFLOW_TRACKING_URI=f"asynctrack+{url}")
    failed = started(FAILS, tmp_path / "failed", MLFLOW_TRACKING_URI=url, ASYNCTRACK_MLFLOW="1")
    said, errors = killed.communicate(timeout=120)
    assert killed.returncode == -9, errors
    killed_run = said.split()[0]
    said, errors = failed.communicate(timeout=120)
    assert "no such thing" in errors
    failed_run = said.split()[0]
    [shipment] = sync(spool_dir=str(tmp_path / "killed/asynctrack"))
    assert shipment.problem is None
    with behind.tracking(url) as client:
        run = client.get_run(killed_run)
        assert (run.info.status, run.data.params) == ("KILLED", {"lr": "0.1"})
        assert len(client.get_metric_history(killed_run, "loss")) == 500
        run = client.get_run(failed_run)
        assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 1.0, "child": 1.0})
    assert not [path for path in (tmp_path / "failed/asynctrack").iterdir() if path.is_dir()]


FAILS_AGAIN = """
import mlflow
with mlflow.start_run() as run:
    pass
mlflow.start_run(run_id=run.info.run_id)
if {renamed}:
    mlflow.MlflowClient().update_run(run.info.run_id, name="another")
mlflow.log_metric("a", 1.0)
raise KeyError("no such thing")
"""


@pytest.mark.parametrize("renamed", [False, True])
def test_a_run_that_was_taken_up_again_fails_with_its_program(tmp_path: Path, *, renamed: bool) -> None:
    """At the program's end MLflow calls it FINISHED."""
    database = tmp_path / "program" / "mlflow.db"
    uri = f"asynctrack+sqlite:///{database}"
    failed = started(FAILS_AGAIN.format(renamed=renamed), tmp_path / "program", MLFLOW_TRACKING_URI=uri)
    _, errors = failed.communicate(timeout=120)
    assert "no such thing" in errors
    with closing(sqlite3.connect(database)) as tables:
        assert tables.execute("SELECT status FROM runs").fetchall() == [("FAILED",)]


def test_training_goes_on_without_the_server_and_nothing_is_lost(
    sqlite_server: servers.MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asynctrack.configure(close_timeout=0.5, connect_timeout=0.5)
    begun = time.monotonic()
    with behind.tracking(f"asynctrack+http://127.0.0.1:{servers.free_port()}") as client:
        with mlflow.start_run(experiment_id="0", run_name="away") as run:
            for step in range(100):
                mlflow.log_metric("loss", 1.0, step=step)
            mlflow.log_params({"lr": 1})
            client.set_tag(run.info.run_id, "by", "id")
        assert time.monotonic() - begun < 30, "MLflow would try again for minutes"
    assert "Events are kept in" in caplog.text
    asynctrack.shutdown()
    [shipment] = sync(to=sqlite_server.url)
    assert shipment.problem is None
    with behind.tracking(sqlite_server.url) as client:
        [found] = client.search_runs(["0"], f"tags.`{UID_TAG}` = '{run.info.run_id}'")
        assert (found.info.status, found.info.run_name, found.data.params) == ("FINISHED", "away", {"lr": "1"})
        assert len(client.get_metric_history(found.info.run_id, "loss")) == 100
        assert found.data.tags["by"] == "id"

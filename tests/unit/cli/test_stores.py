"""The verbs on every kind of store, and on what the store does not have yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.reading.follower import Follower
from asynctrack.stores.io import drive
from tests.servers import MlflowServer, free_port
from tests.unit.cli.conftest import Call, log_trials

PACKAGE = str(Path(asynctrack.__file__).parents[1])

#: a run that its program, killed at once, has not delivered
DIES = """
import asynctrack, os
asynctrack.configure(flush_interval=1000, connect_timeout=0.1)
run = asynctrack.start_run(run_name="waiting", tags={"team": "b"})
run.log_params({"lr": 0.5})
for step in range(10):
    run.log_metric("loss", 1 / (1 + step), step)
os._exit(1)
"""

#: one that goes on, until a line comes in
LIVES = DIES.replace("os._exit(1)", "print('logged', flush=True)\ninput()\nos._exit(1)")


def check_the_verbs(call: Call, ids: list[str]) -> None:
    """Whatever the store is, each verb finds the three trials in it."""
    assert call("runs", "-q", "-e", "vision").out.split() == ids[::-1]
    assert call("runs", "-e", "vision", "-c", "name,lr,loss.min", "--sort", "loss.min", "-n", "1").rows == [
        {"name": "good", "lr": "0.1", "loss.min": "0.05"}
    ]
    found = call("show", "good", "--json").json
    assert (found["id"], found["metrics"]["loss"]["min_step"]) == (ids[0], 19)
    assert call("show", "diverged", "--json", "metrics").json["metrics"]["loss"]["last"] == "NaN"
    assert len(call("tail", "good", "-n", "4").out.splitlines()) == 4
    assert call("diff", "good", "failed", "--json", status=1).json[0]["key"] == "lr"
    assert call("plot", "good", "-k", "loss", "--json").json[0]["points"][0] == [0, 1.0]
    assert len(call("export", "-e", "vision").out.splitlines()) == 67
    call("wait", "good", "loss <= 0.05 and step >= 19")
    assert call("doctor", "--json").json["answers after"].endswith(" ms")


def test_files(call: Call, trials: list[str]) -> None:
    check_the_verbs(call, trials)


def test_sqlite(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/a.db")
    check_the_verbs(call, log_trials())


def test_a_server(call: Call, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_shared_store(call, sqlite_server.url, monkeypatch)


def test_postgresql(call: Call, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_shared_store(call, postgres_database, monkeypatch)
    asynctrack.set_experiment("Default")
    with asynctrack.start_run(run_name="growing") as run:
        follower = Follower(store_for(), run.run_id)
        for step in range(3):
            run.log_metric("loss", step / 2, step)
            drive(follower.look())
            run.flush()
            assert drive(follower.look()) == {"loss"}
            assert list(follower.series["loss"].columns.rows())[-1][::2] == (step, step / 2)
            assert follower.series["loss"].stored == step + 1
    asynctrack.delete_run(run.run_id)


def check_a_shared_store(call: Call, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ids = log_trials()
    try:
        check_the_verbs(call, ids)
    finally:  # other tests use it, and count its runs
        experiment = asynctrack.get_experiment_by_name("vision")
        assert experiment is not None
        for run_id in ids:
            asynctrack.delete_run(run_id)
        asynctrack.delete_experiment(experiment.experiment_id)


def run_program(code: str, folder: Path, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": PACKAGE, **environment},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["server", "database"])
def test_what_the_store_does_not_have_is_shown_from_the_spool_and_nothing_changes(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The server is away; the database was never made."""
    uri = f"http://127.0.0.1:{free_port()}" if where == "server" else f"sqlite:///{tmp_path}/never.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("ASYNCTRACK_CONNECT_TIMEOUT", "0.2")
    run_program(DIES, tmp_path, ASYNCTRACK_MODE="offline")
    before = files_of(tmp_path)
    status = 1 if where == "server" else 0
    said = call("runs", "--json", "name,stored,waiting,step,lr,team", status=status)
    assert said.json == [{"name": "waiting", "stored": False, "waiting": 11, "step": 9, "lr": "0.5", "team": "b"}]
    assert ("only what waits on this machine is shown" in said.err) is (where == "server")
    found = call("show", "waiting", "--json").json
    assert (found["waiting"], found["metrics"]["loss"]["last"], found["params"]) == (11, 0.1, {"lr": "0.5"})
    assert [line.split("\t")[0] for line in call("tail", "@", "-n", "2").out.splitlines()] == ["8", "9"]
    assert "━━ waiting" in call("plot", "@", LANG="C.UTF-8").out
    call("wait", "@", "loss <= 0.1")
    said = call("diff", "@", "waiting", status=2 if where == "server" else 0)
    assert (said.out, "127.0.0.1" in said.err) == (("", True) if where == "server" else ("kind\tkey\ta\tb\n", False))
    said = call("compare", "@", "--all", "--json", "kind,key")
    assert {"kind": "param", "key": "lr"} in said.json
    assert ("only what waits on this machine is shown" in said.err) is (where == "server")
    assert files_of(tmp_path) == before
    call("runs", "--no-live", status=1 if where == "server" else 0)


def test_an_export_that_would_not_be_whole_is_none(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ASYNCTRACK_CONNECT_TIMEOUT", "0.2")
    run_program(DIES, tmp_path, ASYNCTRACK_MODE="offline")
    assert "127.0.0.1" in call("export", "-o", "all.csv", status=1).err
    assert "127.0.0.1" in call("export", "@", "-o", "all.csv", status=1).err
    assert not list(tmp_path.glob("all*"))


def test_a_run_that_is_running_comes_first_and_says_so(call: Call, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LIVES], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PACKAGE}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        log_trials()
        rows = call("runs").rows
        assert [row["name"] for row in rows] == ["waiting", "diverged", "failed", "good"]
        assert (rows[0]["alive"], rows[0]["step"], rows[1]["alive"]) == ("true", "9", "false")
        assert call("show", "@live", "--json", "name").json == {"name": "waiting"}
        process.communicate("\n", timeout=60)
    assert "alive" in call("show", "@live", status=3).err


def test_no_live_shows_what_the_store_has(call: Call, tmp_path: Path) -> None:
    log_trials()
    run_program(DIES, tmp_path, ASYNCTRACK_MODE="offline")
    assert "waiting" in [row["name"] for row in call("runs").rows]
    assert "waiting" not in [row["name"] for row in call("runs", "--no-live").rows]
    call("show", "waiting", "--no-live", status=3)


def test_whatever_is_asked_of_a_run_it_is_said_once_that_the_store_did_not_answer(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    done = subprocess.run(
        [sys.executable, "-c", DIES], timeout=60, check=False, env={**os.environ, "PYTHONPATH": PACKAGE}
    )
    assert done.returncode == 1
    for asked in (["--json=status"], ["--json=name,params"], ["--json"], ["--json=loss.min"], []):
        said = call("show", "waiting", *asked)
        assert said.err.count("only what waits on this machine is shown") == 1, asked

"""Readers on a real MLflow server, which gives runs ids of its own, and which may go while somebody reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import UnavailableError
from asynctrack.reading.follower import Follower
from asynctrack.reading.looking import look
from asynctrack.reading.runs import find_runs
from asynctrack.stores.io import drive
from tests.fault.programs import PACKAGE, finish, start
from tests.rest.support import PATIENCE, fresh, impatient
from tests.servers import MlflowServer

#: logs a point to a run, and says its id; it goes on until its input ends
OFFLINE = """
import asynctrack, os, sys
asynctrack.configure(mode="offline")
run = asynctrack.start_run(run_id=os.environ.get("RUN"), run_name=os.environ.get("NAME"))
run.log_metric("loss", 0.5, int(os.environ["STEP"]))
run.log_param("lr", 0.1)
print(run.run_id, flush=True)
sys.stdin.readline()
"""

#: logs ten points, of which only rank 0 delivers its own
RANK = """
import asynctrack, os, sys
asynctrack.configure(flush_interval=1000)
run = asynctrack.start_run(shared=True, run_name="together", experiment_name=os.environ["EXPERIMENT"])
for step in range(10):
    run.log_metric("loss", float(os.environ["RANK"]), step)
if os.environ["RANK"] == "0":
    run.terminate()
print(run.run_id, flush=True)
sys.stdin.readline()
os._exit(1)
"""


@pytest.fixture
def experiment(sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new one on the server, which is deleted at the end: other tests count the server's runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.url)
    impatient(monkeypatch)
    name = fresh("reading")
    asynctrack.set_experiment(name)
    yield name
    found = asynctrack.get_experiment_by_name(name)
    assert found is not None
    asynctrack.delete_experiment(found.experiment_id)


def command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "asynctrack", *arguments], env={**os.environ, "PYTHONPATH": PACKAGE},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


def test_a_run_logged_offline_is_read_by_its_own_id_and_by_the_servers(experiment: str, tmp_path: Path) -> None:
    """Before it is delivered, when it is, and when more of it waits."""
    first = start(OFFLINE, tmp_path, STEP="1", NAME="offline", MLFLOW_EXPERIMENT_NAME=experiment)
    assert first.stdout is not None
    uid = first.stdout.readline().strip()

    def steps(run_id: str) -> list[tuple[int, bool]]:
        found = asynctrack.history(run_id, "loss").to_dict()
        return list(zip(found["step"], found["delivered"], strict=True))

    assert steps(uid) == [(1, False)]
    assert json.loads(command("show", uid, "--json", "id,stored")) == {"id": uid, "stored": False}
    finish(first)
    asynctrack.sync()
    shown = json.loads(command("show", uid, "--json", "id,name,params,stored,metrics"))
    own = shown["id"]
    assert own != uid
    assert (shown["name"], shown["params"], shown["stored"]) == ("offline", {"lr": "0.1"}, True)
    assert shown["metrics"]["loss"]["last"] == 0.5
    again = start(OFFLINE, tmp_path, STEP="2", RUN=uid)
    assert again.stdout is not None
    assert again.stdout.readline().strip() == uid
    for name in (uid, own):
        assert steps(name) == [(1, True), (2, False)]
        assert [json.loads(line)["step"] for line in command("tail", name, "loss", "--json").splitlines()] == [1, 2]
        assert json.loads(command("show", name, "--json", "id,waiting,status")) == {
            "id": own, "waiting": 2, "status": "RUNNING",
        }  # fmt: skip
    assert json.loads(command("runs", "-e", experiment, "--json", "id,step")) == [{"id": own, "step": 2}]
    assert json.loads(command("runs", "-e", experiment, "--no-live", "--json", "id,step")) == [{"id": own, "step": 1}]
    finish(again)
    asynctrack.sync()
    assert steps(uid) == [(1, True), (2, True)]


def test_a_reader_goes_on_while_the_server_is_away(experiment: str, sqlite_server: MlflowServer) -> None:
    """It says so once, shows what is logged meanwhile, and each point once; so does `tail -f`."""
    run = asynctrack.start_run(run_name="through")
    run.log_metric("loss", 0.0, 0)
    run.flush()
    follower = Follower(store_for(), run.run_id)
    tail = subprocess.Popen(
        [sys.executable, "-m", "asynctrack", "tail", run.run_id, "-f", "--json", "step"],
        env={**os.environ, "PYTHONPATH": PACKAGE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tail.stdout is not None

    def shown() -> list[int]:
        drive(follower.look())
        return list(follower.series["loss"].columns.steps)

    def state() -> tuple[bool, bool]:
        return isinstance(follower.trouble, UnavailableError), follower.ended

    def printed(count: int) -> list[int]:
        assert tail.stdout is not None
        return [json.loads(tail.stdout.readline())["step"] for _ in range(count)]

    try:
        assert shown() == [0] == printed(1)
        sqlite_server.stop()
        try:
            run.log_metric("loss", 1.0, 1)
            assert printed(1) == [1]
            until(lambda: shown() == [0, 1] and follower.trouble is not None)
            assert state() == (True, False)
            run.log_metric("loss", 2.0, 2)
            assert shown() == [0, 1, 2], "once"
            assert printed(1) == [2]
        finally:
            sqlite_server.start()
        run.log_metric("loss", 3.0, 3)
        run.flush()
        until(lambda: shown() == [0, 1, 2, 3] and follower.series["loss"].stored == 4)
        assert state() == (False, False)
        assert printed(1) == [3]
        run.terminate()
        out, said = tail.communicate(timeout=PATIENCE)
    finally:
        tail.kill()
        tail.communicate()
    assert (out, tail.returncode) == ("", 0)
    assert said.count("only what waits on this machine is shown") == 1
    until(lambda: shown() == [0, 1, 2, 3] and state() == (False, True))


def test_a_shared_run_is_read_as_one_though_the_rank_that_created_it_is_gone(experiment: str, tmp_path: Path) -> None:
    common = {"WORLD_SIZE": "2", "ASYNCTRACK_JOB": fresh("job"), "EXPERIMENT": experiment}
    ranks = [start(RANK, tmp_path, RANK=str(rank), ASYNCTRACK_MODE=("online", "offline")[rank], **common)
             for rank in range(2)]  # fmt: skip
    try:
        ids = [rank.stdout.readline().strip() for rank in ranks if rank.stdout is not None]
        found = drive(look(store_for(), ids[1]))
        assert sorted((value, step) for step, _, value in found["loss"].columns.rows()) == [
            (float(rank), step) for rank in range(2) for step in range(10)
        ]
        assert (found["loss"].stored, found.run.info.run_name, found.ended) == (10, "together", False)
        [listed] = drive(find_runs(store_for(), [experiment]))
        assert (listed.stored, listed.waiting) == (True, 10)
    finally:
        for rank in ranks:
            finish(rank)

"""``mode="offline"`` leaves everything in the spool, and `asynctrack sync` delivers it: real programs, real signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.experiments import choose_experiment
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.locks import is_held
from asynctrack.journal.owner import read_owner
from tests import faults
from tests.fault.programs import LIMIT, PACKAGE, finish, line_for
from tests.fault.shipping import Place, start_command, until
from tests.mlruns import only_run
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

OFFLINE = {"ASYNCTRACK_MODE": "offline"}

#: two runs, one inside the other, with everything that can be logged
EVERYTHING = """
import asynctrack
asynctrack.set_experiment("{experiment}")
with asynctrack.start_run(run_name="outer") as outer:
    outer.log_params({{"lr": 0.1, "layers": 3}})
    with asynctrack.start_run(run_name="inner", nested=True) as inner:
        log_some(inner, 1500)
        inner.log_text("hello", "notes/hello.txt")
    outer.set_tag("team", "vision")
    outer.flush()
    print(outer.run_id, outer.stats().pending)
    for question in (lambda: outer.info, lambda: asynctrack.search_runs(), lambda: asynctrack.get_run("1" * 32)):
        try:
            question()
        except asynctrack.UnavailableError as error:
            print(error)
"""


@pytest.fixture
def place(sqlite_server: MlflowServer, tmp_path: Path) -> Place:
    """A real MLflow server."""
    return Place(tmp_path, sqlite_server)


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """The file store."""
    return Place(tmp_path, None)


def shipped(place: Place, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """What `asynctrack sync --json` says."""
    result = place.asynctrack("sync", *arguments, "--json", **environment)
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


# ── offline


def test_offline_nothing_is_sent_and_sync_delivers_everything(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """Experiments by name, nested runs, params, tags, artifacts; the run's questions are answered at once."""
    with FaultProxy(sqlite_server.url) as proxy:
        place = Place(tmp_path, sqlite_server, proxy.url)
        experiment = place.environment.pop("MLFLOW_EXPERIMENT_NAME")
        result = place.run(EVERYTHING.format(experiment=experiment), **OFFLINE)
        assert result.returncode == 0, result.stderr
        assert (proxy.connections, proxy.requests) == (0, [])
        uid, *said = result.stdout.splitlines()
        assert len(uid.split()[0]) == 32
        assert "is offline" in said[0]
        assert "asynctrack sync" in said[0]
        assert [line.startswith('mode="offline"') for line in said[1:]] == [True, True]
        (spool,) = place.spools()
        command = f"`asynctrack sync {spool}` delivers them."
        assert result.stderr == f"asynctrack: offline: 1,504 events for {proxy.url} wait in {spool}. {command}\n"
        # With the very same environment, which says offline.
        (shipment,) = shipped(place, str(spool), **OFFLINE)
        assert (shipment["state"], shipment["rejected"], shipment["left"]) == ("delivered", 0, 0)
    outer, inner = sorted(support.runs_of(sqlite_server, experiment), key=lambda run: len(named(sqlite_server, run)))
    if named(sqlite_server, outer) == "inner":
        outer, inner = inner, outer
    found = support.stored(sqlite_server, outer)
    assert (found.status, found.params, found.tags["team"]) == ("FINISHED", {"lr": "0.1", "layers": "3"}, "vision")
    found = support.stored(sqlite_server, inner)
    assert found.points == [("loss", step, step * 0.25) for step in range(1500)]
    assert (found.status, found.tags["mlflow.parentRunId"]) == ("FINISHED", outer)
    assert [path.read_text() for path in sqlite_server.folder.glob(f"artifacts/*/{inner}/**/hello.txt")] == ["hello"]
    assert place.spools() == []


def named(server: MlflowServer, run_id: str) -> str:
    return support.stored(server, run_id).tags["mlflow.runName"]


def test_an_experiment_chosen_offline_is_remembered_as_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id, or all but its id, only the server knows: what is unknown is empty, and may be passed on as it is."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")  # which is set, and restored after the test
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    asynctrack.configure(mode="offline")
    chosen = asynctrack.set_experiment("vision")
    assert (chosen.name, chosen.experiment_id) == ("vision", "")
    assert choose_experiment(None, None) == choose_experiment(chosen.experiment_id, None) == (None, "vision")
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "vision"
    assert asynctrack.set_experiment(experiment_id=7).experiment_id == "7"
    assert choose_experiment(None, None) == ("7", None)
    assert choose_experiment(None, "given") == (None, "given")


def test_an_existing_run_is_taken_up_offline(place: Place) -> None:
    """By its id, which the server has given it."""
    place.run("import asynctrack\nwith asynctrack.start_run() as run:\n    run.log_metric('loss', 0.0)")
    run_id = place.only_run().run_id
    result = place.run(
        f"import asynctrack\nwith asynctrack.start_run(run_id='{run_id}') as run:\n"
        "    assert run.run_id == '" + run_id + "'\n    run.log_metric('loss', 0.25, 1)",
        **OFFLINE,
    )
    assert result.returncode == 0, result.stderr
    assert shipped(place)[0]["state"] == "delivered"
    assert place.only_run().points == [("loss", 0, 0.0), ("loss", 1, 0.25)]


@pytest.mark.parametrize("store", ["files", "place"])
def test_an_offline_program_s_forked_child_logs_to_the_same_run(store: str, request: pytest.FixtureRequest) -> None:
    """Although nobody has created that yet; each has a spool of its own."""
    place: Place = request.getfixturevalue(store)
    result = place.run(
        """
import asynctrack
run = asynctrack.start_run()
run.log_metric("parent", 1.0)
if os.fork() == 0:
    run.log_metric("child", 2.0)
    sys.exit(0)
os.wait()
run.log_metric("parent", 3.0, 1)
""",
        **OFFLINE,
    )
    assert result.returncode == 0, result.stderr
    assert [shipment["state"] for shipment in shipped(place)] == ["delivered"] * 2
    assert place.only_run().points == [("child", 0, 2.0), ("parent", 0, 1.0), ("parent", 1, 3.0)]
    assert place.only_run().status == "FINISHED"


def test_a_killed_offline_program_s_run_is_delivered_as_killed(files: Place) -> None:
    result = files.run(
        "import asynctrack\nrun = asynctrack.start_run()\nlog_some(run)\nos.kill(os.getpid(), signal.SIGKILL)",
        **OFFLINE,
    )
    assert result.returncode == -signal.SIGKILL
    (shipment,) = shipped(files)
    assert (shipment["state"], shipment["delivered"]) == ("delivered", 5000)
    assert (len(files.only_run().points), files.only_run().status) == (5000, "KILLED")


# ── beside a program that runs

STEPS = """
import asynctrack
with asynctrack.start_run() as run:
    for step in range(3000):
        run.log_metric("loss", step * 0.25, step)
        if step % 1000 == 999:
            print("waits", flush=True)
            sys.stdin.readline()
"""
POINTS = [("loss", step, step * 0.25) for step in range(3000)]


def test_beside_a_running_offline_program_sync_ships_what_is_there_and_can_be_repeated(place: Place) -> None:
    """Each time what is new; the last sync, after its end, ends the run and deletes the spool."""
    process = place.start(STEPS, **OFFLINE)
    assert process.stdin is not None
    for turn in range(3):
        line_for(process)
        (shipment,) = shipped(place)
        assert (shipment["state"], shipment["delivered"]) == ("up to date", 1000)
        assert place.only_run().points == POINTS[: 1000 * (turn + 1)]
        assert place.only_run().status == "RUNNING"
        print("go on", file=process.stdin, flush=True)
    assert finish(process).returncode == 0
    (shipment,) = shipped(place)
    assert (shipment["state"], shipment["delivered"]) == ("delivered", 0)
    assert (place.only_run().points, place.only_run().status) == (POINTS, "FINISHED")
    assert place.spools() == []


@pytest.mark.parametrize("ending", ["end", "SIGKILL"])
def test_watch_follows_a_running_offline_program_to_its_end(ending: str, files: Place) -> None:
    """And ends the run that it could not end."""
    process = files.start(STEPS, **OFFLINE)
    assert process.stdin is not None
    line_for(process)
    sync = start_command(files.folder, "sync", "--watch", "--json")
    until(lambda: [run.points for run in files.found()] == [POINTS[:1000]], "it is delivered")
    print("go on", file=process.stdin, flush=True)
    until(lambda: [run.points for run in files.found()] == [POINTS[:2000]], "what is new is delivered")
    assert sync.poll() is None
    line_for(process)
    if ending == "SIGKILL":
        process.kill()
    else:
        process.stdin.write("go on\ngo on\n")
    finish(process)
    result = finish(sync)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["state"] == "delivered"
    run = files.only_run()
    assert (run.points, run.status) == ((POINTS, "FINISHED") if ending == "end" else (POINTS[:2000], "KILLED"))
    assert files.spools() == []


def test_watch_does_not_give_up_on_the_store_while_the_program_runs(files: Place) -> None:
    """However short the patience with a store that does not answer."""
    obstacle = files.folder / "disk"
    obstacle.write_text("a file where a folder should be")
    uri = {"MLFLOW_TRACKING_URI": str(obstacle / "mlruns")}
    process = files.start(STEPS, **OFFLINE, **uri)
    line_for(process)
    sync = start_command(files.folder, "sync", "--watch", "--timeout", "0.1", "--json")
    until(partial(is_tried, files), "it has been tried")
    assert sync.poll() is None
    obstacle.unlink()
    process.communicate("go on\ngo on\ngo on\n", timeout=LIMIT)
    result = finish(sync)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["state"] == "delivered"
    assert (len(only_run(obstacle / "mlruns").metrics["loss"]), files.spools()) == (3000, [])


def is_tried(files: Place) -> bool:
    """Whether somebody has taken the spool into his hands for a while."""
    (spool,) = files.spools()
    return is_held(str(spool)) == (True, True)


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_program_that_delivers_itself_is_left_alone(shipper: str, files: Place) -> None:
    """Busy, it is said; the program goes on as if nothing had been."""
    process = files.start(STEPS, ASYNCTRACK_SHIPPER=shipper)
    line_for(process)
    until(lambda: (files.folder / "mlruns").exists(), "it delivers")
    (shipment,) = shipped(files)
    assert (shipment["state"], shipment["delivered"]) == ("busy", 0)
    process.communicate("go on\ngo on\ngo on\n", timeout=LIMIT)
    assert process.returncode == 0
    assert (files.only_run().points, files.only_run().status) == (POINTS, "FINISHED")


# ── interrupted, repeated, twice at once

MANY = """
import asynctrack
with asynctrack.start_run(run_name="many") as run:
    log_some(run, {count})
"""


def test_interrupted_by_ctrl_c_every_event_is_there_once(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """SIGINT, in the middle of sending, three times; then to the end."""
    with FaultProxy(sqlite_server.url) as proxy:
        place = Place(tmp_path, sqlite_server, proxy.url)
        place.run(MANY.format(count=20_000), **OFFLINE)
        proxy.always(faults.Delay(after=0.2), path="log-batch")
        for turn in range(1, 4):
            sent = len(proxy.requests_to("log-batch"))
            sync = start_command(tmp_path, "sync")
            until(partial(has_sent, proxy, sent + 2), "it is sending")
            sync.send_signal(signal.SIGINT)
            result = finish(sync)
            assert result.returncode == 130, (turn, result.stderr)
            assert "the next sync goes on from there" in result.stderr
            assert "Traceback" not in result.stderr
        proxy.heal()
        (shipment,) = shipped(place)
    assert shipment["state"] == "delivered"
    assert place.only_run().points == [("loss", step, step * 0.25) for step in range(20_000)]
    assert place.only_run().status == "FINISHED"


def has_sent(proxy: FaultProxy, count: int) -> bool:
    return len(proxy.requests_to("log-batch")) >= count


def test_killed_syncs_leave_no_doubles_in_a_file_store(files: Place) -> None:
    """SIGKILL, at moments of its own choice."""
    count = 200_000
    files.run(MANY.format(count=count), **OFFLINE)
    for _ in range(3):
        size = stored_bytes(files)
        sync = start_command(files.folder, "sync")
        until(partial(has_written, sync, files, size), "it is writing")
        sync.kill()
        finish(sync)
    if files.spools():
        assert shipped(files)[0]["state"] == "delivered"
    assert files.only_run().points == [("loss", step, step * 0.25) for step in range(count)]
    assert files.spools() == []


def has_written(sync: subprocess.Popen[str], files: Place, size: int) -> bool:
    return sync.poll() is not None or stored_bytes(files) > size


def stored_bytes(files: Place) -> int:
    return sum(path.stat().st_size for path in (files.folder / "mlruns").rglob("loss"))


def test_two_syncs_at_once_share_the_spools_and_double_nothing(files: Place) -> None:
    """One has a spool, for the other it is busy."""
    for _ in range(4):
        files.run(MANY.format(count=20_000), **OFFLINE)
    both = [start_command(files.folder, "sync", "--json") for _ in range(2)]
    results = [finish(sync) for sync in both]
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert files.spools() == []
    assert [run.points for run in files.found()] == [[("loss", step, step * 0.25) for step in range(20_000)]] * 4
    states = [entry["state"] for result in results for entry in json.loads(result.stdout)]
    assert states.count("delivered") == 4
    assert set(states) <= {"delivered", "busy"}


# ── other hosts


def test_a_spool_of_another_host_is_taken_for_a_living_program_s_until_its_end_is_vouched_for(files: Place) -> None:
    """Over a network file system a free lock proves nothing: what is there is shipped, and the spool stays."""
    files.run("import asynctrack\nrun = asynctrack.start_run()\nlog_some(run, 700)\nos._exit(0)", **OFFLINE)
    (spool,) = files.spools()
    owner = read_owner(str(spool))
    assert owner is not None
    (spool / "owner").write_bytes(encode_frame(owner._replace(host="elsewhere")))
    (shipment,) = shipped(files)
    assert (shipment["state"], shipment["delivered"]) == ("up to date", 700)
    assert files.only_run().status == "RUNNING"
    assert spool.exists()
    (shipment,) = shipped(files, "--owner-gone")
    assert (shipment["state"], shipment["delivered"]) == ("delivered", 0)
    assert (len(files.only_run().points), files.only_run().status) == (700, "KILLED")
    assert not spool.exists()


# ── on a terminal


def test_a_person_at_a_terminal_sees_a_progress_bar_and_a_summary(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    with FaultProxy(sqlite_server.url) as proxy:
        place = Place(tmp_path, sqlite_server, proxy.url)
        place.run(MANY.format(count=10_000), **OFFLINE)
        proxy.always(faults.Delay(after=0.1), path="log-batch")
        shown = on_a_terminal("sync", tmp_path)
    assert "delivering" in shown
    assert "/10000" in shown.replace("10002", "10000")
    assert "10,000 events delivered to" in shown
    assert "Traceback" not in shown


def on_a_terminal(command: str, folder: Path) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "TERM": "xterm", "COLUMNS": "100"}
    arguments = [sys.executable, "-m", "asynctrack", command]
    with subprocess.Popen(arguments, cwd=folder, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break  # the other end is closed: the program has ended
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()

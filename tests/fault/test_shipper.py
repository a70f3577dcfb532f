"""``shipper="process"``: a process of its own delivers, whatever becomes of the program that logs, and then leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import asynctrack
from asynctrack.stores.base import Refusal
from tests import faults
from tests.exchange import Exchange
from tests.fault.programs import check_counted, finish, line_for
from tests.fault.shipping import Place, kernel_tells_how_the_dead_ended, shippers, until
from tests.faults import Fault
from tests.mlruns import StoredRun, only_run
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

PROCESS = {"ASYNCTRACK_SHIPPER": "process"}

#: 2000 points, two params, a tag
LOG = """
import asynctrack
run = asynctrack.start_run()
run.log_params({"lr": 0.1, "layers": 3})
run.set_tag("team", "vision")
log_some(run, 2000)
"""
POINTS = [("loss", step, step * 0.25) for step in range(2000)]


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The file store, and a real MLflow server."""
    server = request.getfixturevalue("sqlite_server") if request.param == "server" else None
    place = Place(tmp_path, server)
    place.environment |= PROCESS
    return place


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """The file store, which would keep what is delivered twice."""
    place = Place(tmp_path, None)
    place.environment |= PROCESS
    return place


def gone(place: Place) -> bool:
    return not place.shippers() and not place.spools()


# ── the ends of a program


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("run.terminate()", 0, "FINISHED"),
        ("", 0, "FINISHED"),
        ("sys.exit(3)", 3, "FINISHED"),
        ("raise ValueError", 1, "FAILED"),
        ("os._exit(0)", 0, "by itself"),
        ("os._exit(3)", 3, "by itself"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "KILLED"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "KILLED"),
    ],
    ids=["terminate", "end of script", "sys.exit", "exception", "os._exit(0)", "os._exit(3)", "SIGKILL", "SIGTERM"],
)
def test_however_a_program_ends_the_shipper_delivers_everything_with_an_honest_status_and_leaves(
    end: str, code: int, status: str, files: Place
) -> None:
    """A plain exit without an end of the run is FAILED, where the kernel tells (Linux 6.15); else KILLED."""
    if status == "by itself":
        status = "FAILED" if kernel_tells_how_the_dead_ended() else "KILLED"
    result = files.run(LOG + end)
    assert result.returncode == code, result.stderr
    until(lambda: gone(files), "the shipper is gone, and so is the spool")
    run = files.only_run()
    assert (run.points, run.params, run.status) == (POINTS, {"lr": "0.1", "layers": "3"}, status)
    assert run.tags["team"] == "vision"


@pytest.mark.parametrize("ending", ["run.terminate()", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["end", "SIGKILL"])
def test_a_server_gets_everything_too(ending: str, sqlite_server: MlflowServer, tmp_path: Path) -> None:
    place = Place(tmp_path, sqlite_server)
    place.run(LOG + ending, **PROCESS)
    until(lambda: gone(place), "the shipper is gone, and so is the spool")
    run = place.only_run()
    assert (run.points, run.params) == (POINTS, {"lr": "0.1", "layers": "3"})
    assert run.status == ("KILLED" if "SIGKILL" in ending else "FINISHED")


def test_a_zombie_that_nobody_waits_for_has_ended_by_itself(files: Place) -> None:
    """Launchers wait for their workers late, and in a container often nobody does."""
    process = files.start(LOG + "os._exit(0)")
    until(lambda: files.folder.joinpath("mlruns").exists() and gone(files), "the shipper is gone")
    assert files.only_run().status == "FAILED"
    finish(process)


def test_killed_under_load_nothing_is_lost_or_doubled(place: Place) -> None:
    """The program logs as fast as it can, and pauses as training does, when SIGKILL comes."""
    process = place.start(
        """
import asynctrack
returned = counted()
run = asynctrack.start_run()
print(run.run_id, flush=True)
step = 0
while True:
    for _ in range(200):
        run.log_metric(("m0", "m1", "m2", "m3")[step % 4], step * 0.25, step)
        step += 1
        returned[0] = step
    if step == 4000:
        print("some", flush=True)
    time.sleep(0.002)
"""
    )
    line_for(process)
    line_for(process)
    process.kill()
    finish(process)
    until(lambda: gone(place), "the shipper is gone, and so is the spool")
    run = place.only_run()
    points: dict[str, list[tuple[int, float, int]]] = {}
    for key, step, value in run.points:
        points.setdefault(key, []).append((0, value, step))
    acknowledged = int.from_bytes((place.folder / "acknowledged").read_bytes(), "little")
    check_counted(StoredRun("", "", {}, points, {}, {}), acknowledged)
    assert run.status == "KILLED"


def test_ctrl_c_in_the_terminal_does_not_end_the_shipper(files: Place) -> None:
    """It goes to the whole process group; the program ends its run, the shipper delivers that."""
    process = files.start("os.setpgid(0, 0)" + LOG + "print('ready', flush=True)\ntime.sleep(60)")
    line_for(process)
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in finish(process).stderr
    until(lambda: gone(files), "the shipper is gone")
    assert (files.only_run().points, files.only_run().status) == (POINTS, "KILLED")


def test_when_the_whole_group_is_killed_the_next_program_s_shipper_delivers(files: Place) -> None:
    """A job's end takes the shipper along: it recovers what is in the spool folder as an engine does."""
    process = files.start("open('block', 'w').close()" + LOG + "print('ready', flush=True)\ntime.sleep(60)")
    line_for(process)
    (shipper,) = files.shippers()
    process.kill()
    os.kill(shipper, signal.SIGKILL)
    finish(process)
    result = files.run("with asynctrack.start_run(run_name='next'): pass")
    until(lambda: gone(files), "everything is delivered")
    (run,) = [run for run in files.found() if run.tags["mlflow.runName"] != "next"]
    assert (run.points, run.status) == (POINTS, "KILLED"), result.stderr


# ── the shipper's own end


def test_a_shipper_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(place: Place) -> None:
    """Twice, in the middle of sending."""
    process = place.start(
        """
import asynctrack
with asynctrack.start_run() as run:
    run.log_params({"lr": 0.1, "layers": 3})
    print("begun", flush=True)
    for step in range(2000):
        run.log_metric("loss", step * 0.25, step)
        if step % 500 == 499:
            print("go on", flush=True)
            sys.stdin.readline()
    assert run.stats().accepted == run.stats().delivered + run.stats().pending
    run.flush()
    assert run.stats().delivered >= 2000, run.stats()
"""
    )
    assert process.stdin is not None
    line_for(process)
    killed: set[int] = set()  # one that is dying may be seen once more
    for turn in range(4):
        line_for(process)
        if turn in (1, 2):
            until(lambda: set(place.shippers()) - killed, "there is a shipper")
            (shipper,) = set(place.shippers()) - killed
            os.kill(shipper, signal.SIGKILL)
            killed.add(shipper)
        print("go on", file=process.stdin, flush=True)
    result = finish(process)
    assert result.returncode == 0, result.stderr
    assert "has ended (status -9); starting another. Nothing in " in result.stderr
    assert (place.only_run().points, place.only_run().status) == (POINTS, "FINISHED")
    assert place.only_run().params == {"lr": "0.1", "layers": "3"}
    until(lambda: gone(place), "the shipper is gone")


def test_a_killed_shipper_is_noticed_by_a_program_that_ignores_the_ends_of_its_children(files: Place) -> None:
    """There the kernel says of every child that it has ended well."""
    process = files.start(
        """
import asynctrack
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
run = asynctrack.start_run()
log_some(run, 500)
run.flush()
print("flushed", flush=True)
sys.stdin.readline()
for step in range(500, 1000):
    run.log_metric("loss", step * 0.25, step)
"""
    )
    assert process.stdin is not None
    line_for(process)
    (shipper,) = files.shippers()
    os.kill(shipper, signal.SIGKILL)
    print("go on", file=process.stdin, flush=True)
    result = finish(process)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    until(lambda: gone(files), "the shipper is gone, and with it the spool")
    assert (files.only_run().points, files.only_run().status) == (POINTS[:1000], "FINISHED")


# ── children


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_have_shippers_of_their_own(method: str, files: Place) -> None:
    program = f"""
import asynctrack, multiprocessing
def work(run_id, part):
    asynctrack.start_run(run_id=run_id, nested=True).log_metric("part", part, part)
if __name__ == "__main__":
    with asynctrack.start_run() as run:
        run.flush()
        children = [multiprocessing.get_context("{method}").Process(target=work, args=(run.run_id, n)) for n in (1, 2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0]
        run.log_metric("loss", 1.0)
"""
    (files.folder / "train.py").write_text(program)
    result = files.run("import runpy; runpy.run_path('train.py', run_name='__main__')") if method == "fork" else None
    if result is None:
        command = "import subprocess; sys.exit(subprocess.run([sys.executable, 'train.py']).returncode)"
        result = files.run(command)
    assert result.returncode == 0, result.stderr
    until(lambda: gone(files), "all shippers are gone")
    assert files.only_run().points == [("loss", 0, 1.0), ("part", 1, 1.0), ("part", 2, 2.0)]


def test_a_forked_child_delivers_through_a_shipper_of_its_own(place: Place) -> None:
    """It logs to its parent's run; neither waits for the other's shipper, and no warning is shown."""
    result = place.run(
        """
import asynctrack, warnings
warnings.simplefilter("error")
run = asynctrack.start_run()
run.log_metric("parent", 1.0)
run.flush()
if os.fork() == 0:
    run.log_metric("child", 2.0)
    run.flush()
    sys.exit(0)
os.wait()
run.log_metric("parent", 3.0, 1)
run.terminate()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    until(lambda: gone(place), "both shippers are gone")
    assert place.only_run().points == [("child", 0, 2.0), ("parent", 0, 1.0), ("parent", 1, 3.0)]
    assert place.only_run().status == "FINISHED"


# ── what the program sees


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This very process has a shipper."""
    asynctrack.configure(shipper="process", flush_interval=0.05, connect_timeout=30.0)


def test_everything_a_run_can_be_asked_is_answered_as_with_the_thread(
    process: None, sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """Id, info, stats, flush, artifacts; many times over, with nothing new in between."""
    name = support.fresh()
    with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=name, run_name="r") as run:
        assert support.runs_of(sqlite_server, name) == [run.run_id]
        assert (run.info.run_id, run.info.run_name, run.info.status) == (run.run_id, "r", "RUNNING")
        for step in range(100):
            run.log_metric("loss", step * 0.25, step)
        receipt = run.log_text("hello", "notes/hello.txt")
        receipt.wait()
        for _ in range(5):
            run.flush(timeout=support.PATIENCE)
        stats = run.stats()
        assert (stats.accepted, stats.delivered, stats.pending, stats.rejected) == (101, 101, 0, 0)
        assert shippers(tmp_path)
    asynctrack.shutdown()
    found = support.stored(sqlite_server, run.run_id)
    assert (len(found.points), found.status) == (100, "FINISHED")
    assert not shippers(tmp_path)


def test_refused_events_are_raised_by_flush_and_handed_to_on_error(process: None, tmp_path: Path) -> None:
    """The function runs in this process, with what it gets from the thread."""
    refused: list[tuple[str, Refusal]] = []
    asynctrack.configure(on_error=lambda run_id, refusal: refused.append((run_id, refusal)))
    with asynctrack.start_run() as run:
        os.makedirs(f"mlruns/0/{run.run_id}/metrics/taken")
        run.log_metric("taken", 0.5, 7, 123)
        run.log_metric("fine", 1.0)
        with pytest.raises(asynctrack.DeliveryError, match=r"refused 1 events: metric 'taken'.*rejected\.jsonl"):
            run.flush()
        run.flush()
        assert run.stats().rejected == 1
        until(lambda: refused, "on_error is called")
        run.log_metric("taken", float("nan"), 8, 124)
    asynctrack.shutdown()
    assert [(run_id, refusal[:2]) for run_id, refusal in refused] == [(run.run_id, ("metric", "taken"))] * 2
    assert refused[0][1].value == (123, 7, 0.5)
    assert "taken" in refused[0][1].reason
    assert only_run(tmp_path / "mlruns").metrics["fine"][0][1:] == (1.0, 0)


def test_a_run_that_the_store_refuses_raises_on_entry(process: None) -> None:
    with pytest.raises(asynctrack.NotFoundError, match="999"), asynctrack.start_run(experiment_id="999"):
        pass


def test_a_server_that_is_down_at_the_start_and_comes_back_later(
    process: None, sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The block is entered as soon as that is known, and training goes on."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.refuse()
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=(name := support.fresh())) as run:
            took = support.log_events(run, 2000)
            until(lambda: run.stats().retries > 0, "stats() says that it is being tried")
            assert run.stats().last_error
            proxy.heal()
        asynctrack.shutdown()
    support.assert_quick(took)
    (run_id,) = support.runs_of(sqlite_server, name)
    support.assert_all_stored(sqlite_server, run_id, 2000)


def test_unreachable_raises_where_that_is_wanted(process: None, sqlite_server: MlflowServer) -> None:
    asynctrack.configure(on_unreachable="raise", connect_timeout=2.0, close_timeout=0.5)
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.refuse()
        with (
            pytest.raises(asynctrack.UnavailableError, match="could not be created"),
            asynctrack.start_run(tracking_uri=proxy.url),
        ):
            pass
        asynctrack.shutdown()


def test_wrong_credentials_raise_and_another_shipper_gets_the_mended_ones(
    process: None, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process's environment cannot be changed from outside."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "expired")

    class Checked(Fault):
        async def act(self, exchange: Exchange) -> None:
            good = exchange.record.header("authorization") == "Bearer good"
            await (exchange.relay() if good else faults.unauthorized().act(exchange))

    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(Checked())
        run = asynctrack.start_run(tracking_uri=proxy.url, experiment_name=(name := support.fresh()), wait=False)
        with pytest.raises(asynctrack.AuthenticationError, match="MLFLOW_TRACKING_TOKEN"):
            _ = run.info
        run.log_metric("loss", 1.0)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "good")
        run.flush(timeout=support.PATIENCE)
        run.terminate()
        asynctrack.shutdown()
    (run_id,) = support.runs_of(sqlite_server, name)
    assert support.stored(sqlite_server, run_id).points == [("loss", 0, 1.0)]


def test_a_token_function_keeps_the_thread(process: None, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """It cannot be handed to another process."""
    asynctrack.configure(token=lambda: "secret")
    with asynctrack.start_run():
        assert not shippers(tmp_path)
    assert "a token function cannot be handed to a shipper process; a thread delivers instead" in caplog.text


def test_credentials_reach_the_shipper_through_its_environment_alone(
    sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """Those in the tracking URI too: nothing of them is in its arguments, in the spool, or in what is said."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.refuse()
        host = proxy.url.removeprefix("http://")
        place = Place(tmp_path, sqlite_server, f"http://ada:s3cr3t%21@{host}")
        process = place.start(LOG + "print('ready', flush=True)\ninput()\nrun.terminate()", **PROCESS)
        line_for(process)
        until(place.shippers, "there is a shipper")
        (shipper,) = place.shippers()
        until(lambda: list(tmp_path.glob(".asynctrack/*/cursor")), "the shipper has tried")
        assert b"s3cr3t" not in Path(f"/proc/{shipper}/cmdline").read_bytes()
        assert b"s3cr3t" in Path(f"/proc/{shipper}/environ").read_bytes()
        kept = [path for path in (tmp_path / ".asynctrack").rglob("*") if path.is_file()]
        assert len(kept) > 4
        assert not [path for path in kept if b"s3cr3t" in path.read_bytes()]
        proxy.heal()
        _, said = process.communicate("go on\n", timeout=support.PATIENCE)
        assert "s3cr3t" not in said
        assert {record.header("authorization") for record in proxy.requests} == {"Basic YWRhOnMzY3IzdCE="}
    until(lambda: gone(place), "the shipper is gone")
    assert place.only_run().points == POINTS


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_program_that_logs_a_little_all_the_time_is_delivered_in_batches(
    shipper: str, sqlite_server: MlflowServer
) -> None:
    """A request every ``flush_interval``, not one for whatever was logged while the last was under way."""
    asynctrack.configure(shipper=shipper, flush_interval=0.25, connect_timeout=30.0)
    with FaultProxy(sqlite_server.url) as proxy:
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            run.flush(timeout=support.PATIENCE)
            started = time.monotonic()
            for step in range(1500):
                run.log_metric("loss", step * 0.25, step)
                time.sleep(0.001)
            took = time.monotonic() - started
            requests = len(proxy.requests_to("log-batch"))
        asynctrack.shutdown()
    assert len(support.stored(sqlite_server, run.run_id).points) == 1500
    # None at all would be a flusher that only works at the end.
    assert 1 <= requests <= took / 0.25 + 3


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_run_that_fell_behind_beside_an_idle_one_catches_up_without_another_look(
    shipper: str, sqlite_server: MlflowServer
) -> None:
    """While others have room, what has none is read later: when there is room, not when it is time to look."""
    asynctrack.configure(shipper=shipper, flush_interval=600.0, connect_timeout=30.0)
    asynctrack.set_tracking_uri(sqlite_server.url)
    with asynctrack.start_run(experiment_name=support.fresh()), asynctrack.start_run(nested=True) as run:
        for step in range(10_000):
            run.log_metric("loss", step * 0.25, step)
        run.flush(timeout=support.PATIENCE)
        assert len(support.stored(sqlite_server, run.run_id).points) == 10_000


# ── a server that goes away in the middle of a run


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_server_that_goes_away_and_comes_back_gets_everything_in_order_without_a_restart(
    shipper: str, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Params and tags arrive in the order in which they were logged; the log calls notice nothing."""
    support.impatient(monkeypatch)
    asynctrack.configure(shipper=shipper)
    with FaultProxy(sqlite_server.url) as proxy:
        back = threading.Timer(1.0, proxy.heal)
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            took = support.log_events(run, at={8000: proxy.refuse, 8500: back.start})
            back.join()
        asynctrack.shutdown()
        params = [item["key"] for record in proxy.requests_to("log-batch") for item in record.json().get("params", ())]
    run_id = run.run_id
    support.assert_all_stored(sqlite_server, run_id)
    in_order = list(dict.fromkeys(params))  # a batch whose answer was lost is sent again
    assert in_order == [f"p{step}" for step in range(0, support.EVENTS, 1000)]
    support.assert_quick(took)


def test_a_program_that_dies_while_the_server_is_away_is_delivered_by_its_shipper_once_it_is_back(
    sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    with FaultProxy(sqlite_server.url) as proxy:
        place = Place(tmp_path, sqlite_server, proxy.url)
        proxy.refuse()
        result: subprocess.CompletedProcess[str] = place.run(LOG + "os.kill(os.getpid(), signal.SIGKILL)", **PROCESS)
        assert result.returncode == -signal.SIGKILL
        assert place.shippers()
        proxy.heal()
        until(lambda: gone(place), "the shipper is gone")
    assert (place.only_run().points, place.only_run().status) == (POINTS, "KILLED")

"""A run that is only logged to, by its id, rests when nothing is logged: its spool goes, and comes again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.errors import RunEndedError
from asynctrack.runs.active import attached_run
from asynctrack.runs.faces import AttachedRun
from asynctrack.runs.log import RunLog
from asynctrack.tracking import get_service
from tests.fault.programs import run as run_program
from tests.fault.programs import spools
from tests.mlruns import StoredRun, read_runs
from tests.unit.engine.test_own import LIMIT, engine_threads, until


@pytest.fixture
def rests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 0.0)
    monkeypatch.setattr("asynctrack.engine.own._RESTS_AFTER", 0.0)
    monkeypatch.setattr("asynctrack.engine.local._SLEEPS_AFTER", 0.0)
    asynctrack.configure(flush_interval=0.02)


@pytest.fixture
def fast_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def a_run(store: Path) -> str:
    service = get_service(str(store))
    return service.create_run(service.create_experiment("vision")).info.run_id


def stored(store: Path) -> StoredRun:
    (run,) = read_runs(store).values()
    return run


def steps(run: StoredRun, key: str = "loss") -> list[int]:
    return sorted(step for _, _, step in run.metrics[key])


def test_a_run_that_nothing_is_logged_to_costs_no_thread_and_no_file(rests_at_once: None, tmp_path: Path) -> None:
    """However many stores a program logs to by run ids."""
    attached_run(a_run(tmp_path / "first"), str(tmp_path / "first")).log_metric("loss", 0.0)
    until(lambda: not engine_threads(), "the thread has ended")
    files = len(os.listdir("/proc/self/fd"))
    for number in range(12):
        store = tmp_path / f"store{number}"
        attached_run(a_run(store), str(store)).log_metric("loss", 0.0)
    until(lambda: not engine_threads(), "the threads have ended")
    assert spools(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert [steps(stored(tmp_path / f"store{number}")) for number in range(12)] == [[0]] * 12


def test_it_comes_again_with_whatever_is_logged_next(rests_at_once: None, tmp_path: Path) -> None:
    run_id = a_run(tmp_path / "mlruns")
    service = get_service(str(tmp_path / "mlruns"))
    run = attached_run(run_id, str(tmp_path / "mlruns"))

    def rest() -> None:
        until(lambda: not spools(tmp_path) and not engine_threads(), "the run rests")

    run.log_metric("loss", 0.0, 0)
    rest()
    run.log_metric("loss", 1.0, 1)
    rest()
    run.log_metrics({"loss": 2.0, "accuracy": 0.5}, 2)
    rest()
    run.set_tag("phase", "eval")
    rest()
    run.log_param("lr", 0.1)
    rest()
    receipt = run.log_text("text", "a.txt")
    rest()
    receipt.wait(LIMIT)
    service.log_metric(run_id, "loss", 3.0, step=3)
    service.set_terminated(run_id)
    found = stored(tmp_path / "mlruns")
    assert (steps(found), steps(found, "accuracy")) == ([0, 1, 2, 3], [2])
    assert (found.tags["phase"], found.params, found.status) == ("eval", {"lr": "0.1"}, "FINISHED")
    assert [path.read_text() for path in (tmp_path / "mlruns").glob("*/*/artifacts/a.txt")] == ["text"]


def resting_run(tmp_path: Path) -> AttachedRun:
    """One with a point, and no spool."""
    run = asynctrack.attach(a_run(tmp_path / "mlruns"), str(tmp_path / "mlruns"))
    run.log_metric("loss", 0.0, 0)
    until(lambda: not spools(tmp_path), "the run rests")
    return run


def test_whoever_leaves_while_it_rests_needs_no_spool(
    rests_at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resting_run(tmp_path)
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 1e9)
    run.detach()
    assert spools(tmp_path) == []
    with pytest.raises(RunEndedError):
        run.log_metric("loss", 0.0, 1)


def test_a_spool_that_came_again_goes_as_soon_as_it_is_left(
    rests_at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are kept for a moment, for the runs that may follow."""
    run = resting_run(tmp_path)
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 1e9)
    monkeypatch.setattr("asynctrack.engine.own._RESTS_AFTER", 1e9)
    run.log_metric("loss", 0.0, 1)
    assert len(spools(tmp_path)) == 1
    run.detach()
    assert spools(tmp_path) == []
    assert steps(stored(tmp_path / "mlruns")) == [0, 1]


def test_it_counts_what_it_logged_before(rests_at_once: None, tmp_path: Path) -> None:
    run = attached_run(a_run(tmp_path / "mlruns"), str(tmp_path / "mlruns"))
    for turn in range(3):
        run.log_metrics({"a": 1.0, "b": 2.0}, turn)
        run.log_text("text", f"{turn}.txt")
        until(lambda: not spools(tmp_path), "the run rests")
        assert (run.stats().accepted, run.stats().delivered, run.stats().pending) == (3 * turn + 3, 3 * turn + 3, 0)


def test_what_is_logged_just_when_it_comes_to_rest_is_not_lost(
    rests_at_once: None, fast_switching: None, tmp_path: Path
) -> None:
    """Threads that log to runs of one store in their own time, while its spool goes and comes."""
    service = get_service(str(tmp_path / "mlruns"))
    experiment = service.create_experiment("vision")
    runs = [service.create_run(experiment).info.run_id for _ in range(3)]
    failed: list[BaseException] = []
    folders = set()

    def work(run: RunLog, number: int) -> None:
        try:
            for step in range(60):
                run.log_metric(f"one{number}", 1.0, step)
                run.log_metrics({f"two{number}": 1.0, f"three{number}-{step}": 2.0}, step)
                if step % 10 == 0:
                    run.set_tag(f"tag{number}", step)
                    run.log_text(str(step), f"{number}/{step}.txt")
                folders.update(spools(tmp_path))
                time.sleep(0.001 * (step * (number + 3) % 40))
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(attached_run(runs[number % 3], str(tmp_path / "mlruns")), number))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert failed == []
    asynctrack.shutdown()
    assert len(folders) > 1, "it never rested"
    found = read_runs(tmp_path / "mlruns")
    for number in range(4):
        run = found[runs[number % 3]]
        assert steps(run, f"one{number}") == steps(run, f"two{number}") == list(range(60))
        assert [steps(run, f"three{number}-{step}") for step in range(60)] == [[step] for step in range(60)]
        assert run.tags[f"tag{number}"] == "50"
        texts = (tmp_path / "mlruns").glob(f"*/{run.run_id}/artifacts/{number}/*.txt")
        assert sorted(int(path.read_text()) for path in texts) == list(range(0, 60, 10))
    assert spools(tmp_path) == []


#: `run` is logged to by CALL, which finds it at rest when it has converted `slow`. Meanwhile `other` has had the next
#: spool made, TURNS times
SLOW = """
import asynctrack, os, signal, sys, time, warnings
from asynctrack.engine import own
from asynctrack.runs.active import attached_run
own._LEAST = own._RESTS_AFTER = 0.0
asynctrack.configure(flush_interval=0.02)
service = asynctrack.tracking.get_service()
experiment = service.create_experiment("vision")
run, other = (attached_run(service.create_run(experiment, run_name=name).info.run_id) for name in ("run", "other"))
def at_rest():
    while not (run._state._rest.begun and other._state._rest.begun):
        time.sleep(0.01)
class Slow:
    "Waits for the GPU, the first time."
    def __init__(self):
        self.waits = True
    def __index__(self):
        if self.waits:
            self.waits = False
            at_rest()
            for turn in range(TURNS):
                own._RESTS_AFTER = 0.0 if turn + 1 < TURNS else 1e9
                other.log_metric("loss", 1.0, turn + 1)
                if turn + 1 < TURNS:
                    at_rest()
            own._RESTS_AFTER = 1e9
        return 1
    def __float__(self):
        return float(self.__index__())
run.log_metrics({"epoch": 0.0, "lr": 0.0, "loss": 0.0}, 0)
other.log_metric("loss", 0.0, 0)
slow = Slow()
CALL
os.kill(os.getpid(), signal.SIGKILL)
"""

SYNC = "import runpy, sys; sys.argv[1:] = ['sync']; runpy.run_module('asynctrack', run_name='__main__')"


@pytest.mark.parametrize("turns", [0, 1, 2], ids=["alone", "beside_another", "beside_another_that_rests_too"])
@pytest.mark.parametrize(
    ("call", "keys"),
    [
        ('run.log_metrics({"epoch": 1.0, "lr": 1.0, "loss": slow}, 1)', ["epoch", "loss", "lr"]),
        ('run.log_metrics({"epoch": slow, "new": 1.0, "lr": 1.0}, 1)', ["epoch", "lr", "new"]),
        ('run.log_metrics({"lr": 1.0, "loss": 1.0}, slow)', ["loss", "lr"]),
        ('run.log_metric("loss", 1.0, slow)', ["loss"]),
        ('run.log_metric("loss", slow, 1)', ["loss"]),
        ('run.log_metric("loss", 1.0, 1, slow)', ["loss"]),
    ],
)
def test_what_a_call_has_logged_that_took_its_time_is_delivered_by_whoever_comes(
    call: str, keys: list[str], turns: int, tmp_path: Path
) -> None:
    """It had looked some metrics up before the run came to rest; right after it the process is killed. What it wrote
    stands for something to every reader, and not to this process alone."""
    result = run_program(SLOW.replace("TURNS", str(turns)).replace("CALL", call), tmp_path)
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "")
    result = run_program(SYNC, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    found = {run.tags["mlflow.runName"]: run for run in read_runs(tmp_path / "mlruns").values()}
    assert [key for key in found["run"].metrics if 1 in steps(found["run"], key)] == keys
    assert steps(found["other"]) == list(range(turns + 1))
    assert list(tmp_path.glob(".asynctrack/*/*.slots")) == []


def test_a_call_in_whose_middle_the_process_forks_logs_in_parent_and_child(tmp_path: Path) -> None:
    program = """
        import asynctrack, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: of a fork beside a thread
        class Forks:
            def __float__(self):
                global child
                child = os.fork()
                return float(child == 0)
        with asynctrack.start_run() as run:
            run.log_metrics({"lr": 0.0, "loss": 0.0, "acc": 0.0}, 0)
            run.log_metrics({"lr": 1.0, "loss": Forks(), "acc": 1.0}, 1)
            if child == 0:
                asynctrack.shutdown()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    result = run_program(program, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    found = stored(tmp_path / "mlruns")
    assert [steps(found, key) for key in ("lr", "acc")] == [[0, 1]] * 2  # both have logged the same
    assert sorted((step, value) for _, value, step in found.metrics["loss"]) == [(0, 0.0), (1, 0.0), (1, 1.0)]


def test_a_child_forked_while_it_rests_logs_to_it(tmp_path: Path) -> None:
    program = """
        import asynctrack, os, time, warnings
        from asynctrack.engine import own
        from asynctrack.runs.active import attached_run
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: of a fork beside a thread
        own._RESTS_AFTER = 0.0
        asynctrack.configure(flush_interval=0.02)
        service = asynctrack.tracking.get_service()
        run_id = service.create_run(service.create_experiment("vision")).info.run_id
        run = attached_run(run_id)
        run.log_metric("loss", 0.0, 0)
        while not run._state._rest.begun:
            time.sleep(0.01)
        child = os.fork()
        run.log_metric("loss", 1.0, 1 if child else 2)
        if child == 0:
            asynctrack.shutdown()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    result = run_program(program, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(stored(tmp_path / "mlruns")) == [0, 1, 2]
    assert spools(tmp_path) == []


def test_after_the_engines_end_it_does_not_come_again(rests_at_once: None, tmp_path: Path) -> None:
    run = attached_run(a_run(tmp_path / "mlruns"), str(tmp_path / "mlruns"))
    run.log_metric("loss", 0.0)
    until(lambda: not spools(tmp_path), "the run rests")
    asynctrack.shutdown()
    with pytest.raises(asynctrack.RunEndedError):
        run.log_metric("loss", 1.0)
    assert spools(tmp_path) == []

"""Workers that log to the run of the program that has started them: by every method, with exact counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.programs import PACKAGE, finish
from tests.mlruns import only_run

#: a module, as spawn and forkserver want it
PROGRAM = """
import multiprocessing, os, sys, time
import asynctrack

def by_object(run, worker):
    for step in range(200):
        run.log_metric(f"worker{worker}", 0.5, step)
    run.flush()

def by_function(worker):
    for step in range(200):
        asynctrack.log_metric(f"worker{worker}", 0.5, step)
    asynctrack.flush_async_logging()

def waits(run, worker):
    by_object(run, worker)
    run.log_metric(f"worker{worker}", 0.5, 200)
    print("logged", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    method, how = sys.argv[1:]
    context = multiprocessing.get_context(method)
    with asynctrack.start_run() as run:
        os.environ["ASYNCTRACK_ATTACH"] = run.run_id
        target, args = {"object": (by_object, (run,)), "function": (by_function, ())}[how]
        workers = [context.Process(target=target, args=(*args, number)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        run.log_metric("parent", 1.0)
"""


def start(folder: Path, *arguments: str, code: str = PROGRAM) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PACKAGE, "MLFLOW_TRACKING_URI": str(folder / "mlruns")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", ["object", "function"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_log_to_the_run_of_their_parent(method: str, how: str, tmp_path: Path) -> None:
    """With the run object itself, or, where the environment names it, with functions; it is one run, which the parent
    ends."""
    if (method, how) == ("fork", "function"):
        pytest.skip("a forked worker knows the parent's run without being told: tests/fault/test_fork.py")
    result = finish(start(tmp_path, method, how))
    assert (result.returncode, result.stderr) == (0, "")
    run = only_run(tmp_path / "mlruns")
    assert run.status == "FINISHED"
    assert set(run.metrics) == {"worker0", "worker1", "worker2", "parent"}
    for worker in range(3):
        assert sorted(step for *_, step in run.metrics[f"worker{worker}"]) == list(range(200))


#: joblib's workers, of loky, get a task's arguments by cloudpickle, stay for the next task, and are killed in the end
JOBLIB = """
import asynctrack, joblib

def task(run, number):
    for step in range(100):
        run.log_metric("loss", number + step / 128, step)

if __name__ == "__main__":
    with asynctrack.start_run() as run:
        tasks = [joblib.delayed(task)(run, number) for number in range(6)]
        tasks += [joblib.delayed(lambda number: run.log_metric("closure", number, number))(n) for n in range(6)]
        joblib.Parallel(n_jobs=2, backend="loky")(tasks)
        run.flush(workers=True)
        print(len(asynctrack.get_metric_history(run.run_id, "loss")), flush=True)
"""


def test_joblibs_workers_log_to_the_run_that_they_are_given(tmp_path: Path) -> None:
    """As an argument, or in a closure; and the parent can wait for them, although they are idle and alive."""
    pytest.importorskip("joblib")
    result = finish(start(tmp_path, code=JOBLIB))
    assert (result.returncode, result.stdout, result.stderr) == (0, "600\n", "")
    run = only_run(tmp_path / "mlruns")
    assert run.status == "FINISHED"
    assert sorted(value for _, value, _ in run.metrics["loss"]) == [
        n + step / 128 for n in range(6) for step in range(100)
    ]
    assert sorted(step for *_, step in run.metrics["closure"]) == list(range(6))


TERMINATED = (
    PROGRAM.split("if __name__")[0]
    + """
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    run = asynctrack.start_run()
    worker = context.Process(target=waits, args=(run, 0))
    worker.start()
    print(worker.pid, run.run_id, flush=True)
    worker.join()
    print("worker", worker.exitcode, flush=True)
    run.log_metric("parent", 1.0)
    run.terminate()
"""
)


def test_a_worker_that_is_terminated_delivers_and_leaves_the_run_open(tmp_path: Path) -> None:
    program = start(tmp_path, code=TERMINATED)
    assert program.stdout is not None
    pid, run_id = program.stdout.readline().split()
    assert program.stdout.readline() == "logged\n"
    os.kill(int(pid), signal.SIGTERM)
    assert program.stdout.readline() == f"worker {-signal.SIGTERM}\n"
    result = finish(program)
    assert (result.returncode, result.stderr) == (0, "")
    run = only_run(tmp_path / "mlruns")
    assert (run.run_id, run.status) == (run_id, "FINISHED")
    assert sorted(step for *_, step in run.metrics["worker0"]) == list(range(201))
    assert len(run.metrics["parent"]) == 1


WAITED_FOR = """
import asyncio, multiprocessing, os, signal, sys, time
import asynctrack

def worker(run, logged, ends_by):
    if isinstance(run, tuple):
        run = asynctrack.attach(*run)
    for step in range(200):
        run.log_metric("worker", 0.5, step)
    logged.set()
    if ends_by:
        os.kill(os.getpid(), ends_by)
    time.sleep(600)

if __name__ == "__main__":
    ends_by, timeout, awaited, moved = map(int, sys.argv[1:])
    context = multiprocessing.get_context("spawn")
    run = asynctrack.start_run()
    logged = context.Event()
    handle = (run.run_id, os.path.abspath("mlruns")) if moved else run
    process = context.Process(target=worker, args=(handle, logged, ends_by))
    if moved:
        run.flush()  # it can be attached to
        os.makedirs("elsewhere")
        os.chdir("elsewhere")
    process.start()
    logged.wait()
    if ends_by == signal.SIGKILL:
        process.join()
    try:
        if awaited:
            asyncio.run(asynctrack.AsyncActiveRun(run._state).flush(timeout, workers=True))
        else:
            run.flush(timeout, workers=True)
        print(len(asynctrack.get_service().get_metric_history(run.run_id, "worker")), flush=True)
    except asynctrack.FlushTimeoutError as error:
        print(error, flush=True)
    process.kill()
    process.join()
    run.terminate()
"""


@pytest.mark.parametrize("awaited", [0, 1], ids=["blocking", "awaited"])
@pytest.mark.parametrize("ends_by", [0, signal.SIGKILL], ids=["lives", "killed"])
def test_a_parent_can_wait_for_what_its_workers_have_logged(ends_by: int, awaited: int, tmp_path: Path) -> None:
    """For what a killed worker has left, too."""
    result = finish(start(tmp_path, str(int(ends_by)), "50", str(awaited), "0", code=WAITED_FOR))
    assert (result.returncode, result.stdout) == (0, "200\n"), result.stderr


def test_a_parent_waits_for_a_worker_whose_spool_is_in_another_place(tmp_path: Path) -> None:
    """As those of workers in another folder are, Ray's too."""
    result = finish(start(tmp_path, str(int(signal.SIGKILL)), "50", "0", "1", code=WAITED_FOR))
    assert (result.returncode, result.stdout) == (0, "200\n"), result.stderr


def test_a_parent_waits_for_its_workers_no_longer_than_it_wants(tmp_path: Path) -> None:
    """A worker that is stopped delivers nothing, unless it did so within the moment before."""
    result = finish(start(tmp_path, str(int(signal.SIGSTOP)), "1", "0", "0", code=WAITED_FOR))
    assert result.returncode == 0, result.stderr
    assert "not everything that other processes had logged" in result.stdout or result.stdout == "200\n"

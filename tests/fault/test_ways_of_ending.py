"""However a program ends, what its log calls accepted is in the store, once, and the run's status is honest."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fault import programs
from tests.mlruns import only_run, read_runs

LOG = """
import asynctrack
def log(run, count=5000):
    for step in range(count):
        run.log_metric("loss", step * 0.5, step)
    run.log_params({"lr": 0.1, "opt": {"name": "sgd"}})
    run.set_tag("team", "vision")
"""


def check_complete(folder: Path, status: str, count: int = 5000) -> None:
    run = only_run(folder / "mlruns")
    assert [(step, value) for _, value, step in run.metrics["loss"]] == [(i, i * 0.5) for i in range(count)]
    assert run.params == {"lr": "0.1", "opt.name": "sgd"}
    assert run.tags["team"] == "vision"
    assert run.status == status
    assert (run.meta["end_time"] is not None) == (status != "RUNNING")
    assert programs.spools(folder) == [], "everything is delivered, yet a spool is left"


@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [
        ("with asynctrack.start_run() as run:\n    log(run)", "FINISHED", 0),
        ("log(asynctrack.start_run())", "FINISHED", 0),
        ("import sys\nlog(asynctrack.start_run())\nsys.exit()", "FINISHED", 0),
        ("import sys\nwith asynctrack.start_run() as run:\n    log(run)\n    sys.exit(3)", "FAILED", 3),
        ("log(asynctrack.start_run())\nraise ValueError('mine')", "FAILED", 1),
        ("with asynctrack.start_run() as run:\n    log(run)\n    raise ValueError('mine')", "FAILED", 1),
        ("log(asynctrack.start_run())\nraise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        ("with asynctrack.start_run() as run:\n    log(run)\n    raise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        ("run = asynctrack.start_run()\nlog(run)\nrun.terminate('FAILED')", "FAILED", 0),
    ],
    ids=[
        "end of block", "plain end of script", "sys.exit", "sys.exit(3) in a block", "uncaught exception",
        "exception in a block", "KeyboardInterrupt", "KeyboardInterrupt in a block", "terminate",
    ],
)  # fmt: skip
def test_everything_logged_is_delivered(ending: str, status: str, code: int, tmp_path: Path) -> None:
    """Leaving a block, ending the script, an exit code, an exception: all events arrive, with an honest status."""
    result = programs.run(LOG + ending, tmp_path)
    # CPython exits with 1 after a KeyboardInterrupt when some thread was importing a module just then.
    assert result.returncode == code or (code, result.returncode) == (-signal.SIGINT, 1), result.stderr
    check_complete(tmp_path, status)
    if "mine" in ending:
        assert "ValueError: mine" in result.stderr  # the user's own exception is what the user sees
    else:
        assert "asynctrack" not in result.stderr or code == -signal.SIGINT, result.stderr


def test_the_blocks_own_exception_is_not_replaced(tmp_path: Path) -> None:
    """An exception leaves the block as it is."""
    result = programs.run(
        "import asynctrack\ntry:\n    with asynctrack.start_run():\n        1 / 0\n"
        "except ZeroDivisionError as error:\n    print('same', error)",
        tmp_path,
    )
    assert result.stdout == "same division by zero\n", result.stderr


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_cancelled_task_leaves_its_run_killed_and_complete(library: str, tmp_path: Path) -> None:
    """A task cancelled inside its `async with` block: everything delivered, status KILLED, the cancellation goes on."""
    asyncio_program = """
        import asyncio
        async def work():
            async with asynctrack.start_run() as run:
                log(run)
                await asyncio.sleep(60)
        async def main():
            task = asyncio.create_task(work())
            await asyncio.sleep(0.3)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled")
        asyncio.run(main())
    """
    trio_program = """
        import trio
        async def main():
            with trio.move_on_after(0.3) as scope:
                async with asynctrack.start_run() as run:
                    log(run)
                    await trio.sleep(60)
            print("cancelled" if scope.cancelled_caught else "not cancelled")
        trio.run(main)
    """
    import textwrap

    program = asyncio_program if library == "asyncio" else trio_program
    result = programs.run(LOG + textwrap.dedent(program), tmp_path)
    assert result.stdout == "cancelled\n", result.stderr
    check_complete(tmp_path, "KILLED")


def test_a_loop_closed_under_the_run(tmp_path: Path) -> None:
    """A run left open when its loop is closed is delivered when the interpreter ends."""
    program = """
async def main():
    log(asynctrack.start_run())
import asyncio
asyncio.run(main())
"""
    result = programs.run(LOG + program, tmp_path)
    assert result.returncode == 0, result.stderr
    check_complete(tmp_path, "FINISHED")


def test_a_daemon_thread_still_logging(tmp_path: Path) -> None:
    """A daemon thread that logs to the very end: every call that returned is delivered, and nobody sees a traceback."""
    program = """
        import asynctrack, sys, threading, time
        run = asynctrack.start_run()
        counts = [0]
        def work():
            while True:
                run.log_metric("loss", 1.0, counts[0])
                counts[0] += 1
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        import atexit
        # Registered last, so it runs first; what is counted here is logged before asynctrack shuts down.
        atexit.register(lambda: print(counts[0], flush=True))
    """
    result = programs.run(program, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    steps = [step for _, _, step in only_run(tmp_path / "mlruns").metrics["loss"]]
    assert steps == list(range(len(steps)))
    assert len(steps) >= int(result.stdout) > 1000


def test_an_exception_in_a_thread_does_not_matter(tmp_path: Path) -> None:
    """A thread that dies while logging loses nothing it had logged, nor anybody else's events."""
    program = """
import threading
run = asynctrack.start_run()
def work():
    log(run)
    raise ValueError("thread")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    result = programs.run(LOG + program, tmp_path)
    assert result.returncode == 0, result.stderr
    check_complete(tmp_path, "FINISHED")


def test_eight_threads_lose_nothing(tmp_path: Path) -> None:
    """8 threads x 50,000 events on one run: each event arrives once, each thread's in order."""
    program = """
        import asynctrack, threading
        with asynctrack.start_run() as run:
            def work(number):
                for step in range(50_000):
                    run.log_metric(f"t{number}", 1.0, step)
            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            run.flush()
            print(run.stats().accepted, run.stats().delivered)
    """
    result = programs.run(program, tmp_path)
    assert result.stdout.split() == ["400000", "400000"], result.stderr
    metrics = only_run(tmp_path / "mlruns").metrics
    assert {name: [step for _, _, step in points] for name, points in metrics.items()} == {
        f"t{number}": list(range(50_000)) for number in range(8)
    }


def test_os_exit_keeps_everything_for_the_next_start(tmp_path: Path) -> None:
    """`os._exit` skips every handler: what was logged is in the spool, and the next program delivers it, once."""
    program = "import os\nwith asynctrack.start_run() as run:\n    log(run)\n    os._exit(7)"
    result = programs.run(LOG + program, tmp_path)
    assert result.returncode == 7
    assert len(programs.spools(tmp_path)) == 1
    programs.recover(tmp_path)
    runs = read_runs(tmp_path / "mlruns")
    (dead,) = [run for run in runs.values() if "loss" in run.metrics]
    assert [step for _, _, step in dead.metrics["loss"]] == list(range(5000))
    assert (dead.status, dead.params, dead.tags["team"]) == ("KILLED", {"lr": "0.1", "opt.name": "sgd"}, "vision")
    assert programs.spools(tmp_path) == []


def test_a_forked_child_logs_to_its_parents_run(tmp_path: Path) -> None:
    """After a fork both processes log to the run; only the parent ends it; nothing is lost or doubled."""
    program = """
        import asynctrack, os
        with asynctrack.start_run() as run:
            for step in range(3000): run.log_metric("before", 1.0, step)
            child = os.fork()
            if child == 0:
                for step in range(3000): run.log_metric("child", 2.0, step)
                run.log_param("from", "child")
                run.flush()
                os._exit(0)
            for step in range(3000): run.log_metric("parent", 3.0, step)
            os.waitpid(child, 0)
    """
    result = programs.run(program, tmp_path)
    assert result.returncode == 0, result.stderr
    run = only_run(tmp_path / "mlruns")
    for name in ("before", "child", "parent"):
        assert [step for _, _, step in run.metrics[name]] == list(range(3000)), name
    assert (run.status, run.params) == ("FINISHED", {"from": "child"})


def test_a_multiprocessing_child_delivers_before_it_ends(tmp_path: Path) -> None:
    """`multiprocessing` ends a forked child without atexit: what it logged is delivered all the same, in time."""
    program = """
        import asynctrack, multiprocessing
        run = asynctrack.start_run()
        run.log_metric("parent", 1.0)
        def work():
            for step in range(3000): run.log_metric("child", 2.0, step)
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        print(child.exitcode)
    """
    result = programs.run(program, tmp_path)
    assert result.stdout == "0\n", result.stderr
    run = only_run(tmp_path / "mlruns")
    assert [step for _, _, step in run.metrics["child"]] == list(range(3000))
    assert run.status == "FINISHED"
    assert programs.spools(tmp_path) == []


def test_a_store_that_cannot_be_written_ends_in_time_and_keeps_everything(tmp_path: Path) -> None:
    """With the store out of order a program ends within its deadline, says where its events are, and the next program
    delivers them."""
    (tmp_path / "disk").write_text("a file where a folder should be")
    where = str(tmp_path / "disk" / "mlruns")
    result = programs.run(
        LOG + "log(asynctrack.start_run())", tmp_path,
        MLFLOW_TRACKING_URI=where, ASYNCTRACK_CLOSE_TIMEOUT="1.5", ASYNCTRACK_FLUSH_INTERVAL="0.1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert ".asynctrack" in result.stderr
    assert "Traceback" not in result.stderr
    (tmp_path / "disk").unlink()
    programs.recover(tmp_path, MLFLOW_TRACKING_URI=where)
    runs = [run for run in read_runs(tmp_path / "disk" / "mlruns").values() if "loss" in run.metrics]
    assert [step for _, _, step in runs[0].metrics["loss"]] == list(range(5000))
    assert runs[0].status == "FINISHED"  # the program had ended it

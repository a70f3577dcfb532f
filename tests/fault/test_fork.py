"""Processes made from processes: each has a spool and an engine of its own, and they log to one run."""

from __future__ import annotations

import pytest

from tests.fault.programs import Lab, steps

#: since Python 3.12 os.fork warns where threads run, as ours does; multiprocessing's fork does it all the same
FORK = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


@pytest.mark.parametrize("first", ["child", "parent"])
def test_a_fork_in_the_middle_of_a_flush(first: str, lab: Lab) -> None:
    """While another thread logs and flushes, forked at several moments: every child logs to the run too, and whoever
    ends first, all events arrive, once, and only the parent ends the run."""
    program = f"""
        first = {first!r}
        asynctrack.configure(flush_interval=0.01, segment_bytes=65536)
        with asynctrack.start_run() as run:
            done = threading.Event()
            def work():
                step = 0
                while not done.is_set():
                    run.log_metric("parent", step * 0.25, step)
                    run.log_param(f"p{{step}}", step)
                    step += 1
                    if step % 50 == 0:
                        run.flush()
                print(step, flush=True)
            thread = threading.Thread(target=work)
            thread.start()
            children = []
            for number in range(5):
                time.sleep(0.03)
                child = os.fork()
                if child == 0:
                    if first == "parent":
                        while os.getppid() == parent: time.sleep(0.01)
                    log_some(run, 3000, f"child{{number}}")
                    run.log_param(f"child{{number}}", "yes")
                    run.flush()
                    os._exit(0)
                children.append(child)
            if first == "child":
                codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
                assert codes == [0] * 5, codes
            done.set()
            thread.join()
    """
    result = lab.run(
        program.replace("children = []", "children, parent = [], os.getpid()"), **FORK, ASYNCTRACK_CLOSE_TIMEOUT="20"
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    count = int(result.stdout)
    stored = lab.only_run()
    assert steps(stored, "parent") == list(range(count))
    for number in range(5):
        assert steps(stored, f"child{number}") == list(range(3000))
        assert stored.params[f"child{number}"] == "yes"
    assert stored.status == "FINISHED"


def test_a_forked_child_that_is_killed_keeps_its_events(lab: Lab) -> None:
    """The child's spool is an orphan like any other's; the run stays its parent's to end."""
    program = """
        with asynctrack.start_run() as run:
            log_some(run)
            child = os.fork()
            if child == 0:
                log_some(run, 3000, "child")
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
            log_some(run, 100, "after")
    """
    result = lab.run(program, **FORK)
    assert result.returncode == 0, result.stderr
    lab.recover()
    stored = lab.only_run()
    assert (steps(stored), steps(stored, "child")) == (list(range(5000)), list(range(3000)))
    assert steps(stored, "after") == list(range(100))
    assert stored.status == "FINISHED"
    assert lab.spools() == []


def test_a_child_that_logs_nothing_leaves_nothing(lab: Lab) -> None:
    """A forked worker that never logs makes no spool, ends no run, and ends at once, by whatever way."""
    program = """
        import multiprocessing
        with asynctrack.start_run() as run:
            log_some(run)
            for ending in (lambda: os._exit(0), lambda: sys.exit(0)):
                child = os.fork()
                if child == 0:
                    ending()
                os.waitpid(child, 0)
            worker = multiprocessing.get_context("fork").Process(target=int)
            worker.start()
            worker.join()
            print(len(os.listdir(".asynctrack")) - 1, worker.exitcode)  # .gitignore is one
            run.log_metric("after", 1.0)
    """
    result = lab.run(program, **FORK)
    assert result.stdout == "1 0\n", result.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "FINISHED")
    assert "after" in lab.only_run().metrics


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_deliver_before_they_end(method: str, lab: Lab) -> None:
    """Workers of all three kinds log to the parent's run by its id and to runs of their own, which nobody ends. Some
    end without atexit; everything is delivered, and a worker that raised leaves a run that FAILED."""
    script = lab.folder / "train.py"
    script.write_text(
        f"""
import multiprocessing, os, sys
import asynctrack
from asynctrack.run import attached_run

def work(run_id, number):
    run = attached_run(run_id)
    for step in range(3000):
        run.log_metric(f"worker{{number}}", step * 0.25, step)
    if number == 0:
        own = asynctrack.start_run(run_name="own", nested=True)
        own.log_metric("own", 1.0)
    else:
        asynctrack.start_run(run_name="raised", nested=True).log_metric("own", 1.0)
        raise ValueError("mine")

if __name__ == "__main__":
    with asynctrack.start_run(run_name="parent") as run:
        run.flush()
        context = multiprocessing.get_context({method!r})
        workers = [context.Process(target=work, args=(run.run_id, number)) for number in range(2)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        print([worker.exitcode for worker in workers])
"""
    )
    # spawn and forkserver want a script, which their children load again.
    result = lab.run("os.execv(sys.executable, [sys.executable, 'train.py'])", **FORK)
    assert result.stdout == "[0, 1]\n", result.stderr
    assert result.stderr.count("Traceback") == 1, result.stderr
    stored = {one.tags["mlflow.runName"]: one for one in lab.runs().values()}
    for number in range(2):
        assert steps(stored["parent"], f"worker{number}") == list(range(3000))
    assert stored["parent"].status == "FINISHED"
    assert (stored["own"].status, len(stored["own"].metrics["own"])) == ("FINISHED", 1)
    assert (stored["raised"].status, len(stored["raised"].metrics["own"])) == ("FAILED", 1)
    assert lab.spools() == []


def test_a_fork_right_after_the_start(lab: Lab) -> None:
    """The background thread is still importing what it needs; nobody sees a traceback, nor a message of a lock."""
    program = """
        run = asynctrack.start_run()
        run.log_metric("loss", 0.0, 0)
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        run.terminate()
    """
    for _ in range(3):
        result = lab.run(program, **FORK)
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("late", ["asyncio.tasks", "anyio.abc", "yaml.loader", "asynctrack.artifacts.proxied"])
def test_a_fork_in_the_middle_of_a_late_import(late: str, lab: Lab) -> None:
    """The background thread is just importing something: the child has the whole module, or can import it itself."""
    program = f"""
        class Slow:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == {late!r} and threading.current_thread() is not threading.main_thread():
                    begun.set()
                    time.sleep(0.5)
        begun = threading.Event()
        sys.meta_path.insert(0, Slow)
        with asynctrack.start_run() as run:
            run.log_text("parent", "parent.txt")
            assert {late!r} in sys.modules or begun.wait(20)
            child = os.fork()
            if child == 0:
                run.log_metric("loss", 0.0, 0)
                run.log_text("child", "child.txt").wait(30)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """
    result = lab.run(program, **FORK)
    assert result.returncode == 0, result.stderr
    assert "has died" not in result.stderr
    lab.recover()
    assert steps(lab.only_run()) == [0]
    assert sorted(lab.artifacts()) == ["child.txt", "parent.txt"]
    assert lab.spools() == []

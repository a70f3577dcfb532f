"""Processes made from processes: each has a spool and an engine of its own, and they log to one run."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.fault.programs import COUNTING, ON_FILES, Lab, run, steps

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
from asynctrack.runs.active import attached_run

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


#: imported late by the background thread, with either store: what it runs on, and what it uploads with
LATE = ["anyio", "asynctrack.artifacts.files", "asynctrack.artifacts.local"]


@pytest.mark.parametrize("late", LATE)
def test_a_fork_in_the_middle_of_a_late_import(late: str, lab: Lab) -> None:
    """The background thread is just executing a module: a child that needs it, too, has all of it."""
    program = f"""
        from importlib.machinery import PathFinder
        class Slow:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name != {late!r} or threading.current_thread() is threading.main_thread():
                    return None
                spec = PathFinder.find_spec(name, path, target)
                execute = spec.loader.exec_module
                def slowly(module):
                    begun.set()
                    time.sleep(0.5)
                    execute(module)
                spec.loader.exec_module = slowly
                return spec
        begun = threading.Event()
        sys.meta_path.insert(0, Slow)
        with asynctrack.start_run() as run:
            run.log_text("parent", "parent.txt")
            assert begun.wait(30), "it is not imported late any more"
            child = os.fork()
            if child == 0:
                run.log_metric("loss", 0.0, 0)
                run.log_text("child", "child.txt").wait(30)
                asynctrack.shutdown()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """
    result = lab.run(program, **FORK)
    # An import that the child cannot make throws its background thread out, and the child's end delivers all the same.
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(lab.only_run()) == [0]
    assert sorted(lab.artifacts()) == ["child.txt", "parent.txt"]
    assert lab.spools() == []


#: verbs that import something when they are first called
VERBS = {
    "log_text": "run.log_text('text', 'a.txt')",
    "log_dict": "run.log_dict({'a': 1}, 'a.yaml')",
    "log_image": "run.log_image(__import__('numpy').zeros((2, 2, 3), 'uint8'), key='i', step=1)",
    "get_run": "asynctrack.get_run(run.run_id)",
    "search_runs": "asynctrack.search_runs(output_format='list')",
    "set_experiment": "asynctrack.set_experiment('another')",
    "service": "asynctrack.get_service().log_metric(run.run_id, 'm', 1.0)",
    "client": "asynctrack.MlflowClient().get_run(run.run_id)",
    "server": "asynctrack.get_service('http://127.0.0.1:9')",
    "databricks": "asynctrack.get_service('databricks')",
    "load_dict": "asynctrack.artifacts.list_artifacts(run_id=run.run_id)",
    "sync": "asynctrack.sync()",
}
FORK_WHILE = """
    class Slow:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if threading.current_thread() is worker:
                begun.set()
                time.sleep(0.01)
    begun = threading.Event()
    os.environ |= {"DATABRICKS_HOST": "http://127.0.0.1:9", "DATABRICKS_TOKEN": "x"}
    with asynctrack.start_run() as run:
        run.flush()
        run_id = run.run_id
        def verb():
            VERB
        def in_child():
            code = 1
            try:
                verb()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(code)
        worker = threading.Thread(target=verb)
        sys.meta_path.insert(0, Slow)
        worker.start()
        codes = []
        while worker.is_alive():
            if begun.wait(0.005):
                begun.clear()
                child = os.fork()
                if child == 0:
                    in_child()
                codes.append(os.waitpid(child, 0)[1])
        print(codes)
"""


@ON_FILES
@pytest.mark.parametrize("verb", VERBS)
def test_a_fork_while_another_thread_calls_a_verb_for_the_first_time(verb: str, lab: Lab) -> None:
    """Whatever that imports: a child that is forked in the middle of it calls the verb, and finds whole modules."""
    result = lab.run(FORK_WHILE.replace("VERB", VERBS[verb]), **FORK)
    assert result.returncode == 0, result.stderr
    codes = json.loads(result.stdout)
    assert codes == [0] * len(codes), result.stderr
    assert codes, "nothing was imported late: this verb need not be here"


def test_a_fork_does_not_wait_for_ever_for_an_import(lab: Lab) -> None:
    """Where a thread never comes to the end of one, as in ``python -c "import train"``: some seconds, once."""
    program = """
        with open("for_ever.py", "w") as file:
            file.write("import threading; threading.Event().wait()")
        sys.path.insert(0, os.getcwd())
        with asynctrack.start_run() as run:
            threading.Thread(target=__import__, args=("for_ever",), daemon=True).start()
            while "for_ever" not in sys.modules: time.sleep(0.01)
            seconds = []
            for _ in range(3):
                begun = time.monotonic()
                child = os.fork()
                if child == 0:
                    os._exit(0)
                seconds.append(time.monotonic() - begun)
                os.waitpid(child, 0)
        print(*seconds)
    """
    result = lab.run(program, **FORK)
    assert result.returncode == 0, result.stderr
    first, *others = map(float, result.stdout.split())
    assert first < 10.0
    assert max(others) < 1.0


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_child_that_another_thread_has_forked_ends_with_that_thread(shipper: str, lab: Lab) -> None:
    """It ends without `atexit`, when the function of that thread and its other threads have returned; what it has
    logged by then, artifacts too, is delivered, and no thread of ours keeps it alive."""
    program = """
        run = asynctrack.start_run()
        def late():
            threading.main_thread().join()
            run.log_metric("late", 0.0)
            run.log_text("late", "late.txt")
        def fork():
            child = os.fork()
            if child == 0:
                run.log_metric("child", 0.0)
                run.log_text("child", "child.txt")
                threading.Thread(target=late).start()
                return
            os.waitpid(child, 0)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        run.terminate()
    """
    result = lab.run(program, ASYNCTRACK_SHIPPER=shipper, **FORK)
    assert result.returncode == 0, result.stderr
    assert set(lab.artifacts().values()) == {b"child", b"late"}
    stored = lab.only_run()
    assert (steps(stored, "child"), steps(stored, "late"), stored.status) == ([0], [0], "FINISHED")
    assert not lab.spools()


@ON_FILES
def test_a_run_whose_program_is_killed_before_its_child_logs_is_killed_once_the_child_is_done(lab: Lab) -> None:
    """The child takes over what its parent has left; it does not leave the run RUNNING for ever."""
    program = """
        run = asynctrack.start_run()
        run.flush()
        reader, writer = os.pipe()
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            run.log_metric("child", 0.0)
            run.flush()
            print("logged", flush=True)
            sys.exit(0)
        os.kill(parent, signal.SIGKILL)
    """
    lab.run(program, **FORK)
    stored = lab.only_run()
    assert steps(stored, "child") == [0]
    assert stored.status == "KILLED"
    assert not lab.spools()


@ON_FILES
def test_a_program_that_replaces_itself_keeps_the_runs_last_status(lab: Lab) -> None:
    """``os.execv`` three times into the same program and run: what an earlier one has left does not end it anew."""
    program = """
        turn = int(os.environ.get("TURN", "0"))
        run_id = os.environ.get("RUN")
        run = asynctrack.start_run(run_id=run_id)
        log_some(run, 500, f"turn{turn}")
        run.set_tag("turn", str(turn))
        if turn < 3:
            if turn == 0:
                run.flush()
            os.environ.update(TURN=str(turn + 1), RUN=run.run_id)
            os.execv(sys.executable, [sys.executable, "-c", os.environ["PROGRAM"]])
        run.terminate()
    """
    result = lab.run(program, PROGRAM=COUNTING + textwrap.dedent(program))
    assert result.returncode == 0, result.stderr
    stored = lab.only_run()
    for turn in range(4):
        assert steps(stored, f"turn{turn}") == list(range(500))
    assert (stored.status, stored.tags["turn"]) == ("FINISHED", "3")


@ON_FILES
@pytest.mark.parametrize("first", ["asynctrack.configure()", "run = asynctrack.start_run()"])
def test_a_hook_of_the_programs_own_that_logs_in_the_child(first: str, lab: Lab) -> None:
    """It comes between our own hooks, some of which are there only once a run was started."""
    program = f"""
        {first}
        os.register_at_fork(after_in_child=lambda: run.log_metric("loss", 0.0, 0))
        run = asynctrack.start_run() if "run" not in globals() else run
        run.flush()
        from asynctrack.journal.locks import is_held
        own = run._state.engine.journal.spool.path
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            for step in range(1, 100):
                run.log_metric("loss", step * 0.25, step)
            os.read(reading, 1)
            run.flush()
            os._exit(0)
        deadline = time.monotonic() + 30
        while not (spools := [name for name in os.listdir(os.path.dirname(own)) if f"-{{child}}-" in name]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        path = os.path.join(os.path.dirname(own), spools[0])
        while not os.path.exists(os.path.join(path, "owner")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)  # its hooks are through
        print(is_held(path)[0])
        os.write(writing, b"!")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        run.terminate()
    """
    result = lab.run(program, **FORK, ASYNCTRACK_FLUSH_INTERVAL="60")
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")
    assert steps(lab.only_run()) == list(range(100))


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_before_the_child_has_let_go_of_what_is_its_parents(
    collects: bool, tmp_path: Path
) -> None:
    """A destructor that logs would write to the parent's journal."""
    program = f"""
        import gc, os, sys
        assert "asynctrack" not in sys.modules
        if not {collects}:
            gc.disable()
        seen = []
        os.register_at_fork(after_in_child=lambda: seen.append(gc.isenabled()))
        import asynctrack
        os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
        with asynctrack.start_run() as run:
            run.flush()
            child = os.fork()
            if child == 0:
                os._exit(0 if (seen, gc.isenabled()) == ([False], {collects}) else 1)
            assert (seen, gc.isenabled()) == ([], {collects})
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    result = run(program, tmp_path, **FORK)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr

"""SIGTERM and SIGHUP: a scheduler that takes the machine away gets an honest run and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.fault.programs import COUNTING, PACKAGE, Lab, check_counted, finish, line_for, steps

TRAIN = """
run = asynctrack.start_run()
returned = counted()
print("ready", flush=True)
log_for_ever(run, returned)
"""
#: gives the test the word, and then waits for a signal. In short sleeps: one that comes between Python's last look and
#: the system call does not interrupt it, whoever has set the handler (seen with other threads that hold the GIL)
WAIT = "def wait():\n    print('waiting', flush=True)\n    while True:\n        time.sleep(0.05)\n"
SOON = {"ASYNCTRACK_FLUSH_INTERVAL": "0.1"}
BOTH = pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])


def terminated(lab: Lab, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program up to where it prints that it waits, send SIGTERM, and let it end."""
    process = lab.start(WAIT + textwrap.dedent(code), **environment)
    line_for(process)
    process.send_signal(signal.SIGTERM)
    return finish(process)


def number_of(name: str) -> signal.Signals:
    return signal.Signals[name]


@BOTH
def test_a_signal_delivers_everything_and_the_run_is_killed(name: str, lab: Lab) -> None:
    """Whatever the program was doing: what was logged is in the store, and the exit status says which signal it was."""
    process = lab.start(TRAIN)
    line_for(process)
    process.send_signal(number_of(name))
    result = finish(process)
    assert result.returncode == -number_of(name), result.stderr
    assert "Traceback" not in result.stderr
    assert name in result.stderr
    run = lab.only_run()
    check_counted(run, lab.acknowledged())
    assert run.status == "KILLED"
    assert run.meta["end_time"] is not None
    assert lab.spools() == []


def test_a_signal_at_any_moment_of_a_log_call_ends_the_program_at_once(lab: Lab) -> None:
    """In the middle of a param's lock, of a new metric's, of a roll-over to the next segment, of a start or an end."""
    program = """
        returned = counted()
        asynctrack.configure(segment_bytes=8192, flush_interval=0.01)
        print("ready", flush=True)
        number = 0
        while True:
            with asynctrack.start_run(run_name=f"r{number}") as run:
                for step in range(400):
                    run.log_metric(f"m{step % 7}", step, step)
                    run.log_param(f"p{step}", step)
                    run.set_tag("t", step)
            number += 1
            returned[0] = number
    """
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    slowest = 0.0
    for _ in range(8):
        process = lab.start(program)
        line_for(process)
        time.sleep(moments.uniform(0.0, 0.3))  # the random moment, not a wait for something
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        result = finish(process)
        slowest = max(slowest, time.monotonic() - sent)
        assert result.returncode == -signal.SIGTERM, (seed, result.stderr)
        assert "Traceback" not in result.stderr, (seed, result.stderr)
    lab.recover()
    assert lab.spools() == []
    for run in lab.runs().values():
        assert run.status in ("FINISHED", "KILLED"), (seed, run)
        if run.status == "FINISHED":
            assert sum(map(len, run.metrics.values())) == len(run.params) == 400, seed
    assert slowest < 10.0, f"seed {seed}: {slowest} s; term_timeout is 20 s"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_handler_of_the_users_own_runs_instead(when: str, lab: Lab) -> None:
    """Set before or after the first run is started: it is not replaced, it runs, and the program ends its own way."""
    install = "signal.signal(signal.SIGTERM, lambda *_: (print('mine', flush=True), sys.exit(5)))"
    before, after = (install, "") if when == "before" else ("", install)
    result = terminated(
        lab, f"{before}\nwith asynctrack.start_run() as run:\n    {after}\n    log_some(run)\n    wait()"
    )
    assert (result.returncode, result.stdout) == (5, "mine\n"), result.stderr
    run = lab.only_run()
    assert steps(run) == list(range(5000))
    assert run.status == "FAILED"
    assert lab.spools() == []


def test_a_handler_of_the_users_own_may_go_on_to_the_one_before(lab: Lab) -> None:
    """Chained as careful programs do it: the user's part, then asynctrack's, then the signal's own effect."""
    program = """
        run = asynctrack.start_run()
        log_some(run)
        before = signal.getsignal(signal.SIGTERM)
        def mine(number, frame):
            run.log_metric("last words", 1.0)
            print("mine", flush=True)
            before(number, frame)
        signal.signal(signal.SIGTERM, mine)
        wait()
    """
    result = terminated(lab, program)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "mine\n"), result.stderr
    run = lab.only_run()
    assert steps(run) == list(range(5000))
    assert len(run.metrics["last words"]) == 1
    assert run.status == "KILLED"


def test_the_handler_of_an_event_loop_is_left_alone(lab: Lab) -> None:
    """A service that stops on SIGTERM by itself ends its run itself."""
    program = """
        import asyncio
        async def main():
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            async with asynctrack.start_run() as run:
                log_some(run)
                print("waiting", flush=True)
                await stop.wait()
            print("stopped")
        asyncio.run(main())
    """
    result = terminated(lab, program)
    assert (result.returncode, result.stdout) == (0, "stopped\n"), result.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "FINISHED")


def test_a_signal_while_an_event_loop_runs(lab: Lab) -> None:
    """The run of an asyncio task is delivered and ended; the task never comes back."""
    program = """
        import asyncio
        async def main():
            async with asynctrack.start_run() as run:
                log_some(run)
                print("waiting", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    result = terminated(lab, program)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def test_switched_off_the_signal_kills_as_ever(lab: Lab) -> None:
    """`handle_sigterm=False`: as without asynctrack, and the spool has it all."""
    result = terminated(lab, "run = asynctrack.start_run()\nlog_some(run)\nwait()", ASYNCTRACK_HANDLE_SIGTERM="0")
    assert result.returncode == -signal.SIGTERM
    assert "SIGTERM" not in result.stderr
    assert len(lab.spools()) == 1
    lab.recover()
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def test_nohup_is_respected(lab: Lab) -> None:
    """Where the program ignores SIGHUP it goes on."""
    program = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with asynctrack.start_run() as run:
            log_some(run)
            os.kill(os.getpid(), signal.SIGHUP)
            run.log_metric("after", 1.0)
    """
    result = lab.run(program)
    assert result.returncode == 0, result.stderr
    assert "after" in lab.only_run().metrics
    assert lab.only_run().status == "FINISHED"


def test_a_store_out_of_order_costs_no_more_than_term_timeout(lab: Lab) -> None:
    """Within the deadline the process is gone; it says where its events are, and the next program delivers them."""
    lab, mend = lab.out_of_order()
    process = lab.start(
        f"{WAIT}run = asynctrack.start_run()\nlog_some(run)\nwait()", ASYNCTRACK_TERM_TIMEOUT="1.5", **SOON
    )
    line_for(process)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    result = finish(process)
    assert result.returncode == -signal.SIGTERM
    assert time.monotonic() - sent < 10.0
    assert ".asynctrack" in result.stderr
    mend()
    lab.recover()
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def test_a_second_signal_gives_up_waiting_at_once(lab: Lab) -> None:
    """Whoever sends it again will not wait for a store that does not answer; the spool keeps what is there."""
    lab, mend = lab.out_of_order()
    process = lab.start(f"{WAIT}run = asynctrack.start_run()\nlog_some(run)\nwait()", **SOON)
    line_for(process)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert process.stderr is not None
    while "SIGTERM" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert result.returncode == -signal.SIGTERM
    assert time.monotonic() - sent < 10.0, "term_timeout is 20 s"
    mend()
    lab.recover()
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def test_a_signal_sent_twice_by_a_launcher_still_delivers(lab: Lab) -> None:
    """systemd sends SIGHUP right behind SIGTERM, and torchrun passes on what its workers have got already."""
    process = lab.start(TRAIN)
    line_for(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    result = finish(process)
    assert result.returncode in (-signal.SIGTERM, -signal.SIGHUP)
    lab.recover()
    check_counted(lab.only_run(), lab.acknowledged())
    assert lab.only_run().status == "KILLED"


@pytest.mark.parametrize("ending", ["run.terminate()", "run.flush()", ""], ids=["terminate", "flush", "exit"])
def test_a_signal_while_waiting_for_delivery(ending: str, lab: Lab) -> None:
    """A close, a flush or the interpreter's end that is under way: `term_timeout` takes the place of its deadline."""
    lab, mend = lab.out_of_order()
    program = f"run = asynctrack.start_run()\nlog_some(run)\nprint('waiting', flush=True)\n{ending}"
    process = lab.start(program, ASYNCTRACK_TERM_TIMEOUT="2", **SOON)
    line_for(process)
    time.sleep(0.3)  # it is a moment within the wait of 60 s; any will do
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    time.sleep(0.5)
    mend()  # within the deadline
    result = finish(process)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert time.monotonic() - sent < 15.0
    assert "Traceback" not in result.stderr
    lab.recover()
    assert steps(lab.only_run()) == list(range(5000))
    assert lab.only_run().status == ("KILLED" if ending == "run.flush()" else "FINISHED")


def test_a_run_started_in_another_thread_is_kept(lab: Lab) -> None:
    """Python allows handlers in the main thread only: without one the spool has everything."""
    program = """
        def work():
            log_some(asynctrack.start_run())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        wait()
    """
    result = terminated(lab, program)
    assert result.returncode == -signal.SIGTERM
    lab.recover()
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def test_other_threads_that_log_meanwhile_end_quietly(lab: Lab) -> None:
    """Worker threads in the middle of their loops: what they got logged is delivered, and nobody sees a traceback."""
    program = """
        run = asynctrack.start_run()
        returned = [counted(f"thread{number}") for number in range(3)]
        def work(number):
            step = 0
            while True:
                run.log_metric(f"t{number}", step * 0.25, step)
                step += 1
                returned[number][0] = step
                if step in rest:
                    time.sleep(0.1)
        for number in range(3):
            threading.Thread(target=work, args=(number,)).start()
        time.sleep(0.2)
        wait()
    """
    result = terminated(lab, program)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    for number in range(3):
        stored = steps(lab.only_run(), f"t{number}")
        assert stored == list(range(len(stored)))
        assert len(stored) - lab.acknowledged(f"thread{number}") in (0, 1)


def test_a_forked_worker_that_logs_nothing_dies_at_once(lab: Lab) -> None:
    """As a data loader's worker is ended: the parent's run goes on, unharmed."""
    program = """
        with asynctrack.start_run() as run:
            log_some(run)
            child = os.fork()
            if child == 0:
                while True:
                    time.sleep(60)
            os.kill(child, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            run.log_metric("after", 1.0)
    """
    result = lab.run(program)
    assert (result.returncode, result.stdout) == (0, f"{-signal.SIGTERM}\n"), result.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "FINISHED")
    assert "SIGTERM" not in result.stderr


def test_a_forked_worker_that_logs_delivers_before_it_dies(lab: Lab) -> None:
    """Its events are in the run; the run is its parent's to end."""
    program = """
        with asynctrack.start_run() as run:
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                log_some(run, key="child")
                os.write(theirs, b"x")
                while True:
                    time.sleep(60)
            os.read(ours, 1)
            os.kill(child, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    result = lab.run(program)
    assert (result.returncode, result.stdout) == (0, f"{-signal.SIGTERM}\n"), result.stderr
    assert (steps(lab.only_run(), "child"), lab.only_run().status) == (list(range(5000)), "FINISHED")
    assert lab.spools() == []


def test_the_first_process_of_a_container_ends_too(lab: Lab) -> None:
    """The kernel does not kill an init process by a default action; the exit status is what a shell would say."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a process id namespace")
    script = lab.folder / "program.py"
    script.write_text(COUNTING + WAIT + "run = asynctrack.start_run()\nlog_some(run)\nwait()")
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", sys.executable, str(script)],
        cwd=lab.folder, env={**os.environ, **lab.environment, "PYTHONPATH": PACKAGE},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line_for(process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    result = finish(process)
    assert result.returncode == 128 + signal.SIGTERM, result.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


def ended_run(lab: Lab) -> str:
    """The id of a run that another program has made, and ended."""
    result = lab.run("with asynctrack.start_run() as run:\n    print(run.info.run_id)")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "log",
    [
        "asynctrack.get_service().log_metric(run_id, 'loss', step * 0.25, step=step)",
        "asynctrack.MlflowClient().log_metric(run_id, 'loss', step * 0.25, step=step)",
        "asynctrack.log_metric('loss', step * 0.25, step=step, run_id=run_id)",
    ],
    ids=["service", "client", "fluent"],
)
def test_a_program_that_only_logs_to_a_run_by_its_id_delivers_too(log: str, lab: Lab) -> None:
    """As each rank of a training does that torchrun, Ray or Kubernetes ends. It ends no run, and accuses nobody."""
    run_id = ended_run(lab)
    program = f"run_id = {run_id!r}\nfor step in range(2000):\n    {log}\nwait()"
    result = terminated(lab, program, ASYNCTRACK_FLUSH_INTERVAL="5")
    assert (result.returncode, result.stderr) == (-signal.SIGTERM, "")
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(2000)), "FINISHED")
    assert lab.spools() == [], result.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_pool_that_is_left_deliver_and_are_silent(method: str, lab: Lab) -> None:
    """Leaving ``with Pool()`` sends SIGTERM to workers that log to their parent's run by its id."""
    script = lab.folder / "train.py"
    script.write_text(
        f"""
import multiprocessing
import asynctrack

def work(run_id, number):
    for step in range(500):
        asynctrack.log_metric(f"worker{{number}}", step * 0.25, step, run_id=run_id)
    return number

if __name__ == "__main__":
    asynctrack.configure(flush_interval=5)
    with asynctrack.start_run() as run:
        run.flush()
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            print(pool.starmap(work, [(run.run_id, number) for number in range(4)], chunksize=1))
            workers = list(pool._pool)
        for worker in workers: worker.join()
"""
    )
    result = lab.run("os.execv(sys.executable, [sys.executable, '-W', 'ignore', 'train.py'])")
    assert (result.returncode, result.stdout) == (0, "[0, 1, 2, 3]\n"), result.stderr
    assert result.stderr == ""
    for number in range(4):
        assert steps(lab.only_run(), f"worker{number}") == list(range(500))
    assert lab.only_run().status == "FINISHED"
    assert lab.spools() == [], result.stderr


def test_a_worker_hears_a_signal_that_comes_just_when_it_begins_to_wait(lab: Lab) -> None:
    """Python has noted it, and the system call that has just begun is not interrupted by it: as `WAIT` says. An idle
    worker of a pool that is left would wait for its lock for ever, and the pool for the worker."""
    script = lab.folder / "train.py"
    script.write_text(
        """
import multiprocessing, os, signal
import asynctrack

def work(run_id):
    for step in range(500):
        asynctrack.log_metric("loss", step * 0.25, step, run_id=run_id)
    noted = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(noted)
    os.write(noted, bytes([signal.SIGTERM]))
    multiprocessing.Semaphore(0).acquire()

if __name__ == "__main__":
    asynctrack.configure(flush_interval=5)
    with asynctrack.start_run() as run:
        run.flush()
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(run.run_id,))
        worker.start()
        worker.join()
        print(worker.exitcode)
"""
    )
    result = lab.run("os.execv(sys.executable, [sys.executable, '-W', 'ignore', 'train.py'])")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{-signal.SIGTERM}\n", "")
    assert (steps(lab.only_run()), lab.spools()) == (list(range(500)), [])


@pytest.mark.parametrize("how", ["os.fork()", "None"])
def test_a_child_of_a_worker_is_not_listened_to(how: str, lab: Lab) -> None:
    """Neither one that it forks, whose signals are its own, nor one that it starts."""
    script = lab.folder / "train.py"
    script.write_text(
        f"""
import multiprocessing, os, signal, subprocess, sys, time
import asynctrack

def work(run_id):
    asynctrack.log_metric("loss", 0.0, 0, run_id=run_id)
    assert signal.set_wakeup_fd(-1) != -1
    child = {how}
    if child is None:
        child = subprocess.Popen([sys.executable, "-c", "import time; print('there', flush=True); time.sleep(60)"],
                                 stdout=subprocess.PIPE, close_fds=False)
        child.stdout.readline()
        child.terminate()
        assert child.wait() == -signal.SIGTERM
        child.stdout.close()
        return
    if child == 0:
        assert signal.set_wakeup_fd(-1) == -1
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

if __name__ == "__main__":
    with asynctrack.start_run() as run:
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(run.run_id,))
        worker.start()
        worker.join()
        print(worker.exitcode)
"""
    )
    result = lab.run("os.execv(sys.executable, [sys.executable, '-W', 'ignore', 'train.py'])")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")


OPENING = """
    from importlib.abc import MetaPathFinder
    class Slow(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == "asynctrack.stores.databricks":
                print("waiting", flush=True)
                time.sleep(0.5)
    sys.meta_path.insert(0, Slow())
    os.environ |= {"DATABRICKS_HOST": "http://127.0.0.1:9", "DATABRICKS_TOKEN": "x"}
    def open_another():
        try:
            asynctrack.get_service("databricks").get_run("0" * 32)
        except asynctrack.AsynctrackError:
            pass
"""


@pytest.mark.parametrize("where", ["this", "another"])
def test_a_signal_while_a_store_is_being_opened(where: str, lab: Lab) -> None:
    """By the thread that handles signals or by another one: which imports, and holds locks over that."""
    here = "threading.Thread(target=open_another, daemon=True).start()\n    wait()"
    program = f"""
    run = asynctrack.start_run()
    log_some(run)
    {OPENING.strip()}
    {"open_another()" if where == "this" else here}
    wait()
    """
    process = lab.start(WAIT + textwrap.dedent(program))
    line_for(process)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    result = finish(process)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert time.monotonic() - sent < 10.0, "term_timeout is 20 s"
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")
    assert lab.spools() == [], result.stderr


def test_a_signal_while_the_engine_needs_what_is_half_imported(lab: Lab) -> None:
    """The thread that handles signals is just importing what the first delivery takes: it comes to its end first."""
    program = """
        class Slow:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "asyncio.base_events" and threading.current_thread() is threading.main_thread():
                    print("waiting", flush=True)
                    time.sleep(0.5)
        sys.meta_path.insert(0, Slow)
        run = asynctrack.start_run()
        log_some(run)
        import asyncio
        wait()
    """
    process = lab.start(WAIT + textwrap.dedent(program))
    line_for(process)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    result = finish(process)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert time.monotonic() - sent < 10.0, "term_timeout is 20 s"
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(5000)), "KILLED")


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("asynctrack.journal.frames", "write_all"),
        ("asynctrack.journal.chain", "decide"),
    ],
)
def test_a_signal_in_the_middle_of_the_journals_own_work_costs_no_time(module: str, function: str, lab: Lab) -> None:
    """With the lock held that the engine's thread wants, too: the call comes to its end first."""
    program = f"""
        import importlib
        asynctrack.configure(segment_bytes=8192)
        module = importlib.import_module({module!r})
        real = getattr(module, {function!r})
        def interrupted(*arguments):
            if threading.current_thread() is threading.main_thread():
                setattr(module, {function!r}, real)
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments)
        run = asynctrack.start_run()
        run.flush()
        log_some(run, 50)
        setattr(module, {function!r}, interrupted)
        while True:
            run.log_metric("other", 0)
            run.log_param("p", 1)
            time.sleep(0.001)
    """
    begun = time.monotonic()
    result = lab.run(program)
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert time.monotonic() - begun < 15.0, "term_timeout is 20 s"
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(50)), "KILLED")
    assert lab.spools() == [], result.stderr

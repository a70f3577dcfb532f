"""However a program ends, what its log calls accepted is in the store, once, and the run's status is honest."""

from __future__ import annotations

import signal
import textwrap

import pytest

from tests.fault.programs import Lab, finish, line_for, steps

LOG = """
def log(run, count=5000):
    log_some(run, count)
    run.log_params({"lr": 0.1, "opt": {"name": "sgd"}}, flatten=".")
    run.set_tag("team", "vision")
"""


def check_complete(lab: Lab, status: str, count: int = 5000) -> None:
    run = lab.only_run()
    assert steps(run) == list(range(count))
    assert run.params == {"lr": "0.1", "opt.name": "sgd"}
    assert run.tags["team"] == "vision"
    assert run.status == status
    assert (run.meta["end_time"] is not None) == (status != "RUNNING")
    assert lab.spools() == [], "everything is delivered, yet a spool is left"


@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [
        ("with asynctrack.start_run() as run:\n    log(run)", "FINISHED", 0),
        ("log(asynctrack.start_run())", "FINISHED", 0),
        ("import sys\nlog(asynctrack.start_run())\nsys.exit()", "FINISHED", 0),
        # No callback at exit can see the 3; see "What is not promised".
        ("import sys\nlog(asynctrack.start_run())\nsys.exit(3)", "FINISHED", 3),
        ("import sys\nwith asynctrack.start_run() as run:\n    log(run)\n    sys.exit(3)", "FAILED", 3),
        ("log(asynctrack.start_run())\nraise ValueError('mine')", "FAILED", 1),
        ("with asynctrack.start_run() as run:\n    log(run)\n    raise ValueError('mine')", "FAILED", 1),
        ("log(asynctrack.start_run())\nraise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        ("with asynctrack.start_run() as run:\n    log(run)\n    raise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        ("run = asynctrack.start_run()\nlog(run)\nrun.terminate('FAILED')", "FAILED", 0),
    ],
    ids=[
        "end of block", "plain end of script", "sys.exit", "sys.exit(3)", "sys.exit(3) in a block",
        "uncaught exception", "exception in a block", "KeyboardInterrupt", "KeyboardInterrupt in a block", "terminate",
    ],
)  # fmt: skip
def test_everything_logged_is_delivered(ending: str, status: str, code: int, lab: Lab) -> None:
    """Leaving a block, ending the script, an exit code, an exception: all events arrive, with an honest status."""
    result = lab.run(LOG + ending)
    # CPython exits with 1 after a KeyboardInterrupt when some thread was importing a module just then.
    assert result.returncode == code or (code, result.returncode) == (-signal.SIGINT, 1), result.stderr
    check_complete(lab, status)
    if "mine" in ending:
        assert "ValueError: mine" in result.stderr  # the user's own exception is what the user sees
    else:
        assert "asynctrack" not in result.stderr or code == -signal.SIGINT, result.stderr


def test_the_blocks_own_exception_is_not_replaced(lab: Lab) -> None:
    """An exception leaves the block as it is."""
    result = lab.run(
        "try:\n    with asynctrack.start_run():\n        1 / 0\n"
        "except ZeroDivisionError as error:\n    print('same', error)"
    )
    assert result.stdout == "same division by zero\n", result.stderr


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_cancelled_task_leaves_its_run_killed_and_complete(library: str, lab: Lab) -> None:
    """A task cancelled inside its `async with` block: everything delivered, status KILLED, the cancellation goes on."""
    asyncio_program = """
        import asyncio
        async def work(logged):
            async with asynctrack.start_run() as run:
                log(run)
                logged.set()
                await asyncio.sleep(60)
        async def main():
            logged = asyncio.Event()
            task = asyncio.create_task(work(logged))
            await logged.wait()
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
            with trio.CancelScope() as scope:
                async with asynctrack.start_run() as run:
                    log(run)
                    scope.cancel()
                    await trio.sleep(60)
            print("cancelled" if scope.cancelled_caught else "not cancelled")
        trio.run(main)
    """
    program = asyncio_program if library == "asyncio" else trio_program
    result = lab.run(LOG + textwrap.dedent(program))
    assert result.stdout == "cancelled\n", result.stderr
    check_complete(lab, "KILLED")


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGINT); await trio.sleep(60)", "KILLED"),
        ("sys.exit()", "FINISHED"),
        ("sys.exit(1)", "FAILED"),
        ("raise ValueError('mine')", "FAILED"),
    ],
    ids=["Ctrl-C", "sys.exit", "sys.exit(1)", "exception"],
)
def test_the_status_is_that_of_what_a_nursery_raises_in_a_group(ending: str, status: str, lab: Lab) -> None:
    """trio wraps what ends a task, a single error too."""
    program = f"""
        import trio
        async def work():
            {ending}
        async def main():
            async with asynctrack.start_run() as run:
                log(run)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work)
                    nursery.start_soon(trio.sleep, 60)
        trio.run(main)
    """
    lab.run(LOG + textwrap.dedent(program))
    check_complete(lab, status)


def test_a_loop_closed_under_the_run(lab: Lab) -> None:
    """A run left open when its loop is closed is delivered when the interpreter ends."""
    program = """
async def main():
    log(asynctrack.start_run())
import asyncio
asyncio.run(main())
"""
    result = lab.run(LOG + program)
    assert result.returncode == 0, result.stderr
    check_complete(lab, "FINISHED")


def test_a_daemon_thread_still_logging(lab: Lab) -> None:
    """A daemon thread that logs to the very end: every call that returned is delivered, and nobody sees a traceback."""
    program = """
        import asynctrack, sys, threading, time
        run = asynctrack.start_run()
        counts = [0]
        def work():
            while True:
                run.log_metric("loss", 1.0, counts[0])
                counts[0] += 1
                if counts[0] in rest:
                    time.sleep(0.02)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        import atexit
        # Registered last, so it runs first; what is counted here is logged before asynctrack shuts down.
        atexit.register(lambda: print(counts[0], flush=True))
    """
    result = lab.run(program)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    logged = [step for _, _, step in lab.only_run().metrics["loss"]]
    assert logged == list(range(len(logged)))
    assert len(logged) >= int(result.stdout) > 1000


def test_an_exception_in_a_thread_does_not_matter(lab: Lab) -> None:
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
    result = lab.run(LOG + program)
    assert result.returncode == 0, result.stderr
    check_complete(lab, "FINISHED")


def test_eight_threads_lose_nothing(lab: Lab) -> None:
    """8 threads x 100,000 events on one run, a tenth of that on a server: each event arrives once."""
    count = 10_000 if "LOG_AND_REST" in lab.environment else 100_000
    program = f"""
        with asynctrack.start_run() as run:
            threads = [threading.Thread(target=log_some, args=(run, {count}, f"t{{number}}")) for number in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            run.flush()
            print(run.stats().accepted, run.stats().delivered)
    """
    result = lab.run(program)
    assert result.stdout.split() == [str(8 * count)] * 2, result.stderr
    metrics = lab.only_run().metrics
    assert sorted(metrics) == [f"t{number}" for number in range(8)]
    for points in metrics.values():
        assert sorted(step for _, _, step in points) == list(range(count))


def test_ctrl_c_is_a_killed_run(lab: Lab) -> None:
    """SIGINT in the middle of a training loop, in a block and without one: everything delivered, KILLED."""
    for program in ("run = asynctrack.start_run()\n", "with asynctrack.start_run() as run:\n    "):
        process = lab.start(f"{program}log_some(run); print('waiting', flush=True); time.sleep(60)")
        line_for(process)
        process.send_signal(signal.SIGINT)
        result = finish(process)
        assert result.returncode in (-signal.SIGINT, 1), result.stderr
        assert "KeyboardInterrupt" in result.stderr
    runs = list(lab.runs().values())
    assert [(steps(run), run.status) for run in runs] == [(list(range(5000)), "KILLED")] * 2
    assert lab.spools() == []


def test_logging_from_a_signal_handler(lab: Lab) -> None:
    """A handler that logs metrics and params, many times in the middle of log calls and roll-overs of the main program:
    nothing blocks, nothing is lost."""
    program = """
        asynctrack.configure(segment_bytes=8192, flush_interval=0.01)
        with asynctrack.start_run() as run:
            handled = 0
            def handler(number, frame):
                global handled
                run.log_metric("handler", handled * 0.25, handled)
                run.log_param(f"p{handled}", handled)
                handled += 1
                signal.setitimer(signal.ITIMER_REAL, 0.001)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            step = 0
            while handled < 300:
                run.log_metric("loss", step * 0.25, step)
                run.set_tag("t", step)
                step += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(handled, step)
    """
    result = lab.run(program)
    assert result.returncode == 0, result.stderr
    handled, count = map(int, result.stdout.split())
    run = lab.only_run()
    assert (steps(run), steps(run, "handler")) == (list(range(count)), list(range(handled)))
    assert run.params == {f"p{number}": str(number) for number in range(handled)}
    assert run.tags["t"] == str(count - 1)


def test_logging_from_del(lab: Lab) -> None:
    """Objects that log when the garbage collector finds them, in the middle of other log calls, and as the last of them
    go when the interpreter ends: it ends."""
    program = """
        import gc, itertools
        gc.set_threshold(50)
        asynctrack.configure(segment_bytes=8192)
        run = asynctrack.start_run()
        gone = itertools.count()  # atomic: the collector runs in whichever thread comes to it
        class Sample:
            def __init__(self):
                self.me = self  # so that only the collector finds it
            def __del__(self):
                number = next(gone)
                run.log_metric("gone", number * 0.25, number)
                run.log_param(f"p{number}", number)
                done.append(number)
        done = []
        for step in range(2000):
            Sample()
            run.log_metric("loss", step * 0.25, step)
        while len(done) < 2000:  # another thread may be in the middle of a collection
            gc.collect()
            time.sleep(0.01)
        last = Sample()
    """
    result = lab.run(program)
    assert result.returncode == 0, result.stderr
    run = lab.only_run()
    assert (steps(run), steps(run, "gone")) == (list(range(2000)), list(range(2000)))
    assert run.status == "FINISHED"


def test_a_destructor_that_ends_its_run_in_the_thread_that_delivers(lab: Lab) -> None:
    """The garbage collector calls it wherever it happens to run: the thread does not wait for itself."""
    program = """
        import gc
        class Trainer:
            def __init__(self):
                self.run = asynctrack.start_run(nested=True)
                self.me = self  # so that only the collector finds it
            def __del__(self):
                self.run.terminate()
                done.append(threading.current_thread().name)
        gc.disable()
        done = []
        for _ in range(5):
            log_some(Trainer().run, 10)
        with asynctrack.start_run(run_name="other", nested=True) as run:
            run.flush()
            begun = time.monotonic()
            gc.set_threshold(5, 1, 1)
            gc.enable()
            while len(done) < 5:
                time.sleep(0.05)  # allocates nothing that is collected: the others have to find them
            run.flush()
        print(time.monotonic() - begun, "MainThread" in done)
    """
    result = lab.run(program, ASYNCTRACK_FLUSH_INTERVAL="0.05")
    assert (result.returncode, result.stderr) == (0, "")
    seconds, by_ourselves = result.stdout.split()
    assert by_ourselves == "False"
    assert float(seconds) < 20.0, "close_timeout is 60 s"
    runs = [run for run in lab.runs().values() if run.tags["mlflow.runName"] != "other"]
    assert [(steps(run), run.status) for run in runs] == [(list(range(10)), "FINISHED")] * 5


def test_a_destructor_that_ends_its_run_while_a_worker_hands_over_what_it_did_for_it(lab: Lab) -> None:
    """The run's delivery goes on only with that: waiting for it there would last until ``close_timeout``."""
    program = """
        import asyncio, gc
        class Trainer:
            def __init__(self):
                self.run = asynctrack.start_run(nested=True)
                self.me = self  # so that only the collector finds it
            def __del__(self):
                begun = time.monotonic()
                self.run.terminate()
                done.append(time.monotonic() - begun)
        hand_over = asyncio.BaseEventLoop.call_soon_threadsafe
        def collects(loop, *args, **kwargs):
            if "worker" in threading.current_thread().name and armed:
                armed.clear()
                gc.collect()
            return hand_over(loop, *args, **kwargs)
        asyncio.BaseEventLoop.call_soon_threadsafe = collects
        asynctrack.configure(token=lambda: "token")  # which a worker looks up for each request to a server
        gc.disable()
        armed, done = [], []
        with asynctrack.start_run(run_name="other") as other:
            trainer = Trainer()
            trainer.run.flush()
            log_some(trainer.run, 10)
            armed.append(1)
            del trainer
            while not done:
                time.sleep(0.05)
        print(done[0])
    """
    result = lab.run(program, ASYNCTRACK_FLUSH_INTERVAL="0.5", ASYNCTRACK_CLOSE_TIMEOUT="20")
    assert (result.returncode, result.stderr) == (0, "")
    assert float(result.stdout) < 10.0
    (run,) = [run for run in lab.runs().values() if run.tags["mlflow.runName"] != "other"]
    assert (steps(run), run.status) == (list(range(10)), "FINISHED")


def test_logging_from_atexit(lab: Lab) -> None:
    """A callback registered after asynctrack was imported runs before its end and is heard; one registered before is
    told that logging is over."""
    program = """
        import atexit
        run = asynctrack.start_run()
        atexit.register(log_some, run)
    """
    result = lab.run(program)
    assert result.returncode == 0, result.stderr
    assert steps(lab.only_run()) == list(range(5000))
    assert lab.spools() == []


def test_two_programs_log_to_one_run(lab: Lab) -> None:
    """Two ranks of one job, the same run, the same metric file: each event once, no line torn."""
    first = lab.start(
        """
        with asynctrack.start_run() as run:
            run.flush()
            print(run.run_id, flush=True)
            log_some(run, 40_000, "rank0")
            log_some(run, 1000, "shared")
            sys.stdin.readline()
        """
    )
    run_id = line_for(first)
    second = lab.run(
        """
        from asynctrack.runs.active import attached_run
        run = attached_run(os.environ["RUN"])
        log_some(run, 40_000, "rank1")
        for step in range(1000, 2000):
            run.log_metric("shared", step * 0.25, step)
        """,
        RUN=run_id,
    )
    assert second.returncode == 0, second.stderr
    output, errors = first.communicate("go on\n", timeout=60)
    assert first.returncode == 0, output + errors
    run = lab.only_run()
    assert steps(run, "rank0") == steps(run, "rank1") == list(range(40_000))
    assert steps(run, "shared") == list(range(2000))
    assert run.status == "FINISHED"
    assert lab.spools() == []


def test_a_store_that_cannot_be_written_ends_in_time_and_keeps_everything(lab: Lab) -> None:
    """With the store out of order a program ends within its deadline, says where its events are, and the next program
    delivers them."""
    broken, mend = lab.out_of_order()
    result = broken.run(
        LOG + "log(asynctrack.start_run())", ASYNCTRACK_CLOSE_TIMEOUT="1.5", ASYNCTRACK_FLUSH_INTERVAL="0.1"
    )
    assert result.returncode == 0, result.stderr
    assert ".asynctrack" in result.stderr
    assert "Traceback" not in result.stderr
    mend()
    broken.recover()
    check_complete(broken, "FINISHED")  # the program had ended it


def test_a_program_that_waits_for_room_for_ever_still_ends(lab: Lab) -> None:
    """`spool_full="block"`, the spool full and the store out of order, and a thread inside a log call: the end of the
    interpreter keeps its deadline, and what was accepted is kept."""
    broken, mend = lab.out_of_order()
    program = """
        run, other = asynctrack.start_run(), asynctrack.start_run(nested=True)
        returned = counted()
        def fill():
            for number in range(1 << 30):
                other.log_param(f"p{number}", "x" * 100)
                log_until(run, returned)
        def log_until(run, returned):
            for _ in range(10):
                run.log_metric("loss", returned[0] * 0.25, returned[0])
                returned[0] += 1
        threading.Thread(target=fill, daemon=True).start()
        before = -1
        while returned[0] > before or not before:
            before = returned[0]
            time.sleep(0.5)
    """
    result = broken.run(
        program, ASYNCTRACK_CLOSE_TIMEOUT="2", ASYNCTRACK_SPOOL_FULL="block", ASYNCTRACK_MAX_SPOOL_BYTES="600000"
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    mend()
    broken.recover()
    (run,) = [run for run in broken.runs().values() if "loss" in run.metrics]
    assert steps(run) == list(range(len(steps(run))))
    assert len(steps(run)) - lab.acknowledged() in (0, 1)


def test_a_program_that_becomes_itself_again_ends_the_run_as_its_last_word_says(lab: Lab) -> None:
    """`os.execv` ends a process without a word; what it left is delivered, and does not end the run of the next."""
    (lab.folder / "train.py").write_text(
        """
import asynctrack, os, sys
number = int(os.environ.get("NUMBER", "0"))
run = asynctrack.start_run(run_id=os.environ.get("RUN"))
os.environ["RUN"], os.environ["NUMBER"] = run.info.run_id, str(number + 1)
for step in range(100):
    run.log_metric("loss", (number * 100 + step) * 0.25, number * 100 + step)
if number < 3:
    os.execv(sys.executable, [sys.executable, "train.py"])
run.terminate()
"""
    )
    result = lab.run("os.execv(sys.executable, [sys.executable, 'train.py'])")
    assert result.returncode == 0, result.stderr
    lab.recover()
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(400)), "FINISHED")
    assert lab.spools() == []

"""A signal during a fork, Ctrl-C above all: both processes are whole, and it is heard when the fork is over."""

from __future__ import annotations

import textwrap

import pytest

from tests.fault.programs import ON_FILES, Lab, steps
from tests.fault.test_fork import FORK

#: A program with a signal that comes at the n-th step of asynctrack's code in a fork: of one process, or of both.
SWEEP = """
import _imp, gc, signal, sys, _thread
PACKAGE = os.path.dirname(asynctrack.__file__)
run = asynctrack.start_run()
run.log_metric("loss", 0.0, 0)
run.flush()
engine = run._state.engine
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
usual = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
lost, seen, parent = [], set(), os.getpid()
sys.unraisablehook = lambda said: lost.append(str(said.object))

def trace(frame, event, argument):
    global left, came_to, free
    if not frame.f_code.co_filename.startswith(PACKAGE) or not left:
        return None
    place = frame.f_code, frame.f_lineno, event
    if place in seen:
        return trace
    seen.add(place)
    left -= 1
    if not left:
        came_to, free = os.getpid(), signal.getsignal(signal.SIGINT) is signal.default_int_handler
        sys.settrace(None)
        if came_to == parent:
            _thread.interrupt_main()  # as if another thread had got the signal
        else:
            os.kill(came_to, signal.SIGINT)
    return trace

def wrong(heard):
    found = []
    if heard is not (came_to == os.getpid()) and not lost:
        found.append(f"heard: {heard}")
    if lost and not free:
        found.append(f"interrupted {lost}")
    if _imp.lock_held():
        found.append("import lock")
    if not gc.isenabled():
        found.append("gc")
    if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != {signal.SIGUSR2}:
        found.append("mask")
    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    if [a for a, b in zip(handlers, usual) if a != b and getattr(b, "__module__", "") != "asynctrack.engine.signals"]:
        found.append("handlers")
    return found

step, interrupted = 0, {"parent": 0, "child": 0}
while True:
    step += 1
    left, came_to, heard = step, 0, False
    lost.clear()
    seen.clear()
    reading, writing = os.pipe()
    sys.settrace(trace)
    try:
        os.fork()
        done = True
    except KeyboardInterrupt:
        heard = True
    sys.settrace(None)
    if os.getpid() != parent:
        found = wrong(heard)
        if engine.journal.chain.current[2].path is not None:
            found.append("the parent's journal")
        os.write(writing, f"{int(heard)} {left} {found}".encode())
        os._exit(0)
    os.waitpid(-1, 0)
    child_heard, child_left, found = os.read(reading, 1000).decode().split(" ", 2)
    os.close(reading)
    os.close(writing)
    assert found == "[]", (step, found)
    assert not wrong(heard), (step, wrong(heard))
    interrupted["parent"] += heard
    interrupted["child"] += int(child_heard)
    if left and int(child_left):
        break
assert min(interrupted.values()) > 20, interrupted
thread = threading.Thread(target=lambda: [__import__("xmlrpc.client"), run.log_metric("loss", 0.25, 1)])
thread.start()
thread.join(20)
assert not thread.is_alive(), "a lock was left to the main thread"
run.log_metric("loss", 0.5, 2)
run.terminate()
"""


@pytest.mark.parametrize("lab", ["sqlite"], indirect=True)  # with hooks of its own
def test_ctrl_c_at_any_step_of_a_fork(lab: Lab) -> None:
    """Python swallows one that comes before the first step or behind the last, as in every hook of a fork: that does no
    harm either."""
    result = lab.run(SWEEP, **FORK, ASYNCTRACK_CLOSE_TIMEOUT="20")
    assert result.returncode == 0, result.stderr
    assert sorted(steps(lab.only_run())) == [0, 1, 2]


@ON_FILES
@pytest.mark.parametrize("forks", ["the main thread", "another thread"])
def test_a_child_that_gets_ctrl_c_while_it_begins_hears_it_and_has_a_spool_of_its_own(forks: str, lab: Lab) -> None:
    """It goes to all processes of a terminal. The child forgot half of what was its parent's, and what it logged went
    into the parent's journal."""
    program = f"""
        import signal
        from asynctrack.engine.table import EngineTable
        forget = EngineTable.forget
        def interrupted(table):
            os.kill(os.getpid(), signal.SIGINT)
            forget(table)
        EngineTable.forget = interrupted
        run = asynctrack.start_run()
        points(run, 100, "parent")
        run.flush()
        own = run._state.engine.journal.spool.path
        def fork():
            heard, parent = False, os.getpid()
            reading, writing = os.pipe()
            child = 0
            try:
                child = os.fork()
                # Python 3.13 sees to it late in a process that another thread than the main one has made.
                signal.pthread_sigmask(signal.SIG_BLOCK, ())
            except KeyboardInterrupt:
                heard = True
            if os.getpid() == parent:
                assert child and not heard
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                return
            code = 1
            try:
                points(run, 100, "child")
                run.flush()
                code = 0 if heard and run._state.engine.journal.spool.path != own else 2
            finally:
                os._exit(code)
        if {forks!r} == "the main thread":
            fork()
        else:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        points(run, 200, "parent", 100)
        run.terminate()
    """
    function = (
        "def points(run, until, key, since=0):\n    for n in range(since, until): run.log_metric(key, n * 0.25, n)\n"
    )
    result = lab.run(function + textwrap.dedent(program), **FORK)
    assert (result.returncode, result.stderr) == (0, "")
    stored = lab.only_run()
    assert steps(stored, "parent") == list(range(200))
    assert steps(stored, "child") == list(range(100))


@ON_FILES
def test_an_exception_of_a_handler_of_the_users_own_reaches_the_program(lab: Lab) -> None:
    """A time limit by SIGALRM, ``sys.exit`` at SIGTERM."""
    program = """
        import signal
        from asynctrack import forks
        class TooLong(Exception): pass
        def late(number, frame): raise TooLong
        def ends(number, frame): sys.exit(3)
        signal.signal(signal.SIGALRM, late)
        signal.signal(signal.SIGTERM, ends)
        run = asynctrack.start_run()
        run.flush()
        under_way, parent, heard, comes = forks._under_way, os.getpid(), [], None
        def interrupted():
            os.kill(os.getpid(), comes)
            time.sleep(0.05)
            return under_way()
        forks._under_way = interrupted
        expected = {signal.SIGALRM: TooLong, signal.SIGTERM: SystemExit, signal.SIGINT: KeyboardInterrupt}
        for comes, error in expected.items():
            try:
                os.fork()
                heard.append("nothing")
            except error:
                heard.append(error.__name__)
            if os.getpid() != parent:
                os._exit(0 if heard[-1] == "nothing" else 1)  # what came to the parent is not the child's
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert signal.getsignal(signal.SIGALRM) is late and signal.getsignal(signal.SIGTERM) is ends
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        print(*heard)
        run.terminate()
    """
    result = lab.run(program, **FORK)
    assert (result.returncode, result.stdout, result.stderr) == (0, "TooLong SystemExit KeyboardInterrupt\n", "")

"""A fork looks at what other threads are doing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest

from asynctrack import forks

#: seconds after which what a test waits for counts as never coming
LIMIT = 30


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_while_frames_of_other_threads_are_looked_at(enabled: bool) -> None:
    """A destructor would let them go on, and Python 3.11 makes a frame object of what has been given up since."""
    waits, go_on = threading.Event(), threading.Event()

    def deep(calls: int) -> None:
        if calls:
            deep(calls - 1)
        else:
            waits.set()
            go_on.wait(LIMIT)

    thread = threading.Thread(target=deep, args=(200,))
    thread.start()
    assert waits.wait(LIMIT)
    looking = []

    def collected(_phase: str, _info: dict[str, int]) -> None:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            looking.append(frame.f_code.co_name in ("_under_way", "_imports"))

    before, was_enabled = gc.get_threshold(), gc.isenabled()
    gc.callbacks.append(collected)
    try:
        (gc.enable if enabled else gc.disable)()
        gc.set_threshold(1, 1, 1)
        assert forks._under_way() == frozenset()
        assert gc.isenabled() is enabled
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
        (gc.enable if was_enabled else gc.disable)()
        go_on.set()
        thread.join(LIMIT)
    assert not any(looking)


#: a fork in the middle of which another hook imports what has hooks of its own: these are called after it, not before
LATE = """
import concurrent.futures.thread, logging, os, random  # whose own hooks would fail so
os.register_at_fork(before=lambda: __import__("asynctrack.engine.thread"))
child = os.fork()
import asynctrack
with asynctrack.start_run() as run:
    run.log_metric("m", 1.0)
if not child:
    os._exit(0 if run.data.metrics == {"m": 1.0} else 1)
assert os.waitpid(child, 0)[1] == 0
assert run.data.metrics == {"m": 1.0}
child = os.fork()
os._exit(0) if not child else os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="nothing forks here")
def test_what_is_imported_while_a_fork_is_under_way_is_whole_in_both_processes() -> None:
    """By another thread, mostly, in which a run is started."""
    # From 3.12 on Python warns of forks beside threads, as the engine is one.
    call = [sys.executable, "-W", "ignore", "-c", LATE]
    done = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT)
    # The parent may find what the child has left behind, and says so.
    said = [line for line in done.stderr.splitlines() if not line.startswith("asynctrack: ")]
    assert (done.returncode, said) == (0, [])

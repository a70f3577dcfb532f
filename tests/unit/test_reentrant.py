"""What signal handlers may wait with."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from asynctrack.reentrant import Gate


def test_everybody_who_waits_at_a_gate_goes_through_when_it_opens() -> None:
    gate, through = Gate(), []
    threads = [threading.Thread(target=lambda: through.append(gate.wait(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert not gate.wait(0.0)
    gate.set()
    for thread in threads:
        thread.join(20)
    assert through == [True] * 5
    assert gate.is_set()


def test_a_closed_gate_is_waited_at_for_as_long_as_was_said() -> None:
    begun = time.monotonic()
    assert not Gate().wait(0.05)
    assert time.monotonic() - begun >= 0.05


def test_a_signal_handler_that_outlasts_a_wait_does_not_make_it_endless() -> None:
    previous = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.2))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        assert not Gate().wait(0.05)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_a_signal_handler_may_wait_and_open_wherever_it_has_interrupted_a_wait() -> None:
    """At each of many moments within `wait`, in the same thread; with `threading.Event` that hangs sooner or later."""
    handled = 0
    gate = Gate()

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal handled
        gate.wait(0.0)
        Gate().set()
        handled += 1

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(3000):
            gate.wait(0.0001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    assert handled
    gate.set()
    assert gate.wait(0.0)

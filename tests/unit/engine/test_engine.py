"""The engine's thread as the program sees it."""

from __future__ import annotations

import signal
from types import FrameType

import asynctrack


def test_a_signal_handler_may_wake_the_engine_while_the_program_does() -> None:
    """Neither waits for a lock that the other, in the same thread, holds."""
    inside = False
    handled = 0
    with asynctrack.start_run() as run:
        engine = run._state.engine

        def handler(_number: int, _frame: FrameType | None) -> None:
            nonlocal inside, handled
            if not inside:
                inside = True
                engine.wake()
                handled += 1
                inside = False

        previous = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(100_000):
                engine.wake()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)
    assert handled

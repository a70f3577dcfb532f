"""SIGTERM and SIGHUP: the scheduler takes the machine away, or the terminal is gone.

By default either ends a Python program on the spot. Where that default stands, and only there, a handler lets the
program finish what it owes first; then the signal does what it would have done, so that the exit status is true.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import FrameType

__all__ = ["watch"]

logger = logging.getLogger("asynctrack")

_NAMES = ("SIGTERM", "SIGHUP")
#: seconds within which a second signal is no impatience: systemd sends SIGHUP right behind SIGTERM, and a launcher
#: passes on to its workers what the scheduler has sent to each of them already
_ECHO = 1.0

_finish: Callable[[str], None] | None = None
_patience = 0.0
#: when the first signal came (monotonic seconds)
_begun: float | None = None


def watch(finish: Callable[[str], None], patience: float, *, enabled: bool) -> None:
    """Have ``finish(name)`` called in the main thread when SIGTERM or SIGHUP comes, before it kills the process.

    At most ``patience`` seconds, or until a second signal, are given to it. Installs its handler where the default
    stands, and with ``enabled=False`` takes it back; handlers of the program's own are left alone. Outside the main
    thread, where Python allows no handler to be set, it does nothing.
    """
    global _finish, _patience
    if threading.get_ident() != threading.main_thread().ident:
        return
    import signal  # late: enum makes it a tenth of `import asynctrack`

    _finish, _patience = finish, patience
    for name in _NAMES:
        number = getattr(signal, name)
        current = signal.getsignal(number)
        try:
            if enabled and current is signal.SIG_DFL:
                signal.signal(number, _handle)
            elif not enabled and current is _handle:
                signal.signal(number, signal.SIG_DFL)
        except ValueError:
            return  # a subinterpreter, whose main thread is none to the operating system


def _handle(number: int, _frame: FrameType | None) -> None:
    """Runs in the main thread, between any two steps of the program, asynctrack's own included."""
    global _begun
    import signal

    now = time.monotonic()
    if _begun is not None:
        if now - _begun >= _ECHO or not _again(number, _begun + _ECHO - now):
            _die(number)
        return
    _begun = now
    # Should the program be stopped in a place that never lets go, the signal comes a second time and kills it.
    _again(number, _patience + _ECHO)
    try:
        if _finish is not None:
            _finish(signal.Signals(number).name)
    except Exception:
        logger.exception("asynctrack: the open runs could not be ended")
    finally:
        _die(number)


def _again(number: int, seconds: float) -> bool:
    """Have this process get the signal once more; False where that cannot be arranged."""

    def wait_and_send() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    try:
        threading.Thread(target=wait_and_send, name="asynctrack-deadline", daemon=True).start()
    except RuntimeError:
        return False  # the interpreter is ending, or the limit of threads is reached
    return True


def _die(number: int) -> None:
    import signal

    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Still here: the kernel kills no init process, as a container's first is, by a signal that it does not handle.
    os._exit(128 + number)


class _Mask(threading.local):
    """The signals that a thread had blocked before it forked; None while it does not."""

    before: set[int] | None = None


_mask = _Mask()


def _before_fork() -> None:
    """Hold the signals back: one that came between the fork and the end of `_in_forked_child` would find the handler
    at first, and none when it is Python's turn to call it, and be lost."""
    if _finish is not None:
        import signal

        _mask.before = set(signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _NAMES}))


def _after_fork() -> None:
    if _mask.before is not None:
        import signal

        signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)
        _mask.before = None


def _in_forked_child() -> None:
    """A worker that logs nothing is to die of the signal at once, as it would without asynctrack."""
    global _begun
    _begun = None
    if _finish is not None:
        import signal

        for name in _NAMES:
            number = getattr(signal, name)
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.SIG_DFL)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_child)

"""SIGTERM and SIGHUP: the scheduler takes the machine away, or the terminal is gone.

By default either ends a Python program on the spot. Where that default stands, and only there, a handler lets the
program finish what it owes first; then the signal does what it would have done, so that the exit status is true.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from asynctrack.clock import monotonic
from asynctrack.forks import at_fork, in_import

__all__ = ["watch"]

logger = logging.getLogger("asynctrack")

_NAMES = ("SIGTERM", "SIGHUP")
#: the beginnings of the names of modules whose functions hold locks, or fork under some, none of them for long
_UNDER_LOCKS = ("asynctrack.journal.", "asynctrack.forks", "logging")
#: seconds within which a second signal is no impatience: systemd sends SIGHUP right behind SIGTERM, and a launcher
#: passes on to its workers what the scheduler has sent to each of them already
_ECHO = 1.0
#: seconds for which a signal is put off at most that interrupts something which others would wait for, and between two
#: looks whether it is over
_PUT_OFF, _TICK = 1.0, 0.01
#: seconds after which a signal is sent again whose handler was not called
_DEAF = 1.0

_finish: Callable[[str], None] | None = None
_patience = 0.0
#: when the first signal came (monotonic seconds)
_begun: float | None = None
#: until when one is put off
_put_off_until: float | None = None
#: when the handler was called last (monotonic seconds)
_heard_at = 0.0
#: both ends of the pipe that Python writes the signals' numbers to; none: they are not listened to
_pipe: tuple[int, int] | None = None


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
                _listen()
            elif not enabled and current is _handle:
                signal.signal(number, signal.SIG_DFL)
        except ValueError:
            return  # a subinterpreter, whose main thread is none to the operating system


def _handle(number: int, frame: FrameType | None) -> None:
    """Runs in the main thread, between any two steps of the program, asynctrack's own included."""
    global _begun, _heard_at, _put_off_until
    import signal

    now = _heard_at = monotonic()
    if _begun is None and _others_would_wait_for(frame):
        _put_off_until = _put_off_until or now + _PUT_OFF
        if now < _put_off_until and _again(number, _TICK):
            return
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
        logger.exception(
            "asynctrack: the open runs could not be ended. The next program that logs with the same spool folder, or "
            "`asynctrack sync`, delivers what is left and ends them"
        )
    finally:
        _die(number)


def _others_would_wait_for(frame: FrameType | None) -> bool:
    """Whether the thread that is interrupted at ``frame`` is in the middle of something that it does not go on with
    while a handler runs, and that the engine's thread may need: an import, or a short piece of work under a lock, of
    the journal, of a log handler, of a thread's start."""
    if in_import(frame):
        return True
    while frame is not None:
        where = str(frame.f_globals.get("__name__"))
        if where.startswith(_UNDER_LOCKS) or (where == "threading" and frame.f_code.co_name == "start"):
            return True
        frame = frame.f_back
    return False


def _again(number: int, seconds: float) -> bool:
    """Have the main thread get the signal once more; False where that cannot be arranged."""
    import signal

    main = threading.main_thread().ident or 0

    def wait_and_send() -> None:
        time.sleep(seconds)
        while True:
            sent, pause = monotonic(), _TICK
            signal.pthread_kill(main, number)
            while pause < _DEAF:
                time.sleep(pause)
                if _heard_at >= sent:
                    return
                pause *= 2
            # It came in the very moment in which a system call began (see `_listen`).

    try:
        # Not a `threading.Thread`, whose start waits for locks that the interrupted call may hold.
        _thread.start_new_thread(wait_and_send, ())
    except RuntimeError:
        return False  # the interpreter is ending, or the limit of threads is reached
    return True


def _listen() -> None:
    """See to it that a signal is heard which comes in the moment in which the main thread begins to wait.

    Python calls a handler between two steps of the program. A signal that comes after the last step before a system
    call, and before the kernel has that, interrupts nothing: its handler is called when the call is over. In a child of
    multiprocessing that may be never. A worker of a pool that has nothing to do waits for a lock, and whoever leaves
    the pool, for the worker. (Seen in one of 40 pools on a busy machine.) So Python writes there, too, which signals
    come, and a thread sends one again that is not heard.
    """
    global _pipe
    process = sys.modules.get("multiprocessing.process")
    if _pipe is not None or process is None or process.parent_process() is None or "trio" in sys.modules:
        return  # trio warns of everybody else who has this file descriptor
    import signal

    try:
        reading, writing = _pipe = os.pipe()
    except OSError:
        return  # no descriptor is left
    os.set_blocking(writing, False)
    other = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if other >= 0:
        signal.set_wakeup_fd(other)  # a loop's, which it wakes
        _stop_listening()
        return

    def listen() -> None:
        while True:
            for number in os.read(reading, 1):
                _send_until_heard(number)

    try:
        _thread.start_new_thread(listen, ())
    except RuntimeError:
        _stop_listening()  # the limit of threads is reached


def _send_until_heard(number: int) -> None:
    import signal

    since, main = monotonic(), threading.main_thread().ident or 0
    while _begun is None and signal.getsignal(number) is _handle:
        # One that is put off is heard all the time, and the one that comes too often would count as impatience.
        if monotonic() >= max(since, _heard_at) + _DEAF:
            since = monotonic()
            signal.pthread_kill(main, number)
        time.sleep(_DEAF / 10)


def _stop_listening() -> None:
    """In the main thread."""
    global _pipe
    import signal

    pipe, _pipe = _pipe, None
    if pipe is not None:
        other = signal.set_wakeup_fd(-1)
        if other not in (-1, pipe[1]):
            signal.set_wakeup_fd(other)
        for fd in pipe:
            os.close(fd)


def _die(number: int) -> None:
    import signal

    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Still here: the kernel kills no init process, as a container's first is, by a signal that it does not handle.
    os._exit(128 + number)


def _in_forked_child() -> None:
    """A worker that logs nothing is to die of the signal at once, as it would without asynctrack."""
    global _begun, _put_off_until
    _begun = _put_off_until = None
    _stop_listening()  # to what is the parent's
    if _finish is not None:
        import signal

        for name in _NAMES:
            number = getattr(signal, name)
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.SIG_DFL)  # one that has come kills when the hooks of the fork are through


at_fork(after_in_child=_in_forked_child)

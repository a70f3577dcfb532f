"""Delays a fork while another thread imports a module, and keeps destructors and signal handlers out of it.

In a child that is forked during an import, the module stays incomplete for ever, because the thread that imports it
does not exist there. asynctrack imports many modules late, in background threads and at the first call of a verb. So a
fork first waits until no other thread is importing, and no import begins before the fork is done.

No garbage is collected until the child has let go of what is its parent's: a destructor that logs would write to the
parent's journal.
"""

from __future__ import annotations

import _imp
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

from asynctrack.clock import monotonic
from asynctrack.interrupts import hold_back, interrupted, let_through

__all__ = ["at_fork", "in_import"]

#: seconds for which a fork waits: a program may run in an import for ever, as ``python -c "import train"`` does
_PATIENCE = 5.0
_TICK = 0.0005

#: the function of the import system that every import of a module that is not there yet comes through
_FILE, _FUNCTION = "<frozen importlib._bootstrap>", "_find_and_load"

#: imports (by the identity of their frames) that a fork has waited for in vain, and the next does not
_hopeless: frozenset[int] = frozenset()
#: the number of the hook that is the last one, and how many modules there were when it was registered: each that has
#: come since may have registered others
_last = _modules = 0


class _Forking(threading.local):
    """The fork of a thread. Several may fork at once."""

    #: whether it has the import system's lock, or is about to take it
    held = False
    #: whether garbage is to be collected again when it is over
    collects = False
    #: the number of its last hook; 0: none has begun
    last = 0


_forking = _Forking()


def in_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported where ``frame`` is the innermost call."""
    return any(True for _ in _imports(frame))


def _imports(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_name == _FUNCTION and frame.f_code.co_filename == _FILE:
            yield frame
        frame = frame.f_back


def _under_way() -> frozenset[int]:
    """The imports of other threads, by the identity of their frames."""
    # No garbage collection meanwhile: Python 3.11 makes frame objects as they are asked for, and may collect while it
    # makes one. A destructor then lets the other thread go on, whose calls return, and the object is made of whatever
    # is in their place (seen: an attribute of True; it might as well be a crash).
    collecting = gc.isenabled()
    gc.disable()
    try:
        frames = sys._current_frames()
        if in_import(frames.pop(threading.get_ident(), None)):
            return frozenset()  # this fork is part of an import, and other threads may be waiting for that import
        return frozenset(id(begun) for frame in frames.values() for begun in _imports(frame))
    finally:
        if collecting:
            gc.enable()


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] = bool,
    after_in_child: Callable[[], object],
) -> None:
    """Have functions called at each fork, if there are forks here, as `os.register_at_fork` does. From the first of
    them to the last one of all, no signal handler of the program's is called (see `interrupts`)."""
    if not hasattr(os, "register_at_fork"):
        return
    os.register_at_fork(after_in_parent=after_in_parent, after_in_child=after_in_child)
    if before is not None:
        hook = before

        def in_time() -> None:
            _begin()
            hook()

        os.register_at_fork(before=in_time)
        # Called just before that one, and in its place by a handler that raises, if a signal has come before the fork.
        os.register_at_fork(before=_begin)


def _begin() -> None:
    """Before the fork. What is registered now is called behind everything else, in this very fork."""
    global _last, _modules
    hold_back()
    modules = len(sys.modules)
    if modules != _modules:
        number = _last + 1
        os.register_at_fork(after_in_parent=partial(_over, number, False), after_in_child=partial(_over, number, True))
        _last, _modules = number, modules
    _forking.last = _last


def _over(number: int, in_child: bool) -> None:
    if number == _forking.last:
        _forking.last = 0
        _collect_again()
        _after()  # had it been interrupted
        let_through(in_child=in_child)


def _before() -> None:
    """Wait until no other thread is importing, and take the import system's lock, which every import needs to begin."""
    global _hopeless
    begun = monotonic()
    while True:
        _forking.held = True
        _imp.acquire_lock()
        found = _under_way()
        if found <= _hopeless or monotonic() - begun >= _PATIENCE:
            _hopeless = found
            break
        if interrupted():
            break
        _forking.held = False
        _imp.release_lock()
        time.sleep(_TICK)
    _forking.collects = gc.isenabled()
    gc.disable()


def _after() -> None:
    if _forking.held:
        _forking.held = False
        _imp.release_lock()


def _after_in_parent() -> None:
    _collect_again()
    _after()


def _collect_again() -> None:
    if _forking.collects:
        _forking.collects = False
        gc.enable()


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after)

"""Delays a fork while another thread imports a module, and keeps destructors out of it.

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
from types import FrameType

from asynctrack.clock import monotonic

__all__ = ["at_fork", "in_import"]

#: seconds for which a fork waits: a program may run in an import for ever, as ``python -c "import train"`` does
_PATIENCE = 5.0
_TICK = 0.0005

#: the function of the import system that every import of a module that is not there yet comes through
_FILE, _FUNCTION = "<frozen importlib._bootstrap>", "_find_and_load"

#: imports (by the identity of their frames) that a fork has waited for in vain, and the next does not
_hopeless: frozenset[int] = frozenset()
#: whether this fork has the import system's lock
_held = False
#: the hooks for the child that there are, and those that are still to come in this one
_hooks = _left = 0
#: whether garbage is to be collected again when the last of them is through
_collects = False


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
    before: Callable[[], object] = bool,
    after_in_parent: Callable[[], object] = bool,
    after_in_child: Callable[[], object],
) -> None:
    """Have functions called at each fork, if there are forks here, as `os.register_at_fork` does."""
    global _hooks

    def in_child() -> None:
        global _left
        try:
            after_in_child()
        finally:
            _left -= 1
            if not _left:
                _collect_again()

    if hasattr(os, "register_at_fork"):
        _hooks += 1
        os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=in_child)


def _before() -> None:
    """Wait until no other thread is importing, and take the import system's lock, which every import needs to begin."""
    global _collects, _hopeless, _held, _left
    begun = monotonic()
    while True:
        _imp.acquire_lock()
        found = _under_way()
        if found <= _hopeless or monotonic() - begun >= _PATIENCE:
            _hopeless = found
            _held, _collects, _left = True, gc.isenabled(), _hooks
            gc.disable()
            return
        _imp.release_lock()
        time.sleep(_TICK)


def _after() -> None:
    global _held
    if _held:  # not if Ctrl-C interrupted the wait
        _held = False
        _imp.release_lock()


def _after_in_parent() -> None:
    _collect_again()
    _after()


def _collect_again() -> None:
    global _collects
    if _collects:
        _collects = False
        gc.enable()


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after)

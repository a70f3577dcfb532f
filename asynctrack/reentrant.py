"""Locks and events that are safe in a signal handler: the interrupted call can never block them for ever.

A handler runs in the main thread, between any two steps of the program, and ours may never return to the interrupted
call. A `threading.Lock`, `Event` or `Condition` that this call holds would stay locked. An `RLock` can be taken again
by its own thread, and a waiting `Gate` holds no shared lock.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from threading import RLock

from asynctrack.clock import monotonic

__all__ = ["Gate", "RLock"]

#: seconds between two checks of a waiting thread: Ctrl-C may interrupt `Gate.set` before it wakes the thread
_TICK = 1.0


class Gate:
    """Like `threading.Event`, but it is never cleared. Any thread and any signal handler may call its methods.

    Each waiting thread has a lock of its own. (`queue.SimpleQueue` would not do: up to Python 3.12, its wait becomes
    endless if a signal handler runs for longer than the timeout.)
    """

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open = False
        self._waiting: list[LockType] = []

    def set(self) -> None:
        """Open the gate and wake every waiting thread."""
        self._open = True
        while self._waiting:
            try:
                self._waiting.pop().release()
            except IndexError:
                return  # another thread is opening it too

    def is_set(self) -> bool:
        """Whether the gate is open."""
        return self._open

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the gate is open; False after ``timeout`` seconds (None: no limit)."""
        if self._open or (timeout is not None and timeout <= 0):
            return self._open
        until = None if timeout is None else monotonic() + timeout
        mine = allocate_lock()
        mine.acquire()
        self._waiting.append(mine)
        try:
            while not self._open:
                left = _TICK if until is None else until - monotonic()
                if left <= 0 or mine.acquire(timeout=min(left, _TICK)):
                    break
        finally:
            try:
                self._waiting.remove(mine)
            except ValueError:
                pass  # `set` has removed it
        return self._open

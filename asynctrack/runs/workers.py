"""Waiting for the other processes on this host that log to a run: workers, forked children, ranks.

Each has a spool of its own where this process has its spool, or could have it, and delivers it itself. So this only
looks at their files: how far they had logged when the wait began, and how far what they logged is delivered.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from asynctrack.clock import monotonic
from asynctrack.errors import FlushTimeoutError

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["Workers", "wait_for_workers", "wait_for_workers_on_loop"]

#: seconds between two looks
_PAUSE = 0.05


class Workers:
    """The spools in which something of a run stood when this was made, apart from this process's own."""

    def __init__(self, state: RunState) -> None:
        from asynctrack.journal.progress import marks_below

        self._run_id, self._uri = state.run_id, state.engine.store.uri
        journal = state.engine.journal
        # In a forked child that has not logged yet, it is the parent's.
        path = journal.spool.path if state.engine.pid == os.getpid() else None
        own = None if path is None else os.path.abspath(path)
        self._names = {self._run_id, state.spec.uid}
        # A worker in another folder, as Ray's are, has its spool in the user's; and a journal in memory has no place.
        homes = {*map(os.path.abspath, journal.homes), *([] if own is None else [os.path.dirname(own)])}
        self._marks = {path: mark for home in homes for path, mark in marks_below(home, self._names).items()}
        self._marks.pop(own or "", None)
        if self._marks:
            state.engine.adopt()  # what dead ones have left

    def behind(self) -> list[str]:
        """The spools of which something that had been logged by then is not delivered."""
        from asynctrack.journal.progress import is_past

        for path in [path for path, mark in self._marks.items() if is_past(path, self._names, mark)]:
            del self._marks[path]
        return list(self._marks)

    def timed_out(self, timeout: float) -> FlushTimeoutError:
        """What is raised for those that are left."""
        places = ", ".join(list(self._marks)[:5])
        return FlushTimeoutError(
            f"run {self._run_id}: not everything that other processes had logged is in {self._uri} after {timeout:g} "
            f"s; it is kept in {places}, and goes on being delivered"
        )


def wait_for_workers(state: RunState, timeout: float | None) -> None:
    """Wait until what other processes on this host have logged to the run is in the store. Raises FlushTimeoutError
    after ``timeout`` seconds (None: no limit)."""
    workers, began = Workers(state), monotonic()
    while workers.behind():
        if timeout is not None and monotonic() - began > timeout:
            raise workers.timed_out(timeout)
        time.sleep(_PAUSE)


async def wait_for_workers_on_loop(state: RunState, timeout: float | None) -> None:  # noqa: ASYNC109  # as flush
    """`wait_for_workers`, on asyncio or trio."""
    from asynctrack.runs.waiting import in_thread, pause_on_loop

    workers, began = await in_thread(lambda: Workers(state)), monotonic()
    while await in_thread(workers.behind):
        if timeout is not None and monotonic() - began > timeout:
            raise workers.timed_out(timeout)
        await pause_on_loop(_PAUSE)

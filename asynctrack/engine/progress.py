"""Waiting for the engine in the thread of a person who wonders why: after two seconds it says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["Waiting"]

#: seconds of silence before anything is shown
_PATIENCE = 2.0
_TICK = 0.1


class Waiting:
    """Shows on a terminal how many events are still on their way, once waiting takes longer than 2 s.

    ``pending`` gives the number left; it is asked about ten times a second, and only when something is shown. rich is
    imported then, and drawn by hand: at interpreter exit it could not start its refreshing thread.
    """

    def __init__(self, pending: Callable[[], int]) -> None:
        self._pending = pending
        self._begun = time.monotonic()
        self._progress: object | None = None
        self._task: object = None
        self._most = 0

    def until(self, done: Callable[[float], bool], timeout: float) -> bool:
        """Call ``done(seconds)`` (it blocks at most that long) until it is true or ``timeout`` seconds have passed."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if done(max(0.0, min(_TICK, left))):
                return True
            if left <= 0:
                return False
            self.show()

    def show(self) -> None:
        """Draw, if it is time and somebody is watching."""
        if time.monotonic() - self._begun < _PATIENCE or not sys.stderr or not sys.stderr.isatty():
            return
        pending = self._pending()
        self._most = max(self._most, pending)
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("asynctrack: delivering"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = progress.add_task("", total=self._most)
            progress.start()
            self._progress = progress
        self._progress.update(self._task, total=self._most, completed=self._most - pending)  # type: ignore[attr-defined]  # rich is imported late
        self._progress.refresh()  # type: ignore[attr-defined]  # as above

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()  # type: ignore[attr-defined]  # as above

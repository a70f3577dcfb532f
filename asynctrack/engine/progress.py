"""Waiting for the engine in the thread of a person who wonders why: after two seconds it says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from asynctrack.clock import monotonic

__all__ = ["Waiting"]

#: seconds of silence before anything is shown
_PATIENCE = 2.0
_TICK = 0.1


class Waiting:
    """Shows on a terminal how much is still on its way, once waiting takes longer than 2 s.

    ``pending`` gives the number of events left, ``artifact_bytes`` how large the artifacts among them are; they are
    asked about ten times a second, and only when something is shown. rich is imported then, and drawn by hand: at
    interpreter exit it could not start its refreshing thread.
    """

    def __init__(self, pending: Callable[[], int], artifact_bytes: Callable[[], int] = int) -> None:
        self._pending = pending
        self._artifact_bytes = artifact_bytes
        self._begun = monotonic()
        self._progress: object | None = None
        self._task: object = None
        self._most = 0

    def until(self, done: Callable[[float], bool], timeout: float) -> bool:
        """Call ``done(seconds)`` (it blocks at most that long) until it is true or ``timeout`` seconds have passed."""
        deadline = monotonic() + timeout
        while True:
            left = deadline - monotonic()
            if done(max(0.0, min(_TICK, left))):
                return True
            if left <= 0:
                return False
            self.show()

    def show(self) -> None:
        """Draw, if it is time and somebody is watching."""
        if monotonic() - self._begun < _PATIENCE or not sys.stderr or not sys.stderr.isatty():
            return
        pending, artifact_bytes = self._pending(), self._artifact_bytes()
        self._most = max(self._most, pending)
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("asynctrack: delivering"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = progress.add_task("", total=self._most)
            progress.start()
            self._progress = progress
        shown = {"total": self._most, "completed": self._most - pending, "description": _size(artifact_bytes)}
        self._progress.update(self._task, **shown)  # type: ignore[attr-defined]  # rich is imported late
        self._progress.refresh()  # type: ignore[attr-defined]  # as above

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()  # type: ignore[attr-defined]  # as above


def _size(artifact_bytes: int) -> str:
    if not artifact_bytes:
        return ""
    from rich.filesize import decimal

    return f"{decimal(artifact_bytes)} of artifacts left"

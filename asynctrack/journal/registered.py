"""The registry as a reader sees it: what the numbers of runs and metrics stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

from asynctrack.journal.frames import FrameFile, scan_frames
from asynctrack.journal.measured import MeasuredOn, measured_on

__all__ = ["RegistryReader", "Stream"]

#: bytes that are read at once
_WINDOW = 1 << 20


class Stream(NamedTuple):
    """What a stream number stands for: a metric of a run. ``on``: with what it was measured on, where that is known."""

    run: int
    key: str
    on: MeasuredOn | None = None


class RegistryReader:
    """Reads a registry on, and again where something was forgotten. Not thread-safe: one consumer."""

    def __init__(self, file: FrameFile) -> None:
        self._file = file
        self._end = 0
        self.runs: dict[int, dict[str, Any]] = {}
        self._newest_run = 0
        self._new_runs: set[int] = set()
        self._streams: dict[int, Stream] = {}
        self._streams_of: dict[int, set[int]] = {}

    def refresh(self) -> None:
        """Take in what has been registered since. Raises OSError."""
        self._scan(self._end)

    def new_runs(self) -> list[int]:
        """The numbers of the runs whose registration was read since this was asked last, or read again."""
        found, self._new_runs = sorted(self._new_runs), set()
        return [run for run in found if run in self.runs]

    def run(self, number: int) -> dict[str, Any] | None:
        """What a run was registered with, from the file if it was forgotten; None where its entry is damaged. Raises
        OSError."""
        if number not in self.runs and number <= self._newest_run:
            self._scan(0)
        return self.runs.get(number)

    def stream(self, number: int) -> Stream | None:
        """The metric behind a stream number; None where its entry is damaged. Raises OSError."""
        found = self._streams.get(number)
        if found is None:
            self.refresh()
            found = self._streams.get(number)
        if found is None:
            # Another thread's entry, at a smaller offset, may have been under way when we passed it.
            self._scan(0)
            found = self._streams.get(number)
        return found

    def forget(self, run: int) -> None:
        """Keep nothing of a run in memory any more."""
        self.runs.pop(run, None)
        for number in self._streams_of.pop(run, ()):
            self._streams.pop(number, None)

    def _scan(self, start: int) -> None:
        """Read on from an offset, a window at a time: what dead programs have left may be large."""
        size, window = self._file.size(), _WINDOW
        while start < size:
            data = self._file.read(start, window)
            entries, end, _ = scan_frames(data)
            for entry in entries:
                self._take(entry)
            self._end = max(self._end, start + end)
            if start + len(data) >= size:
                return
            # No whole frame: one that is larger than the window, or damage.
            start, window = start + end, _WINDOW if end else 2 * window

    def _take(self, entry: Any) -> None:
        """Entries of kinds that are not known are skipped; and so are those that no writer of ours has made."""
        match entry:
            case ["run", int(number), dict(spec), *_]:
                self.runs[number] = spec
                self._new_runs.add(number)
                self._newest_run = max(self._newest_run, number)
            case ["stream", int(number), int(run), str(key), *more]:
                self._streams[number] = Stream(run, key, measured_on(key, more))
                self._streams_of.setdefault(run, set()).add(number)

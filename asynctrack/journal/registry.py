"""What numbers of runs and metrics stand for: given out, and written down, in one order."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.journal.frames import FrameFile, encode_frame
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.slots import LAST_STREAM

__all__ = ["Registry"]


class Registry:
    """Numbers the runs and metrics of one journal. Any thread and any signal handler may call."""

    def __init__(self, file: FrameFile, after: Registry | None = None) -> None:
        """``after``: of an earlier journal of this process, whose numbers are not given out again."""
        self._file = file
        self._streams: itertools.count[int] = itertools.count(1) if after is None else after._streams
        #: what has a lower number is a metric of an earlier journal
        self.first_stream: int = 1 if after is None else next(self._streams)
        self._next_run: int = 1 if after is None else after._next_run
        #: entries of runs that have a number and are not written yet: more than one only where a signal handler
        #: starts a run while this very thread is starting one
        self._unwritten: dict[int, bytes] = {}
        self._lock = threading.RLock()

    @property
    def next_run(self) -> int:
        """The number that the next run gets."""
        return self._next_run

    def add_run(self, spec: dict[str, Any]) -> int:
        """Enter a run and return its number. Raises OSError.

        A run is in the file before any later one, for a reader takes lower numbers than the last one for known.
        """
        with self._lock:
            while True:
                number = self._next_run
                frame = encode_frame(["run", number, spec])
                # No call stands between the test and the stores: a signal handler that starts a run in this very
                # thread has either taken the number before the test, or finds our entry and writes it before its own.
                if self._next_run == number:
                    self._next_run = number + 1
                    self._unwritten[number] = frame
                    break
            try:
                for earlier in sorted(self._unwritten):
                    entry = self._unwritten.get(earlier)
                    if entry is not None:
                        self._file.append(entry)
                        self._unwritten.pop(earlier, None)
            finally:
                self._unwritten.pop(number, None)
            return number

    def add_stream(self, run: int, key: str | MeasuredOn) -> int:
        """Enter a metric of a run and return its stream number. Raises OSError."""
        number = next(self._streams)
        if number > LAST_STREAM:
            raise InvalidInputError(
                f"metric {key!r}: this process has used up its {LAST_STREAM} metrics; log it from another one"
            )
        self._file.append(encode_frame(["stream", number, run, *((key,) if isinstance(key, str) else key)]))
        return number

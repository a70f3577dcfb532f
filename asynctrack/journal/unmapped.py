"""Writing slots with system calls, where a mapping cannot be trusted (see `asynctrack.journal.filesystem`)."""

from __future__ import annotations

import threading

from asynctrack.journal.disk import write_all
from asynctrack.journal.opening import SpoolFile

__all__ = ["UnmappedSlots"]


class UnmappedSlots:
    """The slots of one file. Any thread and any signal handler may call."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._open = True
        self._writing = 0
        self._lock = threading.RLock()

    def write(self, data: bytes, at: int) -> None:
        """Write whole slots at an offset. Raises ValueError once it is closed, and OSError."""
        with self._lock:
            self._writing = self._writing + 1
            try:
                if not self._open:
                    raise ValueError("closed for writing")
                write_all(self._file.opened().fd, data, at)
            finally:
                self._writing = self._writing - 1

    def close(self) -> bool:
        """From now on nothing is written. False while somebody is in the middle of a write (ask again): what is empty
        afterwards is taken for final."""
        self._open = False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return not self._writing  # by this very thread, which a signal handler has interrupted
        finally:
            self._lock.release()

"""A queue for those of us who write one SQLite file: in SQLite there is none.

Who writes has the *turnstile*: a lock on the folder that the file is in. (A lock on the file itself would not do: when
a process closes any descriptor of the file, it loses SQLite's own locks.) Whoever has it keeps it for a while after a
transaction, so that others than us, who do not know of it, find the file free however many of us are waiting.

It is manners, and no more. Whoever does not get it in time, or cannot have it, goes without.
"""

from __future__ import annotations

import os
import time

from asynctrack.clock import chance, monotonic
from asynctrack.platforms import CLOSE_ON_EXEC, fcntl

__all__ = ["Turnstile"]

#: seconds between two attempts at first. Whoever has waited longer tries more often, so the longest wait ends first
_STEP = 0.05
#: seconds to wait for it; and, if somebody keeps it for that long, for which to do without
_PATIENCE, _WITHOUT = 10.0, 10.0


class Turnstile:
    """That of one file. Used under the database's lock."""

    def __init__(self, path: str) -> None:
        self._folder = os.path.dirname(path)
        self._fd = -1
        self._without_until = 0.0

    @property
    def entered(self) -> bool:
        """Whether it is ours."""
        return self._fd >= 0

    def enter(self, until: float) -> None:
        """Wait for it, but not beyond ``until``; nothing where it was entered already."""
        begun = monotonic()
        if fcntl is None or self.entered or begun < self._without_until:
            return
        try:
            self._fd = os.open(self._folder, os.O_RDONLY | CLOSE_ON_EXEC)
        except OSError:
            return  # whoever opens the file will be told
        try:
            while not self._taken():
                waited, left = monotonic() - begun, until - monotonic()
                if waited > _PATIENCE or left <= 0:
                    self._without_until = monotonic() + _WITHOUT
                    self.leave()
                    return
                time.sleep(min((0.5 + 0.5 * chance()) * _STEP / (1.0 + waited) ** 2, left))
        except BaseException:
            self.leave()
            raise

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            self.leave()  # there are no such locks here
        return True

    def leave(self) -> None:
        """Let the next one in; harmless where it was not entered."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

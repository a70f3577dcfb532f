"""The workers of one service on one host: a number for each, and the merging of what they have counted.

They meet in a folder beside the spools. Each puts its windows there, as files; whichever holds the lock merges the
windows that are over, and deletes the files. So no worker is special, and what a killed one has left is merged too.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asynctrack.clock import monotonic
from asynctrack.integrations.windows import Window
from asynctrack.platforms import CLOSE_ON_EXEC, fcntl

__all__ = ["Workers"]

logger = logging.getLogger("asynctrack")

_MOST_WORKERS = 10_000
_PART = re.compile(r"(\d+)-[0-9a-f]+\.part")
_LOCK = "merging.lock"
#: seconds that a worker which ends waits for one that merges, and between two looks
_PATIENCE, _POLL = 5.0, 0.005


class Workers:
    """This worker's place among the others. Called by one thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.number, self._fd = self._take_number()

    def _take_number(self) -> tuple[int, int]:
        """The lowest number that no living worker has, and the file whose lock keeps it."""
        for number in range(_MOST_WORKERS):
            fd = self._lock(f"worker-{number}.lock")
            if fd is not None:
                return number, fd
        raise OSError(f"{self._folder}: there are {_MOST_WORKERS} workers already")

    def _lock(self, name: str) -> int | None:
        """A file of the folder, locked; None where another process has the lock."""
        path = os.path.join(self._folder, name)
        while True:
            flags = os.O_RDWR | os.O_CREAT | CLOSE_ON_EXEC | getattr(os, "O_NOFOLLOW", 0)
            try:
                os.makedirs(self._folder, mode=0o700, exist_ok=True)
                fd = os.open(path, flags, 0o600)
            except (FileNotFoundError, FileExistsError):
                if os.path.lexists(self._folder) and not os.path.isdir(self._folder):
                    raise
                continue  # the last worker has just taken it away
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # somebody has cleared up between our open and our lock: begin again

    def put(self, window: Window) -> None:
        """Hand a window over, for whoever merges. Raises OSError."""
        path = os.path.join(self._folder, f"{window.number}-{os.urandom(8).hex()}.part")
        making = f"{path}.new"
        fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOSE_ON_EXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(window.dump())
        os.rename(making, path)

    def merge(self, before: float, log: Callable[[Window], None]) -> None:
        """Merge the windows with numbers below ``before``, ``log`` them, oldest first, and forget them; nothing where
        another worker is doing so. Raises OSError, and what ``log`` raises."""
        with self._merging(0.0) as lock:
            if lock is not None:
                self._merge(lock, before, log)

    def _merge(self, lock: int, before: float, log: Callable[[Window], None]) -> None:
        # The lock's file tells which window was merged last. What comes later than its window goes into the next one.
        merged = int(os.pread(lock, 20, 0) or -1)
        parts: dict[int, list[str]] = {}
        for name in os.listdir(self._folder):
            match = _PART.fullmatch(name)
            if match is not None and (number := max(int(match[1]), merged + 1)) < before:
                parts.setdefault(number, []).append(os.path.join(self._folder, name))
        for number in sorted(parts):
            whole = Window(number)
            for path in sorted(parts[number]):
                part = _read(path)
                if part is not None:
                    whole.merge(part)
            if whole:
                log(whole)
            os.pwrite(lock, f"{number:20}".encode(), 0)
            for path in parts[number]:
                os.unlink(path)

    @contextmanager
    def _merging(self, patience: float) -> Iterator[int | None]:
        """The lock of the worker that merges; None where another has it, also after so many seconds."""
        deadline = monotonic() + patience
        while (fd := self._lock(_LOCK)) is None and monotonic() < deadline:
            time.sleep(_POLL)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def close(self, before: float, log: Callable[[Window], None]) -> None:
        """Merge what can be merged, and give the number back. The last worker merges everything, and takes the folder
        away. Raises as `merge`."""
        if self._fd < 0:
            return
        own, self._fd = self._fd, -1
        dead: list[int] = []
        try:
            # Under the lock: of two that go at once, the second one is the last.
            with self._merging(_PATIENCE) as lock:
                names = os.listdir(self._folder)
                others = [name for name in names if name.startswith("worker-") and name != self._name]
                last = lock is not None
                for name in others if last else ():
                    fd = self._lock(name)
                    if fd is None:
                        last = False
                        break
                    dead.append(fd)
                if lock is not None:
                    self._merge(lock, math.inf if last else before, log)
                self._clear([*others, *(name for name in names if name.endswith(".new")), _LOCK] if last else [])
        finally:
            for fd in (own, *dead):
                os.close(fd)

    def _clear(self, names: list[str]) -> None:
        """Take this worker's file away, and those of dead ones."""
        for name in (self._name, *names):
            os.unlink(os.path.join(self._folder, name))
        if names:
            try:
                os.rmdir(self._folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # A worker is just coming: it is the last one then.

    @property
    def _name(self) -> str:
        return f"worker-{self.number}.lock"

    def forget(self) -> None:
        """In a forked child: the number is the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read(path: str) -> Window | None:
    try:
        with open(path, "rb") as file:
            return Window.load(file.read())
    except ValueError as error:
        logger.warning("asynctrack: what a worker has counted is lost: %s: %s", path, error)
        return None

"""How much a journal may take, and how much of that it has taken.

Whoever makes something that takes room on the disk (a segment, a frame, a snapshot of an artifact) reserves the room
before, and releases it when the thing is deleted. So what is reserved is what a walk through the folder finds.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Container

__all__ = ["Budget", "files_to_keep"]

#: file descriptors that the sealed segments of one journal keep open at most, and of a process's limit at most
_MOST_FILES = 64
_SHARE_OF_FILES = 16


class Budget:
    """Bytes and file descriptors of one journal. Any thread and any signal handler may call; nothing here waits."""

    def __init__(self, most_bytes: int, most_files: int = _MOST_FILES) -> None:
        self.most_bytes = most_bytes
        self.most_files = most_files
        #: bytes reserved, and descriptors
        self.bytes = 0
        self.files = 0
        #: bytes of them that snapshots of artifacts take
        self.snapshot_bytes = 0
        #: snapshots of artifacts by name, with their bytes
        self._snapshots: dict[str, int] = {}
        # For other threads, on a Python without GIL. A signal handler comes through it in the very thread that holds
        # it, but never into the middle of a change: below, no call stands between reading a sum and storing it.
        self._lock = threading.RLock()

    # ── bytes

    def reserve(self, size: int, *, overdraw: bool = False) -> None:
        """Take ``size`` bytes. Raises OSError where they are not left, unless they may ``overdraw`` the limit."""
        with self._lock:
            taken = self.bytes + size
            if overdraw or taken <= self.most_bytes:
                self.bytes = self.bytes + size
                return
        raise OSError(errno.ENOSPC, f"max_spool_bytes={self.most_bytes} is reached")

    def release(self, size: int) -> None:
        """Give ``size`` bytes back: what took them is deleted."""
        with self._lock:
            self.bytes = self.bytes - size

    def left(self) -> int:
        """Bytes that can still be reserved; below 0 where the limit is overdrawn."""
        return self.most_bytes - self.bytes

    # ── snapshots of artifacts

    def add_snapshot(self, name: str, size: int) -> None:
        """A snapshot was made."""
        with self._lock:
            self._snapshots[name] = size
            self.bytes = self.bytes + size
            self.snapshot_bytes = self.snapshot_bytes + size

    def drop_snapshot(self, name: str) -> None:
        """A snapshot was deleted. One that is not known is no error: it was taken by another process, or twice."""
        with self._lock:
            size = self._snapshots.pop(name, 0)
            self.bytes = self.bytes - size
            self.snapshot_bytes = self.snapshot_bytes - size

    def drop_deleted_snapshots(self, folder: str) -> None:
        """Snapshots may have been deleted by another process: look what is left of them in their folder."""
        try:
            self.drop_snapshots_but(frozenset(os.listdir(folder)))
        except OSError:
            pass  # they have gone with their folder, or nobody can tell

    def drop_snapshots_but(self, names: Container[str]) -> None:
        """Snapshots were deleted by another process: all but ``names``."""
        for name in [name for name in list(self._snapshots) if name not in names]:
            self.drop_snapshot(name)

    @property
    def has_snapshots(self) -> bool:
        """Whether a snapshot waits."""
        return bool(self._snapshots)

    # ── descriptors

    def reserve_file(self) -> bool:
        """Take one file descriptor; False where none is left."""
        with self._lock:
            if self.files >= self.most_files:
                return False
            self.files = self.files + 1
            return True

    def release_file(self) -> None:
        """Give one back: it is closed."""
        with self._lock:
            self.files = self.files - 1


def files_to_keep() -> int:
    """How many descriptors a journal may keep for sealed segments, with the limit that this process has."""
    try:
        import resource
    except ImportError:
        return _MOST_FILES  # no POSIX system
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_FILES if limit < 0 else max(1, min(_MOST_FILES, limit // _SHARE_OF_FILES))


def bytes_below(path: str, *, links: bool = False) -> int:
    """Bytes of the files at and below ``path``. A link to a file that its owner keeps takes none; ``links`` counts it
    all the same."""
    if os.path.isdir(path):
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    else:
        paths = [path]
    total = 0
    for file in paths:
        try:
            found = os.lstat(file)
        except FileNotFoundError:
            continue  # delivered just now
        total += found.st_size if links or found.st_nlink == 1 else 0
    return total

"""The few calls in which a file on disk and one in memory differ."""

from __future__ import annotations

import os

__all__ = ["allocate", "new_file", "write_all"]


def new_file(path: str | None) -> int:
    """A descriptor for a new file, mode 0600; ``path=None``: a file in memory, for where there is no usable disk.

    Raises OSError, FileExistsError too.
    """
    if path is not None:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asynctrack", os.MFD_CLOEXEC)
    import tempfile  # where there is no memfd_create; else it would be a tenth of `import asynctrack`

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def allocate(fd: int, size: int) -> None:
    """Take all blocks of a file now: a full disk is an OSError here and not a SIGBUS in a training loop later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        write_all(fd, bytes(size), 0)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """``pwrite`` until everything is written. Raises OSError."""
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)

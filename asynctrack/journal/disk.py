"""The few calls in which a file on disk and one in memory differ."""

from __future__ import annotations

import mmap
import os
import sys

__all__ = ["CHUNK", "allocate", "fill", "map_file", "new_file", "sync_folder", "write_all"]

#: bytes, a multiple of every page size
CHUNK = 128 * 1024
_ZEROS = bytes(CHUNK)


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


def map_file(fd: int, size: int, access: int = mmap.ACCESS_DEFAULT) -> mmap.mmap:
    """The beginning of a file in memory. Raises OSError, and ValueError where the file is shorter.

    Up to Python 3.12 the mapping has a descriptor of its own, which is closed with it, whatever that number leads to by
    then.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, access=access, trackfd=False)
    return mmap.mmap(fd, size, access=access)


def allocate(fd: int, size: int) -> None:
    """Take all blocks of a new file now: a full disk is an OSError here and not a SIGBUS in a training loop later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        fill(fd, size)


def fill(fd: int, size: int) -> None:
    """Write zeros: the pages of a new file are in memory then, many to a piece, and making and mapping 4 MiB of them
    takes 0.8 ms. Page by page, as they are touched, it takes 3.3 ms. (ext4, Linux 6.18.) Raises OSError."""
    at = 0
    while at < size:
        at += os.pwrite(fd, _ZEROS[: size - at], at)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """``pwrite`` until everything is written. Raises OSError."""
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def sync_folder(path: str) -> None:
    """Hand the names in a folder to the disk itself: without it a file made or renamed just now may be gone after a
    power cut, synced as it was. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

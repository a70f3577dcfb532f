"""Opening the files of a spool. What stands in a spool is input: it may have been put there by anybody."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import NoReturn, SupportsIndex

from asynctrack.platforms import CLOSE_ON_EXEC

__all__ = ["Descriptor", "SpoolFile", "open_regular"]

#: never through a link, and never waiting for whoever would write into a pipe of that name
_CAREFUL = CLOSE_ON_EXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

#: what the system says of a link, a folder and a socket that are opened like a file
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


#: an object that is made from any descriptor, and closes it when it is deleted, in C (an epoll object: Linux)
_closer: Callable[[int], object] | None = getattr(getattr(select, "epoll", None), "fromfd", None)


class Descriptor:
    """An open file, closed when nobody uses it any more.

    A call of it holds a reference, and whoever uses ``fd`` needs one in a variable. So letting go of a file beside
    another thread's read needs no lock, and that read cannot get at whatever file has been given the same number since.

    It is closed without a step of Python's: a Ctrl-C that came in a destructor would be lost, and the log calls of the
    main thread let go of files.
    """

    __slots__ = ("_closer", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._closer = None if _closer is None else _closer(fd)

    def read(self, size: int, at: int) -> bytes:
        """``size`` bytes from the offset ``at`` on; fewer where the file ends. Raises OSError."""
        data = os.pread(self.fd, size, at)
        # The kernel gives what it has got where it meets an error, and says so at the next call.
        while 0 < len(data) < size and (more := os.pread(self.fd, size - len(data), at + len(data))):
            data += more
        return data

    def read_into(self, buffer: bytearray, at: int) -> int:
        """Fill a buffer from the offset ``at`` on, or its beginning, where the file ends; how many bytes. Raises
        OSError."""
        size = os.preadv(self.fd, [buffer], at)
        while 0 < size < len(buffer) and (more := os.preadv(self.fd, [memoryview(buffer)[size:]], at + size)):
            size += more
        return size

    def size(self) -> int:
        """Bytes in the file. Raises OSError."""
        return os.fstat(self.fd).st_size

    def sync(self) -> None:
        """Hand what was written to the disk itself. Raises OSError."""
        getattr(os, "fdatasync", os.fsync)(self.fd)  # macOS has only the slower one

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an open file cannot be copied: each copy would close it")

    if _closer is None:

        def __del__(self) -> None:
            try:
                os.close(self.fd)
            except OSError:
                pass  # nothing more can be done about it here


class SpoolFile:
    """A file of a spool (``path=None``: in memory), opened for each use unless it is kept open: a journal of thousands
    of segments takes no descriptors. Any thread may use it."""

    def __init__(self, path: str | None, fd: int = -1) -> None:
        self.path = path
        self._kept = Descriptor(fd) if fd >= 0 else None

    def opened(self) -> Descriptor:
        """The file, closed again with the last reference to what this returns. Raises OSError; FileNotFoundError also
        where it is no file."""
        kept = self._kept
        if kept is not None:
            return kept
        if self.path is None:
            raise OSError(errno.EBADF, "it was in memory, and is closed")
        try:
            return Descriptor(open_regular(self.path, os.O_RDONLY))
        except ValueError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), self.path) from None

    def read(self, size: int, at: int) -> bytes:
        """Up to ``size`` bytes from the offset ``at`` on. Raises OSError."""
        return self.opened().read(size, at)

    def read_into(self, buffer: bytearray, at: int) -> int:
        """Fill a buffer, or its beginning, from the offset ``at`` on; how many bytes. Raises OSError."""
        return self.opened().read_into(buffer, at)

    def sync(self) -> None:
        """Hand the file to the disk itself. Raises OSError."""
        if self.path is None and self._kept is None:
            return
        try:
            self.opened().sync()
        except FileNotFoundError:
            pass  # deleted: nothing of it is to survive

    def close(self) -> None:
        """Do not keep it open. What is in memory is gone then."""
        self._kept = None


def open_regular(path: str, flags: int) -> int:
    """A descriptor for a file of a spool. Raises ValueError for what is no regular file (a link, a pipe, a device),
    and OSError."""
    try:
        fd = os.open(path, flags | _CAREFUL, 0o600)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise ValueError(f"{path} is no regular file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path} is no regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd

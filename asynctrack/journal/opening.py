"""Opening the files of a spool. What stands in a spool is input: it may have been put there by anybody."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import NoReturn, SupportsIndex

from asynctrack.platforms import CLOSE_ON_EXEC

__all__ = ["Descriptor", "FileId", "SpoolFile", "file_of", "leads_to", "open_regular", "reopened"]

#: never through a link, and never waiting for whoever would write into a pipe of that name
_CAREFUL = CLOSE_ON_EXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

#: which file it is: its device and inode
FileId = tuple[int, int]

#: what the system says of a link, a folder and a socket that are opened like a file
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


#: an object that is made from any descriptor, and closes it when it is deleted, in C (an epoll object: Linux)
_closer: Callable[[int], object] | None = getattr(getattr(select, "epoll", None), "fromfd", None)
#: kept for ever: they would close descriptors that are others' by now
_never_closed: list[object] = []


class Descriptor:
    """An open file, closed when nobody uses it any more.

    A call of it holds a reference, and whoever uses ``fd`` needs one in a variable. So letting go of a file beside
    another thread's read needs no lock, and that read cannot get at whatever file has been given the same number since.

    It is closed without a step of Python's: a Ctrl-C that came in a destructor would be lost, and the log calls of the
    main thread let go of files.

    A program that becomes a daemon may close all that is open, ours too, and then the number is another file's.
    """

    __slots__ = ("_closer", "fd", "file")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: which file it leads to
        self.file = file_of(fd)
        self._closer = None if _closer is None else _closer(fd)

    @property
    def is_ours(self) -> bool:
        """Whether it is still open, and leads to the same file. Where it does not, it is never closed: it may be
        somebody else's."""
        if self.fd >= 0 and leads_to(self.fd, self.file):
            return True
        if self._closer is not None:
            _never_closed.append(self._closer)
        self.fd = -1
        return False

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
            if not kept.is_ours:
                self._kept = kept = reopened(kept, self.path, os.O_RDWR)
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
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.is_ours  # noqa: B018  # else it is not closed


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


def file_of(fd: int) -> FileId:
    """Which file a descriptor leads to. Raises OSError."""
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


def leads_to(fd: int, file: FileId) -> bool:
    """Whether a descriptor that led to ``file`` still does."""
    try:
        return file_of(fd) == file
    except OSError as error:
        return error.errno != errno.EBADF


def reopened(lost: Descriptor, path: str | None, flags: int) -> Descriptor:
    """The file of a descriptor that somebody has closed, as it stands at ``path``. Raises OSError."""
    if path is not None:
        try:
            found = Descriptor(open_regular(path, flags))
        except (FileNotFoundError, ValueError):
            found = lost
        if found is not lost and found.file == lost.file:
            return found
    raise OSError(errno.EBADF, "somebody has closed its descriptor, and it cannot be opened again", path)

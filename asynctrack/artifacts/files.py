"""Reading and copying the user's files: whole folders, pieces large enough to be quick, files that appear whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from asynctrack.artifacts.paths import RESERVED_PREFIX, join
from asynctrack.errors import RefusedError, UnavailableError
from asynctrack.platforms import passes
from asynctrack.stores.file.files import KEY_ERRORS, unavailable, write_all
from asynctrack.stores.io import StoreIO

__all__ = [
    "SourceFile",
    "StagedFile",
    "check_unchanged",
    "copy_piece",
    "disk_error",
    "files_below",
    "open_source",
    "source_error",
    "stat_source",
]

#: bytes copied by one call: a cancelled copy stops within a fraction of a second, and a hop to a thread costs nothing
COPY_BYTES = 64 << 20
_READ_BYTES = 1 << 20
#: the kernel does not copy between these two files by itself: other file system, or an old or special one
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF})
_SOURCE_ADVICE = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "this user may not read it",
    errno.ELOOP: "its symbolic links lead in a circle",
}


class SourceFile(NamedTuple):
    """A file to be logged: where it is, its path below the folder it was found in, and its `os.stat`."""

    path: str
    relative: str
    stat: os.stat_result


def files_below(folder: str, leave_out: Iterable[str] = (), *, empty: list[str] | None = None) -> Iterator[SourceFile]:
    """Every file in a folder and its sub-folders, in a fixed order; except the files and folders ``leave_out``.

    Folders in which nothing is are added to ``empty``, by their path from ``folder`` ("" for itself).

    Symbolic links are followed, except to a folder that contains them. Raises OSError, and `RefusedError` for what is
    neither file nor folder, such as a pipe, and where ``folder`` itself is to be left out.
    """
    left_out = frozenset(identity for path in leave_out if (identity := _identity_at(path)) is not None)
    if _identity(os.stat(folder)) in left_out:
        raise RefusedError(
            f"{folder} is where this run's own events or artifacts are kept; log what is in it by its name"
        )
    yield from _below(folder, "", (), left_out, [] if empty is None else empty)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _identity_at(path: str) -> tuple[int, int] | None:
    try:
        return _identity(os.stat(path))
    except (OSError, ValueError):
        return None  # there is nothing to leave out


def _below(
    folder: str,
    relative: str,
    above: tuple[tuple[int, int], ...],
    left_out: frozenset[tuple[int, int]],
    empty: list[str],
) -> Iterator[SourceFile]:
    identity = _identity(os.stat(folder))
    if identity in above:
        return  # a link back up, and what is there is being listed already
    names = sorted(os.listdir(folder))
    if not names:
        empty.append(relative)
    for name in names:
        path, below = os.path.join(folder, name), join(relative, name)
        found = os.stat(path)
        if _identity(found) in left_out:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _below(path, below, (*above, identity), left_out, empty)
        elif stat.S_ISREG(found.st_mode):
            yield SourceFile(path, below, found)
        else:
            raise RefusedError(f"{path} is neither a file nor a folder; log the folder without it")


def open_source(path: str) -> int:
    """A descriptor to read a file by. Raises `RefusedError` where there is none to be read, ever, and
    `UnavailableError` where there is none now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer would wait
    except OSError as error:
        raise source_error(error, path) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError(f"{path} is not a file")
    return fd


async def stat_source(io: StoreIO, path: str) -> os.stat_result:
    """The `os.stat` of a file to be logged. Raises as `open_source`."""
    return await io.call(_stat_source, path)


def _stat_source(path: str) -> os.stat_result:
    fd = open_source(path)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def source_error(error: OSError, path: str) -> RefusedError | UnavailableError:
    """Why a file to be logged cannot be read."""
    if passes(error):
        return UnavailableError(f"{error.filename or path} cannot be read now: {error.strerror}")
    reason = _SOURCE_ADVICE.get(error.errno or 0, error.strerror)
    return RefusedError(f"{error.filename or path} cannot be read: {reason}")


def check_unchanged(before: os.stat_result, after: os.stat_result, path: str) -> None:
    """Raise `UnavailableError` if a file is not what it was before it was read: what was read may be half of each."""
    if any(getattr(before, name) != getattr(after, name) for name in ("st_ino", "st_size", "st_mtime_ns")):
        raise UnavailableError(f"{path} was written to while it was being stored; it is stored again")


def disk_error(error: OSError, path: str) -> UnavailableError | RefusedError:
    """Why ``path`` cannot be written: `RefusedError` when its own name is the cause, so that no retry helps."""
    if error.errno in KEY_ERRORS:
        return RefusedError(f"{error.filename or path}: {error.strerror}; log it under another name")
    return unavailable(error, path)


def copy_piece(source: int, target: int) -> int:
    """Copy up to 64 MiB from one descriptor's position to the other's; 0 at the end. Raises OSError.

    The kernel copies where it can: without a detour through this process and, on file systems that share blocks
    (XFS, btrfs, NFS 4.2), without copying at all.
    """
    if hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, COPY_BYTES)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            copied = 0
        if copied:
            return copied
    # Also at the end: for some special files old kernels say "nothing left" when there is.
    data = os.read(source, _READ_BYTES)
    write_all(target, data)
    return len(data)


class StagedFile:
    """A file in the making, in the folder where it belongs. It appears there whole, or not at all.

    It has no name while it is written, where the file system can do that: a process killed in the middle of a large
    copy then leaves nothing behind. Elsewhere its name says what it is, and hides it from listings.
    """

    def __init__(self, folder: str, mode: int = 0o666) -> None:
        """Raises OSError."""
        self._folder = folder
        self._temporary = os.path.join(folder, f"{RESERVED_PREFIX}{os.getpid()}-{os.urandom(8).hex()}")
        self._named = not (hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/thread-self/fd"))
        if not self._named:
            try:
                self.fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
            except OSError:
                self._named = True  # this file system has no nameless files
        if self._named:
            self.fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def publish(self, path: str, durable: bool = False) -> None:
        """Put it at ``path`` in that folder, in place of what is there; ``durable``: on the disk itself.

        Raises OSError.
        """
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if durable:
                os.fsync(self.fd)
            if not self._name(path, folder):
                os.replace(self._temporary, path)
                self._named = False
            if durable:
                os.fsync(folder)
        finally:
            os.close(folder)

    def _name(self, path: str, folder: int) -> bool:
        """Give a nameless file a name: ``path`` at once, where nothing is there, for a process that is killed between
        two names leaves the first; else the temporary one. Whether it is at ``path``. Raises OSError."""
        if self._named:
            return False
        # With a directory's descriptor, because only then Python has the link to the open file followed.
        nameless = f"/proc/thread-self/fd/{self.fd}"
        try:
            os.link(nameless, path, src_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            os.link(nameless, self._temporary, src_dir_fd=folder, follow_symlinks=True)
            self._named = True
            return False
        return True

    def close(self) -> None:
        """Let go of it; unless it was published it is gone."""
        os.close(self.fd)
        if self._named:
            try:
                os.unlink(self._temporary)
            except OSError:
                pass  # hidden from listings; the error that led here is the one to report

"""The few things done to files that need care: whole creation, whole writes, bounded locks, errors with advice."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from asynctrack.errors import RefusedError, UnavailableError

__all__ = [
    "KEY_ERRORS",
    "LinksUnsupportedError",
    "check_inside",
    "create_whole",
    "exists",
    "locked",
    "locked_directory",
    "make_folder",
    "replace_whole",
    "unavailable",
    "write_all",
]

logger = logging.getLogger("asynctrack")

#: errors that are one key's own fault: another key's file is where its folder must be, the name is too long, ...
KEY_ERRORS = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ, errno.ENOTEMPTY}
)
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
#: EBADF: NFS gives no exclusive lock on what is open for reading only, and a directory can be opened no other way
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})
_LOCK_TIMEOUT = 10.0  # seconds; an append holds the lock for milliseconds, so whoever holds it this long is stopped
_ADVICE = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "the file system is mounted read-only: mount it writable",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOENT: "check that the store is still there and mounted",
    errno.ESTALE: "check that the store's file system is mounted",
}
_unlockable: set[int] = set()


class LinksUnsupportedError(Exception):
    """The file system has no hard links, so a file cannot be created whole without replacing another's."""


def unavailable(error: OSError, path: str) -> UnavailableError:
    """What the engine is told about an OSError: where (``path`` unless the error knows better), why, and what to do."""
    where = error.filename or path
    advice = _ADVICE.get(error.errno or 0, "check that disk")
    return UnavailableError(f"{where}: {error.strerror or error}; {advice}. Nothing is lost: it is tried again")


def exists(path: str) -> bool:
    """Whether there is anything at ``path``. Raises OSError where that cannot be told (a lost mount is no answer)."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_inside(path: str, root: str) -> None:
    """Raise `RefusedError` when links on the way lead ``path`` out of ``root`` (already resolved)."""
    real = os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
        raise RefusedError(f"{path} leads out of the store, to {real}; nothing is written outside {root}")


def make_folder(path: str, folder: str) -> None:
    """Create the directory of ``path``, which lies in ``folder``, but not ``folder``: it may have been moved away just
    now, with its experiment. Raises OSError."""
    os.stat(folder)
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, exist_ok=True)
    except FileExistsError:
        # A file is in the way, which is the key's own fault; or it is a folder, and makedirs could not see that for a
        # moment: then stat says why, or all is well by now.
        if not stat.S_ISDIR(os.stat(parent).st_mode):
            raise


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, also where the system takes only some at a time. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_beside(folder: str, data: bytes, final: str) -> str:
    """A new file in ``folder`` under a name never used before: its removal or reuse can hit no one else's file.

    Errors name ``final``, the file it is for.
    """
    path = os.path.join(folder, f".{os.getpid()}-{os.urandom(8).hex()}.tmp")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, data)
    except BaseException as error:
        _unlink(path)
        if isinstance(error, OSError):
            error.filename = final
        raise
    finally:
        os.close(fd)
    return path


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # a temporary file in a run's folder disturbs no reader; the caller's own error is the one to report


def create_whole(path: str, data: bytes, folder: str) -> bool:
    """Create ``path`` with its content in one step; False when it exists. ``folder`` is for the temporary file.

    Raises `LinksUnsupportedError` or OSError.
    """
    temporary = _write_beside(folder, data, path)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise LinksUnsupportedError from error
        raise
    finally:
        _unlink(temporary)
    return True


def replace_whole(path: str, data: bytes, folder: str) -> None:
    """Replace ``path`` in one step. ``folder``, on the same file system, is for the temporary file. Raises OSError."""
    temporary = _write_beside(folder, data, path)
    try:
        os.replace(temporary, path)
    except BaseException:
        _unlink(temporary)
        raise


@contextmanager
def locked(fd: int, path: str) -> Iterator[None]:
    """Hold ``flock`` on ``fd``. Raises `UnavailableError` after 10 s; goes on, with a warning, where there is none."""
    if _lock(fd, path):
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    else:
        yield


@contextmanager
def locked_directory(path: str) -> Iterator[None]:
    """Hold ``flock`` on a directory itself, which leaves no lock file behind."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with locked(fd, path):
            yield
    finally:
        os.close(fd)


def _lock(fd: int, path: str) -> bool:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    pause = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{path}: another process has held its lock for {_LOCK_TIMEOUT:g} s; "
                    f"look for a stopped process that writes to this store. Nothing is lost: it is tried again"
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn_unlockable(fd, path, error)
            return False


def _warn_unlockable(fd: int, path: str, error: OSError) -> None:
    device = os.fstat(fd).st_dev
    if device not in _unlockable:
        _unlockable.add(device)
        logger.warning(
            "%s: the file system has no locks (%s); let only one process write a run there", path, error.strerror
        )

"""The few things done to files that need care: whole creation, whole writes, bounded locks, errors with advice."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from asynctrack.clock import monotonic
from asynctrack.errors import RefusedError, UnavailableError, WrongServerError
from asynctrack.platforms import CLOSE_ON_EXEC, fcntl, names_need_utf8

__all__ = [
    "KEY_ERRORS",
    "LONGEST_LINE",
    "NOT_A_FILE",
    "NO_POINT",
    "LinksUnsupportedError",
    "check_inside",
    "create_whole",
    "exists",
    "is_file",
    "line_blocks",
    "locked",
    "locked_directory",
    "make_folder",
    "make_folders",
    "make_one_folder",
    "open_regular",
    "read_regular",
    "read_whole",
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
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOENT: "check that the store is still there and mounted",
    errno.ESTALE: "check that the store's file system is mounted",
}
_BLOCK = 1 << 20  # bytes read at once
LONGEST_LINE = 65536  # bytes; whatever is longer is no point
NO_POINT = b"(a line of more than 65536 bytes)"
NOT_A_FILE = "it is not a file"
_unlockable: set[int] = set()


class LinksUnsupportedError(Exception):
    """The file system has no hard links, so a file cannot be created whole without replacing another's."""


def unavailable(error: OSError, path: str) -> UnavailableError:
    """What the engine is told about an OSError: where (``path`` unless the error knows better), why, and what to do."""
    where = error.filename or path
    advice = _ADVICE.get(error.errno or 0, "check that disk")
    return UnavailableError(f"{where}: {error.strerror or error}; {advice}. Nothing is lost: it is tried again")


def unnameable(error: UnicodeEncodeError) -> Exception:
    """What to raise for a file that this program cannot name: another one can, with another encoding."""
    advice = names_need_utf8(error)
    return error if advice is None else WrongServerError(advice)


def exists(path: str) -> bool:
    """Whether there is anything at ``path``. Raises OSError where that cannot be told (a lost mount is no answer)."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of an ordinary file, without waiting for anything: a pipe that somebody has left in a file's place
    would hold us up for ever.

    Raises OSError; `KEY_ERRORS` for what is there and is no file.
    """
    fd = os.open(path, flags | CLOSE_ON_EXEC | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTDIR, NOT_A_FILE, path)
    return fd


def read_regular(path: str, most: int) -> bytes:
    """All of an ordinary file. Raises OSError, ValueError where it has more than ``most`` bytes."""
    fd = open_regular(path)
    try:
        return read_whole(fd, most)
    finally:
        os.close(fd)


def read_whole(fd: int, most: int) -> bytes:
    """The same by its descriptor."""
    size = min(os.fstat(fd).st_size, most)
    data = os.read(fd, size + 1)
    if 0 < len(data) == size:
        return data  # room for one more byte was given: it ends here
    while len(data) <= most and (more := os.read(fd, 65536)):  # it grows, or did not tell its size
        data += more
    if len(data) > most:
        raise ValueError(f"it has more than {most} bytes")
    return data


def line_blocks(fd: int) -> Iterator[bytes]:
    """The lines of a file, many at a time, in flat memory. The last block may end with a line that has no newline. A
    line far too long for a point comes as one that is none. Raises OSError.
    """
    rest = b""
    while data := os.read(fd, _BLOCK):
        whole = data.rfind(b"\n") + 1
        if whole:
            yield rest + data[:whole]
            rest = data[whole:]
        else:
            rest += data
        if len(rest) > LONGEST_LINE:
            rest = NO_POINT
    if rest:
        yield rest


def is_file(path: str) -> bool:
    """Whether there is an ordinary file at ``path``. Raises OSError where that cannot be told."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_inside(path: str, root: str) -> None:
    """Raise `RefusedError` when links on the way lead ``path`` out of ``root`` (already resolved)."""
    real = os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
        raise RefusedError(f"{path} leads out of the store, to {real}; nothing is written outside {root}")


def make_folder(path: str, folder: str) -> None:
    """Create the directory of ``path``, which lies in ``folder``, but never ``folder``: it may be moved away at any
    moment, with its store, and what is then written in its old place is lost. Raises OSError."""
    make_folders(os.path.dirname(path), folder)


def make_folders(path: str, folder: str) -> None:
    """Create the directory ``path`` and those above it, up to ``folder`` but not that. Raises OSError."""
    if path == folder:
        os.stat(folder)
        return
    try:
        os.mkdir(path)
    except FileNotFoundError:
        make_folders(os.path.dirname(path), folder)
        make_one_folder(path)
    except FileExistsError:
        _check_folder(path)


def make_one_folder(path: str) -> None:
    """Create the directory ``path`` where there is none; the one above it must be there. Raises OSError."""
    try:
        os.mkdir(path)
    except FileExistsError:
        _check_folder(path)


def _check_folder(path: str) -> None:
    if not stat.S_ISDIR(os.stat(path).st_mode):  # a file is in the way, which is the key's own fault
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


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
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOSE_ON_EXEC, 0o666)
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
    deadline = monotonic() + _LOCK_TIMEOUT
    pause = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if monotonic() > deadline:
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

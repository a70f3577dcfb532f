"""Who writes a spool, and who delivers it: locks that end with their process, and what a fork does to them.

Two bytes of the owner file carry record locks that belong to the open file (Linux's "open file description locks").
Those that belong to the process are lost as soon as it opens and closes the file once more, as anything does that
copies or reads the whole working directory. A forked child inherits the open file, and closes it at once.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from asynctrack.clock import monotonic
from asynctrack.forks import at_fork
from asynctrack.journal.disk import map_file, new_file
from asynctrack.journal.opening import file_of, leads_to, open_regular
from asynctrack.platforms import fcntl

__all__ = ["CONSUMER", "OWNER", "SpoolLock", "is_held", "locked_file", "own_spools"]

#: bytes of the owner file that are locked by whoever writes the journal, and by whoever delivers it
OWNER, CONSUMER = 0, 1

#: struct flock of 64-bit Linux: type, whence, start, length, process id
_FLOCK = struct.Struct("@hhqqi0q")
#: elsewhere than on Linux they belong to the process
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GET_LOCK: int | None = getattr(fcntl, "F_OFD_GETLK", None)
#: seconds to wait for a file that another process appends to: it does so within milliseconds
_PATIENCE = 1.0
_POLL = 0.005
#: seconds that a fork waits for another thread that is just taking a lock
_FORK_PATIENCE = 5.0

#: the locks that this process holds, by their spools' real paths
_held_here: dict[str, SpoolLock] = {}
#: held while an owner file is opened, locked and noted: two threads at one would take each other's lock away, and a
#: fork in between would leave the lock with a child that does not know of it
_owner_files = threading.RLock()


class SpoolLock:
    """This process's locks on one owner file."""

    def __init__(self, place: str, fd: int) -> None:
        self._place = place
        self.fd = fd
        self._file = file_of(fd)
        self._mapping: mmap.mmap | None = None
        self.pid = os.getpid()

    @classmethod
    def create(cls, folder: str, parts: tuple[int, ...], write: Callable[[int], None]) -> SpoolLock:
        """Make the owner file, locked; ``write`` fills it. Raises OSError.

        It has another name until then, so that nobody takes a spool in the making for an orphan.
        """
        making = os.path.join(folder, "owner.new")
        place = os.path.realpath(folder)
        with _owner_files:
            lock = cls(place, new_file(making))
            try:
                for part in parts:
                    if not lock.take(part):
                        raise OSError(errno.EAGAIN, "locked by somebody else, just made", making)
                write(lock.fd)
                lock._hold_on()
                _held_here[place] = lock
                os.rename(making, os.path.join(folder, "owner"))
            except BaseException:
                lock.release()
                raise
        return lock

    @classmethod
    def open(cls, folder: str, parts: tuple[int, ...]) -> SpoolLock | None:
        """Lock an owner file that is there; None where it is not, or somebody holds one of these locks. Raises OSError,
        and ValueError where ``owner`` is no file."""
        place = os.path.realpath(folder)
        with _owner_files:
            if place in _held_here:
                return None
            try:
                lock = cls(place, open_regular(os.path.join(folder, "owner"), os.O_RDWR))
            except FileNotFoundError:
                return None  # in the making, or just removed by its owner
            try:
                if all(lock.take(part) for part in parts):
                    lock._hold_on()
                    _held_here[place] = lock
                    return lock
            except BaseException:
                lock.release()
                raise
            lock.release()
            return None

    def take(self, part: int) -> bool:
        """Lock `OWNER` or `CONSUMER`, for as long as the process has the file open; False where another has."""
        if self.fd < 0:
            return False
        try:
            if _SET_LOCK is None:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
            else:
                fcntl.fcntl(self.fd, _SET_LOCK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, part, 1, 0))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _hold_on(self) -> None:
        """Keep the locks of a program that closes all its descriptors: a mapping, too, holds the open file."""
        if _SET_LOCK is None:
            return
        with suppress(OSError, ValueError):  # no memory, no mappings here; or an owner file that is empty
            self._mapping = map_file(self.fd, 1, mmap.ACCESS_READ)

    @property
    def is_deleted(self) -> bool:
        """Whether somebody has deleted the owner file meanwhile. Raises OSError."""
        if leads_to(self.fd, self._file):
            return os.fstat(self.fd).st_nlink == 0
        try:
            about = os.stat(os.path.join(self._place, "owner"))
        except FileNotFoundError:
            return True
        return (about.st_dev, about.st_ino) != self._file

    def release(self) -> None:
        """Whoever comes next may have it."""
        self.forget()
        if _held_here.get(self._place) is self:
            _held_here.pop(self._place, None)

    def forget(self) -> None:
        """In a forked child: the parent's lock is not held any longer than the parent lives."""
        fd, self.fd = self.fd, -1
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.close()
        if fd >= 0 and leads_to(fd, self._file):  # a program that becomes a daemon closes all that is open
            os.close(fd)


@contextmanager
def own_spools() -> Iterator[Callable[[str], bool]]:
    """While owner files are looked at: whether the spool at a path is locked by this very process. Where locks belong
    to the process, opening its owner file would drop them."""
    with _owner_files:
        yield lambda path: os.path.realpath(path) in _held_here


def is_held(path: str) -> tuple[bool, bool]:
    """Whether a process of this host holds the spool at ``path`` as its owner, and whether one delivers it. Takes no
    lock, so nobody who wants one is kept away. Raises OSError, and ValueError where ``owner`` is no file."""
    with own_spools() as own:
        if own(path):
            return True, True
        fd = open_regular(os.path.join(path, "owner"), os.O_RDWR)
        try:
            return _is_locked(fd, OWNER), _is_locked(fd, CONSUMER)
        finally:
            os.close(fd)


def _is_locked(fd: int, part: int) -> bool:
    if _GET_LOCK is None:
        return _refuses_lock(fd, part)
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, part, 1, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(fd, _GET_LOCK, asked))
    return bool(answer[0] != fcntl.F_UNLCK)


def _refuses_lock(fd: int, part: int) -> bool:
    """Whether another process has this lock, found out by taking it for a moment: whoever wants it just then looks
    again later."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return True
        raise
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, part)
    return False


# ── a file that several processes append to, or replace


@contextmanager
def locked_file(path: str, *, create: bool) -> Iterator[int]:
    """Open a file, and keep every other process that uses this function away from it meanwhile. Raises OSError, a
    TimeoutError where somebody keeps it for longer than a second, and ValueError where it is no regular file."""
    deadline = monotonic() + _PATIENCE
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
    while True:
        fd = open_regular(path, flags)
        try:
            _flock(fd, path, deadline)
            if _still_there(fd, path):
                yield fd
                return
        finally:
            # By hand: a child that was forked meanwhile has the file open, too, and would keep the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _flock(fd: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked", path) from None
            time.sleep(_POLL)
        else:
            return


def _still_there(fd: int, path: str) -> bool:
    """False where it was replaced or deleted while we waited."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


# ── fork


class _Forking(threading.local):
    """Whether a thread that forks has got `_owner_files`; None: none forks. Several may do so at once."""

    has_lock: bool | None = None


_forking = _Forking()


def _before_fork() -> None:
    _forking.has_lock = _owner_files.acquire(timeout=_FORK_PATIENCE)


def _after_fork_in_parent() -> None:
    # None where this module has been imported since the fork began: then only what follows it is called.
    had, _forking.has_lock = _forking.has_lock, None
    if had:
        _owner_files.release()


def _after_fork_in_child() -> None:
    """The parent's spools are not this process's."""
    global _owner_files
    had, _forking.has_lock = _forking.has_lock, None
    if had:
        _owner_files.release()  # for a thread that waits for it, which another hook has started
    else:
        _owner_files = threading.RLock()  # another thread of the parent held it at the fork
    for place, lock in list(_held_here.items()):
        if lock.pid != os.getpid():  # one of this very process: another hook, which came first, has logged something
            lock.forget()
            _held_here.pop(place, None)


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

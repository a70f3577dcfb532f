"""The spool: one directory per process and store that holds a journal, its owner's lock and its cursor."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from asynctrack.journal.budget import Budget
from asynctrack.journal.cursor import CursorFile
from asynctrack.journal.disk import write_all
from asynctrack.journal.found import SegmentChain
from asynctrack.journal.frames import FrameFile, encode_frame
from asynctrack.journal.locks import CONSUMER, OWNER, SpoolLock
from asynctrack.journal.owner import FORMAT_VERSION, READABLE_VERSIONS, Owner, decode_owner, host_name, not_ours
from asynctrack.journal.refusals import RefusalLog
from asynctrack.journal.removal import NOTHING, Account, SpoolRemoval, remove_folder

__all__ = ["Spool"]


class Spool:
    """A spool directory (``path=None``: none could be made; everything is kept in memory).

    ``lock`` says who writes and who delivers, ``segments`` finds the journal's files, ``cursor`` is how far the
    consumer is, ``refusals`` keeps what the store will never take. ``lock=None``: somebody else has it, and it is only
    looked at.
    """

    def __init__(self, path: str | None, owner: Owner, lock: SpoolLock | None, registry: FrameFile) -> None:
        self.path = path
        self.owner = owner
        self.registry = registry
        self.lock = lock
        #: what the journal takes; whoever deletes a part of it releases that
        self.budget = Budget(0)
        self.segments = SegmentChain(path)
        self.cursor = CursorFile(path)
        self.refusals = RefusalLog(path)
        #: its owner's lock can be seen from here
        self._here = owner.host == host_name()
        self._temporary: str | None = None
        self._making_temporary = threading.RLock()

    # ── had

    @classmethod
    def create(cls, home: str, store: str, *, consumed: bool = True, ships: bool = True) -> Spool:
        """A new spool in ``home``, owned and locked by this process, which also delivers it where it is ``consumed``
        here, or has it delivered where it ``ships``. Raises OSError."""
        owner = Owner(FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        os.makedirs(home, mode=0o700, exist_ok=True)
        _ignore_in_git(home)
        path = os.path.join(home, f"{owner.host}-{owner.pid}-{os.urandom(4).hex()}")
        os.mkdir(path, 0o700)
        try:
            registry = FrameFile(os.path.join(path, "registry"), create=True)
        except OSError:
            os.rmdir(path)
            raise
        spool = cls(path, owner, None, registry)
        try:
            parts = (OWNER, CONSUMER) if consumed else (OWNER,)
            spool.lock = SpoolLock.create(path, parts, lambda fd: spool._introduce(fd, ships))
        except OSError:
            spool.remove()
            raise
        return spool

    def _introduce(self, fd: int, ships: bool) -> None:
        """Write down whose it is, in the owner file and, should that be damaged, in the registry."""
        place = os.path.realpath(str(self.path))
        self.owner = self.owner._replace(path=place, inode=os.fstat(fd).st_ino, ships=ships)
        write_all(fd, encode_frame(self.owner), 0)
        self.registry.append(encode_frame(["owner", *self.owner]))

    @classmethod
    def in_memory(cls, store: str) -> Spool:
        """The same without a directory."""
        owner = Owner(FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        return cls(None, owner, None, FrameFile(None, create=True))

    @classmethod
    def adopt(cls, path: str) -> Spool | None:
        """Take over a spool whose owner is dead; None while it is alive or somebody else delivers it.

        Raises ValueError when the owner file is damaged or the spool is another user's, and OSError.
        """
        return cls._open(path, (OWNER, CONSUMER))

    @classmethod
    def follow(cls, path: str, *, here: bool = False) -> Spool | None:
        """Deliver a spool beside its owner, who does not; None where somebody does. Raises as `adopt` does.

        ``here``: the owner is known to be a process of this machine, whatever name that had when the spool was made.
        """
        spool = cls._open(path, (CONSUMER,))
        if spool is not None:
            spool._here |= here
        return spool

    def take_over(self) -> bool:
        """Whether the owner of a spool that we `follow` is dead; it is ours alone then. Raises OSError."""
        return self.lock is not None and self._here and self.lock.take(OWNER)

    @classmethod
    def _open(cls, path: str, parts: tuple[int, ...]) -> Spool | None:
        lock = SpoolLock.open(path, parts)
        if lock is None:
            return None
        spool = None
        try:
            spool = cls._possess(path, lock)
        finally:
            if spool is None:
                lock.release()
        return spool

    @classmethod
    def _possess(cls, path: str, lock: SpoolLock) -> Spool | None:
        reason = not_ours(path)
        if reason is not None:
            raise ValueError(reason)
        try:
            registry = FrameFile(os.path.join(path, "registry"), create=False)
        except FileNotFoundError:
            _clear_away(path)  # delivered, and deleted by another process just before we got the lock, or in part
            return None
        try:
            owner = decode_owner(os.pread(lock.fd, 65536, 0), registry)
            if owner.version not in READABLE_VERSIONS:
                raise ValueError(f"{path}: journal format {owner.version} is not known here; use a newer asynctrack")
        except ValueError:
            registry.close()
            raise
        return cls(path, owner, lock, registry)

    # ── what it is

    def is_copy(self) -> bool:
        """Whether it was made in another place, and copied to this one. Raises OSError."""
        return self.path is not None and not self.owner.made(self.path)

    @property
    def deleted(self) -> bool:
        """Whether somebody has deleted it while we have its lock: its owner file goes last where it is delivered."""
        lock = self.lock
        try:
            return self.path is not None and lock is not None and lock.fd >= 0 and lock.is_deleted
        except OSError:
            return False

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.path or "memory"

    def segment_path(self, number: int) -> str | None:
        """Where segment file ``number`` of this spool goes."""
        return None if self.path is None else os.path.join(self.path, f"{number:06d}.slots")

    def artifacts(self) -> str:
        """The folder for snapshots of artifacts, made when the first is taken; a temporary one where there is no
        spool directory."""
        if self.path is not None:
            return os.path.join(self.path, "artifacts")
        with self._making_temporary:
            if self._temporary is None:
                import tempfile

                self._temporary = tempfile.mkdtemp(prefix="asynctrack-")
            return self._temporary

    def save_cursor(self, cursor: dict[str, Any], *, sync: bool = False) -> None:
        """`CursorFile.save`."""
        self.cursor.save(cursor, sync=sync)

    def load_cursor(self) -> dict[str, Any] | None:
        """`CursorFile.load`."""
        return self.cursor.load()

    def reject(self, lines: list[dict[str, Any]], *, sync: bool = False) -> None:
        """`RefusalLog.append`."""
        self.refusals.append(lines, sync=sync)

    def rejected_path(self) -> str:
        """Where refused events are kept."""
        return self.refusals.path

    # ── the end

    def remove(self, account: Account = NOTHING) -> None:
        """Everything is delivered: delete the journal, and let go. Refused events, if any, stay, and so does the folder
        then. Raises SpoolError, and deletes nothing, where the account leaves a segment out; and OSError."""
        self.registry.close()
        self.cursor.close()
        try:
            if self.path is not None:
                SpoolRemoval(self.path, self.refusals).carry_out(account)
        finally:
            self.release()

    def release(self) -> None:
        """Let go of the lock: whoever comes next may adopt what is left. In memory nobody can."""
        if self._temporary is not None:
            remove_folder(self._temporary)
        self.cursor.close()
        if self.lock is not None:
            self.lock.release()

    def leave(self) -> None:
        """`release`, and read no more from it."""
        self.registry.close()
        self.release()


def _clear_away(path: str) -> None:
    """Delete what is left of a delivered spool, whose lock we hold; refused events, if any, stay. Where there are
    segments it is not delivered: its registry is lost. Raises SpoolError then."""
    refusals = RefusalLog(path)
    if not os.path.exists(refusals.path):
        SpoolRemoval(path, refusals).carry_out(NOTHING)


def _ignore_in_git(home: str) -> None:
    ignore = os.path.join(home, ".gitignore")
    try:
        # A new file: where a link of that name leads somewhere else, nothing is written there.
        fd = os.open(ignore, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8") as file:
            file.write("# made by asynctrack: events on their way to a tracking store\n*\n")
    except OSError:
        pass  # it is there; or else, whether the folder can be written shows in the next line of create()

"""The spool: one directory per process and store that holds a journal, its owner's lock and its cursor.

What is POSIX-only about the journal lives here: the record lock that says whether the owner is alive. (A record
lock, because fork does not hand it on: with ``flock`` a forked child would keep a dead parent looking alive.)
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from asynctrack.journal.frames import FrameFile, decode_frame, encode_frame, scan_frames
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import SLOT_SIZE

__all__ = ["Owner", "Spool", "find_orphans", "forget_held", "host_name", "open_spool", "read_owner", "spool_homes"]

_FORMAT_VERSION = 1
_CURSOR_BYTES = 256 * 1024

#: real paths of this process's own spools, and of those it has adopted: a record lock cannot tell them from free
#: ones, and even opening the owner file a second time would drop the lock
_held_here: set[str] = set()


class Owner(NamedTuple):
    """Who writes a spool. ``store`` is a URI without credentials, ``created`` in ms since the epoch."""

    version: int
    host: str
    pid: int
    store: str
    created: int


class Spool:
    """A spool directory (``path=None``: none could be made; everything is kept in memory)."""

    def __init__(self, path: str | None, owner: Owner, lock_fd: int, registry: FrameFile) -> None:
        self.path = path
        self.owner = owner
        self.registry = registry
        self._lock_fd = lock_fd
        self._cursor: FrameFile | None = None

    @classmethod
    def create(cls, home: str, store: str) -> Spool:
        """A new spool in ``home``, owned and locked by this process. Raises OSError."""
        owner = Owner(_FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        os.makedirs(home, mode=0o700, exist_ok=True)
        _ignore_in_git(home)
        path = os.path.join(home, f"{owner.host}-{owner.pid}-{os.urandom(4).hex()}")
        os.mkdir(path, 0o700)
        # Under another name until it is locked, so that nobody takes a spool in the making for an orphan.
        making = os.path.join(path, "owner.new")
        fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(fd, encode_frame(owner))
        registry = FrameFile(os.path.join(path, "registry"), create=True)
        registry.append(encode_frame(["owner", *owner]))  # a second copy, should the owner file be damaged
        _held_here.add(os.path.realpath(path))
        os.rename(making, os.path.join(path, "owner"))
        return cls(path, owner, fd, registry)

    @classmethod
    def in_memory(cls, store: str) -> Spool:
        """The same without a directory."""
        owner = Owner(_FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        return cls(None, owner, -1, FrameFile(None, create=True))

    @classmethod
    def adopt(cls, path: str) -> Spool | None:
        """Take over a spool whose owner is dead; None while it is alive or somebody else has adopted it.

        Raises ValueError when the owner file is damaged, and OSError.
        """
        if os.path.realpath(path) in _held_here:
            return None
        try:
            fd = os.open(os.path.join(path, "owner"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # in the making, or just removed by its owner
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        try:
            registry = FrameFile(os.path.join(path, "registry"), create=False)
        except FileNotFoundError:
            os.close(fd)
            return None  # delivered and deleted by another process just before we got the lock
        except OSError:
            os.close(fd)
            raise
        try:
            owner = _decode_owner(os.pread(fd, 65536, 0), registry)
            if owner.version != _FORMAT_VERSION:
                raise ValueError(f"{path}: journal format {owner.version} is not known here; use a newer asynctrack")
        except ValueError:
            os.close(fd)
            registry.close()
            raise
        _held_here.add(os.path.realpath(path))
        return cls(path, owner, fd, registry)

    def segments(self) -> tuple[Segment | None, list[str]]:
        """The segments on disk as a chain, oldest first, and a line for each file that cannot be read."""
        found: list[Segment] = []
        problems: list[str] = []
        for name in self._files(".slots"):
            try:
                segment = Segment.open(name)
            except (OSError, ValueError) as error:
                problems.append(str(error))
                continue
            segment.sealed = True  # its writer is dead
            segment.begun = -(-len(segment.read(0, segment.capacity).rstrip(b"\0")) // SLOT_SIZE)
            found.append(segment)
        # Two of one place: one was prepared and never used (its writer died, or lost a race in a signal handler).
        found.sort(key=lambda segment: (segment.first, not segment.begun))
        chain: list[Segment] = []
        for segment in found:
            if chain and chain[-1].first == segment.first:
                segment.close()
            else:
                chain.append(segment)
        for before, after in itertools.pairwise(chain):
            before.next = after
            missing = after.first - before.first - before.capacity
            if missing:
                problems.append(f"{self.path}: a segment is missing, with up to {missing} records")
        in_use = False
        for segment in reversed(chain):
            if in_use:
                segment.begun = segment.capacity  # the writer rolls on only when every slot is claimed
            in_use |= segment.begun > 0
        return (chain[0] if chain else None), problems

    def segment_path(self, number: int) -> str | None:
        """Where segment file ``number`` of this spool goes."""
        return None if self.path is None else os.path.join(self.path, f"{number:06d}.slots")

    # ── the cursor

    def save_cursor(self, cursor: dict[str, Any], *, sync: bool = False) -> None:
        """Note how far the consumer is: after a crash there is this cursor or the one before. Raises OSError.

        ``sync``: hand it to the disk itself before returning.

        Cursors are appended, which costs 2 µs, and the file is replaced when it has grown: replacing it each time
        costs 200 µs (ext4).
        """
        if self.path is None:
            return
        frame = encode_frame(cursor)
        if self._cursor is None or self._cursor.size() > _CURSOR_BYTES:
            making = self._file("cursor.new")
            try:
                os.unlink(making)
            except FileNotFoundError:
                pass  # the usual case: no consumer died right here
            cursor_file = FrameFile(making, create=True)
            cursor_file.append(frame)
            os.replace(making, self._file("cursor"))
            if self._cursor is not None:
                self._cursor.close()
            self._cursor = cursor_file
        else:
            self._cursor.append(frame)
        if sync:
            self._cursor.sync()

    def load_cursor(self) -> dict[str, Any] | None:
        """The last cursor; None when nothing was acknowledged yet. Raises ValueError when it is damaged."""
        if self.path is None:
            return None
        try:
            with open(self._file("cursor"), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        entries, end, _ = scan_frames(data)
        if not entries or end < len(data):
            # Damage, or a consumer that died while writing it. An older cursor would not know what was sent since.
            raise ValueError(f"{self._file('cursor')} is damaged")
        cursor: dict[str, Any] = entries[-1]
        return cursor

    # ── events the store refused

    def reject(self, lines: list[dict[str, Any]]) -> None:
        """Append to ``rejected.jsonl``. Raises OSError."""
        if self.path is None or not lines:
            return
        text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
        fd = os.open(self.rejected_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode("utf-8", "replace"))
        finally:
            os.close(fd)

    def rejected_path(self) -> str:
        """Where refused events are kept."""
        return os.path.join(self.path or "", "rejected.jsonl")

    # ── the end

    def remove(self) -> None:
        """Everything is delivered: delete the journal. Refused events, if any, stay, and so does the folder then."""
        self.registry.close()
        if self._cursor is not None:
            self._cursor.close()
        if self.path is None:
            return
        kept = os.path.exists(self.rejected_path())
        others = map(self._file, ("registry", "cursor", "cursor.new"))
        for name in [*self._files(".slots"), *self._files(".frames"), *others]:
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass  # never written, or removed by the user
        if not kept:
            # The owner file goes last: while it is there the folder is a spool, also for whoever looks at it now.
            try:
                os.unlink(self._file("owner"))
                os.rmdir(self.path)
            except FileNotFoundError:
                pass  # the user has deleted the folder
        self.release()

    def release(self) -> None:
        """Let go of the lock: whoever comes next may adopt what is left."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)
        if self._cursor is not None:
            self._cursor.close()
        if self.path is not None:
            _held_here.discard(os.path.realpath(self.path))

    def _file(self, name: str) -> str:
        return os.path.join(self.path or "", name)

    def _files(self, suffix: str) -> list[str]:
        if self.path is None or not os.path.isdir(self.path):
            return []
        return [self._file(name) for name in sorted(os.listdir(self.path)) if name.endswith(suffix)]


def forget_held() -> None:
    """In a forked child: the parent's spools are not this process's."""
    _held_here.clear()


def spool_homes(configured: str | None) -> list[str]:
    """Folders for spools, best first: as configured, else ``.asynctrack/`` here, else the user's state folder."""
    if configured:
        return [os.path.abspath(os.path.expanduser(configured))]
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return [os.path.abspath(".asynctrack"), os.path.join(state, "asynctrack")]


def open_spool(homes: list[str], store: str) -> tuple[Spool, list[str]]:
    """A new spool in the first home that can be written, else one in memory; and why the others could not."""
    problems: list[str] = []
    for home in homes:
        try:
            return Spool.create(home, store), problems
        except OSError as error:
            problems.append(f"{home}: {error.strerror or error}")
    return Spool.in_memory(store), problems


def find_orphans(home: str, store: str) -> Iterator[Spool]:
    """Adopt, one by one, the spools in ``home`` for ``store`` whose owner on this host is dead.

    A spool from another host is left alone: over a network file system its lock proves nothing.
    """
    host = host_name()
    try:
        names = sorted(os.listdir(home))
    except OSError:
        return  # no spools there
    for name in names:
        path = os.path.join(home, name)
        owner = read_owner(path)
        if owner is None or (owner.version, owner.store, owner.host) != (_FORMAT_VERSION, store, host):
            continue
        spool = Spool.adopt(path)
        if spool is not None:
            yield spool


def read_owner(path: str) -> Owner | None:
    """Who writes the spool at ``path``; None where that is no spool, or its owner file is damaged."""
    if os.path.realpath(path) in _held_here:
        return None  # opening the file would drop our own lock on it
    try:
        with open(os.path.join(path, "owner"), "rb") as file:
            data = file.read()
        registry = FrameFile(os.path.join(path, "registry"), create=False)
    except OSError:
        return None
    try:
        return _decode_owner(data, registry)
    except ValueError:
        return None
    finally:
        registry.close()


def _decode_owner(data: bytes, registry: FrameFile) -> Owner:
    try:
        return Owner(*decode_frame(data)[: len(Owner._fields)])
    except ValueError:
        for entry in scan_frames(registry.read(0, 65536))[0]:
            if entry[0] == "owner":
                return Owner(*entry[1 : len(Owner._fields) + 1])
        raise ValueError("both copies of the spool's owner are damaged") from None


def host_name() -> str:
    """This machine's name, as spools record it."""
    return os.uname().nodename if hasattr(os, "uname") else sys.platform


def _ignore_in_git(home: str) -> None:
    ignore = os.path.join(home, ".gitignore")
    if not os.path.exists(ignore):
        try:
            with open(ignore, "w", encoding="utf-8") as file:
                file.write("# made by asynctrack: events on their way to a tracking store\n*\n")
        except OSError:
            pass  # a convenience; whether the folder can be written shows in the next line of create()

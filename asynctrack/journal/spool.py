"""The spool: one directory per process and store that holds a journal, its owner's lock and its cursor.

What is POSIX-only about the journal lives here: the record locks on the owner file, one byte each, that say whether
the owner is alive and whether somebody delivers. They belong to the open file (Linux's "open file description locks"):
those that belong to the process are lost as soon as it opens and closes the file once more, as anything does that
copies or reads the whole working directory. A forked child closes what it has got of them.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from asynctrack.journal.disk import new_file, write_all
from asynctrack.journal.frames import FrameFile, decode_frame, encode_frame, scan_frames
from asynctrack.journal.segment import Segment

__all__ = [
    "Owner",
    "Spool",
    "find_orphans",
    "host_name",
    "is_held",
    "lock_file",
    "open_spool",
    "read_owner",
    "spool_homes",
]

_FORMAT_VERSION = 1
_CURSOR_BYTES = 256 * 1024
#: slots that tell whether a segment is in use: more than threads are between claim and write at its beginning
_FIRST_SLOTS = 256
#: bytes of the owner file that are locked by whoever writes the journal, and by whoever delivers it
_OWNER, _CONSUMER = 0, 1

#: struct flock of 64-bit Linux: type, whence, start, length, process id
_FLOCK = struct.Struct("@hhqqi0q")
#: elsewhere than on Linux they belong to the process
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GET_LOCK = getattr(fcntl, "F_OFD_GETLK", fcntl.F_GETLK)

#: this process's own spools, and those it has adopted, by their real paths
_held_here: dict[str, Spool] = {}
#: held while an owner file is opened, locked or closed: two threads at one would take each other's lock away
_owner_files = threading.RLock()


class Owner(NamedTuple):
    """Who writes a spool. ``store`` is a URI without credentials, ``created`` in ms since the epoch."""

    version: int
    host: str
    pid: int
    store: str
    created: int
    #: where the spool was made, and its owner file's inode there: neither is right in a copy
    path: str = ""
    inode: int = 0
    #: the owner, or its shipper, delivers: it is not offline
    ships: bool = False

    def made(self, path: str) -> bool:
        """Whether the spool at ``path`` is the one that was made, moved maybe, and no copy of it. Raises OSError."""
        return not self.path or self.path == os.path.realpath(path) or self.inode == _inode(path)


class Spool:
    """A spool directory (``path=None``: none could be made; everything is kept in memory)."""

    def __init__(self, path: str | None, owner: Owner, lock_fd: int, registry: FrameFile) -> None:
        self.path = path
        self.owner = owner
        self.registry = registry
        self._lock_fd = lock_fd
        self._cursor: FrameFile | None = None
        self._temporary: str | None = None
        self._making_temporary = threading.RLock()

    @classmethod
    def create(cls, home: str, store: str, *, consumed: bool = True, ships: bool = True) -> Spool:
        """A new spool in ``home``, owned and locked by this process, which also delivers it where it is ``consumed``
        here, or has it delivered where it ``ships``. Raises OSError."""
        owner = Owner(_FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        os.makedirs(home, mode=0o700, exist_ok=True)
        _ignore_in_git(home)
        path = os.path.join(home, f"{owner.host}-{owner.pid}-{os.urandom(4).hex()}")
        os.mkdir(path, 0o700)
        try:
            spool = cls(path, owner, -1, FrameFile(os.path.join(path, "registry"), create=True))
        except OSError:
            os.rmdir(path)
            raise
        try:
            spool._take_possession(consumed, ships)
        except OSError:
            spool.remove()
            raise
        return spool

    def _take_possession(self, consumed: bool, ships: bool) -> None:
        # Under another name until it is locked, so that nobody takes a spool in the making for an orphan.
        self._lock_fd = new_file(self._file("owner.new"))
        for byte in (_OWNER, _CONSUMER) if consumed else (_OWNER,):
            if not _lock(self._lock_fd, byte):
                raise OSError(errno.EAGAIN, "locked by somebody else, just made", self._file("owner.new"))
        place = os.path.realpath(self._file(""))
        self.owner = self.owner._replace(path=place, inode=os.fstat(self._lock_fd).st_ino, ships=ships)
        write_all(self._lock_fd, encode_frame(self.owner), 0)
        self.registry.append(encode_frame(["owner", *self.owner]))  # a second copy, should the owner file be damaged
        with _owner_files:
            _held_here[place] = self
            os.rename(self._file("owner.new"), self._file("owner"))

    @classmethod
    def in_memory(cls, store: str) -> Spool:
        """The same without a directory."""
        owner = Owner(_FORMAT_VERSION, host_name(), os.getpid(), store, time.time_ns() // 1_000_000)
        return cls(None, owner, -1, FrameFile(None, create=True))

    @classmethod
    def adopt(cls, path: str) -> Spool | None:
        """Take over a spool whose owner is dead; None while it is alive or somebody else delivers it.

        Raises ValueError when the owner file is damaged, and OSError.
        """
        return cls._open(path, (_OWNER, _CONSUMER))

    @classmethod
    def follow(cls, path: str) -> Spool | None:
        """Deliver a spool beside its owner, who does not; None where somebody does. Raises as `adopt` does."""
        return cls._open(path, (_CONSUMER,))

    def take_over(self) -> bool:
        """Whether the owner of a spool that we `follow` is dead; it is ours alone then."""
        return self._lock_fd >= 0 and self.owner.host == host_name() and _lock(self._lock_fd, _OWNER)

    @classmethod
    def _open(cls, path: str, locks: tuple[int, ...]) -> Spool | None:
        with _owner_files:
            if os.path.realpath(path) in _held_here:
                return None
            try:
                fd = os.open(os.path.join(path, "owner"), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None  # in the making, or just removed by its owner
            spool = None
            try:
                spool = cls._possess(path, fd) if all(_lock(fd, byte) for byte in locks) else None
            finally:
                if spool is None:
                    os.close(fd)
            return spool

    @classmethod
    def _possess(cls, path: str, fd: int) -> Spool | None:
        try:
            registry = FrameFile(os.path.join(path, "registry"), create=False)
        except FileNotFoundError:
            _clear_away(path)  # delivered, and deleted by another process just before we got the lock, or in part
            return None
        try:
            owner = _decode_owner(os.pread(fd, 65536, 0), registry)
            if owner.version != _FORMAT_VERSION:
                raise ValueError(f"{path}: journal format {owner.version} is not known here; use a newer asynctrack")
        except ValueError:
            registry.close()
            raise
        spool = _held_here[os.path.realpath(path)] = cls(path, owner, fd, registry)
        return spool

    def is_copy(self) -> bool:
        """Whether it was made in another place, and copied to this one. Raises OSError."""
        return self.path is not None and not self.owner.made(self.path)

    def segments(self) -> tuple[Segment | None, list[str]]:
        """The segments of a dead writer as a chain, oldest first, and a line for each file that cannot be read."""
        found: list[Segment] = []
        problems: list[str] = []
        for name in self._files(".slots"):
            try:
                segment = Segment.open(name)
            except (OSError, ValueError) as error:
                problems.append(str(error))
                continue
            segment.sealed = True  # its writer is dead
            segment.begun = segment.count_begun()
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

    def next_segment(self, last: Segment | None) -> Segment | None:
        """The segment that a living writer has begun behind ``last`` (None: the first there is); None where it has not
        yet. Raises OSError."""
        for name in self._files(".slots"):
            # Files are numbered in the order in which they are made: there may be thousands, and we look often.
            if last is not None and last.path is not None and (len(name), name) <= (len(last.path), last.path):
                continue
            try:
                segment = Segment.open(name)
            except (FileNotFoundError, ValueError):
                continue  # in the making, or made for nothing and just deleted
            # One that was only prepared may be deleted, and another made for its place: it counts once it is in use.
            wanted = last is None or segment.first == last.first + last.capacity
            if wanted and (segment.first == 0 or any(segment.read(0, _FIRST_SLOTS))):
                return segment
            segment.close()
        return None

    def segment_path(self, number: int) -> str | None:
        """Where segment file ``number`` of this spool goes."""
        return None if self.path is None else os.path.join(self.path, f"{number:06d}.slots")

    def artifacts(self) -> str:
        """The folder for snapshots of artifacts, made when the first is taken; a temporary one where there is no
        spool directory."""
        if self.path is not None:
            return self._file("artifacts")
        with self._making_temporary:
            if self._temporary is None:
                import tempfile

                self._temporary = tempfile.mkdtemp(prefix="asynctrack-")
            return self._temporary

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
            _unlink(making)  # there only if a consumer died right here
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
        data = text.encode("utf-8", "replace")
        fd = lock_file(self.rejected_path(), create=True)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # its last writer died within a line
            while data:
                data = data[os.write(fd, data) :]
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
            self.release()
            return
        try:
            kept = os.path.exists(self.rejected_path())
            # The owner file goes last: while it is there the folder is a spool, also for whoever looks at it now.
            others = ["registry", "cursor", "cursor.new", "owner.new", "shipper.log", *([] if kept else ["owner"])]
            self._remove_artifacts(self._refused_artifacts() if kept else set())
            for name in [*self._files(".slots"), *self._files(".frames"), *map(self._file, others)]:
                _unlink(name)
            if not kept and os.path.exists(self.path):
                os.rmdir(self.path)
        finally:
            self.release()

    def _refused_artifacts(self) -> set[str]:
        """The snapshots of artifacts that were refused, by name: their users may want them back."""
        with open(self.rejected_path(), encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if '"artifact"' in line]
        names = set()
        for line in lines:
            try:
                names.add(os.path.basename(json.loads(line)["value"]))
            except (ValueError, KeyError, TypeError):
                continue  # its writer died within it
        return names

    def _remove_artifacts(self, kept: set[str]) -> None:
        """Delete the snapshots that are there: delivered ones, and those that a process died over before it logged
        them."""
        folder = self._file("artifacts")
        if not kept:
            _remove_folder(folder)
            return
        for name in set(os.listdir(folder)) - kept if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            _remove_folder(path) if os.path.isdir(path) else _unlink(path)

    def release(self) -> None:
        """Let go of the lock: whoever comes next may adopt what is left. In memory nobody can."""
        if self._temporary is not None:
            _remove_folder(self._temporary)
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)
        if self._cursor is not None:
            self._cursor.close()
        if self.path is not None:
            _held_here.pop(os.path.realpath(self.path), None)

    def forget(self) -> None:
        """In a forked child: the parent's lock is not held any longer than the parent lives."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def leave(self) -> None:
        """`release`, and read no more from it."""
        self.registry.close()
        self.release()

    def _file(self, name: str) -> str:
        return os.path.join(self.path or "", name)

    def _files(self, suffix: str) -> list[str]:
        if self.path is None or not os.path.isdir(self.path):
            return []
        return [self._file(name) for name in sorted(os.listdir(self.path)) if name.endswith(suffix)]


def _clear_away(path: str) -> None:
    """Delete what is left of a delivered spool, whose lock we hold; refused events, if any, stay."""
    try:
        names = os.listdir(path)
        if "rejected.jsonl" not in names:
            for name in sorted(names, key=lambda name: name == "owner"):
                _unlink(os.path.join(path, name))
            os.rmdir(path)
    except OSError:
        pass  # it harms nobody, and whoever comes next tries again


def _forget_held() -> None:
    """In a forked child: the parent's spools are not this process's."""
    global _owner_files
    _owner_files = threading.RLock()  # another thread of the parent may have held it at the fork
    for spool in _held_here.values():
        spool.forget()
    _held_here.clear()


def spool_homes(configured: str | None) -> list[str]:
    """Folders for spools, best first: as configured, else ``.asynctrack/`` here, else the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    homes = [os.path.expanduser(configured)] if configured else [".asynctrack", os.path.join(state, "asynctrack")]
    try:
        return [os.path.abspath(home) for home in homes]
    except FileNotFoundError:
        return [home for home in homes if os.path.isabs(home)]  # somebody has deleted the working directory


def open_spool(
    homes: list[str], store: str, slots: int, *, consumed: bool = True, ships: bool = True
) -> tuple[Spool, Segment, list[str]]:
    """A new spool with a first segment of ``slots`` slots, in the first home that has room for both, else in memory;
    and why the others have not. Raises OSError when there is no memory either."""
    problems: list[str] = []
    for home in homes:
        try:
            spool = Spool.create(home, store, consumed=consumed, ships=ships)
            try:
                return spool, Segment.create(spool.segment_path(1), 0, slots), problems
            except OSError:
                spool.remove()
                raise
        except OSError as error:
            problems.append(f"{home}: {error.strerror or error}")
    return Spool.in_memory(store), Segment.create(None, 0, slots), problems


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
        if not owner.made(path):
            continue  # a copy: the program that wrote it may be alive, and delivers it itself
        spool = Spool.adopt(path)
        if spool is not None:
            yield spool


def read_owner(path: str) -> Owner | None:
    """Who writes the spool at ``path``; None where that is no spool, or its owner file is damaged."""
    data, registry = b"", None
    try:
        with _owner_files:
            # Where locks belong to the process, opening the owner file of a spool of our own would drop ours.
            if os.path.realpath(path) not in _held_here:
                with open(os.path.join(path, "owner"), "rb") as file:
                    data = file.read()
        registry = _registry_of(path)
        return _decode_owner(data, registry)
    except (OSError, ValueError):
        return None
    finally:
        if registry is not None:
            registry.close()


def is_held(path: str) -> tuple[bool, bool]:
    """Whether a process of this host holds the spool at ``path`` as its owner, and whether one delivers it. Takes no
    lock, so nobody who wants one is kept away. Raises OSError."""
    with _owner_files:
        if os.path.realpath(path) in _held_here:
            return True, True
        fd = os.open(os.path.join(path, "owner"), os.O_RDWR | os.O_CLOEXEC)
        try:
            return _is_locked(fd, _OWNER), _is_locked(fd, _CONSUMER)
        finally:
            os.close(fd)


def _inode(path: str) -> int:
    return os.stat(os.path.join(path, "owner")).st_ino


def _registry_of(path: str) -> FrameFile | None:
    try:
        return FrameFile(os.path.join(path, "registry"), create=False)
    except FileNotFoundError:
        return None  # everything is delivered; what is left are refused events


def _decode_owner(data: bytes, registry: FrameFile | None) -> Owner:
    try:
        return Owner(*decode_frame(data)[: len(Owner._fields)])
    except ValueError:
        for entry in scan_frames(registry.read(0, 65536))[0] if registry is not None else ():
            if entry[0] == "owner":
                return Owner(*entry[1 : len(Owner._fields) + 1])
        raise ValueError("both copies of the spool's owner are damaged") from None


def _lock(fd: int, byte: int) -> bool:
    """Lock one byte of an owner file, for as long as the process has it open; False where another process has."""
    try:
        if _SET_LOCK is None:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        else:
            fcntl.fcntl(fd, _SET_LOCK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _is_locked(fd: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(fd, _GET_LOCK, asked))
    return bool(answer[0] != fcntl.F_UNLCK)


def lock_file(path: str, *, create: bool) -> int:
    """Open a file that several processes append to, or replace, and keep the others away until it is closed. Raises
    OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass  # deleted in the middle of that line
        except OSError:
            os.close(fd)
            raise
        os.close(fd)  # replaced or deleted while we waited


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


def _remove_folder(path: str) -> None:
    if os.path.isdir(path):
        import shutil  # late: with its compression modules it would be a tenth of `import asynctrack`

        shutil.rmtree(path, ignore_errors=True)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # never written, or removed by the user


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_held)

"""The caller's file, put aside as it is when it is logged: from then on the caller may overwrite or delete it.

Snapshots lie in one folder of the spool, each under a name of its own, mode 0600 and 0700. The journal's frame for
the artifact is written after its snapshot, holds the snapshot's fields, and is what makes it count: what a crash left
here without a frame belongs to nobody.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from asynctrack.artifacts import files
from asynctrack.errors import (
    InvalidInputError,
    MissingFileError,
    RefusedError,
    SpoolError,
    SpoolFullError,
    UnavailableError,
)
from asynctrack.platforms import passes

__all__ = [
    "NoRoomError",
    "Snapshot",
    "SnapshotMode",
    "check_snapshot",
    "remove_snapshot",
    "remove_snapshots",
    "take_snapshot",
    "write_snapshot",
]

#: "copy": the caller may do anything with its file afterwards. "link": a second name for the same file where the file
#: system allows it, which takes no time and no room whatever the size; the caller may delete the file or put another
#: in its place (as `os.replace` does, and libraries that write checkpoints with care), but must not write into it.
SnapshotMode = Literal["copy", "link"]

#: there can be no second name: another file system, somebody else's file, one without links
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PIECE = 1 << 20


class Snapshot(NamedTuple):
    """A file, or a folder, put aside under ``name``. ``bytes`` is what is to be delivered; ``mark`` changes when the
    files do. Plain values, for a journal: ``Snapshot(*fields)`` is one again."""

    name: str
    is_dir: bool
    files: int
    bytes: int
    mark: int

    def path(self, folder: str) -> str:
        """Where it is, in the folder of the snapshots."""
        return os.path.join(folder, self.name)


class NoRoomError(SpoolFullError):
    """So many bytes are ``needed``, and the spool may not take as many more."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def take_snapshot(
    source: str | os.PathLike[str],
    folder: str,
    mode: SnapshotMode = "copy",
    *,
    room: int | None = None,
    leave_out: Iterable[str] = (),
    durable: bool = False,
) -> Snapshot:
    """Put a file, or a folder with all that is in it, aside in ``folder``, which is created.

    Blocks while it copies (the kernel does, without the GIL); may be called from any thread. ``room``: how many bytes
    may be copied. ``leave_out``: files and folders in ``source`` that are not taken along: the run's own store and
    spools. ``durable``: the copy is on the disk itself when this returns. Raises `InvalidInputError` where ``source``
    cannot be read, `SpoolFullError` where there is no room, `SpoolError`; nothing is left behind then.
    """
    path = os.path.realpath(source)
    empty: list[str] = []
    try:
        is_dir = os.path.isdir(path)
        found = (
            list(files.files_below(path, leave_out, empty=empty))
            if is_dir
            else [files.SourceFile(path, "", os.stat(path))]
        )
    except OSError as error:
        kind = MissingFileError if isinstance(error, FileNotFoundError) else InvalidInputError
        raise kind(f"artifact {files.source_error(error, path)!s}") from error
    except RefusedError as error:
        raise InvalidInputError(f"artifact {error}") from error
    if mode == "copy":
        _room_left(room, sum(file.stat.st_size for file in found), path)  # before gigabytes are copied for nothing

    def fill(target: str) -> None:
        left = room
        if is_dir:
            os.mkdir(target, 0o700)
        for file in found:
            goal = os.path.join(target, file.relative) if is_dir else target
            if os.path.dirname(file.relative):
                os.makedirs(os.path.dirname(goal), 0o700, exist_ok=True)
            if mode == "copy" or not _link(file.path, goal):
                left = _room_left(left, file.stat.st_size, path)
                _copy(file.path, goal, durable)
        for relative in empty:
            os.makedirs(os.path.join(target, relative), 0o700, exist_ok=True)

    return _put_aside(folder, fill, path, durable)


def write_snapshot(data: bytes | _Source, folder: str, *, room: int | None = None, durable: bool = False) -> Snapshot:
    """Put content aside that is no file yet: bytes, or what is left in a binary stream. Raises as `take_snapshot`."""
    what = "that was given as content"
    left = _room_left(room, len(data) if isinstance(data, bytes) else 0, what)

    def fill(target: str) -> None:
        nonlocal left
        with open(_new(target), "wb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                while piece := data.read(_PIECE):
                    left = _room_left(left, len(piece), what)
                    file.write(piece)
            file.flush()
            if durable:
                os.fsync(file.fileno())

    return _put_aside(folder, fill, what, durable)


def check_snapshot(snapshot: Snapshot, folder: str) -> None:
    """Raise `RefusedError` if it is not what was put aside: gone, or a linked file that was written into since; and
    `UnavailableError` where that cannot be told now."""
    path = snapshot.path(folder)
    try:
        now = _describe(snapshot.name, path)
    except OSError as error:
        if passes(error):
            raise UnavailableError(f"the snapshot {path} cannot be read now: {error.strerror}") from error
        raise RefusedError(f"the snapshot {path} is gone: {error.strerror}") from error
    if now.mark != snapshot.mark:
        raise RefusedError(
            f"{path} was written into after it was logged with snapshot='link'; write a new file and rename it, or log "
            f"it with snapshot='copy'"
        )


def remove_snapshot(snapshot: Snapshot, folder: str) -> None:
    """It is delivered: delete it. Raises OSError; one that is gone already is no error."""
    _remove(snapshot.path(folder))


def remove_snapshots(folder: str) -> None:
    """Delete all of them, also those that no frame of the journal names. Raises OSError."""
    _remove(folder)


def _room_left(room: int | None, needed: int, path: str) -> int | None:
    if room is None:
        return None
    if needed > room:
        raise NoRoomError(
            f"artifact {path}: {needed} bytes are to be copied and the spool has room for {max(room, 0)}; raise "
            f"max_spool_bytes, wait for delivery (flush), or log it with snapshot='link'",
            needed,
        )
    return room - needed


def _put_aside(folder: str, fill: Callable[[str], None], what: str, durable: bool) -> Snapshot:
    name = os.urandom(8).hex()
    target = os.path.join(folder, name)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        fill(target)
        if durable:
            _sync_folders(target, folder)
        return _describe(name, target)
    except BaseException as error:
        try:
            _remove(target)
        except OSError:
            pass  # the error that led here is the one to report
        if isinstance(error, (RefusedError, UnavailableError)):
            raise InvalidInputError(f"artifact {error}") from error
        if isinstance(error, OSError) and not isinstance(error, SpoolError):
            kind = SpoolFullError if error.errno in _FULL else SpoolError
            reason = f"{error.filename or folder}: {error.strerror or error}"
            raise kind(f"artifact {what} cannot be put aside for delivery: {reason}") from error
        raise


def _link(source: str, target: str) -> bool:
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _copy(source: str, target: str, durable: bool) -> None:
    reading = files.open_source(source)
    try:
        writing = _new(target)
        try:
            while files.copy_piece(reading, writing):
                pass
            if durable:
                os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _sync_folders(target: str, folder: str) -> None:
    for path in (folder, *(where for where, _, _ in os.walk(target))):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _describe(name: str, path: str) -> Snapshot:
    top = os.stat(path)
    is_dir = stat.S_ISDIR(top.st_mode)
    found = list(files.files_below(path)) if is_dir else [files.SourceFile(path, "", top)]
    return Snapshot(name, is_dir, len(found), sum(file.stat.st_size for file in found), _mark(found))


def _mark(found: Iterable[files.SourceFile]) -> int:
    lines = (f"{file.relative}\0{file.stat.st_size}\0{file.stat.st_mtime_ns}\n" for file in found)
    return zlib.crc32("".join(lines).encode("utf-8", "surrogateescape"))


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            import shutil  # late, as it is rarely needed and slow to import

            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass  # removed already, by a consumer that died before it could say so, or by the user

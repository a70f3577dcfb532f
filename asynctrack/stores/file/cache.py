"""What is known of a store's files, kept in the user's cache folder from one program to the next.

``$XDG_CACHE_HOME/asynctrack`` (``~/.cache/asynctrack``) has one file for each experiment folder, of at most 32 MiB, 256
MiB in all. It holds nothing that is not in the store, and whatever is wrong with it, the store is read instead: a
folder or a file of somebody else's, a damaged file, one of another version, a disk that is full.
It is in the format of compiled modules, since most of the time of a list of runs went into parsing numbers.
``ASYNCTRACK_CACHE=off`` switches it off.
"""

from __future__ import annotations

import marshal
import os
import stat
from contextlib import suppress
from typing import Any
from zlib import adler32, crc32

from asynctrack.constants import VERSION
from asynctrack.stores.file.files import read_whole, write_all

__all__ = ["cache_path", "load", "parsed", "save", "size_of"]

#: to be raised when what is kept means something else than before
_LAYOUT = 3
_MOST = 32 << 20  # bytes of a file
_MOST_IN_ALL = 256 << 20
_OFF = frozenset({"off", "0", "no", "false"})


def cache_path(folder: str) -> str | None:
    """Where what is known of the files below a folder is kept; None where nothing is kept."""
    if os.environ.get("ASYNCTRACK_CACHE", "").lower() in _OFF or not hasattr(os, "getuid"):
        return None
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # as the specification has it
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        return None
    where = os.fsencode(os.path.realpath(folder))
    # Not by hashlib, which takes 3 ms to load. Two folders with one name share the file, and each makes it anew.
    return os.path.join(home, "asynctrack", f"{crc32(where):08x}{adler32(where):08x}{len(where):x}.cache")


def size_of(path: str) -> int:
    """How many bytes `load` would read."""
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def load(path: str) -> dict[str, bytes]:
    """What was saved there last, for `parsed`; nothing where there is nothing that can be believed."""
    try:
        if not _is_ours(os.path.dirname(path)):
            return {}
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
                return {}
            data = read_whole(fd, _MOST)
        finally:
            os.close(fd)
        head, _, body = data.partition(b"\n")
        found: dict[str, bytes] = marshal.loads(body) if head == _head(body) else {}
        return found
    except (OSError, ValueError, EOFError, TypeError):
        return {}


def parsed(item: bytes) -> Any:
    """An item that `load` has found. Apart, since most are not asked about."""
    return marshal.loads(item)


def save(path: str, known: dict[str, Any]) -> None:
    """Keep what is known, the items at the end first, as far as there is room. Items that are bytes are what `load` has
    found. Others may do the same: the last one stays. Failing to is nobody's trouble."""
    folder = os.path.dirname(path)
    room = _MOST - 200
    items: list[tuple[str, bytes]] = []
    try:
        for name in reversed(known):
            item = known[name] if isinstance(known[name], bytes) else marshal.dumps(known[name])
            room -= len(item) + len(name) + 20
            if room < 0:
                break
            items.append((name, item))
        body = marshal.dumps(dict(reversed(items)))
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if not _is_ours(folder):
                return
        _replace(path, _head(body) + b"\n" + body)
        _remove_oldest(folder, path)
    except (OSError, ValueError):
        return  # the next reader computes it again


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}-{os.urandom(8).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _head(body: bytes) -> bytes:
    return f"asynctrack {VERSION}.{_LAYOUT}.{marshal.version} {len(body)} {crc32(body):08x}".encode()


def _is_ours(folder: str) -> bool:
    """Whether nobody else could have put a file into a folder."""
    about = os.stat(folder, follow_symlinks=False)
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022


def _remove_oldest(folder: str, but: str) -> None:
    with os.scandir(folder) as entries:
        found = sorted(
            (about.st_mtime_ns, about.st_size, entry.path)
            for entry in entries
            if (about := entry.stat(follow_symlinks=False)) and stat.S_ISREG(about.st_mode)
        )
    excess = sum(size for _, size, _ in found) - _MOST_IN_ALL
    for _, size, path in found:
        if excess > 0 and path != but:
            os.unlink(path)
            excess -= size

"""Files that hold one value each: params, which never change, and tags, which do."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from asynctrack.errors import InvalidInputError
from asynctrack.stores.file.files import LinksUnsupportedError, create_whole, make_folder, replace_whole
from asynctrack.stores.keys import check_key

__all__ = [
    "MAX_PARAM_LENGTH",
    "MAX_TAG_LENGTH",
    "keys_below",
    "read_entries",
    "read_entry",
    "read_file",
    "write_param",
    "write_tag",
]

#: called with a path and what is wrong with it, once a file or more
Warn = Callable[[str, object], None]

#: what is wrong with one file only: the rest of the store can be read
_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EIO, errno.ENAMETOOLONG})

#: characters, beyond which MLflow cuts
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000


def write_param(path: str, value: str, folder: str) -> str | None:
    """Set a param that has no value yet. Returns the value it has where that is another, else None. Raises OSError."""
    data = value.encode("utf-8", "replace")
    try:
        current = _read(path)
    except FileNotFoundError:
        make_folder(path, folder)
        try:
            if create_whole(path, data, folder):
                return None
        except LinksUnsupportedError:
            replace_whole(path, data, folder)
            return None
        current = _read(path)  # another process was faster
    return None if current == data else current.decode("utf-8", "replace")


def write_tag(path: str, value: str, folder: str) -> None:
    """Set a tag, whatever it was. Raises OSError."""
    make_folder(path, folder)
    replace_whole(path, value.encode("utf-8", "replace"), folder)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def read_file(path: str, warn: Warn) -> bytes | None:
    """The bytes of one key's file; None where there is none, or (``warn`` is told) none that can be read.

    Raises OSError for what is not this file's own fault.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.readall()
            warn(path, "it is not a file")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass  # it went away, or the key is a folder of other keys
    except OSError as problem:
        if problem.errno not in _UNREADABLE:
            raise
        warn(path, problem.strerror)
    return None


def _without_waiting(path: str, flags: int) -> int:
    # A pipe that somebody has left here would otherwise hold up the search for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def read_entry(path: str, warn: Warn) -> str | None:
    """The value in ``path``, as it was written; None where there is none, or (``warn`` is told) none in UTF-8."""
    data = read_file(path, warn)
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as problem:
        warn(path, problem)
        return None


def keys_below(folder: str, kind: str, warn: Warn) -> list[str]:
    """The key of every file in and below ``folder``, sorted; ``warn`` is told of files that no key can name."""
    found = []

    def unreadable(problem: OSError) -> None:
        if not isinstance(problem, FileNotFoundError):
            warn(problem.filename, problem.strerror)

    for parent, _, names in os.walk(folder, onerror=unreadable):
        for name in names:
            path = os.path.join(parent, name)
            key = os.path.relpath(path, folder)
            try:
                check_key(kind, key)
            except InvalidInputError as problem:
                warn(path, problem)
            else:
                found.append(key)
    return sorted(found)


def read_entries(folder: str, kind: str, warn: Warn) -> dict[str, str]:
    """Every param or tag in ``folder``; empty where there is no such folder."""
    found = ((key, read_entry(os.path.join(folder, key), warn)) for key in keys_below(folder, kind, warn))
    return {key: value for key, value in found if value is not None}

"""Files that hold one value each: params, which never change, and tags, which do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterator
from functools import lru_cache

from asynctrack.constants import LONGEST_VALUE
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.file.files import (
    NOT_A_FILE,
    LinksUnsupportedError,
    create_whole,
    make_folder,
    open_regular,
    read_regular,
    read_whole,
    replace_whole,
)
from asynctrack.stores.keys import check_key, shorten

__all__ = [
    "MAX_PARAM_LENGTH",
    "MAX_TAG_LENGTH",
    "can_be_key",
    "files_below",
    "keys_below",
    "open_file",
    "read_entries",
    "read_entry",
    "remove_tag",
    "write_param",
    "write_tag",
]

#: called with a path and what is wrong with it, once a file or more
Warn = Callable[[str, object], None]

#: what is wrong with one file only: the rest of the store can be read
_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EIO, errno.ENAMETOOLONG})

#: characters, beyond which MLflow cuts
MAX_PARAM_LENGTH = LONGEST_VALUE["param"]
MAX_TAG_LENGTH = LONGEST_VALUE["tag"]
#: bytes of a param or tag that are read at all; MLflow's own file store keeps long tags whole
_MOST_VALUE = 64 << 20


def write_param(path: str, value: str, folder: str) -> str | None:
    """Set a param that has no value yet. Returns the value it has where that is another, else None. Raises OSError, and
    `RefusedError` where it has a value that no param can have."""
    data = value.encode("utf-8", "replace")
    try:
        current = _current(path)
    except FileNotFoundError:
        make_folder(path, folder)
        try:
            if create_whole(path, data, folder):
                return None
        except LinksUnsupportedError:
            replace_whole(path, data, folder)
            return None
        current = _current(path)  # another process was faster
    return None if current == data else current.decode("utf-8", "replace")


def _current(path: str) -> bytes:
    try:
        return read_regular(path, _MOST_VALUE)
    except ValueError as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error


def write_tag(path: str, value: str, folder: str) -> None:
    """Set a tag, whatever it was. Raises OSError."""
    make_folder(path, folder)
    replace_whole(path, value.encode("utf-8", "replace"), folder)


def remove_tag(path: str, whose: str, key: str) -> None:
    """Remove the tag ``key`` of a run or an experiment, which is ``whose`` in messages. Raises `NotFoundError` where
    there is none, OSError."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"{whose} has no tag {shorten(key)}") from error


def open_file(path: str, warn: Warn) -> int | None:
    """A descriptor to read one key's file by; None where there is none, or (``warn`` is told) none that can be read.

    Raises OSError for what is not this file's own fault.
    """
    try:
        return open_regular(path)
    except (FileNotFoundError, IsADirectoryError):
        pass  # it went away, or the key is a folder of other keys
    except NotADirectoryError as problem:
        if problem.strerror == NOT_A_FILE:
            warn(path, problem.strerror)
    except OSError as problem:
        if problem.errno not in _UNREADABLE:
            raise
        warn(path, problem.strerror)
    return None


def read_entry(path: str, warn: Warn) -> str | None:
    """The value in ``path``, as it was written; None where there is none, or (``warn`` is told) none in UTF-8.

    Raises OSError for what is not this file's own fault.
    """
    fd = open_file(path, warn)
    if fd is None:
        return None
    try:
        return read_whole(fd, _MOST_VALUE).decode("utf-8")
    except ValueError as problem:  # too long, or not UTF-8
        warn(path, problem)
        return None
    finally:
        os.close(fd)


@lru_cache(256)
def can_be_key(kind: str, key: str) -> bool:
    """Whether any run can have this key."""
    try:
        check_key(kind, key, as_path=True)
    except InvalidInputError:
        return False
    return True


def keys_below(folder: str, kind: str, warn: Warn) -> list[str]:
    """The key of every file in and below ``folder``, sorted; ``warn`` is told of files that no key can name."""
    return sorted(key for key, _ in files_below(folder, kind, warn))


def files_below(
    folder: str, kind: str, warn: Warn, known: Container[str] = ()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The same with the entries of the folders, in no order; keys that are ``known`` are not checked. Links to folders
    are not followed."""
    pending = [("", folder)]
    while pending:
        above, parent = pending.pop()
        try:
            with os.scandir(parent) as found:
                entries = list(found)
        except OSError as problem:
            if not isinstance(problem, FileNotFoundError):
                warn(problem.filename, problem.strerror)
            continue
        for entry in entries:
            key = above + entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False  # a link in a circle
            if is_folder:
                if not entry.is_symlink():
                    pending.append((f"{key}/", entry.path))
            elif key in known or _checked(kind, key, entry.path, warn):
                yield key, entry


def _checked(kind: str, key: str, path: str, warn: Warn) -> bool:
    try:
        check_key(kind, key)
    except InvalidInputError as problem:
        warn(path, problem)
        return False
    return True


def read_entries(folder: str, kind: str, warn: Warn) -> dict[str, str]:
    """Every param or tag in ``folder``; empty where there is no such folder."""
    found = ((key, read_entry(os.path.join(folder, key), warn)) for key in keys_below(folder, kind, warn))
    return {key: value for key, value in found if value is not None}

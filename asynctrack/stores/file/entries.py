"""Files that hold one value each: params, which never change, and tags, which do."""

from __future__ import annotations

import os
from collections.abc import Callable

from asynctrack.errors import InvalidInputError
from asynctrack.stores.file.files import LinksUnsupportedError, create_whole, make_folder, replace_whole
from asynctrack.stores.keys import check_key

__all__ = ["MAX_PARAM_LENGTH", "MAX_TAG_LENGTH", "keys_below", "read_entries", "read_entry", "write_param", "write_tag"]

#: called with a path and what is wrong with it, once a file or more
Warn = Callable[[str, object], None]

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


def read_entry(path: str, warn: Warn) -> str | None:
    """The value in ``path``, as it was written; None where there is none, or (``warn`` is told) none in UTF-8."""
    try:
        return _read(path).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except UnicodeDecodeError as problem:
        warn(path, problem)
        return None


def keys_below(folder: str, kind: str, warn: Warn) -> list[str]:
    """The key of every file in and below ``folder``, sorted; ``warn`` is told of files that no key can name."""
    found = []
    for parent, _, names in os.walk(folder):
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

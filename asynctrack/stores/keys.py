"""MLflow's rule for metric, param and tag keys: one rule for every kind and every endpoint."""

from __future__ import annotations

import posixpath
import re

from asynctrack.errors import InvalidInputError

__all__ = ["MAX_KEY_LENGTH", "check_key", "shorten"]

#: characters; MLflow's limit for metric, param and tag keys alike
MAX_KEY_LENGTH = 250
#: bytes of one path component on every common file system
_MAX_COMPONENT_BYTES = 255
_LEGAL = re.compile(r"[/\w.\- :]+")
_ALLOWED = "letters, digits, underscores, slashes, periods, dashes, colons and spaces"


def shorten(text: object, width: int = 80) -> str:
    """``repr`` of ``text``, cut in the middle to at most ``width`` characters, for messages."""
    whole = repr(text)
    if len(whole) <= width:
        return whole
    half = (width - 3) // 2
    return f"{whole[:half]}...{whole[-half:]}"


def check_key(kind: str, key: str, *, as_path: bool = False) -> None:
    """Raise `InvalidInputError`, naming the key and what is allowed, for a key MLflow would refuse.

    ``kind`` is "metric", "param" or "tag" and only serves the message. With ``as_path`` each part between slashes must
    also fit a file name of 255 bytes in UTF-8.
    """
    fault = _fault(key, as_path)
    if fault:
        raise InvalidInputError(
            f"{kind} key {shorten(key)} {fault}; a key is 1 to {MAX_KEY_LENGTH} characters out of {_ALLOWED}, "
            f"and reads as a relative path without '..', '.', '//' or an ending '/'"
        )


def _fault(key: object, as_path: bool) -> str | None:
    if not isinstance(key, str):
        return f"is {type(key).__name__}, not a string"
    if not key:
        return "is empty"
    if len(key) > MAX_KEY_LENGTH:
        return f"has {len(key)} characters"
    if not _LEGAL.fullmatch(key):
        first = next(character for character in key if not _LEGAL.fullmatch(character))
        return f"contains {first!r}"
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        return "is not a plain relative path"
    if as_path and any(len(part.encode("utf-8")) > _MAX_COMPONENT_BYTES for part in key.split("/")):
        return f"has a part of more than {_MAX_COMPONENT_BYTES} bytes in UTF-8, too long for a file name"
    return None

"""MLflow's rule for the keys of metrics, params and tags. It is the same for all three."""

from __future__ import annotations

import posixpath
import re

from asynctrack.errors import InvalidInputError
from asynctrack.values import shown

__all__ = ["MAX_KEY_LENGTH", "check_key", "clean_key", "shorten"]

#: characters; MLflow's limit for the keys of metrics, params and tags
MAX_KEY_LENGTH = 250
#: bytes; the limit of all common file systems for one file name
_MAX_COMPONENT_BYTES = 255
_LEGAL = re.compile(r"[/\w.\- :]+")
_ILLEGAL = re.compile(r"[^/\w.\- :]")
_ALLOWED = "letters, digits, underscores, slashes, periods, dashes, colons and spaces"


def shorten(text: object, width: int = 80) -> str:
    """``repr`` of ``text``, cut in the middle to at most ``width`` characters, for messages."""
    whole = shown(text)
    if len(whole) <= width:
        return whole
    half = (width - 3) // 2
    return f"{whole[:half]}...{whole[-half:]}"


def check_key(kind: str, key: str, *, as_path: bool = False) -> None:
    """Raise `InvalidInputError` for a key that MLflow would refuse. The message says what is allowed.

    ``kind``: "metric", "param" or "tag", for the message. With ``as_path``, each part between slashes must also fit a
    file name: at most 255 bytes in UTF-8.
    """
    fault = _fault(key, as_path)
    if fault:
        raise InvalidInputError(
            f"{kind} key {shorten(key)} {fault}; a key is 1 to {MAX_KEY_LENGTH} characters out of {_ALLOWED}, "
            f"and reads as a relative path without '..', '.', '//' or an ending '/'"
        )


def clean_key(key: object) -> str:
    """A key that every store takes, made of any text, for names that come from
    elsewhere: ``ndcg@1`` becomes ``ndcg_at_1``, ``val(loss)`` ``val_loss_``.

    A key that is allowed stays as it is. "@" becomes "_at_", as in MLflow's
    own integrations, any other character that is not allowed "_". Parts of a
    path that lead elsewhere go ("/a", "a//b", "./a"), and what is too long is
    cut (250 characters, 255 bytes in UTF-8 for a part). Different texts may
    become the same key. Raises InvalidInputError for what has no text.
    """
    try:
        text = str(key)
    except Exception as error:
        raise InvalidInputError(f"key {shorten(key)}: str() of it failed: {error!r}") from error
    text = _ILLEGAL.sub("_", text.replace("@", "_at_"))[:MAX_KEY_LENGTH]
    parts = [
        part.encode("utf-8")[:_MAX_COMPONENT_BYTES].decode("utf-8", "ignore")
        for part in text.split("/")
        if part not in ("", ".")
    ]
    # A key may not begin with two dots, nor have them for a part.
    parts = [
        "_" + part[1:] if part == ".." or (part.startswith("..") and not at) else part for at, part in enumerate(parts)
    ]
    return "/".join(parts) or "_"


def _fault(key: object, as_path: bool) -> str | None:
    if not (isinstance(key, str) and issubclass(type(key), str)):  # a proxy only says so
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

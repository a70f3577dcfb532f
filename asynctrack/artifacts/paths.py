"""What an artifact may be called, and what a server may call one. Nothing here touches disk or network.

An artifact's path is relative to its run's artifacts, its parts separated by slashes, on every system.
"""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import quote, unquote, urlparse, urlunparse

from asynctrack.errors import InvalidInputError, RefusedError
from asynctrack.stores.keys import shorten

__all__ = [
    "RESERVED_PREFIX",
    "SERVICE",
    "artifact_file",
    "artifact_folder",
    "check_artifact_path",
    "content_type",
    "join",
    "listed_path",
    "path_text",
    "proxy_path",
    "quoted",
]

#: the path of an MLflow server's artifacts
SERVICE = "/api/2.0/mlflow-artifacts/artifacts"
#: how the names of files begin that are still being written; MLflow hides them in its listings too
RESERVED_PREFIX = ".artifact.uploading."

#: bytes; the limit of all common file systems for one name
_MAX_PART = 255
#: of a whole path: more has no place on a disk, below a folder of some length
_MOST_BYTES, _MOST_FOLDERS = 3500, 400
_DRIVE = re.compile(r"[a-zA-Z]:\\")
#: MLflow's list: these are sent as text, so that its UI shows them
_SENT_AS_TEXT = re.compile(
    "txt|log|err|cfg|conf|cnf|cf|ini|properties|prop|hocon|toml|yaml|yml|xml|json|js|py|py3|csv|tsv|md|rst|ipynb|"
    "MLmodel|MLproject"
)


def check_artifact_path(path: str | os.PathLike[str]) -> str:
    """``path`` as text. Raises `InvalidInputError`, saying why, unless it is one plain way down from a run's root.

    Paths that would be something else elsewhere are refused too: a backslash separates parts on Windows, where
    somebody may download it.
    """
    text = path_text(path)
    fault = _fault(text)
    if fault is None and any(len(part.encode()) > _MAX_PART for part in text.split("/")):
        fault = f"has a part of more than {_MAX_PART} bytes in UTF-8, too long for the name of a file"
    elif fault is None and (len(text.encode()) > _MOST_BYTES or text.count("/") > _MOST_FOLDERS):
        fault = f"is longer than {_MOST_BYTES} bytes, or leads through more than {_MOST_FOLDERS} folders"
    if fault:
        raise InvalidInputError(
            f"artifact path {shorten(text)} {fault}; it must be a relative path like 'plots/loss.png', "
            f"below the run's artifacts"
        )
    return text


def artifact_folder(path: str | os.PathLike[str] | None) -> str:
    """A folder for artifacts, or what is to be listed or downloaded: a checked path, or "" for the run's root.

    As MLflow does, "d/", "./d" and "d//e" are read as "d" and "d/e", and "." is the root. Raises `InvalidInputError`.
    """
    text = "" if path is None else path_text(path)
    if text.startswith("/") or ".." in text.split("/"):
        return check_artifact_path(text)  # which says why not
    normal = posixpath.normpath(text) if text else ""
    return "" if normal in ("", ".") else check_artifact_path(normal)


def artifact_file(path: str | os.PathLike[str]) -> str:
    """The path of an artifact made from an object: as MLflow does, "./a//b" is read as "a/b".

    Raises `InvalidInputError`.
    """
    text = path_text(path)
    return check_artifact_path(posixpath.normpath(text) if text and not text.endswith("/") else text)


def join(folder: str, name: str) -> str:
    """``name`` in ``folder``, which may be "" for the root."""
    return f"{folder}/{name}" if folder else name


def listed_path(folder: str, name: object, root: str) -> str:
    """Where an entry of a server's listing of ``folder`` is, seen from the root.

    Raises `RefusedError` for a name that is none: a server must not choose where a download is written.
    """
    fault = _fault(name) or ("is not the name of one entry" if "/" in str(name) else None)
    if fault:
        raise RefusedError(f"{root} lists an artifact {shorten(name)} in {folder or 'its root'}, which {fault}")
    return join(folder, str(name))


def quoted(path: str) -> str:
    """``path`` for a URL, each part percent-encoded. Raises `RefusedError` for what UTF-8 cannot express."""
    try:
        return quote(path, safe="/")
    except UnicodeEncodeError:
        raise RefusedError(f"artifact {shorten(path)}: its name is not text in UTF-8; rename the file") from None


def proxy_path(path: str) -> str:
    """`quoted`, for the artifact proxy of MLflow's server.

    The server decodes what it is sent once more than it was encoded, parses it as a URL and checks it. Raises
    `RefusedError` where that would store the artifact under another name (like "50%20.txt" as "50 .txt"), or would
    be refused there.
    """
    encoded = quoted(path)
    if "#" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        fault = "MLflow's server takes no '#' and no control characters"
    # Below a folder: what looks like a scheme is none, as all runs are in one of the server's.
    elif urlunparse(urlparse(f"0/{unquote(path)}")) != f"0/{path}":
        fault = "MLflow's server would store it under another name ('%' with two hex digits, '?' or ';' at the end)"
    else:
        return encoded
    raise RefusedError(f"artifact {shorten(path)} cannot be sent: {fault}; rename the file")


def content_type(name: str) -> str:
    """The media type under which MLflow's client would send a file of that name."""
    import mimetypes

    suffix = os.path.splitext(name)[1].removeprefix(".") or name
    if _SENT_AS_TEXT.fullmatch(suffix):
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def path_text(path: object, what: str = "artifact path") -> str:
    """A path that somebody has given. ``what``: its name in messages. Raises `InvalidInputError` for what is none."""
    try:
        text = os.fspath(path)  # type: ignore[call-overload]  # whatever the caller gave: a TypeError is the answer
    except Exception:  # whatever its __fspath__ raises
        text = None
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} {shorten(path)} is {type(path).__name__}; it must be a string")
    return text


def _fault(path: object) -> str | None:
    if not isinstance(path, str):
        return f"is {type(path).__name__}, not a string"
    if not path:
        return "is empty"
    if "\0" in path:
        return "contains a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in path):
        return "contains half a character (a lone surrogate), which is no text in UTF-8"
    if path.startswith(("/", "\\")) or _DRIVE.match(path):
        return "is absolute"
    if ".." in re.split(r"[/\\]", path):
        return "contains '..'"
    if posixpath.normpath(path) != path or path == ".":
        return f"would be stored as {shorten(posixpath.normpath(path))}"
    if any(part.startswith(RESERVED_PREFIX) for part in path.split("/")):
        return f"begins with {RESERVED_PREFIX!r}, which is kept for uploads under way"
    return None

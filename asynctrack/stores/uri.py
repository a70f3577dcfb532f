"""From what a user writes to a store: paths and ``file:``, MLflow servers, Databricks."""

from __future__ import annotations

import os
import re
from functools import partial

from asynctrack.errors import InvalidInputError, UnavailableError
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import StoreIO, ThreadedIO

__all__ = ["open_store", "resolve_store_uri", "userinfo_of"]

#: where runs go when nothing is said, as in MLflow before its default became SQLite
DEFAULT_PATH = "mlruns"

#: user names and passwords that stood in URLs, by the URL without them: the canonical spelling goes onto the disk
_userinfo: dict[str, tuple[str, str]] = {}

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.\-]*):(?!\\)")
_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mssql")
_KINDS = (
    "a path or file: URI (files in MLflow's layout), http:// or https:// (an MLflow server), "
    "databricks or databricks://profile"
)


def resolve_store_uri(uri: str | os.PathLike[str] | None) -> str:
    """The one spelling of a tracking URI: what is the same store has the same URI, wherever it is resolved.

    None, "" and paths become ``file:///absolute/path``, percent-encoded. Raises `InvalidInputError` for a URI that
    leads to no store of ours, saying which do.
    """
    if uri is None:
        return _local(DEFAULT_PATH)
    text = os.fspath(uri)
    if not isinstance(text, str):
        raise InvalidInputError(f"tracking URI {text!r} is {type(text).__name__}; it must be a string or a path")
    if "\0" in text:
        raise InvalidInputError(f"tracking URI {text!r} contains a NUL character")
    scheme = None if isinstance(uri, os.PathLike) else _scheme(text)
    if scheme is None:
        return _local(os.path.expanduser(text) if text else DEFAULT_PATH)
    if scheme == "file":
        return _local(_path_of(text))
    if scheme in ("http", "https"):
        return _server(text)
    if scheme == "databricks":
        from asynctrack.stores.databricks import databricks_profile, databricks_uri

        return databricks_uri(databricks_profile(text))
    raise InvalidInputError(_unknown(text, scheme))


def open_store(
    uri: str | os.PathLike[str] | None, io: StoreIO | None = None, *, offline: bool | None = None
) -> AbstractStore:
    """The store at ``uri``; nothing is read or written yet. Raises `InvalidInputError`.

    ``offline`` (None: as `Settings.mode` says): a server is never connected to; what would have to raises
    `UnavailableError`.
    """
    resolved = resolve_store_uri(uri)
    if not resolved.startswith("file:"):
        settings = current_settings()
        if offline is not None:
            settings = settings._replace(mode="offline" if offline else "online")
        return _open_server(resolved, io or ThreadedIO(), settings)
    from asynctrack.stores.file.store import FileStore

    path = _path_of(resolved)
    if os.path.exists(path) and not os.path.isdir(path):
        raise InvalidInputError(f"tracking URI {_shown(os.fspath(uri or path))}: {path} is a file, not a directory")
    return FileStore(path, io)


def _open_server(uri: str, io: StoreIO, settings: Settings) -> AbstractStore:
    from asynctrack.stores.rest.auth import Credentials, credentials_for, extra_headers
    from asynctrack.stores.rest.client import RestClient
    from asynctrack.stores.rest.store import RestStore

    credentials: Credentials
    if uri.startswith("databricks"):
        from asynctrack.stores.databricks import DatabricksCredentials, databricks_profile

        workspace = DatabricksCredentials(databricks_profile(uri), token=settings.token)
        credentials, address, doubles = workspace, workspace.host, True
    else:
        credentials = credentials_for(uri, userinfo=_userinfo.get(uri), token=settings.token)
        address, doubles = lambda: uri, None
    if settings.mode == "offline":
        address = partial(_no_address, uri)
    client = RestClient(address, credentials, io, connect_timeout=settings.connect_timeout, extra_headers=extra_headers)
    return RestStore(uri, client, keeps_doubles=doubles)


def _no_address(uri: str) -> str:
    raise UnavailableError(
        f'mode="offline": {uri} is not asked. What is logged is kept, and `asynctrack sync` delivers it; whatever else '
        f'needs the server has to wait for mode="online"'
    )


def userinfo_of(uri: str) -> tuple[str, str] | None:
    """The user name and password that this process was given in the URL of a server."""
    return _userinfo.get(uri)


def _server(text: str) -> str:
    from asynctrack.stores.rest.auth import split_userinfo

    url, userinfo = split_userinfo(text)
    if userinfo is not None:
        _userinfo[url] = userinfo
    return url


def _scheme(text: str) -> str | None:
    if text.lower() == "databricks":
        return "databricks"
    found = _SCHEME.match(text)
    # "C:\runs" is a path; so is a name with a colon further on, which no scheme can hold a slash before
    return found[1].lower() if found and len(found[1]) > 1 else None


def _path_of(uri: str) -> str:
    from urllib.parse import unquote, urlsplit  # late: it would be a twentieth of `import asynctrack`

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInputError(f"tracking URI {_shown(uri)} cannot be read: {error}") from error
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(
            f"tracking URI {_shown(uri)} names the host {parts.netloc!r}; a file store is a directory of this machine: "
            f"write file:///absolute/path"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(f"tracking URI {_shown(uri)}: write '?' as %3F and '#' as %23 in a file: URI")
    path = unquote(parts.path)
    if "\0" in path:
        raise InvalidInputError(f"tracking URI {_shown(uri)} contains a NUL character")
    return path or DEFAULT_PATH


def _local(path: str) -> str:
    # Imported late, with the store it belongs to.
    from asynctrack.stores.file.layout import local_uri

    return local_uri(path)


def _unknown(text: str, scheme: str) -> str:
    message = f"tracking URI {_shown(text)}: {scheme!r} is none of {_KINDS}"
    if scheme.partition("+")[0] in _DATABASES:
        message += (
            f". To reach that database, start `mlflow server --backend-store-uri {_shown(text)[1:-1]}` "
            f"and use the server's address, like http://127.0.0.1:5000"
        )
    return message


def _shown(text: str) -> str:
    """``repr`` of a URI without the password it may hold."""
    return repr(re.sub(r"(//[^/@\s]*?):[^/]*@", r"\1:***@", text))

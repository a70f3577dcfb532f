"""From what a user writes to a store: paths and ``file:``, SQLite, MLflow servers, Databricks."""

from __future__ import annotations

import os
import re
from functools import partial

from asynctrack.errors import InvalidInputError, UnavailableError
from asynctrack.platforms import check_folder_name, unquoted_path, why
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import StoreIO, ThreadedIO
from asynctrack.values import as_text, shortened

__all__ = ["open_store", "own_paths", "resolve_store_uri", "same_spelling", "userinfo_of"]

#: where runs go when an empty URI is given
DEFAULT_PATH = "mlruns"
#: and when nothing is said, unless that folder holds experiments; as in MLflow since 3.8
_DEFAULT_DATABASE = "sqlite:///mlflow.db"

#: user names and passwords that stood in URLs, by the URL without them: the canonical spelling goes onto the disk
_userinfo: dict[str, tuple[str, str]] = {}

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.\-]*):(?!\\)")
#: what `pathlib` makes of "http://host"
_COLLAPSED = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]+:/[^/]")
#: a byte order mark, a space of no width
_MARKS = ("\ufeff", "\u200b")
_QUOTES = ("'", '"', "`", "\u2018", "\u2019", "\u201c", "\u201d")
#: characters of a URI, in messages
_SHOWN = 200
_DATABASES = ("mysql", "mssql")
_KINDS = (
    "a path or file: URI (files in MLflow's layout), sqlite:///path.db, postgresql://user@host/database, http:// or "
    "https:// (an MLflow server), databricks or databricks://profile"
)


def resolve_store_uri(uri: str | os.PathLike[str] | None) -> str:
    """The one spelling of a tracking URI: what is the same store has the same URI, wherever it is resolved.

    Paths become ``file:///absolute/path``, percent-encoded, with symbolic links followed; an empty text is ``mlruns``.
    None is MLflow's default: ``./mlruns`` if it holds experiments, else ``sqlite:///mlflow.db``. Raises
    `InvalidInputError` for a URI that leads to no store of ours, saying which do, and `UnavailableError` where this
    process has no working directory any more, or may open no file.
    """
    try:
        return _resolved(uri)
    except FileNotFoundError as error:
        raise UnavailableError(
            "the working directory of this process has been deleted, and the store or its default is below it; change "
            "to another one, or name a store by its absolute path or its server"
        ) from error
    except OSError as error:  # of an import, as what few programs need is imported when it is needed
        raise UnavailableError(f"the store cannot be opened: {why(error)}") from error


def _resolved(uri: str | os.PathLike[str] | None) -> str:
    if uri is None:
        return _default()
    text = _text_of(uri)
    scheme = None if isinstance(uri, os.PathLike) else _scheme(text)
    if scheme is None:
        return _local(os.path.expanduser(text) if text else DEFAULT_PATH)
    if scheme == "file":
        return _local(_path_of(text))
    if scheme in ("http", "https"):
        return _server(text)
    if scheme.partition("+")[0] == "sqlite":
        from asynctrack.stores.sql.places import sqlite_uri

        return sqlite_uri(text)
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        from asynctrack.stores.sql.postgres_uri import parse_postgres

        place = parse_postgres(text)
        if place.password:
            _userinfo[place.uri] = place.user, place.password
        return place.uri
    if scheme == "databricks":
        from asynctrack.stores.databricks import databricks_profile, databricks_uri

        return databricks_uri(databricks_profile(text))
    raise InvalidInputError(_unknown(text, scheme))


def _default() -> str:
    if not _holds_experiments(DEFAULT_PATH):
        uri = resolve_store_uri(_DEFAULT_DATABASE)
        if not any(character in uri for character in "%?"):  # no URI leads to a database in such a folder
            return uri
    return _local(DEFAULT_PATH)


def _holds_experiments(path: str) -> bool:
    """Whether MLflow takes the folder for a file store: an experiment in it has a number. Beside a database there may
    be folders of that name, for its artifacts."""
    try:
        with os.scandir(path) as entries:
            return any(
                entry.name.isdigit() and os.path.lexists(os.path.join(entry.path, "meta.yaml")) for entry in entries
            )
    except OSError:
        return False


def _text_of(uri: object) -> str:
    """What a user has written, without blanks around it, which an env file leaves there. Raises InvalidInputError."""
    try:
        text = os.fspath(uri) if isinstance(uri, os.PathLike) else as_text(uri)
    except Exception:  # whatever its __fspath__ raises
        text = None
    if not isinstance(text, str):
        raise InvalidInputError(f"tracking URI {shortened(uri)} is {type(uri).__name__}; it must be a string or a path")
    if isinstance(uri, os.PathLike):
        if _COLLAPSED.match(text):
            raise InvalidInputError(f"tracking URI {_shown(text)} is a path object made of a URI; give the text itself")
    else:
        text = text.strip()
    if fault := _fault(text, isinstance(uri, os.PathLike)):
        raise InvalidInputError(
            f"tracking URI {_shown(text)} {fault}; see how it was written in MLFLOW_TRACKING_URI or set_tracking_uri"
        )
    return text


def _fault(text: str, is_path: bool) -> str | None:
    if "\0" in text:
        return "contains a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "contains bytes that are not text in UTF-8"
    if is_path:
        return None
    if text.startswith(_MARKS) or text.endswith(_MARKS):
        return "has an invisible mark (U+FEFF or U+200B) around it, which some editors write; remove it"
    if text[:1] in _QUOTES or text[-1:] in _QUOTES:
        return "has a quote around it, which is no part of a URI; remove it"
    if "://" in text and _scheme(text) is None:
        return "is neither a path nor a URI: something stands before its scheme"
    return None


def same_spelling(uri: str) -> str:
    """A URI out of a spool as `resolve_store_uri` would spell it now; earlier versions did not follow links.

    Raises nothing: a store of the user's own may have any URI.
    """
    if not uri.startswith("file:"):
        return uri
    try:
        return _local(_path_of(uri))
    except InvalidInputError:
        return uri


def own_paths(uri: str) -> list[str]:
    """What holds a store on this machine, by its canonical URI: files and folders that no run logs as its artifacts."""
    if uri.startswith("sqlite:"):
        from asynctrack.stores.sql.places import artifact_root, sqlite_path

        path = sqlite_path(uri)
        return [artifact_root(path), *(f"{path}{end}" for end in ("", "-wal", "-shm", "-journal"))]
    try:
        return [_path_of(uri)] if uri.startswith("file:") else []
    except InvalidInputError:
        return []  # a store of the user's own


def open_store(
    uri: str | os.PathLike[str] | None, io: StoreIO | None = None, *, offline: bool | None = None
) -> AbstractStore:
    """The store at ``uri``; nothing is read or written yet. Raises `InvalidInputError`.

    ``offline`` (None: as `Settings.mode` says): a server is never connected to; what would have to raises
    `UnavailableError`.
    """
    resolved = resolve_store_uri(uri)
    if resolved.startswith("sqlite:"):
        return _open_sqlite(resolved, io)
    if resolved.startswith("postgresql:"):
        return _open_postgres(resolved, io, offline)
    if not resolved.startswith("file:"):
        return _open_server(resolved, io or ThreadedIO(), _settings(offline))
    from asynctrack.stores.file.store import FileStore

    path = _path_of(resolved)
    if os.path.exists(path) and not os.path.isdir(path):
        raise InvalidInputError(f"tracking URI {_shown(os.fspath(uri or path))}: {path} is a file, not a directory")
    return FileStore(path, io)


def _open_sqlite(uri: str, io: StoreIO | None) -> AbstractStore:
    from asynctrack.stores.sql.places import sqlite_path
    from asynctrack.stores.sql.sqlite import SqliteDatabase
    from asynctrack.stores.sql.store import SqlStore

    return SqlStore(SqliteDatabase(sqlite_path(uri)), io)


def _open_postgres(uri: str, io: StoreIO | None, offline: bool | None) -> AbstractStore:
    from importlib.util import find_spec

    from asynctrack.stores.sql.postgres import PostgresDatabase
    from asynctrack.stores.sql.postgres_uri import parse_postgres
    from asynctrack.stores.sql.store import SqlStore

    if find_spec("psycopg") is None:
        raise InvalidInputError(
            f"tracking URI {_shown(uri)} needs psycopg 3: pip install 'asynctrack[postgresql]' 'psycopg[binary]'"
        )
    settings = _settings(offline)
    database = PostgresDatabase(
        parse_postgres(uri),
        lambda: _userinfo.get(uri, ("", ""))[1],
        connect_timeout=settings.connect_timeout,
        offline=_not_asked(uri) if settings.mode == "offline" else None,
    )
    return SqlStore(database, io)


def _settings(offline: bool | None) -> Settings:
    settings = current_settings()
    return settings if offline is None else settings._replace(mode="offline" if offline else "online")


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
    raise UnavailableError(_not_asked(uri))


def _not_asked(uri: str) -> str:
    return (
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
    from urllib.parse import urlsplit  # late: it would be a twentieth of `import asynctrack`

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInputError(f"tracking URI {_shown(uri)} cannot be read: {error}") from error
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(
            f"tracking URI {_shown(uri)} names the host {shortened(parts.netloc)}; a file store is a directory of this "
            f"machine: write file:///absolute/path"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(f"tracking URI {_shown(uri)}: write '?' as %3F and '#' as %23 in a file: URI")
    path = unquoted_path(parts.path)
    if "\0" in path:
        raise InvalidInputError(f"tracking URI {_shown(uri)} contains a NUL character")
    return path or DEFAULT_PATH


def _local(path: str) -> str:
    # Imported late, with the store it belongs to.
    from asynctrack.stores.file.layout import local_uri

    check_folder_name("tracking URI", path)
    return local_uri(os.path.realpath(path))


def _unknown(text: str, scheme: str) -> str:
    message = f"tracking URI {_shown(text)}: {shortened(scheme)} is none of {_KINDS}"
    if scheme.partition("+")[0] in _DATABASES:
        message += (
            ". To reach that database, start `mlflow server --backend-store-uri` with this URI, and use the server's "
            "address, like http://127.0.0.1:5000"
        )
    return message


def _shown(text: str) -> str:
    """``repr`` of a URI without the password it may hold, shortened."""
    return shortened(re.sub(r"(//[^/@\s]*?):[^/]*@", r"\1:***@", text), _SHOWN)

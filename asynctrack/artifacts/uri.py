"""From a run's artifact URI to the place it means."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.local import LocalArtifacts
from asynctrack.artifacts.paths import SERVICE
from asynctrack.errors import InvalidInputError
from asynctrack.platforms import check_folder_name, unquoted_path
from asynctrack.stores.io import StoreIO
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.artifacts.proxied import ArtifactClient

__all__ = ["open_artifacts"]

_DATABRICKS = re.compile(r"/+databricks/mlflow-tracking/[^/]+/(?P<run>[^/]+)/artifacts(?P<root>(/.*)?)")
_KINDS = "a path, file:, mlflow-artifacts: and, on Databricks, dbfs:/databricks/mlflow-tracking/"


def open_artifacts(
    artifact_uri: str, tracking_uri: str | None, io: StoreIO, client: ArtifactClient | None = None
) -> ArtifactRepository:
    """The artifacts at ``artifact_uri``, as a run's `RunInfo` has it; nothing is read or written yet.

    ``tracking_uri`` and ``client`` are those of the run's tracking server; artifacts in a directory need neither.
    Raises `InvalidInputError`, saying what can be done, for a place that cannot be reached from here.
    """
    parts = _split(artifact_uri)
    scheme = parts.scheme.lower()
    if scheme in ("", "file"):
        directory = _directory(artifact_uri, parts)
        check_folder_name("artifact URI", directory)
        return LocalArtifacts(
            artifact_uri, directory, io, _store_folder(tracking_uri), beside=_database_folder(tracking_uri)
        )
    if scheme == "mlflow-artifacts":
        server, root = _server_of(parts, tracking_uri), parts.path
    elif scheme in ("http", "https") and SERVICE in parts.path:
        server, _, root = _without_user(artifact_uri).partition(SERVICE)
    elif scheme == "dbfs":
        return _databricks(artifact_uri, parts, io, client)
    else:
        raise InvalidInputError(_unknown(artifact_uri, scheme))
    if client is None:
        raise InvalidInputError(
            f"artifacts at {_shown(artifact_uri)} are reached through an MLflow server, but the tracking URI is "
            f"{_shown(tracking_uri or '')}; set it to that server's, like http://127.0.0.1:5000"
        )
    from asynctrack.artifacts.proxied import ProxiedArtifacts  # late: it takes as long to load as all stores do

    # On the tracking server itself it is a path: only there the client's credentials go along.
    address = "" if tracking_uri and _origin(server) == _origin(tracking_uri) else server.rstrip("/")
    root = "/".join(part for part in unquote(root).split("/") if part)
    return ProxiedArtifacts(_without_user(artifact_uri), address, root, io, client)


def _split(uri: str) -> SplitResult:
    if not isinstance(uri, str) or not uri or "\0" in uri:
        raise InvalidInputError(f"artifact URI {shortened(uri)} is none: the run has no place for artifacts")
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # parsed only when asked for
    except ValueError as error:
        raise InvalidInputError(f"artifact URI {_shown(uri)} cannot be read: {error}") from None
    # A path may have a colon in it, or begin with a drive's letter.
    return parts._replace(scheme="") if len(parts.scheme) == 1 else parts


def _directory(uri: str, parts: SplitResult) -> str:
    if parts.scheme != "file":
        return uri
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(
            f"artifact URI {_shown(uri)} names the host {shortened(parts.netloc)}; artifacts in files are on this "
            f"machine: file:///absolute/path"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(f"artifact URI {_shown(uri)}: write '?' as %3F and '#' as %23 in a file: URI")
    return os.path.abspath(unquoted_path(parts.path))


def _store_folder(tracking_uri: str | None) -> str | None:
    """The directory of a file store; None for other stores."""
    parts = urlsplit(tracking_uri or "")
    return _directory(tracking_uri or "", parts) if parts.scheme == "file" else None


def _database_folder(tracking_uri: str | None) -> str | None:
    """The directory of an SQLite database; None for other stores."""
    if tracking_uri is None or not tracking_uri.startswith("sqlite:"):
        return None
    from asynctrack.stores.sql.places import sqlite_path  # late: only who uses it needs it

    return os.path.dirname(sqlite_path(tracking_uri))


def _server_of(parts: SplitResult, tracking_uri: str | None) -> str:
    """The server that ``mlflow-artifacts:`` means: the tracking server, or the host that the URI names."""
    tracking = urlsplit(tracking_uri or "")
    if tracking.scheme not in ("http", "https"):
        raise InvalidInputError(
            f"artifacts at {_shown(parts._replace(netloc='').geturl())} are on an MLflow server, but the tracking URI "
            f"is {_shown(tracking_uri or '')}; set it to that server's, like http://127.0.0.1:5000"
        )
    host = (parts.netloc or tracking.netloc).rpartition("@")[2]
    return f"{tracking.scheme}://{host}{tracking.path.rstrip('/')}"


def _databricks(uri: str, parts: SplitResult, io: StoreIO, client: ArtifactClient | None) -> ArtifactRepository:
    found = _DATABRICKS.fullmatch(parts.path)
    if found is None:
        raise InvalidInputError(
            f"artifacts at {_shown(uri)} cannot be reached: of dbfs: only dbfs:/databricks/mlflow-tracking/… is "
            "supported; give the experiment no artifact location of its own, or log them with mlflow"
        )
    if client is None:
        raise InvalidInputError(f"artifacts at {_shown(uri)} are on Databricks: set the tracking URI to databricks")
    from asynctrack.artifacts.databricks import DatabricksArtifacts  # late, too

    return DatabricksArtifacts(_without_user(uri), found["run"], found["root"].strip("/"), io, client)


def _origin(url: str) -> tuple[str, str | None, int | None, str]:
    """What makes two addresses the same server."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def _without_user(uri: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", uri)


def _shown(uri: str) -> str:
    """A URI for messages, without a user and shortened."""
    return shortened(_without_user(uri), 200)


def _unknown(uri: str, scheme: str) -> str:
    return (
        f"artifacts at {_shown(uri)} cannot be reached: {shortened(scheme)} is none of {_KINDS}. Let the server pass "
        f"them on (`mlflow server --serve-artifacts --artifacts-destination {scheme[:20]}://…`) and use a new "
        f"experiment; or log them with mlflow"
    )

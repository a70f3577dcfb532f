"""From a run's artifact URI to the place it means."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, unquote, urlsplit

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.databricks import DatabricksArtifacts
from asynctrack.artifacts.local import LocalArtifacts
from asynctrack.artifacts.proxied import SERVICE, ArtifactClient, ProxiedArtifacts
from asynctrack.errors import InvalidInputError
from asynctrack.platforms import unquoted_path
from asynctrack.stores.io import StoreIO

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
        return LocalArtifacts(artifact_uri, _directory(artifact_uri, parts), io)
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
            f"artifacts at {_without_user(artifact_uri)} are reached through an MLflow server, but the tracking URI is "
            f"{_without_user(tracking_uri or '')!r}; set it to that server's, like http://127.0.0.1:5000"
        )
    # On the tracking server itself it is a path: only there the client's credentials go along.
    address = "" if tracking_uri and _origin(server) == _origin(tracking_uri) else server.rstrip("/")
    root = "/".join(part for part in unquote(root).split("/") if part)
    return ProxiedArtifacts(_without_user(artifact_uri), address, root, io, client)


def _split(uri: str) -> SplitResult:
    if not isinstance(uri, str) or not uri or "\0" in uri:
        raise InvalidInputError(f"artifact URI {uri!r} is none: the run has no place for artifacts")
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # parsed only when asked for
    except ValueError as error:
        raise InvalidInputError(f"artifact URI {_without_user(uri)!r} cannot be read: {error}") from None
    # A path may have a colon in it, or begin with a drive's letter.
    return parts._replace(scheme="") if len(parts.scheme) == 1 else parts


def _directory(uri: str, parts: SplitResult) -> str:
    if parts.scheme != "file":
        return uri
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(
            f"artifact URI {uri!r} names the host {parts.netloc!r}; artifacts in files are on this machine: "
            f"file:///absolute/path"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(f"artifact URI {uri!r}: write '?' as %3F and '#' as %23 in a file: URI")
    return os.path.abspath(unquoted_path(parts.path))


def _server_of(parts: SplitResult, tracking_uri: str | None) -> str:
    """The server that ``mlflow-artifacts:`` means: the tracking server, or the host that the URI names."""
    tracking = urlsplit(tracking_uri or "")
    if tracking.scheme not in ("http", "https"):
        raise InvalidInputError(
            f"artifacts at {parts._replace(netloc='').geturl()} are on an MLflow server, but the tracking URI is "
            f"{_without_user(tracking_uri or '')!r}; set it to that server's, like http://127.0.0.1:5000"
        )
    host = (parts.netloc or tracking.netloc).rpartition("@")[2]
    return f"{tracking.scheme}://{host}{tracking.path.rstrip('/')}"


def _databricks(uri: str, parts: SplitResult, io: StoreIO, client: ArtifactClient | None) -> ArtifactRepository:
    found = _DATABRICKS.fullmatch(parts.path)
    if found is None:
        raise InvalidInputError(
            f"artifacts at {uri!r} cannot be reached: of dbfs: only dbfs:/databricks/mlflow-tracking/… is supported; "
            "give the experiment no artifact location of its own, or log them with mlflow"
        )
    if client is None:
        raise InvalidInputError(f"artifacts at {uri!r} are on Databricks: set the tracking URI to databricks")
    return DatabricksArtifacts(_without_user(uri), found["run"], found["root"].strip("/"), io, client)


def _origin(url: str) -> tuple[str, str | None, int | None, str]:
    """What makes two addresses the same server."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def _without_user(uri: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", uri)


def _unknown(uri: str, scheme: str) -> str:
    place = _without_user(uri)
    return (
        f"artifacts at {place!r} cannot be reached: {scheme}: is none of {_KINDS}. Let the server pass them on "
        f"(`mlflow server --serve-artifacts --artifacts-destination {scheme}://…`) and use a new experiment; or log "
        f"them with mlflow"
    )

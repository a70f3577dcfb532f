"""MLflow's functions of `mlflow.artifacts`: list, download and read what runs have stored.

They are reached as ``asynctrack.artifacts.download_artifacts`` and so on. Each waits first until what this process has
logged to that store is delivered, so that a script finds it.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.run import flush_all
from asynctrack.stores.io import drive
from asynctrack.tracking import get_tracking_uri, store_for

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import FileInfo

__all__ = ["download_artifacts", "list_artifacts", "load_dict", "load_text"]

_RUNS = "runs:/"


def download_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> str:
    """Copy an artifact, or a folder of them, to this machine; returns where it is.

    Either ``artifact_uri`` (``runs:/<run id>/<path>``, or what `get_artifact_uri` says), or ``run_id`` with
    ``artifact_path`` (None: everything). It goes to ``dst_path``, which is created, else to a new temporary folder; a
    file store's artifacts stay where they are then. ``registry_uri`` is not used. Raises InvalidInputError and
    `StoreError` classes, NotFoundError among them.
    """
    place = _place(artifact_uri, run_id, artifact_path, tracking_uri)
    return drive(place.repository.download_artifacts(place.path, dst_path))


def list_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    tracking_uri: str | None = None,
) -> list[FileInfo]:
    """What is in a folder of a run's artifacts, named as for `download_artifacts`. Paths are from the run's root; with
    an ``artifact_uri`` other than ``runs:/``, from the folder above. Empty for a file, as MLflow's is."""
    place = _place(artifact_uri, run_id, artifact_path, tracking_uri)
    return drive(place.repository.list_artifacts(place.path))


def load_text(artifact_uri: str) -> str:
    """The text of an artifact in UTF-8. Raises as `download_artifacts`."""
    place = _place(artifact_uri, None, None, None)
    with tempfile.TemporaryDirectory() as folder:
        path = drive(place.repository.download_artifacts(place.path, folder))
        if os.path.isdir(path):
            raise InvalidInputError(f"artifact {artifact_uri} is a folder; name a file in it")
        with open(path, encoding="utf-8") as file:
            return file.read()


def load_dict(artifact_uri: str) -> Any:
    """What an artifact in JSON holds. Raises InvalidInputError where it is none, and as `download_artifacts`."""
    text = load_text(artifact_uri)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"artifact {artifact_uri} is no JSON: {error}") from None


class _Place(NamedTuple):
    repository: ArtifactRepository
    path: str


def _place(artifact_uri: str | None, run_id: str | None, path: str | None, tracking_uri: str | None) -> _Place:
    from asynctrack.artifacts.uri import open_artifacts

    if (artifact_uri is None) == (run_id is None):
        raise InvalidInputError("give either artifact_uri or run_id")
    if artifact_uri is not None and path is not None:
        raise InvalidInputError(
            f"artifact_path={path!r} belongs to a run_id; put it into artifact_uri={artifact_uri!r}"
        )
    if artifact_uri is not None and str(artifact_uri).startswith(_RUNS):
        run_id, _, path = str(artifact_uri).removeprefix(_RUNS).strip("/").partition("/")
    store = store_for(tracking_uri)
    flush_all(get_tracking_uri() if tracking_uri is None else store.uri)
    if run_id is not None:
        base = drive(store.get_run_info(run_id)).artifact_uri
        if not base:
            raise NotFoundError(f"run {run_id} in {store.uri} has no artifact location")
        return _Place(open_artifacts(base, store.uri, store.io, store.client), path or "")
    folder, _, name = str(artifact_uri).rstrip("/").rpartition("/")
    name = unquote(name) if urlsplit(folder).scheme else name
    if not name or not folder:
        raise InvalidInputError(f"artifact_uri={artifact_uri!r} names no artifact")
    return _Place(open_artifacts(folder, store.uri, store.io, store.client), name)

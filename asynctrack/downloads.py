"""The functions of `mlflow.artifacts`: list, download and read the artifacts of runs.

Users call them as ``asynctrack.artifacts.download_artifacts`` and so on. Each first waits until everything that this
process logged to that run is delivered, so a script finds what it has just logged.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from asynctrack.arguments import plain_text, run_id_of
from asynctrack.current import current_store_uri, store_for
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.runs.active import flush_states, open_states
from asynctrack.stores.io import drive
from asynctrack.values import shortened

if TYPE_CHECKING:
    from PIL.Image import Image

    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import FileInfo
    from asynctrack.runs.state import RunState

__all__ = ["download_artifacts", "list_artifacts", "load_dict", "load_image", "load_text"]

_RUNS = "runs:/"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
#: bytes that are read into memory
_MOST_TEXT = 1 << 30


def download_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> str:
    """Copy an artifact, or a folder of artifacts, to this machine and return
    its local path.

    Give either ``artifact_uri`` (``runs:/<run id>/<path>``, or a URI from
    `get_artifact_uri`), or ``run_id`` with ``artifact_path`` (None: all
    artifacts of the run). The copy goes to ``dst_path``, which is created, or
    to a new temporary folder. Without ``dst_path``, artifacts of a file store
    are not copied: the path is theirs. ``registry_uri`` is ignored.

    Raises InvalidInputError, NotFoundError or another StoreError, and
    FlushTimeoutError when the events of this process are not delivered in
    time.
    """
    place = _place(artifact_uri, run_id, artifact_path, tracking_uri)
    return drive(place.repository.download_artifacts(place.path, dst_path))


def list_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    tracking_uri: str | None = None,
) -> list[FileInfo]:
    """The files and folders directly in an artifact folder; an empty list for
    a file, as in MLflow.

    Arguments and errors are those of `download_artifacts`. Paths are relative
    to the run's artifact root; with an ``artifact_uri``, as in MLflow, to the
    parent of the folder it names.
    """
    from asynctrack.entities import FileInfo

    place = _place(artifact_uri, run_id, artifact_path, tracking_uri)
    found = drive(place.repository.list_artifacts(place.path))
    above, slash, _ = posixpath.normpath(place.path).rpartition("/")
    if run_id is not None or not slash:
        return list(found)
    return [FileInfo(info.path.removeprefix(f"{above}/"), info.is_dir, info.file_size) for info in found]


def load_text(artifact_uri: str) -> str:
    """The text of an artifact in UTF-8, of at most 1 GiB. Raises
    InvalidInputError for a larger one, what `download_artifacts` raises, and
    UnicodeDecodeError."""
    with _fetched(artifact_uri) as path, open(path, encoding="utf-8") as file:
        return file.read()


def load_image(artifact_uri: str) -> Image:
    """An image, as a ``PIL.Image.Image``; of at most 1 GiB. Needs Pillow.
    Raises InvalidInputError if it is none, and what `download_artifacts`
    raises."""
    from asynctrack.artifacts.images import read_image

    with _fetched(artifact_uri) as path:
        return read_image(path, artifact_uri)


def load_dict(artifact_uri: str) -> Any:
    """The content of a JSON artifact. Raises InvalidInputError if it is not
    JSON, and what `load_text` raises."""
    text = load_text(artifact_uri)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"artifact {shortened(artifact_uri, 200)} is not JSON: {error}") from None


@contextmanager
def _fetched(artifact_uri: str) -> Iterator[str]:
    """A copy of an artifact, for as long as it is read into memory."""
    place = _place(artifact_uri, None, None, None)
    with tempfile.TemporaryDirectory() as folder:
        path = drive(place.repository.download_artifacts(place.path, folder))
        if os.path.isdir(path):
            raise InvalidInputError(f"artifact {shortened(artifact_uri, 200)} is a folder; name a file in it")
        size = os.path.getsize(path)
        if size > _MOST_TEXT:
            raise InvalidInputError(
                f"artifact {shortened(artifact_uri, 200)} has {size} bytes, and {_MOST_TEXT} are read into memory at "
                f"most; use download_artifacts, and read the file piece by piece"
            )
        yield path


def _runs_at(tracking_uri: str, artifact_uri: str) -> list[RunState]:
    """The open runs whose artifacts may be at this address: it names the run, or is above all of them."""
    states = open_states(tracking_uri)
    named = [state for state in states if state.run_id in artifact_uri or state.spec.uid in artifact_uri]
    return named if named or _RUN_ID.search(artifact_uri) else states


class _Place(NamedTuple):
    repository: ArtifactRepository
    path: str


def _place(artifact_uri: str | None, run_id: str | None, path: str | None, tracking_uri: str | None) -> _Place:
    from asynctrack.artifacts.paths import path_text
    from asynctrack.artifacts.uri import open_artifacts

    if (artifact_uri is None) == (run_id is None):
        raise InvalidInputError("give either artifact_uri or run_id")
    if artifact_uri is not None and path is not None:
        raise InvalidInputError(
            f"artifact_path={shortened(path)} belongs to a run_id; put it into artifact_uri={shortened(artifact_uri)}"
        )
    if artifact_uri is not None:
        artifact_uri = plain_text(path_text(artifact_uri, "artifact_uri"))
    if run_id is not None:
        run_id = run_id_of(run_id)
    if artifact_uri is not None and artifact_uri.startswith(_RUNS):
        named, _, path = artifact_uri.removeprefix(_RUNS).strip("/").partition("/")
        run_id = run_id_of(named)
    store = store_for(tracking_uri)
    uri = current_store_uri() if tracking_uri is None else store.uri
    flush_states(open_states(uri, run_id) if artifact_uri is None or run_id else _runs_at(uri, artifact_uri))
    if run_id is not None:
        base = drive(store.get_run_info(run_id)).artifact_uri
        if not base:
            raise NotFoundError(f"run {run_id} in {store.uri} has no artifact location")
        return _Place(open_artifacts(base, store.uri, store.io, store.client), "" if path is None else path)
    folder, _, name = (artifact_uri or "").rstrip("/").rpartition("/")
    name = unquote(name) if urlsplit(folder).scheme else name
    if not name or not folder:
        raise InvalidInputError(f"artifact_uri={shortened(artifact_uri)} names no artifact")
    return _Place(open_artifacts(folder, store.uri, store.io, store.client), name)

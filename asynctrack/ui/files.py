"""The files of a run as the page shows them: lists, texts as text, and pictures whose content says that they are some.

What a store says of a file is not believed: neither its name nor its type is, nothing is fetched from another server,
and nothing is shown that a browser would run.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from asynctrack.artifacts.files import open_source
from asynctrack.artifacts.local import LocalArtifacts
from asynctrack.artifacts.paths import artifact_folder, check_artifact_path
from asynctrack.artifacts.proxied import ProxiedArtifacts
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.platforms import unquoted_path
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import RunInfo
    from asynctrack.stores.base import AbstractStore

__all__ = ["MOST_BYTES", "image_of", "listed", "shown", "sniffed"]

#: of a picture, and of a file that a server has to send whole; of a text, its beginning
MOST_BYTES, MOST_TEXT = 16 << 20, 256 << 10


class _File(NamedTuple):
    """``size``: of all of it, in bytes; ``data``: its beginning."""

    data: bytes
    size: int


def sniffed(data: bytes) -> str | None:
    """The media type of a picture that browsers draw and never run; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def listed(store: AbstractStore, info: RunInfo, path: str) -> list[dict[str, Any]]:
    """What is in a folder of a run's files, folders first. Raises `StoreError`, InvalidInputError."""
    entries = drive(_place(store, info).list_artifacts(artifact_folder(path)))
    found = [{"path": each.path, "folder": each.is_dir, "size": each.file_size} for each in entries]
    return sorted(found, key=lambda each: (not each["folder"], each["path"]))


def shown(store: AbstractStore, info: RunInfo, path: str) -> dict[str, Any]:
    """How a file is shown: as an "image", whose bytes `image_of` gives; as "text", which may be ``cut``; or as "other",
    with the reason ``why`` it is not. Raises `StoreError`, InvalidInputError."""
    file = _read(store, info, path, MOST_TEXT)
    if file is None or (sniffed(file.data) and file.size > MOST_BYTES):
        return {"kind": "other", "why": f"larger than {MOST_BYTES >> 20} MB, or of unknown size: not shown here"}
    if sniffed(file.data):
        return {"kind": "image"}
    text = _text_of(file.data)
    if text is None:
        return {"kind": "other", "why": "neither a text nor a picture (PNG, JPEG, GIF, WebP): not shown here"}
    return {"kind": "text", "text": text, "cut": file.size > len(file.data)}


def image_of(store: AbstractStore, info: RunInfo, path: str) -> tuple[str, bytes]:
    """Media type and bytes of a picture. Raises InvalidInputError for a file that is none, `StoreError`."""
    file = _read(store, info, path, MOST_BYTES)
    kind = None if file is None or file.size > MOST_BYTES else sniffed(file.data)
    if file is None or kind is None:
        raise InvalidInputError(f"{path!r} is no picture (PNG, JPEG, GIF, WebP) of at most {MOST_BYTES >> 20} MB")
    return kind, file.data


def _text_of(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # Where the beginning ends, a character may be cut.
        return data[: error.start].decode() if error.start > 0 and error.start >= len(data) - 3 else None


def _place(store: AbstractStore, info: RunInfo) -> ArtifactRepository:
    if not info.artifact_uri:
        raise NotFoundError(f"run {info.run_id} has no place for files")
    place = open_artifacts(info.artifact_uri, store.uri, store.io, store.client)
    if isinstance(place, ProxiedArtifacts) and place.elsewhere:
        raise InvalidInputError(f"the files of run {info.run_id} are on another server, which is not asked")
    if isinstance(place, LocalArtifacts) and not os.path.isdir(place.root):
        here = _moved(store, info)
        if here is not None:
            return LocalArtifacts(here, here, store.io)
    return place


def _moved(store: AbstractStore, info: RunInfo) -> str | None:
    """Where the files are of a run whose folder was copied from elsewhere: its artifact URI is that of the origin."""
    parts = urlsplit(store.uri)
    if parts.scheme != "file":
        return None
    here = os.path.join(unquoted_path(parts.path), info.experiment_id, info.run_id, "artifacts")
    return here if os.path.isdir(here) else None


def _read(store: AbstractStore, info: RunInfo, path: str, most: int) -> _File | None:
    """The first ``most`` bytes of a file; None for one that would have to be fetched whole, and is too large."""
    place, path = _place(store, info), check_artifact_path(path)
    entries = drive(place.list_artifacts(path.rpartition("/")[0]))
    entry = next((each for each in entries if each.path == path and not each.is_dir), None)
    if entry is None:
        raise NotFoundError(f"run {info.run_id} has no file {path!r}")
    if isinstance(place, LocalArtifacts):
        return _beginning(drive(place.download_artifacts(path)), most)
    if entry.file_size is None or entry.file_size > MOST_BYTES:
        return None
    with tempfile.TemporaryDirectory(prefix="asynctrack-view-") as folder:
        return _beginning(drive(place.download_artifacts(path, folder)), most)


def _beginning(path: str, most: int) -> _File:
    with open(open_source(path), "rb") as file:
        return _File(file.read(most), os.fstat(file.fileno()).st_size)

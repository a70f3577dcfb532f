"""Artifacts on their way from the spool's snapshots to where the run's artifacts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.errors import InvalidInputError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Refusal

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.artifacts.snapshot import Snapshot

__all__ = ["Upload", "clash", "deliver_upload"]


class Upload(NamedTuple):
    """One file or folder to be stored as ``artifact_path`` (a folder's: "" is the root). ``done``: files of a folder
    that are stored already."""

    snapshot: Snapshot
    artifact_path: str
    done: set[str]

    @classmethod
    def of(cls, frame: list[Any]) -> Upload:
        """What a journal's artifact frame, ``["artifact", run, snapshot, artifact_path]``, stands for."""
        from asynctrack.artifacts.snapshot import Snapshot

        return cls(Snapshot(*frame[2]), frame[3], set())


def clash(first: Upload, second: Upload) -> bool:
    """Whether the order of the two matters: one may overwrite something of the other."""
    if first.snapshot.is_dir or second.snapshot.is_dir:
        one, other = f"{first.artifact_path}/", f"{second.artifact_path}/"
        return one.startswith(other) or other.startswith(one) or "/" in (one, other)
    return first.artifact_path == second.artifact_path


async def deliver_upload(store: AbstractStore, folder: str, artifact_uri: str, upload: Upload) -> list[Refusal]:
    """Store one artifact and delete its snapshot in ``folder``; what is refused for good keeps it. Raises retryable
    `StoreError`."""
    from asynctrack.artifacts.snapshot import check_snapshot, remove_snapshot

    snapshot = upload.snapshot
    try:
        repository = _open(store, artifact_uri)
        check_snapshot(snapshot, folder)
        if snapshot.is_dir:
            await repository.log_artifacts(snapshot.path(folder), upload.artifact_path, done=upload.done)
        else:
            await repository.upload(snapshot.path(folder), upload.artifact_path)
    except (StoreError, InvalidInputError) as error:
        if isinstance(error, StoreError) and error.retryable:
            raise
        return [Refusal("artifact", upload.artifact_path, snapshot.path(folder), str(error))]
    remove_snapshot(snapshot, folder)
    return []


def _open(store: AbstractStore, artifact_uri: str) -> ArtifactRepository:
    from asynctrack.artifacts.uri import open_artifacts

    if not artifact_uri:
        raise RefusedError("the run has no place for artifacts")
    repository = open_artifacts(artifact_uri, store.uri, store.io, store.client)
    repository.durable = store.durable
    return repository

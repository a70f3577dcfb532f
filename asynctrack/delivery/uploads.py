"""Artifacts on their way from the spool's snapshots to where the run's artifacts are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.errors import NotFoundError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import StoreIO

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.artifacts.snapshot import Snapshot
    from asynctrack.journal.spool import Spool

__all__ = ["Upload", "clash", "deliver_upload", "remove_delivered"]

logger = logging.getLogger("asynctrack")

#: stores whose artifacts may be on the disk that they are on, which may not be mounted for a while
_LOCAL = ("file:", "sqlite:")


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


async def deliver_upload(
    store: AbstractStore,
    folder: str,
    run_id: str,
    artifact_uri: str,
    upload: Upload,
    *,
    may_be_stored: bool,
    suspected: bool,
) -> None:
    """Store one artifact of a run, whose snapshot in ``folder`` stays.

    ``may_be_stored``: a process that died may have done so, and then it has deleted the snapshot. ``suspected``: the
    server has failed at it again and again; if it takes another, it is this one that it will never take. Raises
    `StoreError`, and `InvalidInputError` for a path that no artifact can have.
    """
    from asynctrack.artifacts.snapshot import check_snapshot

    snapshot = upload.snapshot
    path = snapshot.path(folder)
    if may_be_stored and await store.io.call(_is_gone, path):
        return
    repository = _open(store, artifact_uri)
    if store.uri.startswith(_LOCAL) and not await repository.follows_its_run():
        repository.check_store = partial(_check_there, store)
    await store.io.call(check_snapshot, snapshot, folder)
    try:
        if repository.check_store is not None:
            await store.get_run_info(run_id)  # another store in its place knows no such run
        await _upload(repository, upload, path)
    except NotFoundError as error:
        if await _may_come_back(store, run_id):
            raise UnavailableError(f"{error}. Nothing is lost: it is tried again") from error
        raise
    except StoreError as error:
        if not (suspected and error.suspicious):
            raise
    else:
        return
    await repository.probe()
    try:
        await _upload(repository, upload, path)  # the server may have recovered just before it took the other one
    except StoreError as error:
        if not error.suspicious:
            raise
        raise RefusedError(f"the server fails at it again and again, and takes others: {error}") from error


def _is_gone(path: str) -> bool:
    """Raises OSError where that cannot be told now."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


async def _may_come_back(store: AbstractStore, run_id: str) -> bool:
    """Whether a run whose place for artifacts is not there has not been deleted for good."""
    if not (store.keys_are_paths or store.uri.startswith(_LOCAL)):
        return False  # a server has said so
    if await store.is_gone():
        return True
    try:
        await store.get_run_info(run_id)
    except NotFoundError:
        return False
    return True


async def _upload(repository: ArtifactRepository, upload: Upload, path: str) -> None:
    if upload.snapshot.is_dir:
        await repository.log_artifacts(path, upload.artifact_path, done=upload.done)
    else:
        await repository.upload(path, upload.artifact_path)


async def remove_delivered(io: StoreIO, spool: Spool, uploads: Iterable[Upload]) -> None:
    """Delete the snapshots of artifacts that are acknowledged: only now, so that a crash before that finds them."""
    from asynctrack.artifacts.snapshot import remove_snapshot

    for upload in uploads:
        try:
            await io.call(remove_snapshot, upload.snapshot, spool.artifacts())
            spool.budget.drop_snapshot(upload.snapshot.name)
        except OSError as error:
            logger.warning("asynctrack: a delivered artifact stays in %s until the program ends: %s", spool.path, error)


def _open(store: AbstractStore, artifact_uri: str) -> ArtifactRepository:
    from asynctrack.artifacts.uri import open_artifacts

    if not artifact_uri:
        raise RefusedError(f"the run has no place for artifacts: its artifact URI in {store.uri} is empty")
    repository = open_artifacts(artifact_uri, store.uri, store.io, store.client)
    repository.durable = store.durable
    return repository


async def _check_there(store: AbstractStore) -> None:
    if await store.is_gone():
        raise UnavailableError(f"{store.uri} is empty or gone. Nothing is lost: it is tried again")

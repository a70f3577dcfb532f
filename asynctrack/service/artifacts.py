"""The verbs on artifacts. They wait for the upload or download; they do not go through the spool.

Those that read first wait until the artifacts that this process logged to the run are uploaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asynctrack.arguments import refuse_run_id, run_id_of
from asynctrack.service.creating import own_places, repository_at, repository_of, source_of

if TYPE_CHECKING:
    from asynctrack.entities import FileInfo
    from asynctrack.service.session import Session


async def log_artifact(
    session: Session, artifact_uri: str, local_path: str | os.PathLike[str], artifact_path: str | None = None
) -> None:
    """Copy a local file to ``artifact_uri`` (a run's ``info.artifact_uri``),
    or to the folder ``artifact_path`` in it. The copy is complete when this
    returns. Raises InvalidInputError (MissingFileError for a file that is not
    there), a StoreError."""
    repository = repository_at(session.target, refuse_run_id(artifact_uri))
    source = await session.target.waits.io.call(source_of, local_path)
    await repository.log_artifact(source, artifact_path, leave_out=own_places(session.target))


async def log_artifacts(
    session: Session, artifact_uri: str, local_dir: str | os.PathLike[str], artifact_path: str | None = None
) -> None:
    """Copy the content of a local folder to ``artifact_uri`` (a run's
    ``info.artifact_uri``), or to the folder ``artifact_path`` in it. The copy
    is complete when this returns. Raises what `log_artifact` raises."""
    repository = repository_at(session.target, refuse_run_id(artifact_uri))
    source = await session.target.waits.io.call(source_of, local_dir)
    await repository.log_artifacts(source, artifact_path, leave_out=own_places(session.target))


async def list_artifacts(session: Session, run_id: str | int, path: str | None = None) -> list[FileInfo]:
    """The files and folders at the root of a run's artifacts, or in its folder
    ``path``. Their paths are relative to the root. Raises NotFoundError or
    another StoreError, FlushTimeoutError."""
    await session.settle(run_id_of(run_id))
    return list(await (await repository_of(session.target, run_id)).list_artifacts(path))


async def download_artifacts(
    session: Session, run_id: str | int, path: str, dst_path: str | os.PathLike[str] | None = None
) -> str:
    """Copy a file or folder of a run's artifacts to ``dst_path``, or to a new
    temporary folder, and return the local path. Raises NotFoundError or
    another StoreError, FlushTimeoutError."""
    await session.settle(run_id_of(run_id))
    return await (await repository_of(session.target, run_id)).download_artifacts(path, dst_path)

"""Steps that several verbs share: create an experiment or a run, open a run's artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import (
    checked_name,
    experiment_id_of,
    location_of,
    moment_of,
    refuse_contradiction,
    run_id_of,
    tags_of,
)
from asynctrack.errors import InvalidInputError, MissingFileError, NotFoundError, RefusedError
from asynctrack.journal.homes import spool_homes
from asynctrack.runs.context import default_user
from asynctrack.settings import current_settings
from asynctrack.stores.base import RunSpec
from asynctrack.stores.uri import own_paths
from asynctrack.values import shortened, to_text

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import Run
    from asynctrack.service.session import Session
    from asynctrack.service.target import Target
    from asynctrack.stores.base import AbstractStore

__all__ = ["current_user", "new_experiment", "new_run", "own_places", "repository_at", "repository_of", "source_of"]


def current_user() -> str:
    """The user of a new run, if none is given."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or default_user()


async def new_experiment(
    store: AbstractStore, name: str, location: str | os.PathLike[str] | None, tags: Mapping[str, Any] | None
) -> str:
    """Create an experiment and return its id, a string."""
    try:
        return await store.create_experiment(checked_name(name), location_of(location), tags_of(tags))
    except (InvalidInputError, RefusedError) as error:
        if store.uri.startswith("databricks") and isinstance(name, str) and not name.startswith("/"):
            raise type(error)(
                f"{error}. On Databricks an experiment's name is an absolute workspace path, like "
                f"'/Users/you@example.com/{name}' or '/Shared/{name}', in a folder that exists"
            ) from error
        raise


async def new_run(
    session: Session,
    experiment_id: str | int,
    user: str,
    start_time: int | None,
    tags: dict[str, str],
    run_name: str | None,
) -> Run:
    """Create a run and read it back. It does not become the active run."""
    store = session.store
    for key in tags:
        store.check_key("tag", key)
    name = None if run_name is None else to_text("run", "name", run_name)
    refuse_contradiction("run_name", name, "mlflow.runName", tags)
    spec = RunSpec(
        uid=os.urandom(16).hex(),
        experiment_id=experiment_id_of(experiment_id),
        run_name=name,
        user_id=user,
        start_time=moment_of("start_time", start_time, time.time_ns() // 1_000_000),
        tags=tags,
    )
    info = await store.create_run(spec)
    session.created(info.run_id)
    return await store.get_run(info.run_id)


def repository_at(target: Target, artifact_uri: str) -> ArtifactRepository:
    """The artifact repository at a URI."""
    from asynctrack.artifacts.uri import open_artifacts

    # A server store has a client, whose connections its artifacts use. Stores of files have none.
    return open_artifacts(artifact_uri, target.uri, target.waits.io, getattr(target.store, "client", None))


async def repository_of(target: Target, run_id: str | int) -> ArtifactRepository:
    """The artifact repository of a run. Raises NotFoundError."""
    info = await target.store.get_run_info(run_id_of(run_id))
    if not info.artifact_uri:
        raise NotFoundError(f"run {info.run_id} in {target.uri} has no artifact location")
    return repository_at(target, info.artifact_uri)


def own_places(target: Target) -> list[str]:
    """What is left out of a folder of artifacts: the store itself, and the spools."""
    return [*own_paths(target.uri), *spool_homes(current_settings().spool_dir)]


def source_of(path: str | os.PathLike[str]) -> str:
    """A file or folder of this machine that is to be uploaded. Raises InvalidInputError, MissingFileError."""
    from asynctrack.artifacts.paths import path_text

    text = path_text(path)
    if not text or "\0" in text:
        raise InvalidInputError(f"{shortened(path)} is not the path of a file or folder; nothing was uploaded")
    if not os.path.exists(text):
        raise MissingFileError(f"{os.path.abspath(text)[:300]}: there is no such file; nothing was uploaded")
    return text

"""What the verbs of every face are made of: new experiments and runs, and where a run's artifacts are."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.context import default_user
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError
from asynctrack.service.arguments import checked_name, experiment_id_of, location_of, moment_of, run_id_of, tags_of
from asynctrack.stores.base import RunSpec
from asynctrack.values import to_text

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import Run
    from asynctrack.service.target import Target
    from asynctrack.stores.base import AbstractStore

__all__ = ["current_user", "new_experiment", "new_run", "repository_at", "repository_of"]


def current_user() -> str:
    """Who a run belongs to unless it is said."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or default_user()


async def new_experiment(
    store: AbstractStore, name: str, location: str | os.PathLike[str] | None, tags: Mapping[str, Any] | None
) -> str:
    """The new experiment's id, as today's client gives it."""
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
    store: AbstractStore,
    experiment_id: str | int,
    user: str,
    start_time: int | None,
    tags: dict[str, str],
    run_name: str | None,
) -> Run:
    """Create a run and read it back; it becomes no active run."""
    for key in tags:
        store.check_key("tag", key)
    spec = RunSpec(
        uid=os.urandom(16).hex(),
        experiment_id=experiment_id_of(experiment_id),
        run_name=None if run_name is None else to_text("run", "name", run_name),
        user_id=user,
        start_time=moment_of("start_time", start_time, time.time_ns() // 1_000_000),
        tags=tags,
    )
    info = await store.create_run(spec)
    return await store.get_run(info.run_id)


def repository_at(target: Target, artifact_uri: str) -> ArtifactRepository:
    """Where artifacts of that URI are kept."""
    from asynctrack.artifacts.uri import open_artifacts

    # A server's artifacts come through the connections of its store; a directory's need none.
    return open_artifacts(artifact_uri, target.uri, target.waits.io, getattr(target.store, "client", None))


async def repository_of(target: Target, run_id: str | int) -> ArtifactRepository:
    """Where a run's artifacts are kept."""
    info = await target.store.get_run_info(run_id_of(run_id))
    if not info.artifact_uri:
        raise NotFoundError(f"run {info.run_id} in {target.uri} has no artifact location")
    return repository_at(target, info.artifact_uri)

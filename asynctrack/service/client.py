"""`MlflowClient`: the same verbs under today's signatures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.service.arguments import not_yet, run_id_of, tags_of
from asynctrack.service.blocking import Blocking
from asynctrack.service.creating import current_user, new_experiment, new_run, repository_of
from asynctrack.service.target import InThread, Located
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, Run, RunTag

__all__ = ["MlflowClient"]


class MlflowClient(Blocking):
    """MLflow's client, for a tracking URI (default: `asynctrack.tracking.get_tracking_uri`).

    Names, keywords and results are those of ``mlflow.MlflowClient``; what is different: logging does not wait unless
    ``synchronous=True`` (then the run's events are flushed), and errors are asynctrack's (see `MLflowService`).
    """

    def __init__(
        self,
        tracking_uri: str | os.PathLike[str] | None = None,
        registry_uri: str | None = None,
        workspace_store_uri: str | None = None,
    ) -> None:
        not_yet(registry_uri=registry_uri, workspace_store_uri=workspace_store_uri)
        super().__init__(Located(tracking_uri, InThread()))

    def create_experiment(
        self,
        name: str,
        artifact_location: str | os.PathLike[str] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        """Create an experiment; its id. Raises AlreadyExistsError, also when a deleted experiment holds the name."""
        return drive(new_experiment(self._target.store, name, artifact_location, tags))

    def create_run(
        self,
        experiment_id: str | int,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run, which does not become the active one. ``start_time``: ms since the epoch, default now. Its
        user is the tag ``mlflow.user``, else the current one. Raises NotFoundError, RefusedError."""
        given = tags_of(tags)
        user = given.get("mlflow.user") or current_user()
        return drive(new_run(self._target.store, experiment_id, user, start_time, given, run_name))

    def log_metric(
        self,
        run_id: str | int,
        key: str,
        value: SupportsFloat,
        timestamp: int | None = None,
        step: SupportsIndex | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Log one point; ``timestamp`` in ms since the epoch, default now; ``step`` default 0."""
        not_yet(dataset_name=dataset_name, dataset_digest=dataset_digest, model_id=model_id)
        self._verbs.log_metric(run_id, key, value, timestamp, step)
        self._finish(run_id, synchronous)

    def log_param(self, run_id: str | int, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Log one param, as ``str(value)``, and return its value."""
        self._verbs.log_param(run_id, key, value)
        self._finish(run_id, synchronous)
        return value

    def set_tag(self, run_id: str | int, key: str, value: Any, synchronous: bool | None = None) -> None:
        """Set one tag, as ``str(value)``."""
        self._verbs.set_tag(run_id, key, value)
        self._finish(run_id, synchronous)

    def log_batch(
        self,
        run_id: str | int,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Log any number of entities, all or (InvalidInputError) nothing."""
        self._verbs.log_batch(run_id, metrics, params, tags)
        self._finish(run_id, synchronous)

    def log_artifact(
        self, run_id: str | int, local_path: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy a local file to the run's artifacts, or to the folder ``artifact_path`` there. Complete when it
        returns."""
        repository = drive(repository_of(self._target, run_id))
        drive(repository.log_artifact(os.fspath(local_path), artifact_path))

    def log_artifacts(
        self, run_id: str | int, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy what is in a local folder to the run's artifacts, or to the folder ``artifact_path`` there. Complete
        when it returns."""
        repository = drive(repository_of(self._target, run_id))
        drive(repository.log_artifacts(os.fspath(local_dir), artifact_path))

    def get_parent_run(self, run_id: str | int) -> Run | None:
        """The run that a nested run was started in; None for a run that is not nested."""
        parent = self.get_run(run_id).data.tags.get("mlflow.parentRunId")
        return None if parent is None else self.get_run(parent)

    def _finish(self, run_id: str | int, synchronous: bool | None) -> None:
        if synchronous:
            self.flush(run_id_of(run_id))

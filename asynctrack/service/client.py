"""`MlflowClient`: the verbs of the tracking service with the signatures of ``mlflow.MlflowClient``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.arguments import flag_of, not_yet, run_id_of, tags_of
from asynctrack.runs.links import print_links_in
from asynctrack.runs.operations import RunOperations
from asynctrack.service import events, runs
from asynctrack.service.blocking import Blocking
from asynctrack.service.creating import current_user, new_experiment, new_run, own_places, repository_of, source_of
from asynctrack.service.target import InThread, Located
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, Run, RunTag

__all__ = ["MlflowClient"]


class MlflowClient(Blocking):
    """MLflow's client, for a tracking URI (default:
    `asynctrack.get_tracking_uri`). Any thread may call it.

    Names, keywords and results are those of ``mlflow.MlflowClient``. Two
    things differ. Logging does not wait, unless ``synchronous=True``, which
    flushes the run; ``synchronous=False`` returns `RunOperations`, to wait for
    it later. Errors are asynctrack's (see `MLflowService`).
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
        """Create an experiment and return its id. Raises AlreadyExistsError,
        also when a deleted experiment has the name."""
        return drive(new_experiment(self._session.store, name, artifact_location, tags))

    def create_run(
        self,
        experiment_id: str | int,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run. It does not become the active run. ``start_time``: ms
        since the epoch, default now. The tag ``mlflow.user`` (default: the
        current user) is its user. Raises NotFoundError; RefusedError for a
        deleted experiment."""
        given = tags_of(tags)
        user = given.get("mlflow.user") or current_user()
        return drive(new_run(self._session, experiment_id, user, start_time, given, run_name))

    def log_metric(
        self,
        run_id: str | int,
        key: str,
        value: SupportsFloat | str,
        timestamp: int | None = None,
        step: SupportsIndex | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> RunOperations | None:
        """Log one point. ``timestamp``: ms since the epoch, default now.
        ``step``: default 0."""
        not_yet(dataset_name=dataset_name, dataset_digest=dataset_digest, model_id=model_id)
        flag_of("synchronous", synchronous)
        events.log_metric(self._session, run_id, key, value, timestamp, step)
        return self._finish(run_id, synchronous)

    def log_param(self, run_id: str | int, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Log one param, as ``str(value)``, and return ``value``."""
        flag_of("synchronous", synchronous)
        events.log_param(self._session, run_id, key, value)
        return self._finish(run_id, synchronous) or value

    def set_tag(self, run_id: str | int, key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
        """Set one tag, as ``str(value)``. A later value overwrites it."""
        flag_of("synchronous", synchronous)
        events.set_tag(self._session, run_id, key, value)
        return self._finish(run_id, synchronous)

    def log_batch(
        self,
        run_id: str | int,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> RunOperations | None:
        """Log any number of `Metric`, `Param` and `RunTag`. Raises
        InvalidInputError if one is bad; nothing is logged then."""
        flag_of("synchronous", synchronous)
        events.log_batch(self._session, run_id, metrics, params, tags)
        return self._finish(run_id, synchronous)

    def log_artifact(
        self, run_id: str | int, local_path: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy a local file to the run's artifacts, or to the folder
        ``artifact_path`` in them. The copy is complete when this returns."""
        source = source_of(local_path)
        repository = drive(repository_of(self._session.target, run_id))
        drive(repository.log_artifact(source, artifact_path, leave_out=own_places(self._session.target)))

    def log_artifacts(
        self, run_id: str | int, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy the content of a local folder to the run's artifacts, or to the
        folder ``artifact_path`` in them. The copy is complete when this
        returns."""
        source = source_of(local_dir)
        repository = drive(repository_of(self._session.target, run_id))
        drive(repository.log_artifacts(source, artifact_path, leave_out=own_places(self._session.target)))

    def set_terminated(self, run_id: str | int, status: str | int | None = None, end_time: int | None = None) -> None:
        """End a run, as `MLflowService.set_terminated`, which raises the same.
        Prints where a run on a server is to be seen."""
        session = self._session
        print_links_in(session.store, drive(runs.ended_run(session, run_id, status, end_time)))

    def get_parent_run(self, run_id: str | int) -> Run | None:
        """The parent of a nested run, or None for a run that is not nested.
        Raises NotFoundError."""
        parent = self.get_run(run_id).data.tags.get("mlflow.parentRunId")
        return None if parent is None else self.get_run(parent)

    def _finish(self, run_id: str | int, synchronous: bool | None) -> RunOperations | None:
        if synchronous is None:
            return None
        if not synchronous:
            return RunOperations(self._session.log(run_id))
        self.flush(run_id_of(run_id))
        return None

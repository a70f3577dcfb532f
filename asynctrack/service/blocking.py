"""The blocking faces' common part, and `MLflowService`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, SupportsFloat, SupportsIndex

from asynctrack.constants import ViewType
from asynctrack.service.target import Given, InThread, Located, Target
from asynctrack.service.verbs import Verbs
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.entities import Experiment, FileInfo, Metric, PagedList, Param, Run, RunInfo, RunTag
    from asynctrack.stores.base import AbstractStore

__all__ = ["Blocking", "MLflowService"]


class Blocking:
    """The verbs that are the same in every blocking face. Any thread may call them; each blocks the calling one,
    except those that log."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._verbs = Verbs(target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tracking_uri!r})"

    @property
    def tracking_uri(self) -> str:
        """The store's canonical URI, without credentials."""
        return self._target.uri

    # ── experiments

    def get_experiment(self, experiment_id: str | int) -> Experiment:
        """An experiment, also a deleted one. Raises NotFoundError."""
        return drive(self._verbs.get_experiment(experiment_id))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """An experiment, also a deleted one; None where there is none of that name."""
        return drive(self._verbs.get_experiment_by_name(name))

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = 1000,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """One page of the experiments that match MLflow's filter; its ``token`` asks for the next one."""
        return drive(self._verbs.search_experiments(view_type, max_results, filter_string, order_by, page_token))

    def rename_experiment(self, experiment_id: str | int, new_name: str) -> None:
        """Give an active experiment another name. Raises NotFoundError, AlreadyExistsError."""
        drive(self._verbs.rename_experiment(experiment_id, new_name))

    def set_experiment_tag(self, experiment_id: str | int, key: str, value: Any) -> None:
        """Set a tag of an experiment, as ``str(value)``."""
        drive(self._verbs.set_experiment_tag(experiment_id, key, value))

    def delete_experiment(self, experiment_id: str | int) -> None:
        """Mark an experiment and its runs deleted; its name stays taken. Raises NotFoundError."""
        drive(self._verbs.delete_experiment(experiment_id))

    def restore_experiment(self, experiment_id: str | int) -> None:
        """Mark a deleted experiment and its runs active. Raises NotFoundError."""
        drive(self._verbs.restore_experiment(experiment_id))

    # ── runs

    def get_run(self, run_id: str | int) -> Run:
        """A run with its latest metrics, params and tags, also a deleted one. Raises NotFoundError."""
        return drive(self._verbs.get_run(run_id))

    def search_runs(
        self,
        experiment_ids: Sequence[str | int] | str | int,
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """One page of the runs that match MLflow's filter, like "metrics.loss < 0.5 and params.lr = '1'"; its
        ``token`` asks for the next one. Experiments that do not exist have no runs."""
        return drive(
            self._verbs.search_runs(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token)
        )

    def get_metric_history(self, run_id: str | int, key: str) -> list[Metric]:
        """Every point of one metric, in the store's order; none where the run has no such metric."""
        return drive(self._verbs.get_metric_history(run_id, key))

    def update_run(self, run_id: str | int, status: str | int | None = None, name: str | None = None) -> RunInfo:
        """Set a run's status (a `RunStatus`, by name or number) or name. Raises NotFoundError."""
        return drive(self._verbs.update_run(run_id, status, name))

    def delete_run(self, run_id: str | int) -> None:
        """Mark a run deleted; a deleted one stays so. Raises NotFoundError."""
        drive(self._verbs.delete_run(run_id))

    def restore_run(self, run_id: str | int) -> None:
        """Mark a deleted run active; an active one stays so. Raises NotFoundError."""
        drive(self._verbs.restore_run(run_id))

    def delete_tag(self, run_id: str | int, key: str) -> None:
        """Remove a tag of a run. Raises NotFoundError where there is none."""
        drive(self._verbs.delete_tag(run_id, key))

    def set_terminated(self, run_id: str | int, status: str | int | None = None, end_time: int | None = None) -> None:
        """End a run: wait until what this process has logged to it is in the store, then set its status (default
        FINISHED) and end time (ms since the epoch, default now).

        Raises FlushTimeoutError after ``close_timeout`` seconds: the events stay in the spool, the run's end behind
        them, and go on being delivered; DeliveryError when the store has refused some of them (the run is ended, and
        the message says where they are kept); NotFoundError."""
        drive(self._verbs.set_terminated(run_id, status, end_time))

    def flush(self, run_id: str | int | None = None) -> None:
        """Wait until what this process has logged, to one run or to all of this store, is in the store. Raises
        FlushTimeoutError after ``close_timeout`` seconds, DeliveryError for what the store has refused."""
        drive(self._verbs.flush(run_id))

    # ── artifacts

    def list_artifacts(self, run_id: str | int, path: str | None = None) -> list[FileInfo]:
        """What is in a run's artifacts, or in the folder ``path`` there, paths relative to the whole."""
        return drive(self._verbs.list_artifacts(run_id, path))

    def download_artifacts(self, run_id: str | int, path: str, dst_path: str | os.PathLike[str] | None = None) -> str:
        """Copy a file or folder out of a run's artifacts, to ``dst_path`` or a new temporary folder; where it is."""
        return drive(self._verbs.download_artifacts(run_id, path, dst_path))


class MLflowService(Blocking):
    """The tracking service over a store: a Python CRUD interface to experiments and runs.

    Beside `asynctrack.start_run`, which opens a run and makes it the active one, these verbs name the run they are
    about. Ids are strings or integers. What is logged is delivered in the background, like everything asynctrack logs;
    the other verbs wait for the store, and what reads, changes or ends a run first waits for what this process has
    logged to it.

    They raise InvalidInputError for arguments that can never be right, before anything is done; NotFoundError,
    AlreadyExistsError and RefusedError (a deleted run or experiment) from the store; UnavailableError where it cannot
    be reached; DeliveryError for events that are not in it. Any thread may call them.
    """

    def __init__(self, store: AbstractStore) -> None:
        super().__init__(Given(store, InThread()))

    @classmethod
    def at(cls, tracking_uri: str | os.PathLike[str] | None = None) -> Self:
        """The service of the store at a URI; see `asynctrack.tracking.get_service`."""
        service = cls.__new__(cls)
        Blocking.__init__(service, Located(tracking_uri, InThread()))
        return service

    def create_experiment(
        self, name: str, artifact_location: str | os.PathLike[str] | None = None, tags: Mapping[str, Any] | None = None
    ) -> int:
        """Create an experiment and return its integer id. ``name`` must be unique, deleted experiments included;
        without ``artifact_location`` (a URI or a path) the store picks one. Raises AlreadyExistsError."""
        return drive(self._verbs.create_experiment(name, artifact_location, tags))

    def list_experiments(self, view_type: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
        """All active experiments, or those of another `ViewType`, the last created first."""
        return drive(self._verbs.list_experiments(view_type))

    def create_run(
        self,
        experiment_id: str | int,
        user_id: str | None = None,
        run_name: str | None = None,
        source_type: str | int | None = None,
        source_name: str | None = None,
        entry_point_name: str | None = None,
        start_time: int | None = None,
        source_version: str | None = None,
        tags: Mapping[str, Any] | None = None,
        parent_run_id: str | None = None,
    ) -> Run:
        """Create a run; unlike `asynctrack.start_run`, it does not become the active run.

        ``user_id``: default the current user; ``start_time``: ms since the epoch, default now; ``tags`` become
        `RunTag`. ``source_type`` (a `SourceType`, by name or number), ``source_name``, ``source_version`` (a commit),
        ``entry_point_name`` and ``parent_run_id`` become the tags that MLflow keeps them in today. Raises
        NotFoundError for an experiment that does not exist, RefusedError for a deleted one."""
        return drive(
            self._verbs.create_run(
                experiment_id,
                user_id,
                run_name,
                source_type,
                source_name,
                entry_point_name,
                start_time,
                source_version,
                tags,
                parent_run_id,
            )
        )

    def list_runs(self, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        """The runs of an experiment with only their `RunInfo` filled, the latest first. Raises NotFoundError."""
        return drive(self._verbs.list_runs(experiment_id, run_view_type))

    def list_run_infos(self, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY) -> list[RunInfo]:
        """What identifies the runs of an experiment, the latest first. Raises NotFoundError."""
        return drive(self._verbs.list_run_infos(experiment_id, run_view_type))

    def log_metric(
        self,
        run_id: str | int,
        key: str,
        value: SupportsFloat,
        timestamp: int | None = None,
        step: SupportsIndex | None = None,
    ) -> None:
        """Log one point. Does not wait: the point is in the journal when this returns, and delivered in the background.

        ``timestamp``: **milliseconds** since the epoch, default now (the service of 2018 took seconds); ``step``:
        default 0. Raises InvalidInputError, with nothing logged, for what can never be stored; that the run does not
        exist shows in `set_terminated`, `flush` and the log."""
        self._verbs.log_metric(run_id, key, value, timestamp, step)

    def log_param(self, run_id: str | int, key: str, value: Any) -> None:
        """Log one param, as ``str(value)``; it never changes afterwards. Does not wait; see `log_metric`."""
        self._verbs.log_param(run_id, key, value)

    def set_tag(self, run_id: str | int, key: str, value: Any) -> None:
        """Set one tag, as ``str(value)``; a later one overwrites. Does not wait; see `log_metric`."""
        self._verbs.set_tag(run_id, key, value)

    def log_batch(
        self,
        run_id: str | int,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Log any number of `Metric`, `Param` and `RunTag`, all or (InvalidInputError) nothing. Does not wait."""
        self._verbs.log_batch(run_id, metrics, params, tags)

    def log_artifact(
        self, artifact_uri: str, local_path: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy a local file to where a run's artifacts are, ``artifact_uri`` (``run.info.artifact_uri``), or to the
        folder ``artifact_path`` there. Complete when it returns."""
        drive(self._verbs.log_artifact(artifact_uri, local_path, artifact_path))

    def log_artifacts(
        self, artifact_uri: str, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Copy what is in a local folder to ``artifact_uri``, or to the folder ``artifact_path`` there. Complete when
        it returns."""
        drive(self._verbs.log_artifacts(artifact_uri, local_dir, artifact_path))

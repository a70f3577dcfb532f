"""`MemoryStore`: the smallest store that keeps the contract. A model for tests, and for stores of your own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from asynctrack.entities import Experiment, LifecycleStage, Metric, Run, RunData, RunInfo, RunStatus, ViewType
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores import search
from asynctrack.stores.base import AbstractStore, Batch, Limits, Page, Refusal, RunSpec
from asynctrack.stores.branches import branch_of
from asynctrack.stores.file.lines import Identity, identity, latest
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.names import random_run_name
from asynctrack.stores.points import MeasuredOn, measured_on
from asynctrack.stores.times import check_time

__all__ = ["MemoryStore"]

_RUN_NAME = "mlflow.runName"


@dataclass
class _Run:
    info: RunInfo
    points: dict[str, dict[Identity, tuple[int, int, float]]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    #: the points that are about a logged model, or were measured on a dataset
    measured: dict[tuple[MeasuredOn, Identity], tuple[int, int, float]] = field(default_factory=dict)

    def whole(self) -> Run:
        newest = (latest(key, points.values()) for key, points in self.points.items())
        points = [point for point in newest if point is not None]
        return Run(self.info, RunData.of(points, dict(self.params), dict(self.tags)))

    def drop(self, from_step: int) -> None:
        """Take out the points of an abandoned branch."""
        for points in self.points.values():
            for name in [name for name, point in points.items() if point[1] >= from_step]:
                del points[name]
        self.measured = {name: point for name, point in self.measured.items() if point[1] < from_step}
        self.points = {key: points for key, points in self.points.items() if points}

    def log(self, kind: str, key: str, value: Any) -> None:
        """Store one event. Raises `InvalidInputError`, `RefusedError`."""
        check_key(kind, key)
        if kind == "metric":
            timestamp, step, number = value[:3]
            self.points.setdefault(key, {}).setdefault(identity(timestamp, step, number), (timestamp, step, number))
            on = measured_on(value)
            if on is not None:
                self.measured.setdefault((on, identity(timestamp, step, number)), (timestamp, step, number))
        elif kind == "tag":
            self.tags[key] = value[:8000]
            if key == _RUN_NAME and value:
                self.info = replace(self.info, run_name=value)
        elif self.params.setdefault(key, value[:6000]) != value[:6000]:
            raise RefusedError(f"param {shorten(key)} already logged with {shorten(self.params[key])}")


class _Experiments:
    """The experiments, by id. Whoever calls holds the store's lock."""

    def __init__(self) -> None:
        self._by_id: dict[str, Experiment] = {}
        self.add("0", "Default", None, {})

    def all(self) -> list[Experiment]:
        return list(self._by_id.values())

    def get(self, experiment_id: str) -> Experiment:
        if experiment_id not in self._by_id:
            raise NotFoundError(f"no experiment {shorten(experiment_id)}")
        return self._by_id[experiment_id]

    def named(self, name: str) -> Experiment | None:
        return next((found for found in self._by_id.values() if found.name == name), None)

    def active(self, experiment_id: str) -> Experiment:
        found = self.get(experiment_id)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"experiment {experiment_id} is deleted; restore it first")
        return found

    def add(self, experiment_id: str | None, name: str, location: str | None, tags: dict[str, str]) -> Experiment:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError(f"an experiment's name cannot be {name!r}")
        if self.named(name) is not None:
            raise AlreadyExistsError(f"experiment {shorten(name)} exists already")
        new_id = experiment_id or str(10**17 + len(self._by_id))
        now = time.time_ns() // 1_000_000
        new = Experiment(
            new_id,
            name,
            location or f"memory:/{new_id}",
            tags=dict(tags),
            creation_time=now,
            last_update_time=now,
        )
        self._by_id[new_id] = new
        return new

    def change(self, experiment_id: str, **changes: Any) -> None:
        now = time.time_ns() // 1_000_000
        self._by_id[experiment_id] = replace(self._by_id[experiment_id], last_update_time=now, **changes)


class MemoryStore(AbstractStore):
    """Everything in dictionaries. Identical points are kept once, however far apart; a run's id is its spec's uid.

    ``batches`` records every batch as it came, with the run's id and the bookmark, for tests to look at. Methods may
    be called from any thread.
    """

    limits = Limits(metrics=16384, params=16384, tags=16384, entities=16384, bytes=1 << 30)

    def __init__(self, uri: str = "memory:") -> None:
        self.uri = uri
        self.batches: list[tuple[str, Batch, Any]] = []
        self._lock = threading.RLock()
        self._runs: dict[str, _Run] = {}
        self._experiments = _Experiments()

    def check_key(self, kind: str, key: str) -> None:
        check_key(kind, key)

    # ── delivering

    async def create_run(self, spec: RunSpec) -> RunInfo:
        with self._lock:
            if spec.run_id is not None:
                return self._resume(spec, spec.run_id)
            if spec.uid not in self._runs:
                self._runs[spec.uid] = self._new_run(spec)
            return self._runs[spec.uid].info

    def _new_run(self, spec: RunSpec) -> _Run:
        experiment = self._experiment_for(spec)
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"experiment {shorten(experiment.name)} is deleted; restore it first")
        check_time(f"run {spec.uid}: its start_time", spec.start_time)
        name = spec.run_name or spec.tags.get(_RUN_NAME) or random_run_name(spec.uid)
        info = RunInfo(
            run_id=spec.uid,
            experiment_id=experiment.experiment_id,
            user_id=spec.user_id,
            status=RunStatus.to_string(RunStatus.RUNNING),
            start_time=spec.start_time,
            run_name=name,
            artifact_uri=f"{experiment.artifact_location}/{spec.uid}/artifacts",
        )
        return _Run(info, tags={**spec.tags, _RUN_NAME: name})

    def _experiment_for(self, spec: RunSpec) -> Experiment:
        if spec.experiment_id is not None:
            return self._experiments.get(spec.experiment_id)
        name = spec.experiment_name or "Default"
        found = self._experiments.named(name)
        if found is not None:
            return found
        try:
            return self._experiments.add(None, name, None, {})
        except InvalidInputError as error:
            raise RefusedError(str(error)) from error

    def _resume(self, spec: RunSpec, run_id: str) -> RunInfo:
        run = self._active_run(run_id)
        branch = branch_of(spec.uid, spec.tags)
        if branch is not None and branch.key not in run.tags:
            run.drop(branch.from_step)
        run.tags.update(spec.tags)
        name = spec.run_name or spec.tags.get(_RUN_NAME)
        if name:
            run.tags[_RUN_NAME] = name
            run.info = replace(run.info, run_name=name)
        run.info = replace(run.info, status=RunStatus.to_string(RunStatus.RUNNING), end_time=None)
        return run.info

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        with self._lock:
            self.batches.append((run_id, batch, bookmark))
            try:
                run = self._active_run(run_id)
            except RefusedError as error:
                return [Refusal(kind, key, value, str(error)) for kind, key, value in batch.items()]
            refusals = []
            for kind, key, value in batch.items():
                try:
                    run.log(kind, key, value)
                except (InvalidInputError, RefusedError) as error:
                    refusals.append(Refusal(kind, key, value, str(error)))
            return refusals

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        with self._lock:
            run = self._active_run(run_id)
            changes: dict[str, Any] = {}
            if status is not None:
                try:
                    RunStatus.from_string(status)
                except ValueError as error:
                    raise RefusedError(str(error)) from error
                changes["status"] = status
            if end_time is not None:
                check_time(f"run {run_id}: its end_time", end_time)
                changes["end_time"] = end_time
            if run_name:
                changes["run_name"] = run.tags[_RUN_NAME] = run_name
            run.info = replace(run.info, **changes)  # at once: a refused part changes nothing, no reader sees half
            return run.info

    # ── runs

    def _run(self, run_id: str) -> _Run:
        if run_id not in self._runs:
            raise NotFoundError(f"no run {shorten(run_id)}")
        return self._runs[run_id]

    def _active_run(self, run_id: str) -> _Run:
        run = self._run(run_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"run {run_id} is deleted; restore it first")
        return run

    async def get_run(self, run_id: str) -> Run:
        with self._lock:
            return self._run(run_id).whole()

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        clauses = search.parse_run_filter(filter_string)
        with self._lock:
            runs = [run.whole() for run in self._runs.values() if run.info.experiment_id in experiment_ids]
        shown = [(run, search.run_getter(run)) for run in runs]
        shown.sort(key=lambda pair: (-pair[0].info.start_time, pair[0].info.run_id))
        shown = [
            (run, get)
            for run, get in shown
            if LifecycleStage.matches_view_type(run_view_type, run.info.lifecycle_stage)
            and search.matches(clauses, get)
        ]
        return search.page(search.order(shown, search.parse_run_order(order_by)), max_results, page_token)

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        with self._lock:
            points = self._run(run_id).points.get(key, {}).values()
            return [Metric(key, value, timestamp, step) for timestamp, step, value in points]

    def measured(self, run_id: str) -> list[tuple[MeasuredOn, tuple[int, int, float]]]:
        """Each point of a run that is about a logged model or was measured on a dataset, with these."""
        with self._lock:
            return [(on, point) for (on, _), point in self._run(run_id).measured.items()]

    async def delete_run(self, run_id: str) -> None:
        self._set_stage(run_id, LifecycleStage.DELETED)

    async def restore_run(self, run_id: str) -> None:
        self._set_stage(run_id, LifecycleStage.ACTIVE)

    def _set_stage(self, run_id: str, stage: str) -> None:
        with self._lock:
            run = self._run(run_id)
            run.info = replace(run.info, lifecycle_stage=stage)

    async def delete_tag(self, run_id: str, key: str) -> None:
        with self._lock:
            if self._active_run(run_id).tags.pop(key, None) is None:
                raise NotFoundError(f"run {run_id} has no tag {shorten(key)}")

    # ── experiments

    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        for key in tags or {}:
            self.check_key("tag", key)
        with self._lock:
            return self._experiments.add(None, name, artifact_location, tags or {}).experiment_id

    async def get_experiment(self, experiment_id: str) -> Experiment:
        with self._lock:
            return self._experiments.get(experiment_id)

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        with self._lock:
            return self._experiments.named(name)

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        clauses = search.parse_experiment_filter(filter_string)
        with self._lock:
            shown = [(found, search.experiment_getter(found)) for found in self._experiments.all()]
        shown = [
            (found, get)
            for found, get in shown
            if LifecycleStage.matches_view_type(view_type, found.lifecycle_stage) and search.matches(clauses, get)
        ]
        return search.page(search.order(shown, search.parse_experiment_order(order_by)), max_results, page_token)

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        with self._lock:
            self._experiments.active(experiment_id)
            if not new_name.strip():
                raise InvalidInputError(f"an experiment's name cannot be {new_name!r}")
            if self._experiments.named(new_name) is not None:
                raise AlreadyExistsError(f"experiment {shorten(new_name)} exists already")
            self._experiments.change(experiment_id, name=new_name)

    async def delete_experiment(self, experiment_id: str) -> None:
        self._set_experiment_stage(experiment_id, LifecycleStage.ACTIVE, LifecycleStage.DELETED)

    async def restore_experiment(self, experiment_id: str) -> None:
        self._set_experiment_stage(experiment_id, LifecycleStage.DELETED, LifecycleStage.ACTIVE)

    def _set_experiment_stage(self, experiment_id: str, old: str, new: str) -> None:
        with self._lock:
            if self._experiments.get(experiment_id).lifecycle_stage != old:
                raise NotFoundError(f"no experiment {shorten(experiment_id)} that is {old}")
            self._experiments.change(experiment_id, lifecycle_stage=new)
            for run in self._runs.values():
                if run.info.experiment_id == experiment_id:
                    run.info = replace(run.info, lifecycle_stage=new)

    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self.check_key("tag", key)
        with self._lock:
            found = self._experiments.active(experiment_id)
            self._experiments.change(experiment_id, tags={**found.tags, key: value})

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        with self._lock:
            tags = dict(self._experiments.active(experiment_id).tags)
            if tags.pop(key, None) is None:
                raise NotFoundError(f"experiment {experiment_id} has no tag {shorten(key)}")
            self._experiments.change(experiment_id, tags=tags)

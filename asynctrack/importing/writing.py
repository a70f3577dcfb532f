"""Writing one experiment, and one run, into a store: with the calls and the retries with which events are delivered.

*Once.* A run is found again by its id (on a server by the tag that holds it), and what ends it comes last. So a run
that has ended there as it has here is whole, and is left alone. Of any other the histories are read back, and what is
missing is written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from asynctrack.artifacts.uri import open_artifacts
from asynctrack.clock import chance, monotonic
from asynctrack.constants import LONGEST_VALUE, PARENT_RUN_TAG, UID_TAGS, LifecycleStage, RunStatus, ViewType
from asynctrack.delivery.isolation import Isolation
from asynctrack.delivery.outcome import SUSPECTED, as_store_error
from asynctrack.delivery.retry import Backoff
from asynctrack.entities import Experiment, RunData, RunInfo
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.importing.source import Noted, Source, SourceRun
from asynctrack.stores.base import AbstractStore, Batch, Refusal, RunSpec
from asynctrack.stores.file.layout import RUN_NAME_TAG
from asynctrack.stores.file.lines import identity
from asynctrack.stores.inputs import KeepsInputs
from asynctrack.stores.io import drive
from asynctrack.stores.keys import shorten

__all__ = ["Cancelled", "Target", "run_spec"]

T = TypeVar("T")

#: points of one batch, at most; a store says how many it takes
_MOST = 65536


class Cancelled(Exception):  # no error: somebody wants it
    """The import is to stop."""


def run_spec(run: SourceRun, experiment_id: str) -> RunSpec:
    """What creates the run elsewhere. Its other tags are logged: then a tag that is refused is known."""
    info = run.info
    tags = {} if run.parent is None else {PARENT_RUN_TAG: run.parent}
    return RunSpec(info.run_id, None, experiment_id, None, info.run_name, info.user_id, info.start_time, tags)


class Target:
    """The store that is written to. Several threads may write runs at once."""

    def __init__(self, store: AbstractStore, source: Source, noted: Noted, timeout: float) -> None:
        self.store = store
        self.cancelled = threading.Event()
        self._source = source
        self._noted = noted
        self._timeout = timeout

    def try_call(self, work: Callable[[], Awaitable[T]], isolation: Isolation | None = None) -> T:
        """What ``work`` returns, tried again for as long as the store may recover. Raises `StoreError` when that takes
        too long or is of no use, `InvalidInputError`, `Cancelled`."""
        backoff, begun = Backoff(), monotonic()
        while True:
            if self.cancelled.is_set():
                raise Cancelled
            try:
                return drive(_awaited(work))
            except InvalidInputError:
                raise
            except (StoreError, OSError) as problem:
                error, now = as_store_error(problem), monotonic()
                if not error.retryable or now - begun > self._timeout:
                    raise error from problem
                backoff.put_off(error, begun=now, now=now, random=chance())
                if isolation is not None and error.suspicious and backoff.attempts >= SUSPECTED:
                    isolation.suspected = True
            self.cancelled.wait(max(0.0, min(backoff.retry_at, begun + self._timeout + 0.1) - monotonic()))

    # ── experiments

    def experiment(self, wanted: Experiment) -> Experiment:
        """The experiment of that name, made if it is absent, with the tags of the source."""
        store = self.store
        found = self.try_call(lambda: store.get_experiment_by_name(wanted.name))
        if found is None:
            place = None if self._source.is_own_place(wanted) else wanted.artifact_location
            if store.client is not None and place is not None and place.startswith(("/", "file:")):
                place = None  # a folder of this machine says nothing to a server
            try:
                made = self.try_call(lambda: store.create_experiment(wanted.name, place, dict(wanted.tags)))
            except AlreadyExistsError:  # somebody else has just made it
                found = self.try_call(lambda: store.get_experiment_by_name(wanted.name))
                if found is None:
                    raise
            else:
                return self.try_call(lambda: store.get_experiment(made))
        if found.lifecycle_stage == LifecycleStage.ACTIVE:
            for key, value in wanted.tags.items():
                if found.tags.get(key) != value:
                    self._set_experiment_tag(found, key, value)
        return found

    def _set_experiment_tag(self, found: Experiment, key: str, value: str) -> None:
        try:
            self.try_call(lambda: self.store.set_experiment_tag(found.experiment_id, key, value))
        except (InvalidInputError, RefusedError) as error:
            self._noted.add(f"experiment {shorten(found.name)}, tag {shorten(key)}", error)

    def bury(self, found: Experiment) -> None:
        """Mark an experiment deleted, as it is in the source, unless somebody has an active run in it."""
        page = self.try_call(lambda: self.store.list_run_infos(found.experiment_id, max_results=1))
        if page.items:
            self._noted.add(
                f"experiment {shorten(found.name)}",
                f"it is deleted in {self._source.root}, but has other active runs in {self.store.uri}: it stays active",
            )
            return
        self.try_call(lambda: self.store.delete_experiment(found.experiment_id))

    def places(self) -> list[str]:
        """The folders of the source that hold artifacts of the store's experiments, its own or others'."""
        root, found, token = os.path.realpath(self._source.root), set(), None
        while True:
            page = self.try_call(partial(self.store.search_experiments, ViewType.ALL, page_token=token))
            for experiment in page.items:
                place = self._directory(experiment.artifact_location)
                if place is not None and os.path.commonpath((root, place)) == root:
                    found.add(os.path.join(root, os.path.relpath(place, root).partition(os.sep)[0]))
            if not page.token or page.token == token:
                return sorted(os.path.normpath(path) for path in found if os.path.isdir(path))
            token = page.token

    def _directory(self, place: str | None) -> str | None:
        """The folder that an experiment's artifacts are in; None where it is none of this machine."""
        try:
            repository = open_artifacts(place or "", self.store.uri, self.store.io, self.store.client)
        except InvalidInputError:
            return None
        root = getattr(repository, "root", None)
        return None if root is None else os.path.realpath(root)

    # ── runs

    def find(self, run: SourceRun, experiment_id: str) -> RunInfo | None:
        """The run in the store; None where it is not there yet."""
        return self.try_call(lambda: self.store.find_run(run_spec(run, experiment_id)))

    def is_whole(self, run: SourceRun, there: RunInfo, *, deleted: bool) -> bool:
        """Whether nothing of the run is missing there. What somebody has deleted there stays so."""
        if there.lifecycle_stage == LifecycleStage.DELETED:
            return True
        ended = RunStatus.is_terminated(run.info.status)
        return ended and not deleted and (there.status, there.end_time) == (run.info.status, run.info.end_time)

    def write(self, run: SourceRun, experiment_id: str, there: RunInfo | None, *, deleted: bool) -> int:
        """Write what is missing of a run; how many events that were. Raises `StoreError`, `InvalidInputError`,
        `Cancelled`."""
        store = self.store
        spec = self._with_parent(run_spec(run, experiment_id))
        # Where the answer to an attempt is lost, the store finds the run again.
        made = there if there is not None else self.try_call(lambda: store.create_run(spec))
        run_id = made.run_id
        stored = None if there is None else lambda key: self._stored(run_id, key)
        events = self._log(run, run_id, self._entries(run, spec, there))
        for batch in self._source.batches(run, min(_MOST, store.limits.metrics, store.limits.entities), stored):
            events += self._log(run, run_id, batch)
        self._log_inputs(run, run_id)
        self._upload(run, made)
        info = run.info
        changed = (made.status, made.end_time) != (info.status, info.end_time)
        if changed:
            self.try_call(lambda: store.update_run(run_id, status=info.status, end_time=info.end_time))
        if deleted:
            self.try_call(lambda: store.delete_run(run_id))
        return events

    def _with_parent(self, spec: RunSpec) -> RunSpec:
        """With the id that the store gave the parent, which was imported before."""
        parent = spec.tags.get(PARENT_RUN_TAG)
        if parent is None or not self.store.chooses_run_ids:
            return spec
        try:
            found = self.try_call(lambda: self.store.get_run_info(parent))
        except NotFoundError:
            return spec
        return spec._replace(tags={PARENT_RUN_TAG: found.run_id})

    def _entries(self, run: SourceRun, spec: RunSpec, there: RunInfo | None) -> Batch:
        """The params and tags of a run that are not there yet, but for the tags that it is created with."""
        left_out = {RUN_NAME_TAG, *UID_TAGS} if self.store.chooses_run_ids else {RUN_NAME_TAG}
        known = RunData()
        if there is not None:
            run_id = there.run_id
            known = self.try_call(lambda: self.store.get_run(run_id)).data
        tags = self._source.entries(run, "tag") | spec.tags
        params = self._source.entries(run, "param")
        for kind, entries in (("param", params), ("tag", tags)):
            for key, value in entries.items():
                if len(value) > LONGEST_VALUE[kind]:
                    self._noted.add(
                        f"run {run.info.run_id}, {kind} {shorten(key)}",
                        f"its {len(value)} characters were cut to {LONGEST_VALUE[kind]}, as MLflow does",
                    )
        return Batch(
            None,
            [(key, value) for key, value in params.items() if value != known.params.get(key)],
            [(key, value) for key, value in tags.items() if key not in left_out and value != known.tags.get(key)],
        )

    def _stored(self, run_id: str, key: str) -> set[object]:
        found = self.try_call(lambda: self.store.get_metric_history(run_id, key))
        return {identity(point.timestamp, point.step, point.value) for point in found}

    def _log(self, run: SourceRun, run_id: str, batch: Batch) -> int:
        if not batch:
            return 0
        isolation = Isolation(batch, self.store.limits)
        mark = self.try_call(lambda: self.store.bookmark(run_id, batch))
        tried = False

        async def turn() -> bool:
            nonlocal tried
            bookmark, tried = (mark if tried else None), True
            return await isolation.turn(self.store, run_id, bookmark)

        while not self.try_call(turn, isolation):
            pass
        for refusal in isolation.refusals:
            self._noted.add(*_refused(run, refusal))
        return len(batch) - len(isolation.refusals)

    def _log_inputs(self, run: SourceRun, run_id: str) -> None:
        """What the run has used and made; what is there already stays."""
        store = self.store
        inputs, outputs = self._source.inputs(run)
        calls: list[tuple[str, int, Callable[[KeepsInputs], Awaitable[None]]]] = [
            ("datasets", len(inputs.dataset_inputs), lambda to: to.log_inputs(run_id, inputs.dataset_inputs)),
            ("models", len(inputs.model_inputs), lambda to: to.log_inputs(run_id, models=inputs.model_inputs)),
            ("logged models", len(outputs.model_outputs), lambda to: to.log_outputs(run_id, outputs.model_outputs)),
        ]
        for what, count, call in calls:
            if not count:
                continue
            where = f"run {run.info.run_id}, its {count} {what}"
            if not isinstance(store, KeepsInputs):
                self._noted.add(where, f"they are not imported: {store.uri} keeps none")
                continue
            try:
                self.try_call(partial(call, store))
            except (InvalidInputError, RefusedError, NotFoundError) as error:
                self._noted.add(where, f"they are not imported: {error}")

    def _upload(self, run: SourceRun, made: RunInfo) -> None:
        """Copy the run's artifacts to where the store has its own."""
        what = f"run {run.info.run_id}"
        source = self._source.artifacts(run)
        if source is None:
            place = run.info.artifact_uri or ""
            if "://" in place and not place.startswith("file:") and place != made.artifact_uri:
                self._noted.add(f"{what}, artifacts", f"they stay at {place}: they cannot be read from here")
            return
        done: set[str] = set()
        try:
            place = made.artifact_uri or ""
            repository = open_artifacts(place, self.store.uri, self.store.io, self.store.client)
            root = getattr(repository, "root", None) if self.store.client is None else None
            if root is not None and os.path.realpath(root) == os.path.realpath(source):
                return  # a database beside its folder of artifacts
            self.try_call(lambda: repository.log_artifacts(source, done=done))
        except (InvalidInputError, RefusedError) as error:
            self._noted.add(f"{what}, artifacts", error)


def _refused(run: SourceRun, refusal: Refusal) -> tuple[str, str]:
    return f"run {run.info.run_id}, {refusal.kind} {shorten(refusal.key)}", refusal.reason


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()

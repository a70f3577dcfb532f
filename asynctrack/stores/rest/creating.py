"""Creating runs on one MLflow server, and finding those that were created."""

from __future__ import annotations

import logging
from typing import Any

from asynctrack.constants import UID_TAG, LifecycleStage
from asynctrack.entities import RunInfo
from asynctrack.errors import AlreadyExistsError, InvalidInputError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.rest.api import Api
from asynctrack.stores.rest.decoding import run_of
from asynctrack.stores.rest.delivering import BatchSender
from asynctrack.stores.rest.experiments import Experiments
from asynctrack.stores.rest.finding import RunFinder
from asynctrack.stores.rest.runs import Runs
from asynctrack.stores.times import check_time

__all__ = ["RunCreator"]

logger = logging.getLogger("asynctrack")

#: the default experiment's id on MLflow's servers
_DEFAULT_EXPERIMENT = "0"
#: characters of a run's name and user; PostgreSQL fails where a run is created with more
_MOST_NAME, _MOST_USER = 250, 256
#: runs of which it is remembered that they may have been created twice
_REMEMBERED = 1024


class RunCreator:
    """Creates runs, each once; remembers which it has asked for and got no answer.

    ``runs/create`` is the one call that is not safe to send again. So a creation carries a tag with the run's uid, and
    once it may have been carried out, the run is looked for by that tag before it is asked for anew.
    """

    def __init__(self, api: Api, finder: RunFinder, runs: Runs, experiments: Experiments, sender: BatchSender) -> None:
        self._api = api
        self._finder = finder
        self._runs = runs
        self._experiments = experiments
        self._sender = sender
        self._tried: set[str] = set()
        #: uids that were looked for and not there: somebody's request to create the run may still be on its way
        self._awaited: set[str] = set()
        #: runs that were created all the same: id → (uid, experiment id)
        self._doubtful: dict[str, tuple[str, str]] = {}

    async def create(self, spec: RunSpec) -> RunInfo:
        """See `AbstractStore.create_run`."""
        if spec.run_id is not None:
            return await self._take_up(spec.run_id, spec)
        if spec.uid in self._tried:
            found = await self.find(spec)
            if found is not None:
                return found
        check_time(f"run {spec.uid}: its start_time", spec.start_time)
        experiment_id = await self._experiment_id(spec)
        tags = {**spec.tags, UID_TAG: spec.uid}
        name = spec.run_name or tags.get("mlflow.runName")
        if name:
            tags["mlflow.runName"] = name = name[:_MOST_NAME]  # servers before 1.30 know no other place for it
        body: dict[str, Any] = {
            "experiment_id": experiment_id,
            "user_id": spec.user_id[:_MOST_USER],
            "start_time": spec.start_time,
            "tags": [{"key": key, "value": value} for key, value in await self._shortened(spec.uid, tags)],
        }
        if name:
            body["run_name"] = name
        self._tried.add(spec.uid)
        answer = await self._api.post("/runs/create", body, "run", again=False)
        info = run_of(answer.get("run", {})).info  # which raises where it is not said; the run is looked for then
        self._tried.discard(spec.uid)
        if spec.uid in self._awaited:
            self._awaited.discard(spec.uid)
            _bounded(self._doubtful)
            self._doubtful[info.run_id] = spec.uid, experiment_id
        return info

    async def _shortened(self, uid: str, tags: dict[str, str]) -> list[tuple[str, str]]:
        """What the server keeps of the tags: PostgreSQL fails where a run is created with longer ones."""
        values, batch = self._sender.values, Batch(tags=tags.items())
        await values.ask(batch)
        values.tell_what_is_lost(uid, batch)
        return [(key, value[: values.kept["tag"]]) for key, value in tags.items()]

    async def find(self, spec: RunSpec) -> RunInfo | None:
        """The run that was created of ``spec``, by its tag; deleted ones too."""
        found = await self._finder.find(spec.uid, [await self._experiment_id(spec)])
        if found is None:
            _bounded(self._awaited)
            self._awaited.add(spec.uid)
        return found

    async def ended(self, run_id: str) -> None:
        """The run has ended. A request to create it that was carried out after we had looked for the run, and had it
        created anew, has left a second one, in which there is nothing: mark that deleted. Raises nothing."""
        doubtful = self._doubtful.pop(run_id, None)
        if doubtful is None:
            return
        uid, experiment_id = doubtful
        try:
            for run in await self._finder.all(uid, [experiment_id], 10):
                kept = run.info.run_id == run_id or run.info.lifecycle_stage == LifecycleStage.DELETED
                if not kept and not run.data.metrics and not run.data.params:
                    await self._runs.delete(run.info.run_id)
                    logger.warning(
                        "asynctrack: run %s was created a second time, as %s, by a request that had been stuck on its "
                        "way; that one, which is empty, is deleted",
                        run_id,
                        run.info.run_id,
                    )
        except StoreError as error:
            logger.warning("asynctrack: whether run %s was created twice is not known: %s", run_id, error)

    async def _take_up(self, run_id: str, spec: RunSpec) -> RunInfo:
        run = await self._runs.get(run_id)
        run_id = run.info.run_id or run_id  # which may have been its uid
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"run {run_id} is deleted; restore it to log to it")
        tags = [(key, value) for key, value in spec.tags.items() if key != "mlflow.runName"]
        if tags:
            await self._sender.send(run_id, Batch(tags=tags))
        return await self._runs.update(run_id, "RUNNING", None, spec.run_name)

    async def _experiment_id(self, spec: RunSpec) -> str:
        if spec.experiment_name is None:
            return spec.experiment_id or _DEFAULT_EXPERIMENT
        found = await self._experiments.named(spec.experiment_name)
        if found is None:
            try:
                return await self._experiments.create(spec.experiment_name, None, None)
            except InvalidInputError as error:
                raise RefusedError(str(error)) from None
            except AlreadyExistsError:
                found = await self._experiments.named(spec.experiment_name)
        if found is None:
            raise UnavailableError(
                f"experiment {spec.experiment_name!r} disappeared from {self._api.uri} as it was created"
            )
        return found.experiment_id


def _bounded(remembered: set[str] | dict[str, tuple[str, str]]) -> None:
    if len(remembered) >= _REMEMBERED:
        remembered.clear()

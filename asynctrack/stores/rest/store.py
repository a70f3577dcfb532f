"""`RestStore`: an MLflow tracking server, behind the interface the engine knows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from asynctrack.constants import UID_TAG, RunStatus, ViewType
from asynctrack.entities import DatasetInput, Experiment, LoggedModelInput, LoggedModelOutput, Metric, Run, RunInfo
from asynctrack.stores.base import AbstractStore, Batch, Page, Refusal, RunSpec
from asynctrack.stores.columns import Increment
from asynctrack.stores.io import StoreIO
from asynctrack.stores.keys import check_key
from asynctrack.stores.rest.api import Api
from asynctrack.stores.rest.client import RestClient
from asynctrack.stores.rest.columns import read_columns
from asynctrack.stores.rest.creating import RunCreator
from asynctrack.stores.rest.delivering import BatchSender
from asynctrack.stores.rest.experiments import Experiments
from asynctrack.stores.rest.finding import RunFinder
from asynctrack.stores.rest.runs import Runs

__all__ = ["UID_TAG", "RestStore"]


class RestStore(AbstractStore):
    """One MLflow tracking server: what `RunCreator`, `BatchSender`, `Runs` and `Experiments` do, behind one interface.

    A run is known by its id, and by its uid where the server does not know it as an id.

    *Once.* How a batch, and how a run's creation, is repeated without harm is said in `BatchSender` and `RunCreator`.

    Every method may be called from any thread; over an `InlineIO` they block, else they run on asyncio or trio.
    """

    client: RestClient
    chooses_run_ids = True
    overlap = 8
    most_requests = 16

    def __init__(self, uri: str, client: RestClient, *, keeps_doubles: bool | None = None) -> None:
        self.uri = uri
        self.client = client
        api = Api(uri, client)
        self._experiments = Experiments(api)
        finder = RunFinder(api)
        self._runs = Runs(api, finder)
        self._sender = BatchSender(api, self._runs, self.limits, keeps_doubles)
        self._creator = RunCreator(api, finder, self._runs, self._experiments, self._sender)

    def __repr__(self) -> str:
        return f"RestStore({self.uri!r})"

    @property
    def io(self) -> StoreIO:
        """How it waits; may be exchanged between two calls."""
        return self.client.io

    @io.setter
    def io(self, io: StoreIO) -> None:
        self.client.io = io

    @property
    def patience(self) -> float | None:
        """Longest wait for an answer in seconds; None: as the environment says."""
        return self.client.patience

    @patience.setter
    def patience(self, seconds: float | None) -> None:
        self.client.patience = seconds

    def over(self, io: StoreIO) -> RestStore:
        return RestStore(self.uri, self.client.over(io), keeps_doubles=self._sender.keeps_doubles)

    def experiment_page(self, experiment_id: str) -> str | None:
        databricks = self.uri.startswith("databricks")
        page = f"{self.client.address.rstrip('/')}/{'ml' if databricks else '#'}/experiments/{experiment_id}"
        workspace = self.client.workspace
        return f"{page}?workspace={workspace}" if workspace not in ("", "default") else page

    # ── delivering

    def check_key(self, kind: str, key: str) -> None:
        check_key(kind, key)

    async def create_run(self, spec: RunSpec) -> RunInfo:
        return await self._creator.create(spec)

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        return await (super().find_run(spec) if spec.run_id is not None else self._creator.find(spec))

    async def bookmark(self, run_id: str, batch: Batch) -> Any:
        """Nothing where re-sending changes nothing; else merely that it does."""
        return True if await self._sender.doubles() else None

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        return await self._sender.log_batch(run_id, batch, bookmark)

    async def takes_inputs(self) -> bool:
        """Of servers, those over a database that can say so: they are of MLflow 3."""
        return not await self._sender.doubles()

    async def probe(self, run_id: str) -> None:
        await self._sender.probe(run_id)

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        info = await self._runs.update(run_id, status, end_time, run_name)
        if status is not None and RunStatus.is_terminated(RunStatus.from_string(status)):
            await self._creator.ended(run_id)
        return info

    # ── reading and managing runs

    async def get_run(self, run_id: str) -> Run:
        return await self._runs.get(run_id)

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        return await self._runs.search(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token)

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        found = await self._runs.history(run_id, key)
        if not found:
            # A database-backed server answers for a run that does not exist, too; and this may be a run's uid.
            known = (await self._runs.get(run_id)).info.run_id
            if known and known != run_id:
                found = await self._runs.history(known, key)
        return found

    async def read_columns(
        self,
        run_id: str,
        keys: Collection[str] | None = None,
        *,
        after: Any = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> Increment:
        """A request for each metric, and one for each 25,000 new points."""
        return await read_columns(self._runs, run_id, keys, after, min_step, max_step)

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        await self._runs.log_inputs(run_id, datasets, models)

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        await self._runs.log_outputs(run_id, models)

    async def delete_run(self, run_id: str) -> None:
        await self._runs.delete(run_id)

    async def restore_run(self, run_id: str) -> None:
        await self._runs.restore(run_id)

    async def delete_tag(self, run_id: str, key: str) -> None:
        await self._runs.delete_tag(run_id, key)

    # ── experiments

    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        return await self._experiments.create(name, artifact_location, tags)

    async def get_experiment(self, experiment_id: str) -> Experiment:
        return await self._experiments.get(experiment_id)

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        return await self._experiments.named(name)

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        return await self._experiments.search(view_type, max_results, filter_string, order_by, page_token)

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        await self._experiments.rename(experiment_id, new_name)

    async def delete_experiment(self, experiment_id: str) -> None:
        await self._experiments.delete(experiment_id)

    async def restore_experiment(self, experiment_id: str) -> None:
        await self._experiments.restore(experiment_id)

    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        await self._experiments.set_tag(experiment_id, key, value)

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        await self._experiments.delete_tag(experiment_id, key)

    async def aclose(self) -> None:
        await self.client.aclose()

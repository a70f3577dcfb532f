"""`SqlStore`: MLflow's own database, behind the interface the engine knows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.entities import DatasetInput, Experiment, LoggedModelInput, LoggedModelOutput, Metric, Run, RunInfo
from asynctrack.stores.base import AbstractStore, Batch, Limits, Page, Refusal, RunSpec
from asynctrack.stores.columns import Increment, Summary
from asynctrack.stores.file.files import unavailable
from asynctrack.stores.io import StoreIO, ThreadedIO
from asynctrack.stores.keys import check_key
from asynctrack.stores.sql import columns, experiments, inputs, reading, runs, summaries
from asynctrack.stores.sql.grouping import BatchGroups
from asynctrack.stores.sql.session import Database, Session

__all__ = ["SqlStore"]

P = ParamSpec("P")
T = TypeVar("T")

#: seconds that a call waits for a database that others have locked, as MLflow does
_WAIT = 20.0


class SqlStore(AbstractStore):
    """Tables that MLflow has made, or would make, and reads, serves and upgrades.

    *Once.* Sending a batch twice changes nothing: see `asynctrack.stores.sql.batches`. A run's id is its spec's uid,
    which is a primary key.

    Every method may be called from any thread. Each is one short transaction, in a worker thread unless ``io`` says
    otherwise, and so never holds up an event loop.
    """

    limits = Limits(metrics=65536, params=65536, tags=65536, entities=65536, bytes=1 << 30)
    uri_says_all = True

    def __init__(self, database: Database, io: StoreIO | None = None) -> None:
        self.uri = database.uri
        self.io: StoreIO = ThreadedIO() if io is None else io
        self._database = database
        self._groups = BatchGroups(database)

    def __repr__(self) -> str:
        return f"SqlStore({self.uri!r})"

    def over(self, io: StoreIO) -> SqlStore:
        """The same database, over the same connection, with another way to wait."""
        twin = copy.copy(self)
        twin.io = io
        return twin

    async def aclose(self) -> None:
        await self.io.call(self._database.close)

    @property
    def _wait(self) -> float:
        return _WAIT if self.patience is None else min(_WAIT, self.patience)

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await self.io.call(function)
        except OSError as error:
            raise unavailable(error, self.uri) from error

    async def _write(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def work() -> T:
            with self._database.write(self._wait) as session:
                return function(session, *args, **kwargs)

        return await self._call(work)

    async def _create(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same in a database that is made if it is not there, as MLflow does for whatever a user asks."""

        def work() -> T:
            with self._database.write(self._wait, create=True) as session:
                return function(session, *args, **kwargs)

        return await self._call(work)

    async def _read(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def work() -> T:
            with self._database.read(self._wait) as session:
                return function(session, *args, **kwargs)

        return await self._call(work)

    # ── delivering

    def check_key(self, kind: str, key: str) -> None:
        check_key(kind, key)

    async def is_gone(self) -> bool:
        return await self._call(self._database.is_gone)

    async def create_run(self, spec: RunSpec) -> RunInfo:
        return await self._create(runs.create_run, spec, self._database.artifact_root)

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        return await self._call(lambda: self._groups.log_batch(run_id, batch, self._wait))

    async def takes_inputs(self) -> bool:
        return await self._read(lambda session: session.schema.datasets and session.schema.outputs)

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        """Raises `NotFoundError`; `RefusedError` for a deleted run or a status that is none."""
        return await self._write(runs.update_run, run_id, status, end_time, run_name)

    # ── runs

    async def get_run(self, run_id: str) -> Run:
        return await self._read(reading.get_run, run_id)

    async def get_run_info(self, run_id: str) -> RunInfo:
        return await self._read(runs.get_info, run_id)

    async def get_tags(self, run_id: str) -> dict[str, str]:
        return await self._read(reading.get_tags, run_id)

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Without a filter and an order only the page is read. Else one value a run of everything that is asked
        about. Raises `InvalidInputError` for a filter, order or page that is none."""
        return await self._call(
            lambda: reading.search_runs(
                self._database, self._wait,
                experiment_ids, filter_string, run_view_type, max_results, order_by, page_token,
            )
        )  # fmt: skip

    async def list_run_infos(
        self,
        experiment_id: str,
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Page:
        """Reads no more runs than the page has. An experiment that does not exist has no runs."""
        return await self._read(reading.list_run_infos, experiment_id, run_view_type, max_results, page_token)

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return await self._read(reading.get_history, run_id, key)

    async def read_columns(
        self,
        run_id: str,
        keys: Collection[str] | None = None,
        *,
        after: Any = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> Increment:
        """±Inf are infinities again. No transaction is longer than a page of rows, in SQLite."""
        return await self._call(
            lambda: columns.read_columns(self._database, self._wait, run_id, keys, after, min_step, max_step)
        )

    async def summarize(self, run_id: str, keys: Collection[str] | None = None) -> dict[str, Summary]:
        """PostgreSQL makes them. SQLite would take longer than it takes to read the points, and hold up its writers."""
        found = await self._read(summaries.summarize, run_id, keys)
        return await super().summarize(run_id, keys) if found is None else found

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        await self._write(inputs.write_inputs, run_id, datasets, models)

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        await self._write(inputs.write_outputs, run_id, models)

    async def delete_run(self, run_id: str) -> None:
        await self._create(runs.mark_run, run_id, LifecycleStage.DELETED)

    async def restore_run(self, run_id: str) -> None:
        await self._create(runs.mark_run, run_id, LifecycleStage.ACTIVE)

    async def delete_tag(self, run_id: str, key: str) -> None:
        await self._create(runs.delete_tag, run_id, key)

    # ── experiments

    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        root = self._database.artifact_root
        return await self._create(experiments.create_experiment, name, artifact_location, tags or {}, root)

    async def get_experiment(self, experiment_id: str) -> Experiment:
        return await self._read(experiments.get_experiment, experiment_id)

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        return await self._read(experiments.find_by_name, name)

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Raises `InvalidInputError` for a filter, order or page that is none."""
        return await self._read(reading.search_experiments, view_type, max_results, filter_string, order_by, page_token)

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        await self._create(experiments.rename_experiment, experiment_id, new_name)

    async def delete_experiment(self, experiment_id: str) -> None:
        await self._create(experiments.mark_experiment, experiment_id, LifecycleStage.ACTIVE, LifecycleStage.DELETED)

    async def restore_experiment(self, experiment_id: str) -> None:
        await self._create(experiments.mark_experiment, experiment_id, LifecycleStage.DELETED, LifecycleStage.ACTIVE)

    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        await self._create(experiments.set_experiment_tag, experiment_id, key, value)

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        await self._create(experiments.delete_experiment_tag, experiment_id, key)

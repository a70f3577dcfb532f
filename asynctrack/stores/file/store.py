"""`FileStore`: MLflow's file store, behind the interface the engine knows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, TypeVarTuple

from asynctrack.entities import Experiment, Metric, Run, RunInfo, ViewType
from asynctrack.platforms import check_file_name
from asynctrack.stores.base import AbstractStore, Batch, Limits, Page, Refusal, RunSpec
from asynctrack.stores.columns import Increment, Summary
from asynctrack.stores.file import columns, experiments, layout, reading, runs
from asynctrack.stores.file.batches import BatchWriter
from asynctrack.stores.file.files import unavailable, unnameable
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.io import StoreIO, ThreadedIO
from asynctrack.stores.keys import check_key

__all__ = ["FileStore"]

T = TypeVar("T")
Args = TypeVarTuple("Args")


class FileStore(AbstractStore):
    """A directory in MLflow's layout, which MLflow reads, serves and migrates.

    ``root`` is created, with MLflow's default experiment, when something is first written. ``io`` says how the
    methods wait (on the event loop by default) and may be exchanged at any time between two calls.

    *Once.* A point identical to one of the last 256 lines of its metric's file is not written again, nor one that is
    anywhere behind the bookmark given with it. Identical means: same timestamp and step, and the same value once ±Inf
    is ± the largest double, as MLflow's migration to SQL sees it (NaN equals NaN, 0.0 equals -0.0).

    An append holds a lock on the metric's file, so several processes may write one run. Every method may be called
    from any thread. OSErrors come as `UnavailableError`, with the path and what to do.
    """

    limits = Limits(metrics=65536, params=65536, tags=65536, entities=65536, bytes=1 << 30)
    keys_are_paths = True
    uri_says_all = True

    def __init__(self, root: str | os.PathLike[str], io: StoreIO | None = None) -> None:
        self.io: StoreIO = ThreadedIO() if io is None else io
        self.root = os.path.abspath(os.fspath(root))
        #: by it the store is known as the same one, through whatever links it was reached
        self.uri = layout.local_uri(os.path.realpath(self.root))
        self._tree = Tree(self.root)
        self._writer = BatchWriter(self._tree)

    def __repr__(self) -> str:
        return f"FileStore({self.root!r})"

    def over(self, io: StoreIO) -> FileStore:
        """The same directory, and what is remembered of it, with another way to wait."""
        twin = copy.copy(self)
        twin.io = io
        return twin

    async def _call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        try:
            return await self.io.call(function, *args)
        except OSError as error:
            raise unavailable(error, self.root) from error
        except UnicodeEncodeError as error:
            raise unnameable(error) from error

    # ── delivering

    def check_key(self, kind: str, key: str) -> None:
        check_key(kind, key, as_path=True)
        # Only here: what another program has logged waits for one that can store it.
        check_file_name(f"{kind} key", key)

    async def is_gone(self) -> bool:
        return await self._call(self._tree.is_gone)

    async def create_run(self, spec: RunSpec) -> RunInfo:
        return await self._call(runs.create_run, self._tree, spec, self.durable)

    async def bookmark(self, run_id: str, batch: Batch) -> dict[str, int]:
        """The size in bytes of each metric's file, 0 where there is none; at least what it was after our append."""
        known = self._writer.known_bookmark(run_id, batch)
        return known if known is not None else await self._call(self._writer.bookmark, run_id, batch)

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        return await self._call(self._writer.log_batch, run_id, batch, bookmark, self.durable)

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        """Raises `NotFoundError`; `RefusedError` for a deleted run or a status that is none."""
        return await self._call(runs.update_run, self._tree, run_id, status, end_time, run_name)

    # ── runs

    async def get_run(self, run_id: str) -> Run:
        return await self._call(reading.get_run, self._tree, run_id)

    async def get_run_info(self, run_id: str) -> RunInfo:
        return await self._call(reading.get_run_info, self._tree, run_id)

    async def get_tags(self, run_id: str) -> dict[str, str]:
        return await self._call(reading.get_tags, self._tree, run_id)

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Reads every meta.yaml of the experiments, but of the other files only those that are asked about or
        belong to a run that is returned. Raises `InvalidInputError` for a filter, order or page that is none."""
        return await self._call(
            reading.search_runs,
            self._tree, experiment_ids, filter_string, run_view_type, max_results, order_by, page_token,
        )  # fmt: skip

    async def outline_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Of params and tags it reads only those that are asked about."""
        return await self._call(
            reading.search_runs,
            self._tree, experiment_ids, filter_string, run_view_type, max_results, order_by, page_token, True,
        )  # fmt: skip

    async def list_run_infos(
        self,
        experiment_id: str,
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Page:
        """Reads the runs' meta.yaml and nothing else. An experiment that does not exist has no runs."""
        return await self._call(
            reading.list_run_infos, self._tree, experiment_id, run_view_type, max_results, page_token
        )

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return await self._call(reading.get_history, self._tree, run_id, key)

    async def read_columns(
        self,
        run_id: str,
        keys: Collection[str] | None = None,
        *,
        after: Any = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> Increment:
        """Reads only what has been appended since. What follows a file's last newline is not read yet."""
        return await self._call(columns.read_columns, self._tree, run_id, keys, after, min_step, max_step)

    async def summarize(self, run_id: str, keys: Collection[str] | None = None) -> dict[str, Summary]:
        """Reads only what has been appended since it was last asked, by this program or another: see `cache`."""
        return await self._call(reading.summarize, self._tree, run_id, keys)

    async def delete_run(self, run_id: str) -> None:
        await self._call(runs.delete_run, self._tree, run_id)

    async def restore_run(self, run_id: str) -> None:
        await self._call(runs.restore_run, self._tree, run_id)

    async def delete_tag(self, run_id: str, key: str) -> None:
        await self._call(runs.delete_tag, self._tree, run_id, key)

    # ── experiments

    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        return await self._call(experiments.create_experiment, self._tree, name, artifact_location, tags or {})

    async def get_experiment(self, experiment_id: str) -> Experiment:
        return await self._call(experiments.get_experiment, self._tree, experiment_id)

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        return await self._call(experiments.get_experiment_by_name, self._tree, name)

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Raises `InvalidInputError` for a filter, order or page that is none."""
        return await self._call(
            reading.search_experiments, self._tree, view_type, max_results, filter_string, order_by, page_token
        )

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        await self._call(experiments.rename_experiment, self._tree, experiment_id, new_name)

    async def delete_experiment(self, experiment_id: str) -> None:
        await self._call(experiments.delete_experiment, self._tree, experiment_id)

    async def restore_experiment(self, experiment_id: str) -> None:
        await self._call(experiments.restore_experiment, self._tree, experiment_id)

    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        await self._call(experiments.set_experiment_tag, self._tree, experiment_id, key, value)

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        await self._call(experiments.delete_experiment_tag, self._tree, experiment_id, key)

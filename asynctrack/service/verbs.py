"""The verbs, once: coroutines over a store, and plain calls for what is logged.

What reads or changes a run first has this process's own events of it delivered, so that a program finds what it has
just logged, and nothing logged before a deletion comes after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.constants import ViewType
from asynctrack.errors import FlushTimeoutError
from asynctrack.run import detach, raise_refused
from asynctrack.service.arguments import (
    checked_name,
    experiment_id_of,
    experiment_ids_of,
    integer_id,
    moment_of,
    refuse_run_id,
    run_id_of,
    source_tags,
    status_of,
    tags_of,
    terminal_status,
    view_of,
)
from asynctrack.service.creating import current_user, new_experiment, new_run, repository_at, repository_of
from asynctrack.service.logs import Logging
from asynctrack.stores.base import Page
from asynctrack.values import to_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrack.entities import Experiment, FileInfo, Metric, PagedList, Run, RunInfo

__all__ = ["Verbs"]

#: entities asked for at once where all are wanted
_PAGE = 1000


class Verbs(Logging):
    """Every verb of the service, as `MLflowService` describes it."""

    # ── experiments

    async def create_experiment(
        self,
        name: str,
        artifact_location: str | os.PathLike[str] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> int:
        return integer_id(await new_experiment(self._target.store, name, artifact_location, tags), name)

    async def get_experiment(self, experiment_id: str | int) -> Experiment:
        return await self._target.store.get_experiment(experiment_id_of(experiment_id))

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        return await self._target.store.get_experiment_by_name(checked_name(name))

    async def list_experiments(self, view_type: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
        shown = view_of(view_type)
        store = self._target.store
        return await _all(lambda token: store.search_experiments(shown, _PAGE, page_token=token))

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = 1000,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        wanted = _PAGE if max_results is None else max_results
        return _paged(
            await self._target.store.search_experiments(
                view_of(view_type), wanted, filter_string or "", tuple(order_by or ()), page_token
            )
        )

    async def rename_experiment(self, experiment_id: str | int, new_name: str) -> None:
        await self._target.store.rename_experiment(experiment_id_of(experiment_id), checked_name(new_name))

    async def set_experiment_tag(self, experiment_id: str | int, key: str, value: Any) -> None:
        found = experiment_id_of(experiment_id)
        await self._target.store.set_experiment_tag(found, key, to_text("tag", key, value))

    async def delete_experiment(self, experiment_id: str | int) -> None:
        found = experiment_id_of(experiment_id)
        await self._settle()
        await self._target.store.delete_experiment(found)

    async def restore_experiment(self, experiment_id: str | int) -> None:
        await self._target.store.restore_experiment(experiment_id_of(experiment_id))

    # ── runs

    async def create_run(
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
        given = source_tags(source_type, source_name, entry_point_name, source_version)
        if parent_run_id is not None:
            given["mlflow.parentRunId"] = run_id_of(parent_run_id)
        given |= tags_of(tags)
        user = given.get("mlflow.user") or current_user() if user_id is None else str(user_id)
        labels = {"mlflow.user": user, **given}
        return await new_run(self._target.store, experiment_id, user, start_time, labels, run_name)

    async def get_run(self, run_id: str | int) -> Run:
        found = run_id_of(run_id)
        await self._settle(found)
        return await self._target.store.get_run(found)

    async def list_runs(self, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        from asynctrack.entities import Run

        return [Run(info) for info in await self.list_run_infos(experiment_id, run_view_type)]

    async def list_run_infos(
        self, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY
    ) -> list[RunInfo]:
        found, shown = experiment_id_of(experiment_id), view_of(run_view_type)
        store = self._target.store
        await self._settle()
        await store.get_experiment(found)  # a search finds no runs in an experiment that is none
        return await _all(lambda token: store.list_run_infos(found, shown, _PAGE, token))

    async def search_runs(
        self,
        experiment_ids: Sequence[str | int] | str | int,
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        found, shown = experiment_ids_of(experiment_ids), view_of(run_view_type)
        await self._settle()
        order = (order_by,) if isinstance(order_by, str) else tuple(order_by or ())
        return _paged(
            await self._target.store.search_runs(found, filter_string or "", shown, max_results, order, page_token)
        )

    async def get_metric_history(self, run_id: str | int, key: str) -> list[Metric]:
        found = run_id_of(run_id)
        await self._settle(found)
        return list(await self._target.store.get_metric_history(found, key))

    async def update_run(self, run_id: str | int, status: str | int | None = None, name: str | None = None) -> RunInfo:
        found = run_id_of(run_id)
        to = None if status is None else status_of(status)
        await self._settle(found)
        return await self._target.store.update_run(found, status=to, run_name=name)

    async def delete_run(self, run_id: str | int) -> None:
        found = run_id_of(run_id)
        await self._settle(found)
        await self._target.store.delete_run(found)

    async def restore_run(self, run_id: str | int) -> None:
        await self._target.store.restore_run(run_id_of(run_id))

    async def delete_tag(self, run_id: str | int, key: str) -> None:
        found = run_id_of(run_id)
        await self._settle(found)
        await self._target.store.delete_tag(found, key)

    async def set_terminated(
        self, run_id: str | int, status: str | int | None = None, end_time: int | None = None
    ) -> None:
        found, to = run_id_of(run_id), terminal_status(status)
        ended_at = moment_of("end_time", end_time, _now())
        states = self._states(found)
        try:
            await self._deliver(states)
        except FlushTimeoutError as error:
            attached = [state for state in states if state.attached]
            for state in attached:
                detach(state, to, ended_at)
            behind = f". Its end, {to}, is kept with them" if attached else ""
            raise FlushTimeoutError(f"{error}{behind}") from None
        await self._target.store.update_run(found, status=to, end_time=ended_at)
        self._logs.pop(found, None)
        for state in states:
            if state.attached:
                detach(state)
        for state in states:
            raise_refused(state)

    async def flush(self, run_id: str | int | None = None) -> None:
        states = self._states(None if run_id is None else run_id_of(run_id))
        await self._deliver(states)
        for state in states:
            raise_refused(state)

    # ── artifacts: complete when they return

    async def log_artifact(
        self, artifact_uri: str, local_path: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        await repository_at(self._target, refuse_run_id(artifact_uri)).log_artifact(
            os.fspath(local_path), artifact_path
        )

    async def log_artifacts(
        self, artifact_uri: str, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        await repository_at(self._target, refuse_run_id(artifact_uri)).log_artifacts(
            os.fspath(local_dir), artifact_path
        )

    async def list_artifacts(self, run_id: str | int, path: str | None = None) -> list[FileInfo]:
        return list(await (await repository_of(self._target, run_id)).list_artifacts(path))

    async def download_artifacts(
        self, run_id: str | int, path: str, dst_path: str | os.PathLike[str] | None = None
    ) -> str:
        target = None if dst_path is None else os.fspath(dst_path)
        return await (await repository_of(self._target, run_id)).download_artifacts(path, target)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _paged(page: Page) -> PagedList[Any]:
    from asynctrack.entities import PagedList

    return PagedList(page.items, page.token)


async def _all(ask: Callable[[str | None], Awaitable[Page]]) -> list[Any]:
    """The items of every page."""
    page = await ask(None)
    found = list(page.items)
    while page.token is not None:
        page = await ask(page.token)
        found += page.items
    return found

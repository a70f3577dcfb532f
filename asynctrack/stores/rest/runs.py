"""The runs of one MLflow server: reading and changing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from asynctrack.constants import LifecycleStage, RunStatus, ViewType
from asynctrack.entities import DatasetInput, LoggedModelInput, LoggedModelOutput, Metric, Run, RunInfo
from asynctrack.errors import NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.base import Page
from asynctrack.stores.inputs import check_dataset
from asynctrack.stores.keys import shorten
from asynctrack.stores.rest.api import Api, text
from asynctrack.stores.rest.client import Params
from asynctrack.stores.rest.decoding import each, metric_of, run_info_of, run_of
from asynctrack.stores.rest.finding import RunFinder
from asynctrack.stores.times import check_time

__all__ = ["MOST_PAGES", "Runs"]

T = TypeVar("T")

#: points of a metric's history a request; the official client's number
_HISTORY_PAGE = 25_000
#: pages of one history: more would not fit into any memory
MOST_PAGES = 10_000


class Runs:
    """Reading and changing runs. What each method does is said in `AbstractStore`."""

    def __init__(self, api: Api, finder: RunFinder) -> None:
        self._api = api
        self._finder = finder

    async def known(self, run_id: str, work: Callable[[str], Awaitable[T]]) -> T:
        """What ``work`` does with a run's id; with the id of the run whose uid it is where there is no run of that id.

        Raises `NotFoundError` where there is neither.
        """
        run_id = self._finder.known(text("run_id", run_id))
        try:
            return await work(run_id)
        except NotFoundError:
            other = await self._finder.id_of(run_id)
            if other is None:
                raise
        return await work(other)

    async def get(self, run_id: str) -> Run:
        return await self.known(run_id, self._get)

    async def _get(self, run_id: str) -> Run:
        answer = await self._api.get("/runs/get", ("run_id", run_id), fields=("run",))
        return run_of(answer.get("run", {}))

    async def is_deleted(self, run_id: str) -> bool:
        """Whether nothing can be logged to the run (any more)."""
        try:
            return (await self.get(run_id)).info.lifecycle_stage == LifecycleStage.DELETED
        except NotFoundError:
            return True

    async def search(
        self,
        experiment_ids: Sequence[str],
        filter_string: str,
        run_view_type: int,
        max_results: int,
        order_by: Sequence[str],
        page_token: str | None,
    ) -> Page:
        body: dict[str, Any] = {
            "experiment_ids": list(experiment_ids),
            "filter": filter_string,
            "run_view_type": ViewType.to_string(run_view_type).upper(),
            "max_results": max_results,
            "order_by": list(order_by),
        }
        answer = await self._api.search("/runs/search", body, page_token, "runs")
        return Page(each(answer, "runs", run_of), answer.get("next_page_token") or None)

    async def history(self, run_id: str, key: str) -> list[Metric]:
        """Every point of one metric; empty also for a run that does not exist, where the server does not say so."""
        found: list[Metric] = []
        token = ""
        seen = {token}
        while True:
            points, token = await self.history_page(run_id, key, token)
            found += points
            if not token:
                return found
            if token in seen or len(seen) > MOST_PAGES:
                raise self.endless(run_id, key)
            seen.add(token)

    async def history_page(self, run_id: str, key: str, token: str) -> tuple[list[Metric], str]:
        """One page of a metric's points, and the token of the next; "" is the first one's, and behind the last."""
        params: Params = (
            ("run_id", self._finder.known(text("run_id", run_id))),
            ("metric_key", text("metric key", key)),
            ("max_results", str(_HISTORY_PAGE)),
            *([("page_token", token)] if token else []),
        )
        answer = await self._api.get("/metrics/get-history", *params, fields=("metrics", "next_page_token"))
        return each(answer, "metrics", metric_of), str(answer.get("next_page_token") or "")

    def endless(self, run_id: str, key: str) -> UnavailableError:
        """What to raise where pages do not end."""
        return UnavailableError(f"{self._api.uri} gives metric {shorten(key)} of run {run_id} without an end")

    async def update(self, run_id: str, status: str | None, end_time: int | None, run_name: str | None) -> RunInfo:
        if status is not None:
            try:
                RunStatus.from_string(status)  # the server would ignore an unknown name silently
            except ValueError as error:
                raise RefusedError(f"run {run_id}: {error}") from None
        if end_time is not None:
            check_time(f"run {run_id}: its end_time", end_time)
        given = {"status": status, "end_time": end_time, "run_name": run_name}
        changes = {name: value for name, value in given.items() if value is not None}

        async def update(run_id: str) -> RunInfo:
            answer = await self._api.post("/runs/update", {"run_id": run_id, **changes}, "run_info")
            return run_info_of(answer.get("run_info", {}))

        try:
            return await self.known(run_id, update)
        except RefusedError:
            if await self.is_deleted(run_id):
                raise RefusedError(f"run {run_id} is deleted; restore it to change it") from None
            raise

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[LoggedModelInput]
    ) -> None:
        for used in datasets:
            check_dataset(used)
        body = {
            "datasets": [
                {
                    "dataset": {key: value for key, value in used.dataset.to_dictionary().items() if value is not None},
                    "tags": [{"key": tag.key, "value": tag.value} for tag in used.tags],
                }
                for used in datasets
            ],
            "models": [{"model_id": model.model_id} for model in models],
        }
        given = {name: items for name, items in body.items() if items}
        if given:
            await self.known(run_id, lambda run_id: self._api.post("/runs/log-inputs", {"run_id": run_id, **given}))

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        if not models:
            return
        run = await self.get(run_id)  # the server refuses one that is there already
        there = {model.model_id for model in run.outputs.model_outputs} if run.outputs is not None else set()
        body = [{"model_id": model.model_id, "step": model.step} for model in models if model.model_id not in there]
        if body:
            await self._api.post("/runs/outputs", {"run_id": run.info.run_id, "models": body})

    async def delete(self, run_id: str) -> None:
        await self.known(run_id, lambda run_id: self._api.post("/runs/delete", {"run_id": run_id}))

    async def restore(self, run_id: str) -> None:
        await self.known(run_id, lambda run_id: self._api.post("/runs/restore", {"run_id": run_id}))

    async def delete_tag(self, run_id: str, key: str) -> None:
        # Not found is the tag, as a rule, and not the run.
        body = {"run_id": self._finder.known(text("run_id", run_id)), "key": text("tag key", key)}
        await self._api.post("/runs/delete-tag", body, removes=True)

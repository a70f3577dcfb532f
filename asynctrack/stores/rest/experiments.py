"""The experiments of one MLflow server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.entities import Experiment
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import Page
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.rest.api import Api, text
from asynctrack.stores.rest.decoding import each, experiment_of

__all__ = ["Experiments"]


class Experiments:
    """Creating, reading and changing experiments. What each method does is said in `AbstractStore`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, name: str, artifact_location: str | None, tags: dict[str, str] | None) -> str:
        if not text("experiment name", name).strip():
            raise InvalidInputError(f"an experiment's name cannot be {name!r}")
        body: dict[str, Any] = {"name": name}
        if artifact_location is not None:
            body["artifact_location"] = artifact_location
        if tags:
            for key in tags:
                check_key("tag", key)
            body["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        answer = await self._api.post("/experiments/create", body, "experiment_id", again=False)
        return experiment_of(answer).experiment_id

    async def get(self, experiment_id: str) -> Experiment:
        asked = ("experiment_id", text("experiment_id", experiment_id))
        answer = await self._api.get("/experiments/get", asked, fields=("experiment",))
        return experiment_of(answer.get("experiment", {}))

    async def named(self, name: str) -> Experiment | None:
        asked = ("experiment_name", text("experiment name", name))
        try:
            answer = await self._api.get("/experiments/get-by-name", asked, fields=("experiment",))
        except NotFoundError:
            return None
        return experiment_of(answer.get("experiment", {}))

    async def search(
        self, view_type: int, max_results: int, filter_string: str, order_by: Sequence[str], page_token: str | None
    ) -> Page:
        body: dict[str, Any] = {
            "view_type": ViewType.to_string(view_type).upper(),
            "max_results": max_results,
            "filter": filter_string,
            "order_by": list(order_by),
        }
        answer = await self._api.search("/experiments/search", body, page_token, "experiments")
        return Page(each(answer, "experiments", experiment_of), answer.get("next_page_token") or None)

    async def rename(self, experiment_id: str, new_name: str) -> None:
        if not text("experiment name", new_name).strip():
            raise InvalidInputError(f"an experiment's name cannot be {new_name!r}")
        found = await self.get(experiment_id)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"experiment {experiment_id} is deleted; restore it first")  # the server fails: 500
        try:
            await self._api.post("/experiments/update", {"experiment_id": found.experiment_id, "new_name": new_name})
        except StoreError:
            other = await self.named(new_name)
            if other is not None and other.experiment_id != found.experiment_id:
                raise AlreadyExistsError(f"experiment {shorten(new_name)} exists already") from None
            raise

    async def delete(self, experiment_id: str) -> None:
        await self._api.post(
            "/experiments/delete", {"experiment_id": text("experiment_id", experiment_id)}, removes=True
        )

    async def restore(self, experiment_id: str) -> None:
        # The experiment that is not found is one among the deleted ones.
        await self._api.post(
            "/experiments/restore", {"experiment_id": text("experiment_id", experiment_id)}, removes=True
        )

    async def set_tag(self, experiment_id: str, key: str, value: str) -> None:
        check_key("tag", key)
        body = {"experiment_id": text("experiment_id", experiment_id), "key": key, "value": value}
        await self._api.post("/experiments/set-experiment-tag", body)

    async def delete_tag(self, experiment_id: str, key: str) -> None:
        # Not found is the tag, as a rule, and not the experiment.
        body = {"experiment_id": text("experiment_id", experiment_id), "key": text("tag key", key)}
        await self._api.post("/experiments/delete-experiment-tag", body, removes=True)

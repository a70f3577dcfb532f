"""`RestStore`: an MLflow tracking server, behind the interface the engine knows."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from asynctrack.constants import LifecycleStage, RunStatus, ViewType
from asynctrack.entities import Experiment, Metric, Run, RunInfo
from asynctrack.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.base import AbstractStore, Batch, Page, Refusal, RunSpec
from asynctrack.stores.io import StoreIO
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.rest.client import Params, RestClient
from asynctrack.stores.rest.decoding import experiment_of, metric_of, run_info_of, run_of
from asynctrack.stores.rest.encoding import batch_body, checked, dumps, identity, without_doubles

__all__ = ["UID_TAG", "RestStore"]

logger = logging.getLogger("asynctrack")

_API = "/api/2.0/mlflow"
#: holds a run's `RunSpec.uid`, by which its creation is found when the answer was lost
UID_TAG = "asynctrack.uid"
_PROBE_TAG = "asynctrack.probe"
#: points of a metric's history a request; the official client's number
_HISTORY_PAGE = 25_000
#: the default experiment's id on MLflow's servers
_DEFAULT_EXPERIMENT = "0"
#: characters that a server keeps of a param's and a tag's value; it cuts the rest off and does not say so
_KEPT = {"param": 6000, "tag": 8000}
#: ... but not of what a run is created with: there PostgreSQL fails
_MOST_NAME, _MOST_USER = 250, 256


class RestStore(AbstractStore):
    """One MLflow tracking server.

    *Once.* A server over a database stores identical points once, takes an equal param again and overwrites tags, so a
    batch is simply sent again. One over files, and Databricks, keep doubles: after a failure that may have been a
    success, what is stored is read back before the rest is sent. A run's creation carries a unique tag.

    Every method may be called from any thread; over an `InlineIO` they block, else they run on asyncio or trio.
    """

    client: RestClient
    chooses_run_ids = True
    overlap = 8
    most_requests = 16

    def __init__(self, uri: str, client: RestClient, *, keeps_doubles: bool | None = None) -> None:
        self.uri = uri
        self.client = client
        #: whether the server stores identical points twice; None: not asked yet
        self._keeps_doubles = keeps_doubles
        self._tried: set[str] = set()
        self._told: set[str] = set()

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
        return RestStore(self.uri, self.client.over(io), keeps_doubles=self._keeps_doubles)

    async def _post(self, path: str, body: Mapping[str, Any], *, again: bool = True) -> dict[str, Any]:
        return await self.client.call("POST", _API + path, body=dumps(body), again=again)

    async def _get(self, path: str, *params: tuple[str, str]) -> dict[str, Any]:
        return await self.client.call("GET", _API + path, params=params)

    # ── creating runs

    def check_key(self, kind: str, key: str) -> None:
        check_key(kind, key)

    async def create_run(self, spec: RunSpec) -> RunInfo:
        if spec.run_id is not None:
            return await self._take_up(spec.run_id, spec)
        if spec.uid in self._tried:
            found = await self.find_run(spec)
            if found is not None:
                return found
        experiment_id = await self._experiment_id(spec)
        tags = {**spec.tags, UID_TAG: spec.uid}
        name = spec.run_name or tags.get("mlflow.runName")
        self._tell_what_is_lost(spec.uid, Batch(tags=tags.items()))
        body: dict[str, Any] = {
            "experiment_id": experiment_id,
            "user_id": spec.user_id[:_MOST_USER],
            "start_time": spec.start_time,
            "tags": [
                {"key": key, "value": value[: _KEPT["tag"]]} for key, value in tags.items() if key != "mlflow.runName"
            ],
        }
        if name:
            body["run_name"] = name[:_MOST_NAME]
        self._tried.add(spec.uid)
        answer = await self._post("/runs/create", body, again=False)
        info = run_info_of(answer.get("run", {}).get("info", {}))
        if not info.run_id:
            raise UnavailableError(f"{self.uri} created a run and did not say which; it is looked for")
        self._tried.discard(spec.uid)
        return info

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        if spec.run_id is not None:
            return await super().find_run(spec)
        body = {
            "experiment_ids": [await self._experiment_id(spec)],
            "filter": f"tags.`{UID_TAG}` = '{spec.uid}'",
            "run_view_type": "ALL",
            "max_results": 1,
        }
        runs = (await self._post("/runs/search", body)).get("runs", [])
        return run_info_of(runs[0].get("info", {})) if runs else None

    async def _take_up(self, run_id: str, spec: RunSpec) -> RunInfo:
        run = await self.get_run(run_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"run {run_id} is deleted; restore it to log to it")
        tags = [(key, value) for key, value in spec.tags.items() if key != "mlflow.runName"]
        if tags:
            await self._log(run_id, Batch(tags=tags))
        return await self.update_run(run_id, status="RUNNING", run_name=spec.run_name)

    async def _experiment_id(self, spec: RunSpec) -> str:
        if spec.experiment_name is None:
            return spec.experiment_id or _DEFAULT_EXPERIMENT
        found = await self.get_experiment_by_name(spec.experiment_name)
        if found is None:
            try:
                return await self.create_experiment(spec.experiment_name)
            except InvalidInputError as error:
                raise RefusedError(str(error)) from None
            except AlreadyExistsError:
                found = await self.get_experiment_by_name(spec.experiment_name)
        if found is None:
            raise UnavailableError(f"experiment {spec.experiment_name!r} disappeared from {self.uri} as it was created")
        return found.experiment_id

    # ── delivering

    async def bookmark(self, run_id: str, batch: Batch) -> Any:
        """Nothing where re-sending changes nothing; else merely that it does."""
        return True if await self._doubles() else None

    async def _doubles(self) -> bool:
        if self._keeps_doubles is None:
            try:
                info = await self.client.call("GET", "/api/3.0/mlflow/server-info")
            except (NotFoundError, RefusedError, WrongServerError):
                info = {}  # an older server, or something else that speaks its language: reading back does no harm
            self._keeps_doubles = info.get("store_type") != "SqlStore"
        return self._keeps_doubles

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        sent, refusals = checked(batch)
        self._tell_what_is_lost(run_id, sent)
        try:
            if bookmark is not None and await self._doubles():
                sent = without_doubles(sent, await self._stored(run_id, sent))
            elif self._keeps_doubles:
                sent = without_doubles(sent, {})
            if sent:
                await self._log(run_id, sent)
        except NotFoundError as error:
            return _refuse(batch, str(error))
        except RefusedError as error:
            if "state" in str(error) and await self._is_deleted(run_id):
                return _refuse(batch, f"run {run_id} is deleted; restore it to log to it")
            raise
        return refusals

    async def _log(self, run_id: str, batch: Batch) -> None:
        """Send a batch that is within the limits in number, in as many pieces as its size in bytes takes."""
        body = batch_body(run_id, batch)
        if len(body) > self.limits.bytes and len(batch) > 1:
            for half in batch.halves():
                await self._log(run_id, half)
            return
        await self.client.call("POST", f"{_API}/runs/log-batch", body=body, again=not self._keeps_doubles)

    def _tell_what_is_lost(self, run_id: str, batch: Batch) -> None:
        """Of the first such value of each kind: a server does not keep texts as they are."""
        for kind, entries in (("param", batch.params), ("tag", batch.tags)):
            for key, value in entries:
                if "\0" in value:
                    self._tell_once(
                        kind, f"run {run_id}: {kind} {shorten(key)} contains a NUL, which is stored as U+FFFD"
                    )
                if len(value) > _KEPT[kind]:
                    text = f"run {run_id}: {kind} {shorten(key)} has {len(value)} characters; an MLflow server keeps"
                    self._tell_once(f"long {kind}", f"{text} {_KEPT[kind]} of them. Log an artifact instead")

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("asynctrack: %s. Further ones are not reported", message)

    async def _stored(self, run_id: str, batch: Batch) -> dict[str, set[tuple[int, int, str]]]:
        """Every point that the server has of the batch's metrics."""
        return {
            key: {identity(metric.timestamp, metric.step, metric.value) for metric in await self._history(run_id, key)}
            for key in batch.metric_keys()
        }

    async def _is_deleted(self, run_id: str) -> bool:
        try:
            return (await self.get_run(run_id)).info.lifecycle_stage == LifecycleStage.DELETED
        except NotFoundError:
            return True

    async def probe(self, run_id: str) -> None:
        """Sets a tag and takes it away again."""
        now = time.time_ns() // 1_000_000
        await self._post("/runs/set-tag", {"run_id": run_id, "key": _PROBE_TAG, "value": str(now)})
        try:
            await self.delete_tag(run_id, _PROBE_TAG)
        except NotFoundError:
            pass  # another probe of the same run has taken it away

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        if status is not None:
            try:
                RunStatus.from_string(status)  # the server would ignore an unknown name silently
            except ValueError as error:
                raise RefusedError(f"run {run_id}: {error}") from None
        given = {"status": status, "end_time": end_time, "run_name": run_name}
        body = {"run_id": run_id, **{name: value for name, value in given.items() if value is not None}}
        try:
            return run_info_of((await self._post("/runs/update", body)).get("run_info", {}))
        except RefusedError:
            if await self._is_deleted(run_id):
                raise RefusedError(f"run {run_id} is deleted; restore it to change it") from None
            raise

    # ── reading and managing runs

    async def get_run(self, run_id: str) -> Run:
        return run_of((await self._get("/runs/get", ("run_id", _text("run_id", run_id)))).get("run", {}))

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        body: dict[str, Any] = {
            "experiment_ids": list(experiment_ids),
            "filter": filter_string,
            "run_view_type": ViewType.to_string(run_view_type),
            "max_results": max_results,
            "order_by": list(order_by),
        }
        answer = await self._search("/runs/search", body, page_token)
        return Page([run_of(run) for run in answer.get("runs", ())], answer.get("next_page_token") or None)

    async def _search(self, path: str, body: dict[str, Any], page_token: str | None) -> dict[str, Any]:
        if body["max_results"] < 1:
            raise InvalidInputError(f"max_results={body['max_results']}: it must be at least 1")
        if page_token:
            body["page_token"] = page_token
        try:
            return await self._post(path, body)
        except RefusedError as error:
            raise InvalidInputError(str(error)) from error

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        found = await self._history(run_id, key)
        if not found:
            await self.get_run(run_id)  # a database-backed server answers for a run that does not exist too
        return found

    async def _history(self, run_id: str, key: str) -> list[Metric]:
        found: list[Metric] = []
        token = ""
        while True:
            params: Params = (
                ("run_id", _text("run_id", run_id)),
                ("metric_key", _text("metric key", key)),
                ("max_results", str(_HISTORY_PAGE)),
                *([("page_token", token)] if token else []),
            )
            answer = await self._get("/metrics/get-history", *params)
            found += map(metric_of, answer.get("metrics", ()))
            token = answer.get("next_page_token", "")
            if not token:
                return found

    async def delete_run(self, run_id: str) -> None:
        await self._post("/runs/delete", {"run_id": _text("run_id", run_id)})

    async def restore_run(self, run_id: str) -> None:
        await self._post("/runs/restore", {"run_id": _text("run_id", run_id)})

    async def delete_tag(self, run_id: str, key: str) -> None:
        await self._post("/runs/delete-tag", {"run_id": _text("run_id", run_id), "key": _text("tag key", key)})

    # ── experiments

    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        if not _text("experiment name", name).strip():
            raise InvalidInputError(f"an experiment's name cannot be {name!r}")
        body: dict[str, Any] = {"name": name}
        if artifact_location is not None:
            body["artifact_location"] = artifact_location
        if tags:
            for key in tags:
                check_key("tag", key)
            body["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        answer = await self._post("/experiments/create", body, again=False)
        return str(answer.get("experiment_id", ""))

    async def get_experiment(self, experiment_id: str) -> Experiment:
        answer = await self._get("/experiments/get", ("experiment_id", _text("experiment_id", experiment_id)))
        return experiment_of(answer.get("experiment", {}))

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        try:
            answer = await self._get("/experiments/get-by-name", ("experiment_name", _text("experiment name", name)))
        except NotFoundError:
            return None
        return experiment_of(answer.get("experiment", {}))

    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        body: dict[str, Any] = {
            "view_type": ViewType.to_string(view_type),
            "max_results": max_results,
            "filter": filter_string,
            "order_by": list(order_by),
        }
        answer = await self._search("/experiments/search", body, page_token)
        return Page(
            [experiment_of(each) for each in answer.get("experiments", ())], answer.get("next_page_token") or None
        )

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        if not _text("experiment name", new_name).strip():
            raise InvalidInputError(f"an experiment's name cannot be {new_name!r}")
        found = await self.get_experiment(experiment_id)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise RefusedError(f"experiment {experiment_id} is deleted; restore it first")  # the server fails: 500
        try:
            await self._post("/experiments/update", {"experiment_id": found.experiment_id, "new_name": new_name})
        except StoreError:
            other = await self.get_experiment_by_name(new_name)
            if other is not None and other.experiment_id != found.experiment_id:
                raise AlreadyExistsError(f"experiment {shorten(new_name)} exists already") from None
            raise

    async def delete_experiment(self, experiment_id: str) -> None:
        await self._post("/experiments/delete", {"experiment_id": _text("experiment_id", experiment_id)})

    async def restore_experiment(self, experiment_id: str) -> None:
        await self._post("/experiments/restore", {"experiment_id": _text("experiment_id", experiment_id)})

    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        check_key("tag", key)
        body = {"experiment_id": _text("experiment_id", experiment_id), "key": key, "value": value}
        await self._post("/experiments/set-experiment-tag", body)

    async def aclose(self) -> None:
        await self.client.aclose()


def _text(what: str, value: object) -> str:
    """A string argument; the server would take anything else for absent."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} {value!r} is {type(value).__name__}, not a string")
    return value


def _refuse(batch: Batch, reason: str) -> list[Refusal]:
    return [Refusal(*item, reason=reason) for item in batch.items()]

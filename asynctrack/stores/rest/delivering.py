"""Batches on their way to one MLflow server."""

from __future__ import annotations

import time
from functools import partial

from asynctrack.errors import NotFoundError, RefusedError, WrongServerError
from asynctrack.stores.base import Batch, Limits, Point, Refusal
from asynctrack.stores.keys import shorten
from asynctrack.stores.rest.answers import RaceError
from asynctrack.stores.rest.api import Api
from asynctrack.stores.rest.encoding import batch_body, checked, identity, model_of, point_body, without_doubles
from asynctrack.stores.rest.limits import ValueLimits
from asynctrack.stores.rest.runs import Runs

__all__ = ["BatchSender"]

_PROBE_TAG = "asynctrack.probe"
_MODELS_TABLE, _RUNS_TABLE = "logged_model_metrics", "metrics"

#: the points that a run has, by metric (see `identity`)
Stored = dict[str, set[tuple[int, int, str]]]


class BatchSender:
    """Sends batches, each point once; remembers whether the server keeps doubles, and how much of a long value.

    A server over a database stores identical points once, takes an equal param again and overwrites tags, so a batch
    is simply sent again. One over files, and Databricks, keep doubles: after a failure that may have been a success,
    what is stored is read back before the rest is sent.

    A point about a logged model is stored twice: with the run's points, and with the model's, of which a database keeps
    one at each time and step. Where one of a batch has no room there, MLflow stores the run's points and none of the
    models'. So that the run has a point does not say that the model has it.
    """

    def __init__(self, api: Api, runs: Runs, limits: Limits, keeps_doubles: bool | None) -> None:
        self._api = api
        self._runs = runs
        self._limits = limits
        #: whether the server stores identical points twice; None: not asked yet
        self.keeps_doubles = keeps_doubles
        #: whether it may turn out that it does not, and whether it has: an older server over a database cannot say so
        self._may_merge, self._merges = keeps_doubles is None, False
        self.values = ValueLimits(api.client)

    async def doubles(self) -> bool:
        """Whether the server stores identical points twice; it is asked once."""
        if self.keeps_doubles is None:
            try:
                info = await self._api.client.call("GET", "/api/3.0/mlflow/server-info", fields=("store_type",))
            except (NotFoundError, RefusedError, WrongServerError):
                info = {}  # an older server, or something else that speaks its language: reading back does no harm
            self.keeps_doubles = info.get("store_type") != "SqlStore"
        return self.keeps_doubles

    async def log_batch(self, run_id: str, batch: Batch, bookmark: object) -> list[Refusal]:
        """See `AbstractStore.log_batch`."""
        sent, refusals = checked(batch)
        try:
            if bookmark is not None and await self.doubles() and not self._merges:
                sent = without_doubles(sent, await self._stored(run_id, sent))
            elif self._doubles_are_kept:
                sent = without_doubles(sent, {})
            if sent:
                await self._send_once(run_id, sent)
        except RefusedError as error:
            if "state" in str(error) and await self._runs.is_deleted(run_id):
                return _refuse(batch, f"run {run_id} is deleted; restore it to log to it")
            raise
        return refusals

    @property
    def _doubles_are_kept(self) -> bool:
        return bool(self.keeps_doubles) and not self._merges

    async def _send_once(self, run_id: str, batch: Batch) -> None:
        try:
            await self._runs.known(run_id, partial(self._send_to, batch))
        except RaceError as error:
            self._merges = self._may_merge  # only a database says that
            await self._refuse_for_a_model(run_id, batch, error)
        else:
            return
        # Two NaN of one metric, step and time are two to an MLflow before 3.17, and one to its database: it would
        # refuse the batch for ever.
        stored = await self._stored(run_id, batch)
        rest = without_doubles(batch, stored, but_of_models=True)
        if not rest:
            return
        try:
            await self._runs.known(run_id, partial(self._send_to, rest))
        except RaceError as error:
            await self._refuse_for_a_model(run_id, rest, error)
            if not _of_models(rest):
                raise
            if len(rest) > 1:
                # An MLflow before 3.17 takes equal points about two models for two of the run's. One by one it stores
                # them: the model's point first, and then there is no room only for the run's.
                raise RefusedError(str(error)) from error
            if error.table != _RUNS_TABLE or self._doubles_are_kept or without_doubles(rest, stored):
                raise

    async def _refuse_for_a_model(self, run_id: str, batch: Batch, error: RaceError) -> None:
        """Raise `RefusedError` where a model's points lack room; no other client can be the cause: MLflow has looked
        which of them are there. Of several it has stored none, but all of the run's."""
        if error.table != _MODELS_TABLE:
            return
        if len(batch) > 1 or not _of_models(batch):
            raise RefusedError(str(error)) from error
        [(key, point)] = _of_models(batch)
        await self._send_once(run_id, Batch({key: [point[:3]]}))
        raise RefusedError(
            f"only the run has the value: logged model {shorten(str(model_of(point)))} can have one value of a "
            "metric at a time and step, also where it is measured on several datasets; log it with another step or "
            f"timestamp. {error}"
        ) from error

    async def _send_to(self, batch: Batch, run_id: str) -> None:
        await self.send(run_id, batch)

    async def send(self, run_id: str, batch: Batch) -> None:
        """Send a batch that is within the limits in number, in as many pieces as its size in bytes takes, and what the
        server takes of long values."""
        # Databricks, which keeps doubles, limits the requests of each kind, and those of batches are worth more.
        again = not self._doubles_are_kept
        one = point_body(run_id, batch) if again else None
        if one is not None:
            await self._api.post_bytes("/runs/log-metric", one, again=True)
            return
        await self.values.ask(batch)
        sent = self.values.cut(batch)
        body = batch_body(run_id, sent)
        if len(body) > self._limits.bytes and len(batch) > 1:
            for half in batch.halves():
                await self.send(run_id, half)
            return
        try:
            await self._api.post_bytes("/runs/log-batch", body, again=again)
        except RefusedError as error:
            if not self.values.learn(error, sent):
                raise
            await self.send(run_id, batch)
        else:
            self.values.tell_what_is_lost(run_id, batch)

    async def probe(self, run_id: str) -> None:
        """Set a tag and take it away again."""
        now = time.time_ns() // 1_000_000
        await self._api.post("/runs/set-tag", {"run_id": run_id, "key": _PROBE_TAG, "value": str(now)})
        try:
            await self._runs.delete_tag(run_id, _PROBE_TAG)
        except NotFoundError:
            pass  # another probe of the same run has taken it away

    async def _stored(self, run_id: str, batch: Batch) -> Stored:
        """Every point that the server has of the batch's metrics."""
        found = {}
        for key in batch.metric_keys():
            points = await self._runs.history(run_id, key)
            found[key] = {identity(point.timestamp, point.step, point.value) for point in points}
        return found


def _of_models(batch: Batch) -> list[tuple[str, Point]]:
    return [(key, point) for key, points in batch.metrics.items() for point in points if model_of(point) is not None]


def _refuse(batch: Batch, reason: str) -> list[Refusal]:
    return [Refusal(*item, reason=reason) for item in batch.items()]

"""The verbs that log: plain calls in every face, which never wait; and waiting for what they have logged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.run import open_states, timed_out
from asynctrack.service.arguments import once, points_of, run_id_of
from asynctrack.values import to_text

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, RunTag
    from asynctrack.runlog import RunLog, RunState
    from asynctrack.service.target import Target

__all__ = ["Logging"]

#: runs whose log objects are kept at hand
_REMEMBERED = 1000


class Logging:
    """The part of `Verbs` about this process's own events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._logs: dict[str | int, RunLog] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tracking_uri!r})"

    @property
    def tracking_uri(self) -> str:
        """The store's canonical URI, without credentials."""
        return self._target.uri

    def log_metric(
        self,
        run_id: str | int,
        key: str,
        value: SupportsFloat,
        timestamp: int | None = None,
        step: SupportsIndex | None = None,
    ) -> None:
        self._log(run_id).log_metric(key, value, step, timestamp)

    def log_param(self, run_id: str | int, key: str, value: Any) -> None:
        self._log(run_id).log_params({key: to_text("param", key, value)})

    def set_tag(self, run_id: str | int, key: str, value: Any) -> None:
        self._log(run_id).set_tag(key, value)

    def log_batch(
        self,
        run_id: str | int,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        texts, labels = once("param", params), once("tag", tags, last_wins=True)
        points = points_of(metrics)
        log = self._log(run_id)
        for kind, keys in (("metric", {key for key, *_ in points}), ("param", texts), ("tag", labels)):
            for key in keys:
                log.check_key(kind, key)
        # The params first: they alone can still be refused, and then nothing of the batch is logged.
        log.log_params(texts)
        for key, value, step, timestamp in points:
            log.log_metric(key, value, step, timestamp)
        log.set_tags(labels)

    # ── this process's own events

    def _log(self, run_id: str | int) -> RunLog:
        try:
            log = self._logs[run_id]
        except (KeyError, TypeError):  # no run of that id yet, or no id at all
            return self._attach(run_id)
        return self._attach(run_id) if log.ended else log

    def _attach(self, run_id: str | int) -> RunLog:
        log = self._target.attach(run_id_of(run_id))
        if len(self._logs) >= _REMEMBERED:
            self._logs.clear()
        self._logs[run_id] = log
        return log

    def _states(self, run_id: str | None = None) -> list[RunState]:
        return open_states(self._target.uri, run_id)

    async def _settle(self, run_id: str | None = None) -> None:
        await self._deliver(self._states(run_id))

    async def _deliver(self, states: list[RunState]) -> None:
        """Wait for all that was logged, for at most ``close_timeout`` seconds. Raises FlushTimeoutError."""
        deadline = time.monotonic() + max((state.engine.settings.close_timeout for state in states), default=0.0)
        waiting = [(state, state.engine.flush(state.number)) for state in states]
        for state, receipt in waiting:
            if not await self._target.waits.wait(state, receipt, max(0.0, deadline - time.monotonic())):
                raise timed_out(state, state.engine.settings.close_timeout)
            receipt.result()

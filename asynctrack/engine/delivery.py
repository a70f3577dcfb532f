"""Doing one piece of work against the store, and deciding what its outcome means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from asynctrack.engine.batcher import Lane, Work, split
from asynctrack.engine.retry import retry_delay
from asynctrack.engine.source import Source
from asynctrack.errors import StoreError, UnavailableError
from asynctrack.stores.base import AbstractStore, Batch, Refusal

__all__ = ["Delivery"]

logger = logging.getLogger("asynctrack")


class Delivery:
    """Sends work to one store. Tells the user when the store's state changes, not once a batch."""

    def __init__(self, store: AbstractStore, on_refusal: Callable[[str, Refusal], None] | None = None) -> None:
        self.store = store
        self._on_refusal = on_refusal
        self._failing_since: float | None = None
        self._told_refused: set[str] = set()

    async def step(self, source: Source, lane: Lane) -> None:
        """Do the lane's next work: when it returns, the work is dealt with or the lane has a time to try again."""
        work = lane.next_work(self.store.limits)
        if work is None:
            return
        try:
            refusals = await self._carry_out(source, lane, work)
            source.reject(lane, refusals, lane.parts[0].start)
            lane.delivered += len(work.batch) - sum(refusal.kind != "end" for refusal in refusals)
            self._report_refusals(source, lane, refusals)
            source.done(lane, work)
        except StoreError as error:
            self._put_off(source, lane, work, error)
        except OSError as error:
            # The spool's own files: cursor or rejected.jsonl. What was sent is sent again, and completed, later.
            self._put_off(source, lane, work, UnavailableError(f"cannot write {source.spool.path}: {error}"))
        except Exception as error:
            logger.exception("asynctrack: unexpected failure in the store %s; its events are kept", self.store.uri)
            self._put_off(source, lane, work, UnavailableError(f"unexpected failure: {error!r}"))
        else:
            self._well_again()

    async def _carry_out(self, source: Source, lane: Lane, work: Work) -> list[Refusal]:
        if lane.refused is not None:
            return _refuse_all(work, f"the run could not be created: {lane.refused}")
        # Without a run id its start was never delivered: it is here, or its frame is damaged. The registry has it too.
        if work.starts or lane.run_id is None:
            lane.info = await self.store.create_run(lane.spec)
            lane.run_id = lane.info.run_id
        run_id = lane.run_id or lane.spec.uid
        refusals: list[Refusal] = []
        if work.batch:
            if lane.bookmark is None:
                lane.bookmark = await self.store.bookmark(run_id, work.batch)
                lane.bookmark_end = work.end
                if lane.bookmark is not None:
                    source.save_cursor()
            bookmark = lane.bookmark if lane.uncertain else None
            lane.uncertain = lane.bookmark is not None
            for piece in split(work.batch, self.store.limits):
                refusals += await self._send(run_id, piece, bookmark)
        if work.ends is not None and not lane.attached:
            try:
                await self.store.update_run(run_id, status=work.ends.status, end_time=work.ends.end_time)
            except StoreError as error:
                if error.retryable:
                    raise
                refusals.append(Refusal("end", work.ends.status, work.ends.end_time, str(error)))
        return refusals

    async def _send(self, run_id: str, batch: Batch, bookmark: Any) -> list[Refusal]:
        """Send a batch; where the store refuses it without saying which event is guilty, find out by halving."""
        try:
            return await self.store.log_batch(run_id, batch, bookmark)
        except StoreError as error:
            if error.retryable:
                raise
            if not error.splittable or len(batch) == 1:
                return [Refusal(*item, reason=str(error)) for item in batch.items()]
            first, second = batch.halves()
            return await self._send(run_id, first, bookmark) + await self._send(run_id, second, bookmark)

    # ── what an outcome means

    def _put_off(self, source: Source, lane: Lane, work: Work, error: StoreError) -> None:
        lane.last_error = str(error)
        if not error.retryable and lane.info is None:
            lane.refused = error  # what is in the lane is refused on its next step, and counted there
            return
        from random import random  # late, as it is rarely needed: it loads hashlib

        lane.attempts += 1
        lane.retries += 1
        lane.retry_at = time.monotonic() + retry_delay(error, lane.attempts, random())
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            where = source.spool.path or "memory"
            logger.warning("asynctrack: %s: %s. Events are kept in %s; trying again.", self.store.uri, error, where)

    def _well_again(self) -> None:
        if self._failing_since is not None:
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            logger.warning("asynctrack: %s takes events again after %.0f s", self.store.uri, seconds)

    def _report_refusals(self, source: Source, lane: Lane, refusals: list[Refusal]) -> None:
        if not refusals:
            return
        run_id = lane.run_id or lane.spec.uid
        if self._on_refusal is not None:
            for refusal in refusals:
                self._on_refusal(run_id, refusal)
        if run_id not in self._told_refused:
            self._told_refused.add(run_id)
            where = source.spool.rejected_path() if source.spool.path else "nowhere, as there is no spool directory"
            first = refusals[0]
            logger.error(
                "asynctrack: run %s: %s refused %s %r: %s. Refused events are counted in stats() and kept in %s.",
                run_id, self.store.uri, first.kind, first.key, first.reason, where,
            )  # fmt: skip


def _refuse_all(work: Work, reason: str) -> list[Refusal]:
    refusals = [Refusal(*item, reason=reason) for item in work.batch.items()]
    if work.ends is not None:
        refusals.append(Refusal("end", work.ends.status, work.ends.end_time, reason))
    return refusals

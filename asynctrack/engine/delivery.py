"""Doing one piece of work against the store, and deciding what its outcome means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.engine.batcher import Lane, Work, split
from asynctrack.engine.limiter import Limiter
from asynctrack.engine.retry import retry_delay
from asynctrack.engine.source import Source
from asynctrack.engine.uploads import Upload, deliver_upload, remove_delivered
from asynctrack.errors import (
    InvalidInputError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.base import AbstractStore, Batch, Refusal, RunSpec

__all__ = ["Delivery"]

logger = logging.getLogger("asynctrack")

#: statuses of runs that have not ended
_OPEN = {"RUNNING", "SCHEDULED"}
#: attempts after which the events of a batch that the server fails at are suspected
_SUSPECTED = 3
#: seconds of rest after which connections are opened anew, one after another: opened at once, all may come to the same
#: worker of a server, which delivers half as fast as two: with each answer one more, and one every so many seconds
_RESTED, _APART = 2.0, 0.25
#: seconds after which a trouble that comes and goes is spoken of again
_QUIET = 60.0


class Delivery:
    """Sends work to one store. Tells the user when the store's state changes, not once a batch."""

    def __init__(self, store: AbstractStore, on_refusal: Callable[[str, Refusal], None] | None = None) -> None:
        self.store = store
        self.limiter = Limiter(store.most_requests) if store.most_requests else None
        self.under_way = 0
        #: requests that were answered since the last rest, when that ended, and when the last answer came
        self._answered, self._rested_at, self._answered_at = 0, 0.0, 0.0
        self._on_refusal = on_refusal
        self._failing_since: float | None = None
        self._told_failing = -_QUIET
        self._put_off_lanes: set[Lane] = set()
        self._told_refused: set[str] = set()

    @property
    def depth(self) -> int:
        """How many batches of one run are worth having at hand."""
        return 1 if self.limiter is None else min(self.store.overlap, self.limiter.limit)

    def due(self, lanes: Iterator[tuple[Source, Lane]]) -> Iterator[tuple[Source, Lane, Work]]:
        """The work to begin now, marked busy; whoever takes it calls `step`."""
        now = time.monotonic()
        candidates = [(source, lane) for source, lane in lanes if not lane.idle]
        if not self.under_way and now > self._answered_at + _RESTED:
            self._answered, self._rested_at = 0, now
        stuck = {lane: count for _, lane in candidates if (count := lane.stuck(now))}
        for source, lane in candidates:
            if lane.retry_at > now or lane in stuck or lane.blocked():
                continue
            while self._has_room(sum(stuck.values()), now):
                work = lane.next_work(self.store.limits, self.store.overlap)
                if work is None:
                    break
                work.busy, work.begun = True, now
                self.under_way += 1
                yield source, lane, work

    def _has_room(self, stuck: int, now: float) -> bool:
        """Whether the store may be given one more request. A run whose answers do not come delays no other."""
        limiter = self.limiter
        opened = 1 + self._answered + int((now - self._rested_at) / _APART)
        return limiter is None or self.under_way < min(limiter.limit + stuck, opened, limiter.most)

    async def step(self, source: Source, lane: Lane, work: Work) -> None:
        """Carry out a work that is `due`: when it returns, it is dealt with or the lane has a time to try again."""
        in_flight, started = self.under_way, time.monotonic()
        try:
            refusals = await self._carry_out(source, lane, work)
            source.reject(lane, refusals, work.start)
            events = len(work.batch) + (work.upload is not None)
            lane.delivered += events - sum(refusal.kind != "end" for refusal in refusals)
            self._report_refusals(source, lane, refusals)
            await remove_delivered(self.store.io, source.spool.artifacts, source.done(lane, work))
        except StoreError as error:
            self._put_off(source, lane, work, error)
        except InvalidInputError as error:
            # A setting that the store reads when it connects: a certificate's path, say. The user has to mend it.
            self._put_off(source, lane, work, WrongServerError(str(error)))
        except OSError as error:
            # The spool's own files: cursor or rejected.jsonl. What was sent is sent again, and completed, later.
            self._put_off(source, lane, work, UnavailableError(f"cannot write {source.spool.path}: {error}"))
        except Exception as error:
            logger.exception("asynctrack: unexpected failure in the store %s; its events are kept", self.store.uri)
            self._put_off(source, lane, work, UnavailableError(f"unexpected failure: {error!r}"))
        else:
            if self.limiter is not None and work.batch and not work.starts and not refusals:
                self.limiter.succeeded(len(work.batch), time.monotonic() - started, in_flight)
            self._put_off_lanes.discard(lane)
            self._lane_well_again(lane)
            if work.upload is None:
                self._well_again()
        finally:
            # Also when the step is cancelled: what was sent may have arrived.
            work.busy = False
            self.under_way -= 1
            self._answered, self._answered_at = self._answered + 1, time.monotonic()

    async def _upload(self, source: Source, lane: Lane, work: Work, upload: Upload) -> list[Refusal]:
        """Store an artifact of the run that ``lane`` is for."""
        run, folder = lane.uploads_of or lane, source.spool.artifacts()
        try:
            if run.refused is not None:
                raise RefusedError(f"the run could not be created: {run.refused}")
            if run.artifact_uri is None:
                info = run.info or await self.store.get_run_info(lane.name)
                run.artifact_uri = info.artifact_uri or ""
            await deliver_upload(
                self.store, folder, run.artifact_uri, upload, may_be_stored=work.uncertain, suspected=work.isolate
            )
        except (StoreError, InvalidInputError) as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            lane.failed[upload.snapshot.name] = str(error)
            return [Refusal("artifact", upload.artifact_path, upload.snapshot.path(folder), str(error))]
        return []

    async def _carry_out(self, source: Source, lane: Lane, work: Work) -> list[Refusal]:
        if work.upload is not None:
            return await self._upload(source, lane, work, work.upload)
        if lane.refused is not None:
            return _refuse_all(work, f"the run could not be created: {lane.refused}")
        # Without a run id its start was never delivered: it is here, or its frame is damaged. The registry has it too.
        if work.starts or lane.run_id is None:
            lane.info = await self._create(source, lane, work)
            lane.run_id = lane.info.run_id
        run_id = lane.run_id or lane.spec.uid
        refusals: list[Refusal] = []
        if work.batch:
            if work.bookmark is None:
                work.bookmark = await self.store.bookmark(run_id, work.batch)
                if work.bookmark is not None:
                    source.save_cursor()
            bookmark = work.bookmark if work.uncertain else None
            work.uncertain = work.bookmark is not None
            isolation = _Isolation() if work.isolate else None
            for piece in split(work.batch, self.store.limits):
                refusals += await self._send(run_id, piece, bookmark, isolation)
            if isolation is not None:
                refusals += isolation.convict()
        # An attached run ends without a status when no more comes from here, and the store need not know.
        if work.ends is not None and work.ends.status:
            try:
                if not work.ends.assumed or await self._is_open(run_id):
                    await self.store.update_run(run_id, status=work.ends.status, end_time=work.ends.end_time)
            except StoreError as error:
                if error.retryable:
                    raise
                refusals.append(Refusal("end", work.ends.status, work.ends.end_time, str(error)))
        return refusals

    async def _is_open(self, run_id: str) -> bool:
        try:
            return (await self.store.get_run_info(run_id)).status in _OPEN
        except NotFoundError:
            return True  # it will say so when the run is ended

    # ── creating the run

    async def _create(self, source: Source, lane: Lane, work: Work) -> Any:
        spec = await self._with_parent(lane)
        made_before = lane.attached or source.adopted or source.followed or work.attempts or not work.starts
        if self.store.chooses_run_ids and spec.run_id is None and made_before:
            # It may exist: made by a process that died, by an attempt whose answer was lost, by the parent.
            info = await self.store.find_run(spec)
            if info is not None:
                return info
            if lane.attached:
                raise UnavailableError(f"run {spec.uid} has not been created yet by the process that started it")
        return await self.store.create_run(spec)

    async def _with_parent(self, lane: Lane) -> RunSpec:
        """The run's spec, with the id that the store gave to the run it is nested in."""
        spec, parent = lane.spec, lane.parent
        if parent is None:
            return spec
        run_id = parent.run_id
        if run_id is None and parent.refused is None:
            found = await self.store.find_run(parent.spec)
            run_id = None if found is None else found.run_id
        return spec if run_id is None else spec._replace(tags={**spec.tags, PARENT_RUN_TAG: run_id})

    # ── sending

    async def _send(self, run_id: str, batch: Batch, bookmark: Any, isolation: _Isolation | None) -> list[Refusal]:
        """Send a batch; where the store refuses it without saying which event is guilty, find out by halving."""
        try:
            return await self.store.log_batch(run_id, batch, bookmark)
        except StoreError as error:
            suspected = isolation is not None and error.suspicious
            if error.retryable and not suspected:
                raise
            if isolation is not None and suspected:
                if not isolation.probed:
                    # A server that cannot write at all (its disk is full, say) fails at everything: nobody is guilty.
                    await self.store.probe(run_id)
                    isolation.probed = True
                    # It may have recovered just before that.
                    return await self._send(run_id, batch, bookmark, isolation)
                if len(batch) == 1:
                    isolation.suspects.append((batch, error))
                    return []
            elif not error.splittable or len(batch) == 1:
                return [Refusal(*item, reason=str(error)) for item in batch.items()]
            first, second = batch.halves()
            refusals = await self._send(run_id, first, bookmark, isolation)
            return refusals + await self._send(run_id, second, bookmark, isolation)

    # ── what an outcome means

    def _put_off(self, source: Source, lane: Lane, work: Work, error: StoreError) -> None:
        lane.last_error = str(error)
        lane.held = error if error.held else None
        if not error.retryable and lane.info is None:
            lane.refused = error  # what is in the lane is refused on its next step, and counted there
            return
        from random import random  # late, as it is rarely needed: it loads hashlib

        if self.limiter is not None and work.upload is None:
            self.limiter.failed(error)
        now = time.monotonic()
        if not lane.attempts:
            lane.failing_since = now
        if work.begun > lane.failed_at:
            lane.attempts += 1
        lane.failed_at = now
        work.attempts += 1
        lane.retries += 1
        lane.not_before = max(lane.not_before, now + (error.retry_after or 0.0))
        lane.retry_at = max(lane.not_before, now + retry_delay(error, now - lane.failing_since, random()))
        # Once suspected it stays so: a connection lost in between says nothing for it.
        work.isolate |= error.suspicious and work.attempts >= _SUSPECTED
        if work.upload is not None and self._failing_since is None and not error.held:
            # Where artifacts are kept may fail alone: the run's metrics, and other runs, know nothing of it.
            self._report_upload_trouble(source, lane, work.upload, error)
            return
        self._put_off_lanes.add(lane)
        self._report_trouble(source, lane, error)

    def _report_trouble(self, source: Source, lane: Lane, error: StoreError) -> None:
        where = source.spool.path or "memory"
        if error.held:
            # The user has to mend something; it may concern this run alone. Every attempt words it differently.
            if lane.told != type(error).__name__:
                lane.told = type(error).__name__
                logger.error(
                    "asynctrack: run %s: %s. Events are kept in %s and delivered once that is mended.",
                    lane.name, self._said(error), where,
                )  # fmt: skip
        elif self._failing_since is None:
            self._failing_since = time.monotonic()
            if self._failing_since - self._told_failing >= _QUIET:
                self._told_failing = self._failing_since
                logger.warning("asynctrack: %s. Events are kept in %s; trying again.", self._said(error), where)

    def _report_upload_trouble(self, source: Source, lane: Lane, upload: Upload, error: StoreError) -> None:
        if lane.attempts >= _SUSPECTED and lane.told is None:
            lane.told = type(error).__name__
            logger.warning(
                "asynctrack: run %s: artifact %s cannot be stored now: %s. It is kept in %s; trying again.",
                lane.name, upload.artifact_path or "(a folder)", error, source.spool.artifacts(),
            )  # fmt: skip

    def _said(self, error: StoreError) -> str:
        text = str(error)
        return text if self.store.uri in text else f"{self.store.uri}: {text}"

    def _lane_well_again(self, lane: Lane) -> None:
        if lane.told is not None:
            what = "events" if lane.uploads_of is None else "artifacts"
            logger.warning("asynctrack: run %s: %s takes its %s again", lane.name, self.store.uri, what)
        lane.told = lane.held = None

    def _well_again(self) -> None:
        if self._failing_since is None:
            return
        if self._told_failing == self._failing_since:
            seconds = time.monotonic() - self._failing_since
            logger.warning("asynctrack: %s takes events again after %.0f s", self.store.uri, seconds)
        self._failing_since = None
        # The others need not wait until it is their time: the limiter keeps them from coming all at once.
        for other in self._put_off_lanes:
            if not other.told:
                other.retry_at = other.not_before
        self._put_off_lanes.clear()

    def _report_refusals(self, source: Source, lane: Lane, refusals: list[Refusal]) -> None:
        if not refusals:
            return
        run_id = lane.name
        for refusal in refusals if self._on_refusal is not None else ():
            try:
                self._on_refusal(run_id, refusal)  # type: ignore[misc]  # not None: tested above
            except BaseException:  # sys.exit(), too, would end this thread and with it all delivery
                logger.exception("asynctrack: on_error failed for %s %r of run %s", refusal.kind, refusal.key, run_id)
        if run_id not in self._told_refused:
            self._told_refused.add(run_id)
            where = source.spool.rejected_path() if source.spool.path else "nowhere, as there is no spool directory"
            first = refusals[0]
            logger.error(
                "asynctrack: run %s: %s refused %s %r: %s. Refused events are counted in stats() and kept in %s.",
                run_id, self.store.uri, first.kind, first.key, first.reason, where,
            )  # fmt: skip


class _Isolation:
    """Looking for the events at which the server fails, in a batch that it fails at again and again."""

    def __init__(self) -> None:
        #: the server was seen to take something else of this run meanwhile
        self.probed = False
        self.suspects: list[tuple[Batch, StoreError]] = []

    def convict(self) -> list[Refusal]:
        """Refuse the events that it failed at when they came alone."""
        return [Refusal(*item, reason=str(error)) for batch, error in self.suspects for item in batch.items()]


def _refuse_all(work: Work, reason: str) -> list[Refusal]:
    refusals = [Refusal(*item, reason=reason) for item in work.batch.items()]
    if work.ends is not None:
        refusals.append(Refusal("end", work.ends.status, work.ends.end_time, reason))
    return refusals

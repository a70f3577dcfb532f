"""Sending one piece of work to the store, and seeing to what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from asynctrack.clock import chance, monotonic
from asynctrack.delivery.changed import tell_changed_params
from asynctrack.delivery.creating import create_run
from asynctrack.delivery.ending import end_run
from asynctrack.delivery.isolation import Isolation, settings_are_wrong
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.limiter import Limiter
from asynctrack.delivery.members import NotBegunError
from asynctrack.delivery.missing import look_for
from asynctrack.delivery.outcome import SUSPECTED, Outcome, OwnDiskError, Verdict, is_bug, outcome_of, refuse_all
from asynctrack.delivery.retry import Backoff
from asynctrack.delivery.saving import CursorSaver
from asynctrack.delivery.source import Source
from asynctrack.delivery.telling import Teller
from asynctrack.delivery.turns import InFlight, Waiting
from asynctrack.delivery.uploads import Upload, deliver_upload, remove_delivered
from asynctrack.delivery.work import Work, WorkState
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.base import AbstractStore, Refusal

__all__ = ["Sender"]

#: seconds of rest after which connections are opened anew, one after another: opened at once, all may come to the same
#: worker of a server, which delivers half as fast as two: with each answer one more, and one every so many seconds
_RESTED, _APART = 2.0, 0.25
#: works that a store is given at once which sets no limit itself: more than its threads carry out, and more than wait
#: for one cursor. Of ten thousand all would be under way, none would be answered soon, and each would be looked after
_AT_ONCE = 256


class Sender:
    """Sends work to one store, and acknowledges what the store has dealt with."""

    def __init__(
        self,
        store: AbstractStore,
        on_refusal: Callable[[str, Refusal], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.store = store
        self.limiter = Limiter(store.most_requests) if store.most_requests else None
        self.under_way = 0
        self._clock = clock
        self._saver = CursorSaver()
        #: requests that were answered since the last rest, when that ended, and when the last answer came
        self._answered, self._rested_at, self._answered_at = 0, 0.0, 0.0
        self._tell = Teller(store.uri, on_refusal)
        self._in_flight = InFlight()
        #: the store takes events again; whoever sees to what that changes takes it back
        self.well_again = False
        #: lanes that wait because the store does not take events
        self._put_off: set[Lane] = set()
        self.waiting = Waiting()

    @property
    def depth(self) -> int:
        """How many batches of one run are worth having at hand."""
        return 1 if self.limiter is None else min(self.store.overlap, self.limiter.limit)

    def due(self, lanes: Iterator[tuple[Source, Lane]]) -> Iterator[tuple[Source, Lane, Work]]:
        """The work to begin now, marked busy; whoever takes it calls `step`. Looks at no more ``lanes`` than there is
        room for: an answer makes room for one more request, and there may be thousands of runs."""
        now = self._clock()
        if not self.under_way and now > self._answered_at + _RESTED:
            self._answered, self._rested_at = 0, now
        stuck = self._in_flight.stuck(now)
        extra = sum(stuck.values())
        if not self._has_room(extra, now):
            return
        for source, lane in lanes:
            # Asked before each work, for whoever takes one may carry it out before he asks for the next.
            while not (lane.idle or lane.waits(self._clock()) or lane in stuck or lane.blocked()):
                work = lane.next_work(self.store.limits, self.store.overlap)
                if work is None:
                    break
                work.state, work.begun = WorkState.BUSY, self._clock()
                self.under_way += 1
                self._in_flight.add(lane, work)
                yield source, lane, work
                if not self._has_room(extra, now):
                    return

    def _has_room(self, stuck: int, now: float) -> bool:
        """Whether the store may be given one more request. A run whose answers do not come delays no other."""
        if self.limiter is None:
            return self.under_way < _AT_ONCE + stuck
        opened = 1 + self._answered + int((now - self._rested_at) / _APART)
        return self.under_way < min(self.limiter.limit + stuck, opened, self.limiter.most)

    def nothing_is_under_way(self) -> None:
        """What was begun was left, and is begun again."""
        self.under_way = 0
        self._in_flight.clear()

    async def step(self, source: Source, lane: Lane, work: Work) -> None:
        """Carry out a work that is `due`: when it returns, it is dealt with or the lane has a time to try again."""
        try:
            if work.refusals is None:
                await self._attempt(source, lane, work)
            if work.refusals is not None:
                await self._commit(source, lane, work, work.refusals)
        finally:
            # Also when the step is cancelled: what was sent may have arrived.
            if work.busy:
                work.state = WorkState.READY
            self.under_way -= 1
            self._in_flight.gone(work)
            self._answered, self._answered_at = self._answered + 1, self._clock()

    # ── the store

    async def _attempt(self, source: Source, lane: Lane, work: Work) -> None:
        """Send it. What the store has refused stands in the work then, or the lane waits."""
        in_flight, started = self.under_way, self._clock()
        problem: Exception | None = None
        refusals: list[Refusal] | None = []
        try:
            try:
                refusals = await self._carry_out(source, lane, work)
            except NotFoundError as error:
                problem = await look_for(self.store, source, lane, error)
                if problem is None:
                    refusals = await self._carry_out(source, lane, work)
            except InvalidInputError as error:
                problem = error if await settings_are_wrong(self.store) else RefusedError(str(error))
        except Exception as error:
            if is_bug(error):
                self._tell.unexpected(lane, error)
            problem = error
        if problem is None and refusals is None:
            return  # it is a long one: others' turn
        created = lane.info is not None or (lane.run_id is not None and not work.starts)
        outcome = outcome_of(work, problem, refusals or [], created=created)
        if outcome.verdict is not Verdict.STORED:
            self._not_stored(source, lane, work, outcome)
            return
        work.refusals = outcome.refusals
        if work.upload is not None and problem is not None:
            work.refusals = _refuse_upload(source, lane, work.upload, str(problem))
        if self.limiter is not None and work.batch and not work.starts and not work.refusals:
            self.limiter.succeeded(len(work.batch), self._clock() - started, in_flight)
        self._put_off.discard(lane)
        lane.held = None
        self._tell.lane_well(lane)
        if work.upload is None and self._tell.store_well(self._clock()):
            # The others need not wait until it is their time: the limiter keeps them from coming all at once.
            for other in self._put_off:
                if not self._tell.is_told(other):
                    other.backoff.bring_forward()
            self._put_off.clear()
            self.well_again = True

    async def _carry_out(self, source: Source, lane: Lane, work: Work) -> list[Refusal] | None:
        """What the store has refused; None where it has not dealt with all of it yet."""
        if work.upload is not None:
            return await self._upload(source, lane, work, work.upload)
        if lane.refused is not None:
            return refuse_all(work, f"the run could not be created: {lane.refused}")
        # Without a run id its start was never delivered: it is here, or its frame is damaged. The registry has it too.
        if work.incomplete or (lane.info is None and (work.starts or lane.run_id is None)):
            lane.info = await create_run(self.store, source, lane, work)
            lane.run_id = lane.info.run_id
        run_id = lane.run_id or lane.spec.uid
        refusals: list[Refusal] = []
        if work.batch:
            if not await self._send_batch(source, lane, work, run_id):
                return None
            assert work.isolation is not None
            refusals += await tell_changed_params(self.store, lane, run_id, work.isolation.refusals)
        if work.ends is not None:
            refusals += await end_run(self.store, source, lane, work.ends, run_id)
        return refusals

    async def _send_batch(self, source: Source, lane: Lane, work: Work, run_id: str) -> bool:
        """Whether all of it is dealt with."""
        if work.bookmark is None:
            work.bookmark = await self.store.bookmark(run_id, work.batch)
            if work.bookmark is not None:
                try:
                    await self._saver.save(source, lane, None, waits=self._others_follow)
                except OSError as error:
                    work.bookmark = None
                    raise OwnDiskError(f"cannot write {source.spool.path}: {error}") from error
        bookmark = work.bookmark if work.uncertain else None
        work.uncertain = work.bookmark is not None
        if work.isolation is None:
            work.isolation = Isolation(work.batch, self.store.limits)
        # Once suspected it stays so: a connection lost in between says nothing for it.
        work.isolation.suspected |= work.suspected
        return await work.isolation.turn(self.store, run_id, bookmark)

    async def _upload(self, source: Source, lane: Lane, work: Work, upload: Upload) -> list[Refusal]:
        """Store an artifact of the run that ``lane`` is for."""
        run = lane.uploads_of or lane
        if run.refused is not None:
            return _refuse_upload(source, lane, upload, f"the run could not be created: {run.refused}")
        if run.artifact_uri is None:
            info = run.info or await self.store.get_run_info(lane.name)
            run.artifact_uri = info.artifact_uri or ""
        try:
            await deliver_upload(
                self.store,
                source.spool.artifacts(),
                lane.name,
                run.artifact_uri,
                upload,
                may_be_stored=work.uncertain,
                suspected=work.suspected,
            )
        except (StoreError, InvalidInputError) as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            return _refuse_upload(source, lane, upload, str(error))
        return []

    def _not_stored(self, source: Source, lane: Lane, work: Work, outcome: Outcome) -> None:
        """See to it that it is tried again, or refused."""
        error = outcome.error
        lane.last_error = str(error)
        lane.held = error if outcome.verdict is Verdict.HELD else None
        if outcome.verdict is Verdict.REFUSED_RUN:
            lane.refused = error  # what is in the lane is refused on its next step, and counted there
            return
        if outcome.verdict is Verdict.LOCAL_TROUBLE:
            self._disk_fails(source, lane, work, str(error))
            return
        awaited = isinstance(error, NotBegunError)
        if self.limiter is not None and work.upload is None and not awaited:
            self.limiter.failed(error)
        work.attempts += 1
        work.suspected |= error.suspicious and work.attempts >= SUSPECTED
        work.incomplete = error.incomplete
        lane.retries += 1
        self._wait(lane, lane.backoff, work, error)
        if awaited:
            self._tell.awaits(source, lane, error)
            return
        if outcome.verdict is Verdict.HELD:
            self._tell.held(source, lane, error)
        elif work.upload is not None and self._tell.failing_since is None:
            # Where artifacts are kept may fail alone: the run's metrics, and other runs, know nothing of it.
            self._tell.upload_fails(source, lane, work.upload, error)
            return
        else:
            self._tell.store_fails(source, error, self._clock())
        self._put_off.add(lane)

    def _wait(self, lane: Lane, backoff: Backoff, work: Work, error: StoreError) -> None:
        self.waiting.add(lane)
        backoff.put_off(error, begun=work.begun, now=self._clock(), random=chance())

    # ── the spool

    async def _commit(self, source: Source, lane: Lane, work: Work, refusals: list[Refusal]) -> None:
        """Acknowledge a work that the store has dealt with: keep what it has refused, then move the cursor, and only
        then what is in memory. Each may fail, and is repeated; the store is not asked again."""
        try:
            if not work.refusals_kept:
                source.reject(lane, refusals, work.start)
                work.refusals_kept = True
                events = len(work.batch) + (work.upload is not None)
                lane.delivered += events - sum(refusal.kind != "end" for refusal in refusals)
                self._tell.refused(source, lane, refusals)
            passed = await self._saver.save(source, lane, work, waits=self._others_follow)
        except OSError as error:
            self._disk_fails(source, lane, work, f"cannot write {source.spool.path}: {error}")
            return
        lane.disk.succeeded()
        self._tell.disk_well(source)
        await remove_delivered(self.store.io, source.spool, passed)

    @property
    def _others_follow(self) -> bool:
        """Whether others are under way, on an event loop, whose outcomes may go into the same cursor."""
        return self.under_way > 1 and not self.store.io.blocking

    def _disk_fails(self, source: Source, lane: Lane, work: Work, trouble: str) -> None:
        lane.last_error = trouble
        self._wait(lane, lane.disk, work, UnavailableError(trouble))
        self._tell.disk_fails(source, trouble)


def _refuse_upload(source: Source, lane: Lane, upload: Upload, reason: str) -> list[Refusal]:
    lane.failed[upload.snapshot.name] = reason
    return [Refusal("artifact", upload.artifact_path, upload.snapshot.path(source.spool.artifacts()), reason)]

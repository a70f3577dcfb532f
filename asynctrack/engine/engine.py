"""The background flusher: one daemon thread per process and store.

It reads the journal, batches per run, delivers, acknowledges. While the program runs it does so on an event loop;
when the interpreter is ending, and thread pools and new threads are no longer to be had, it leaves the loop and runs
the very same steps straight through, with plain blocking I/O, until everything is delivered or the deadline passes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.engine.batcher import Lane, Work
from asynctrack.engine.loading import load, load_first
from asynctrack.engine.pump import Pump
from asynctrack.engine.receipts import Receipt
from asynctrack.engine.source import Loaded, Source
from asynctrack.errors import AsynctrackError
from asynctrack.journal.slots import SLOT_SIZE
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.io import InlineIO, ThreadedIO, deliver_here, drive
from asynctrack.stores.uri import open_store

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["Engine", "Request", "RunStats"]

logger = logging.getLogger("asynctrack")

#: while nobody waits, the engine rests this many times as long as its last piece of work took: the program has the
#: interpreter to itself two thirds of the time, however fast it logs. What is not read yet is safe in the journal.
_REST = 2.0
#: seconds to wait for what is under way when the interpreter is ending
_LAST_ANSWER = 5.0
#: seconds between two progress reports to a waiting thread, and the longest blocking sleep while draining
_TICK = 0.05


class RunStats(NamedTuple):
    """What became of a run's events. ``lag`` is seconds since the engine last had everything delivered."""

    accepted: int
    delivered: int
    pending: int
    rejected: int
    dropped: int
    retries: int
    spool_bytes: int
    lag: float
    last_error: str | None


class Request(NamedTuple):
    """Somebody waits: for a run's events before ``mark``, or, with ``mark`` None, for its creation."""

    run: int
    mark: int | None
    receipt: Receipt[RunInfo | None]


#: a run that the engine has not seen yet
_UNKNOWN = Lane(0, RunSpec(uid=""), attached=True)


class Engine:
    """Delivers the journal of this process to one store. All public methods may be called from any thread."""

    def __init__(
        self, store_uri: str, settings: Settings, store: AbstractStore | None = None, *, consumed: bool = True
    ) -> None:
        self.settings = settings
        self.store = open_store(store_uri, ThreadedIO()) if store is None else store
        self.journal = Journal(self.store.uri, settings, self._rolled, self.wake, consumed=consumed)
        self._durable = self.store.durable = settings.durability == "system"
        self._start_lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.error: BaseException | None = None
        #: nothing is delivered from here (``mode="offline"``)
        self.offline = False
        self._pump = Pump(self.store, self.settings)
        #: this process's own spool; None until the first run
        self._own: Source | None = None
        self._requests: deque[Request] = deque()
        self._waiting: list[Request] = []
        self._thread: threading.Thread | None = None
        self._wake_loop: Callable[[], None] | None = None
        #: somebody wants a look at the journal now; else it is looked at again at _look_at (monotonic seconds)
        self._asked = True
        self._look_at = 0.0
        #: the last trouble that was said once
        self._said = ""
        #: nothing more is loaded until some piece of work is done
        self._no_room = False
        # An Event is not re-entrant: a signal handler that wakes us while this very thread does would hang for ever.
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._leaving_loop = False
        self._deadline = float("inf")
        self._caught_up_at = time.monotonic()
        #: a run's end was not delivered in time: the interpreter's end does not wait that long again
        self.gave_up = False
        #: the thread has ended and something is still in the spool
        self.left_behind = False
        self.finished = threading.Event()

    # ── for the runs

    def open_run(self, spec: RunSpec, *, attached: bool = False) -> int:
        """Register a run and log its creation; the run's number in this journal. Raises OSError, SpoolFullError.

        ``attached``: somebody else's run, which is only logged to. It is created here too where it may not be yet (by
        the parent of this forked process), which changes nothing if it is.
        """
        self._start()
        number = self.journal.register_run({**spec._asdict(), "attached": attached})
        if not attached or spec.run_id is None:
            self.journal.write_frame(["start", number])
        return number

    def created(self, run: int) -> Receipt[RunInfo | None]:
        """A receipt for the run's creation: its info, or the error that says why it will never be created. None where
        the store cannot be reached now and ``on_unreachable="spool"``."""
        return self._request(run, None)

    def flush(self, run: int) -> Receipt[RunInfo | None]:
        """A receipt for everything logged to the run by calls that have returned."""
        return self._request(run, self.journal.mark())

    def uploaded(self, run: int) -> Receipt[RunInfo | None]:
        """A receipt for every artifact logged to the run by calls that have returned."""
        return self._request(-run, self.journal.mark())

    def artifact_failure(self, run: int, snapshot: str) -> str | None:
        """Why an artifact was refused; None where it was not."""
        main = self.lane(run)
        if main is None:
            return None
        return (main.uploads or main).failed.get(snapshot)

    def wake(self) -> None:
        """Have the engine look at the journal now. Never blocks; safe in signal handlers."""
        self._asked = True
        self._rouse()

    def _rolled(self) -> None:
        """A segment is full: have the next one prepared. Reading can wait until it is time."""
        self._rouse()

    def _rouse(self) -> None:
        if self._woken.empty():
            self._woken.put(None)
        wake_loop = self._wake_loop
        if wake_loop is not None:
            try:
                wake_loop()
            except RuntimeError:
                pass  # the loop has just been left; the thread looks at _woken now

    def lane(self, run: int) -> Lane | None:
        """What the engine knows of a run so far; for reading only."""
        return self._own.peek(run) if self._own is not None else None

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        """What became of the events of a run, whose metrics are ``streams``. Counts the points that are not loaded yet
        by reading the journal; params and tags count from when they are loaded."""
        lane = self.lane(run) or _UNKNOWN
        accepted = lane.accepted
        source = self._own
        if source is not None:
            try:
                accepted += source.reader.count(source.front if lane.position is None else lane.position, streams)
            except OSError:
                pass  # the engine has just deleted the segment that was being counted
        uploads = lane.uploads or _UNKNOWN
        accepted += uploads.accepted
        delivered, rejected = lane.delivered + uploads.delivered, lane.rejected + uploads.rejected
        pending = accepted - delivered - rejected
        return RunStats(
            accepted=accepted,
            delivered=delivered,
            pending=max(pending, 0),
            rejected=rejected,
            dropped=self.journal.dropped,
            retries=lane.retries + uploads.retries,
            spool_bytes=self.journal.disk_bytes() + self.journal.artifact_bytes(),
            lag=0.0 if pending <= 0 else time.monotonic() - self._caught_up_at,
            last_error=lane.last_error or uploads.last_error,
        )

    def pending(self) -> int:
        """About how many events are on their way, whosesoever; cheap enough to be asked ten times a second."""
        behind = max(self.journal.current[2].first - self._own.low_water(), 0) if self._own is not None else 0
        sources = list(self._pump.sources)
        return behind + sum(lane.loaded_weight for source in sources for lane in list(source.lanes.values()))

    def pending_artifact_bytes(self) -> int:
        """How large the artifacts of this process are that are on their way; linked files count."""
        return self.journal.artifact_bytes(links=True)

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""
        return self._pump.last_error

    def _request(self, run: int, mark: int | None) -> Receipt[RunInfo | None]:
        receipt: Receipt[RunInfo | None] = Receipt()
        self._start()
        self._requests.append(Request(run, mark, receipt))
        if self.error is not None:
            self._fail_waiters(self.error)
        self.wake()
        return receipt

    # ── life

    def _start(self) -> None:
        if self._thread is not None and self.pid == os.getpid():
            return
        with self._start_lock:
            if self.pid != os.getpid():
                self.journal.reopen()
                self._reset()
            if self._thread is None:
                if self._own is None:
                    self._open()
                load_first()
                thread = threading.Thread(target=self._main, name="asynctrack", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # At interpreter exit (Python 3.12 and later) no thread can be started: close() drains by itself.
                    self._leaving_loop |= "shutdown" in str(error)
                    if not self._leaving_loop:
                        self._say_once(f"cannot start the background thread: {error}. Events are kept; trying again")
                        return
                self._thread = thread

    def _say_once(self, trouble: str) -> None:
        if trouble != self._said:
            self._said = trouble
            logger.error("asynctrack: %s", trouble)

    def _open(self) -> None:
        spool, head = self.journal.spool, self.journal.head
        self._own = Source(spool, head, self.store.limits, durable=self._durable)
        self._pump.sources.append(self._own)

    def forget(self) -> None:
        """In a forked child: nothing of the parent's engine exists here; the next log call starts one."""
        self.journal.forget()
        self._start_lock = threading.RLock()
        self._thread = None
        self._wake_loop = None

    def shut_down(self, deadline: float) -> None:
        """Deliver what is there until ``deadline`` (monotonic seconds), then refuse further events. Does not wait:
        `finished` is set when it is over. Called at interpreter exit."""
        self._deadline = deadline
        self._leaving_loop = True
        self.wake()
        if self._thread is None or not self._thread.is_alive():
            if self.error is None and not self.finished.is_set():
                self._drain()
            self.finished.set()

    def _main(self) -> None:
        deliver_here()
        try:
            if not self._leaving_loop:
                load(remote=self.store.client is not None)
                import anyio

                anyio.run(self._loop)
            self._drain()
        except BaseException as error:
            self._died(error)
        finally:
            self._wake_loop = None
            self.finished.set()

    def _died(self, error: BaseException) -> None:
        self.error = error
        self.left_behind = True
        logger.exception(
            "asynctrack: the background thread has died; events go on being kept in %s", self.journal.spool.path
        )
        self._fail_waiters(AsynctrackError(f"the background thread has died: {error!r}"))

    async def _loop(self) -> None:
        import anyio
        from anyio.lowlevel import current_token

        soon = current_token().native_token.call_soon_threadsafe  # type: ignore[attr-defined]  # anyio.run: asyncio
        self._event = anyio.Event()
        self._wake_loop = lambda: soon(lambda: self._event.set())
        if self.journal.spool.path is not None:
            self._pump.adopt_orphans(os.path.dirname(self.journal.spool.path))
        async with anyio.create_task_group() as steps:
            while not self._leaving_loop:
                self._event = anyio.Event()
                self._look()
                for due in self._pump.due():
                    steps.start_soon(self._step, *due)
                self._answer()
                with anyio.move_on_after(self._nap()):
                    await self._event.wait()
            # Leaving the group sees through what is under way, but for an answer that does not come: that is asked for
            # again. Then the thread goes on without a loop.
            patience = min(_LAST_ANSWER, (self._deadline - time.monotonic()) / 2)
            steps.cancel_scope.deadline = anyio.current_time() + max(patience, 0.0)
        with anyio.move_on_after(_TICK):
            await self.store.aclose()  # its connections belong to this loop

    async def _step(self, source: Source, lane: Lane, work: Work) -> None:
        started = time.monotonic()
        try:
            await self._carry_out(source, lane, work)
        finally:
            if source.adopted and source.drained:
                self._look_at = 0.0  # nothing comes any more: its runs are ended, and it is deleted, at once
            elif self._no_room or self._pump.can_catch_up:
                self._look_at = min(self._look_at, time.monotonic() + self._rest(started))
            self._event.set()

    async def _carry_out(self, source: Source, lane: Lane, work: Work) -> None:
        if await self._pump.step(source, lane, work) and source is self._own:
            self.journal.head = source.reader.head or self.journal.head
            self.journal.room_made()

    def _drain(self) -> None:
        """At the end: the same steps, one after another, without event loop, thread pool or new threads."""
        if self._own is None:
            return  # no run was ever started
        self.store.io = InlineIO()
        self._wake_loop = None
        while True:
            self._asked = True
            more = self._look()
            busy = False
            for due in self._pump.due():
                busy = True
                self.store.patience = max(self._deadline - time.monotonic(), _TICK)
                drive(self._carry_out(*due))
                if time.monotonic() >= self._deadline:
                    break
            self._answer()
            if time.monotonic() >= self._deadline:
                break
            if not busy and not more:
                if self._pump.drained:
                    if self.journal.closed and self.journal.current[2].sealed:
                        break
                    # From here on log calls raise; one more look, for what was logged until just now.
                    self.journal.close()
                    continue
                self._sleep(min(_TICK, max(self._deadline - time.monotonic(), 0)))
        self._leave()

    def _sleep(self, seconds: float) -> None:
        """Until somebody wakes us, for at most so long."""
        try:
            self._woken.get(timeout=seconds)
        except Empty:
            pass  # nobody did

    # ── one look

    def _look(self) -> bool:
        """Load what there is room for, if it is time; whether there may be more right now."""
        self.journal.seal_behind()
        self.journal.prepare()
        started = time.monotonic()
        asked, self._asked = self._asked, False  # before loading: who asks while we load is heard the next time
        if not asked and started < self._look_at:
            return False
        self._sync()
        found = self._pump.load()
        self._no_room = Loaded.NO_ROOM in found
        if Loaded.MORE in found:
            self._look_at = time.monotonic() + self._rest(started)
            return True
        self._look_at = started + self.settings.flush_interval
        return False

    def _sync(self) -> None:
        if self._durable:
            try:
                self.journal.sync()
            except OSError as error:
                logger.error("asynctrack: the spool %s may not survive a power cut: %s", self.journal.spool.path, error)

    def _rest(self, started: float) -> float:
        """Seconds to leave the interpreter to the program after a piece of work that began at ``started``."""
        front = self._own.front if self._own is not None else 0
        backlog = (self.journal.current[2].first - front) * SLOT_SIZE
        if self._waiting or self._requests or self._leaving_loop or backlog > self.settings.max_spool_bytes // 4:
            return 0.0
        return min(_REST * (time.monotonic() - started), self.settings.flush_interval)

    def _nap(self) -> float:
        """Seconds until something is to be done without being woken."""
        now = time.monotonic()
        wake_at = 0.0 if self._asked else min(self._look_at, self._pump.next_retry())
        return max(0.0, min(wake_at - now, self.settings.flush_interval))

    def _answer(self) -> None:
        """Settle the receipts whose time has come."""
        while self._requests:
            self._waiting.append(self._requests.popleft())
        waiting = []
        for request in self._waiting:
            if not self._settled(request):
                waiting.append(request)
        self._waiting = waiting
        if not waiting and self._own is not None and self._own.drained:
            self._caught_up_at = time.monotonic()

    def _settled(self, request: Request) -> bool:
        source = self._own
        if source is None:
            return False
        lane = source.lane(request.run) if request.run > 0 else None
        if request.mark is not None:
            if source.acknowledged(request.run) < request.mark:
                return False
            request.receipt.resolve(lane.info if lane else None)
        elif lane is not None and lane.refused is not None:
            request.receipt.fail(lane.refused)
        elif lane is not None and lane.held is not None:
            request.receipt.fail(lane.held)  # wrong credentials, wrong server: the user has to know at once
        elif lane is not None and (lane.info is not None or self._not_now(lane)):
            request.receipt.resolve(lane.info)
        else:
            return False
        return True

    def _not_now(self, lane: Lane) -> bool:
        return lane.attempts > 0 and self.settings.on_unreachable == "spool"

    def _fail_waiters(self, error: BaseException) -> None:
        for request in [*self._waiting, *self._requests]:
            request.receipt.fail(error)
        self._waiting = []
        self._requests.clear()

    def _leave(self) -> None:
        """The thread ends: delete the spool if it is empty; what is left goes to the next process that starts."""
        # A run without an end (a signal came between its start and our noting it) is ended by whoever adopts the spool.
        own = self._own
        done = own is not None and own.drained and self.journal.closed and not own.unended()
        # Whoever finds the lock free takes the journal for finished, so nothing may be added from here on.
        self.journal.close()
        if done and own is not None:
            self._pump.remove(own)
        else:
            self.left_behind = True
        for source in list(self._pump.sources):
            self._pump.let_go(source)
        drive(self.store.aclose())

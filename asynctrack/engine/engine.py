"""The background flusher: one daemon thread per process and store."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import TYPE_CHECKING
from weakref import WeakSet

from asynctrack.delivery.receipts import Receipt
from asynctrack.engine.consumer import ArtifactFailures, Attached, Consumer, Context, Ending, RunStats, SaidOnce
from asynctrack.engine.local import LocalConsumer
from asynctrack.engine.thread import EngineThread
from asynctrack.engine.waiters import Request, Waiters
from asynctrack.engine.wakeup import Wakeup
from asynctrack.journal.chain import closed_error
from asynctrack.journal.writer import Journal
from asynctrack.reentrant import Gate, RLock
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.uri import open_store

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane
    from asynctrack.entities import RunInfo

__all__ = ["Engine", "RunStats"]


class Engine:
    """Has the journal of this process delivered to one store. All public methods may be called from any thread.

    What runs ask of it is here. Its `EngineThread` lives as long as there is something to do, and does what its
    `Consumer` says.
    """

    def __init__(
        self,
        store_uri: str,
        settings: Settings,
        store: AbstractStore | None = None,
        *,
        consumer: Callable[[Context], Consumer] = LocalConsumer,
        consumed: bool = True,
    ) -> None:
        self.settings = settings
        self.store = open_store(store_uri, ThreadedIO()) if store is None else store
        self.journal = Journal(self.store.uri, settings, self._rolled, self.wake, consumed=consumed)
        self.store.durable = settings.durability == "system"
        self._make_consumer = consumer
        self._lock = RLock()
        #: when somebody asked for it last (monotonic seconds)
        self.wanted_at = 0.0
        #: in a forked child: what the processes before it knew, of runs before this one
        self._elders: list[Consumer] = []
        self._first_run = 0
        self._begin()

    def _begin(self) -> None:
        """What there is once a process."""
        self.pid = os.getpid()
        self._waiters = Waiters()
        self._wakeup = Wakeup()
        self._ending = Ending()
        self._failures = ArtifactFailures()
        self._attached: WeakSet[Attached] = WeakSet()
        context = Context(
            self.settings,
            self.store,
            self.journal,
            self._waiters,
            self._wakeup,
            self._ending,
            SaidOnce(),
            self._failures,
            self._lock,
            self._attached,
        )
        self._consumer = self._make_consumer(context)
        self._thread = EngineThread(context, self._consumer)
        #: a run's end was not delivered in time: the interpreter's end does not wait that long again
        self.gave_up = False

    # ── for the runs

    def open_run(self, spec: RunSpec, *, attached: Attached | None = None) -> int:
        """Register a run and log its creation; the run's number in this journal. Raises OSError, SpoolFullError.

        ``attached``: who logs to somebody else's run. It is created here too where it may not be yet (by the parent of
        this forked process), which changes nothing if it is. Raises RunEndedError where this engine has ended, which
        it may do in this moment, in another thread.
        """
        with self._lock:
            self._start(opens=True)
            if self.journal.closed:
                raise closed_error()
            try:
                number = self.journal.register_run({**spec._asdict(), "attached": attached is not None})
            except OSError:
                if self.journal.closed:
                    raise closed_error() from None  # so is the registry
                raise
            if attached is not None:
                self._attached.add(attached)
        # Without the lock: it may have to wait for room, and the spool stays while a run is registered and not ended.
        if attached is None or spec.run_id is None:
            self.journal.write_frame(["start", number])
        return number

    def created(self, run: int) -> Receipt[RunInfo | None]:
        """A receipt for the run's creation: its info, or the error that says why it will never be created. None where
        the store cannot be reached now and ``on_unreachable="spool"``."""
        return self._request(run, None)

    def flush(self, run: int) -> Receipt[RunInfo | None]:
        """A receipt for everything logged to the run by calls that have returned."""
        return self._request(run, self.journal.mark())

    def flushed(self, run: int) -> Receipt[RunInfo | None]:
        """As `flush`, but until somebody wants to know, it costs the engine nothing."""
        return self._on_demand(run)

    def uploaded(self, run: int) -> Receipt[RunInfo | None]:
        """The same for the artifacts logged to the run."""
        return self._on_demand(-run)

    def artifact_failure(self, run: int, snapshot: str) -> str | None:
        """Why an artifact was refused; None where it was not."""
        main = self.lane(run)
        found = None if main is None else (main.uploads or main).failed.get(snapshot)
        return found or self._failures.reason(snapshot)

    def wake(self) -> None:
        """Have the journal looked at now. Never blocks; safe in signal handlers."""
        self._wakeup.ask()
        self._consumer.wake()

    def adopt(self) -> None:
        """Deliver what dead processes have left beside this one's spool. With a shipper, theirs do that."""
        if self.pid != os.getpid():
            self._start()
        self._consumer.adopt()
        self.wake()

    def lane(self, run: int) -> Lane | None:
        """What the engine knows of a run so far; for reading only."""
        if run >= self._first_run:
            return self._consumer.lane(run)
        return next((lane for elder in self._elders if (lane := elder.lane(run)) is not None), None)

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        """What became of the events of a run, whose metrics are ``streams``. Counts the points that are not loaded yet
        by reading the journal; params and tags count from when they are loaded."""
        return self._consumer.stats(run, streams)

    def pending(self) -> int:
        """About how many events are on their way, whosesoever; cheap enough to be asked ten times a second."""
        return self._consumer.pending()

    def pending_artifact_bytes(self) -> int:
        """How large the artifacts of this process are that are on their way; linked files count."""
        return self.journal.artifact_bytes(links=True)

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""
        return self._consumer.last_error

    @property
    def offline(self) -> bool:
        """Nothing is delivered from here (``mode="offline"``)."""
        return self._consumer.offline

    def _request(self, run: int, mark: int | None) -> Receipt[RunInfo | None]:
        receipt: Receipt[RunInfo | None] = Receipt()
        self._ask(Request(run, mark, receipt))
        return receipt

    def _on_demand(self, run: int) -> Receipt[RunInfo | None]:
        mark = self.journal.mark()
        return Receipt(lambda receipt: self._ask(Request(run, mark, receipt)))

    def _ask(self, request: Request) -> None:
        if self.pid != os.getpid() or abs(request.run) < self._first_run:
            # The run of a forked child's parent: nothing was logged to it here, and nobody here would answer.
            lane = self.lane(abs(request.run))
            request.receipt.resolve(None if lane is None else lane.info)
            return
        # In this order: a thread that has found nobody waiting, and ends, is seen to be gone.
        self._waiters.ask(request)
        self._start()
        if self.finished.is_set():
            self._thread.answer_the_rest()
        self.wake()

    def _rolled(self) -> None:
        """A segment is full: have the next one prepared. Reading can wait until it is time."""
        self._wakeup.ring()

    def _start(self, *, opens: bool = False) -> None:
        """Have a thread, in this process; with ``opens``, have a spool, too."""
        if self._thread.there and self.pid == os.getpid() and not opens:
            return
        with self._lock:
            if self.pid != os.getpid():
                self.journal.reopen()
                self._elders.append(self._consumer)
                self._first_run = self.journal.registry.next_run
                self._begin()
                opens = True
            if opens:
                self._consumer.open()
            self._thread.start()

    # ── its end

    @property
    def finished(self) -> Gate:
        """Set when it is over: nothing more is delivered from here."""
        return self._ending.finished

    @property
    def left_behind(self) -> bool:
        """It is over, and something is still in the spool."""
        return self._ending.left_behind

    @property
    def idle(self) -> bool:
        """No run is open, none rests, nothing is left, and there is no thread."""
        return not self._thread.there and self._consumer.idle and not self._attached

    @property
    def delivering(self) -> bool:
        """Whether there is a thread that delivers."""
        return self._thread.alive

    def leave_by(self, deadline: float) -> None:
        """Have the thread deliver what is there until ``deadline`` (monotonic seconds), then refuse further events, and
        end: `finished` is set then. Never blocks; safe in signal handlers."""
        self._ending.deadline = deadline
        self._ending.asked = True
        self.wake()
        if not self.delivering and self._consumer.idle:
            self.finished.set()

    def shut_down(self, deadline: float) -> None:
        """As `leave_by`; where there is no thread (at interpreter exit none can be started), this call delivers."""
        self.leave_by(deadline)
        if not self.delivering:
            self._thread.finish()

    def forget(self) -> None:
        """In a forked child: nothing of the parent's engine exists here; the next log call starts one."""
        self.journal.forget()
        self._consumer.forget()
        self._lock = RLock()

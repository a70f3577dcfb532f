"""The state of one open run: its number in the journal, the streams of its metrics, whether it has ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from asynctrack.clock import monotonic
from asynctrack.engine.lifecycle import interpreter_is_ending, take_care_of_the_end
from asynctrack.errors import InvalidInputError, RunEndedError, SpoolError, SpoolFullError
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.room import NoRoomNow
from asynctrack.platforms import why
from asynctrack.runs.asking import Question
from asynctrack.runs.keys import KeysOfRun
from asynctrack.runs.origin import Origin
from asynctrack.runs.rest import Rest

if TYPE_CHECKING:
    from asynctrack.artifacts.snapshot import Snapshot
    from asynctrack.delivery.receipts import Receipt
    from asynctrack.engine.engine import Engine, RunStats
    from asynctrack.entities import RunInfo
    from asynctrack.journal.segment import Segment
    from asynctrack.stores.base import RunSpec

__all__ = ["RunState", "begun"]

logger = logging.getLogger("asynctrack")
T = TypeVar("T")


class RunState:
    """The state of one open run, shared by its `ActiveRun` and `AsyncActiveRun` objects. Any thread may use it."""

    def __init__(
        self, engine: Engine, spec: RunSpec, *, strict: bool, attached: bool = False, waits: bool = True
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.strict = strict
        #: whether its start and its end wait for the store
        self.waits = waits
        self.lock = threading.RLock()
        self.ended = False
        #: the run's `ActiveRun`, while anybody holds it
        self.face: ref[Any] | None = None
        #: true while the run counts as ended and its end is not in the journal yet
        self._ending = False
        #: true if the run was not started in this process (a forked child logs to its parent's run; a run may be named
        #: by its id): this process logs to it and never ends it
        self.attached = attached
        #: how many `AttachedRun` objects are in use, and whether others, who never say when they are done, log to it
        self.attachments = 0
        self.attached_for_good = False
        self.origin = Origin()
        #: the run that was active when this one was started inside it
        self.outer: RunState | None = None
        #: whether the run's end prints where to look at it; false where MLflow prints that itself
        self.prints_links = True
        self.pid = os.getpid()
        self._known_id = spec.run_id or ("" if engine.store.chooses_run_ids else spec.uid)
        #: whether its ``with`` block has been entered, which ends it
        self.in_block = False
        #: whether `ActiveRun.run_id` or the block's entry has waited for the store; the wait is not repeated
        self.has_waited = False
        #: what entering the block asks, if `start_run` did not
        self.question = Question()
        #: whether the run's start was waited for; entering its block does not repeat that
        self.confirmed = False
        #: metric key → stream number; emptied at the run's end, so that every log call takes the slow path
        self.streams: dict[str | MeasuredOn, int] = {}
        #: all stream numbers of this run, also after its end
        self.stream_numbers: set[int] = set()
        self.params: dict[str, str] = {}
        #: the params that the store had when the run was taken up
        self.stored_params: Mapping[str, str] = {}
        #: where the run is, once the store had to be asked
        self.experiment_id: str | None = None
        self.told_rejected = 0
        self.told_dropped = engine.journal.dropped
        self.keys = KeysOfRun(engine.store)
        #: kind and key of events that were left out, and reported (see `asynctrack.runs.invalid`)
        self.reported: set[tuple[str, str]] = set()
        self._rest = Rest()
        self.number = _open(self)

    @property
    def run_id(self) -> str:
        """The run's id. If the store chooses it, this is the run's uid until the store has created the run."""
        return self._known_id if self.knows_id else self.spec.uid

    @property
    def knows_id(self) -> bool:
        """Whether `run_id` is the id that the store knows."""
        if not self._known_id:
            lane = self.engine.lane(self.number)
            self._known_id = (lane.run_id if lane is not None else None) or ""
        return bool(self._known_id)

    def stream(self, key: str | MeasuredOn) -> int | None:
        """The stream of a metric, registered on first use; None if the event is dropped because the spool is full."""
        return self.when_there_is_room(lambda: self._stream(key))

    def _stream(self, key: str | MeasuredOn) -> int | None:
        number = self.streams.get(key) if isinstance(key, str | MeasuredOn) else None
        if number is None:
            stored = self.keys.stored(key)
            self.check_key("metric", stored.key if isinstance(stored, MeasuredOn) else stored)
            number = self.engine.journal.register_stream(self.number, stored, waits=False)
            if number is not None:
                self.stream_numbers.add(number)
                self.streams[key] = number
        return number

    def frame(self, kind: str, entries: dict[str, str]) -> bool:
        """Log params, tags, or what the run uses ("params", "tags", "inputs"); False if it is dropped, as below."""
        return self.when_there_is_room(lambda: self.write_now([kind, self.number, entries]))

    def artifact(self, snapshot: Snapshot, artifact_path: str) -> bool:
        """Log an artifact whose snapshot is taken; False if it is dropped because the spool is full."""
        return self.when_there_is_room(lambda: self.write_now(["artifact", self.number, list(snapshot), artifact_path]))

    def write_now(self, entry: list[Any]) -> bool:
        """Log a frame, as part of what `when_there_is_room` calls. Raises NoRoomNow."""
        return self.engine.journal.write_frame(entry, waits=False)

    def when_there_is_room(self, log: Callable[[], T]) -> T:
        """``log`` while the run is open, under its lock; and anew after waiting for room without it, which may take for
        ever while others log to the run and end it. So the caller does not hold that lock."""
        while True:
            try:
                with self.lock:
                    self.check_open()
                    return log()
            except NoRoomNow:
                self.engine.journal.wait_for_room()
            except RunEndedError:  # the journal is closed: this process has ended, or is about to
                raise self.ended_error() from None

    def check_open_now(self) -> None:
        """`check_open` for callers that do not hold the lock."""
        with self.lock:
            self.check_open()

    def stats(self) -> RunStats:
        """The counts of the run's events."""
        return self._rest.add_to(self.engine.stats(self.number, self.stream_numbers))

    def check_open(self) -> None:
        """Raise RunEndedError after the run's end. In a forked child, and after a rest, attach to the run again."""
        if self.ended:
            raise self.ended_error()
        if self.pid != os.getpid():
            self.attached = True
            self._rest = Rest()
        elif self._rest.begun:
            self._rest.count(self.engine.stats(self.number, ()))
        else:
            return
        self.streams.clear()
        self.stream_numbers = set()
        if self._known_id and self.engine.store.chooses_run_ids:
            self.spec = self.spec._replace(run_id=self._known_id)  # it has been created
        self.number = self.engine.open_run(self.spec, attached=self)
        self._rest.begun = False
        self.pid = os.getpid()
        take_care_of_the_end(self.engine.settings)

    # ── what is only logged to rests, when nothing is (see `asynctrack.engine.own`)

    def is_absent(self) -> bool:
        """Whether it rests, or only the parent has logged to it. Asked with the lock held."""
        return self._rest.begun or self.pid != os.getpid()

    def may_rest(self) -> bool:
        """Whether no call needs the spool that is there now. Asked with the lock held."""
        return not self._rest.at_work

    def rest(self) -> None:
        """The spool is closed: the next log call attaches to the run again. Called with the lock held."""
        self.knows_id  # noqa: B018  # asked now, while the engine can still answer
        self._rest.begun = True
        self.engine.journal.chain.former.take(self.streams)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The run does not rest meanwhile: something was put into its spool, and is logged next."""
        with self.lock:
            self.check_open()
            self._rest.at_work += 1
        try:
            yield
        finally:
            with self.lock:
                self._rest.at_work -= 1

    def stream_again(self, before: int, segment: Segment) -> int | None:
        """The stream for a log call that had found ``before``, and ``segment`` to be the current one, before the run
        came to rest; None if the event is dropped. Raises what `ended_error` says if it has ended, instead."""
        with self.lock:  # whoever puts it to rest has closed the segment before, and is through by now
            key = None if segment.former is None else segment.former.key(before)
        if key is None:
            raise self.ended_error() from None
        return self.stream(key)

    def ended_error(self) -> BaseException:
        """The error that a log call raises after the run's end."""
        if interpreter_is_ending() and threading.current_thread() is not threading.main_thread():
            return SystemExit()  # a daemon thread that logs while the interpreter exits: end it without a traceback
        return RunEndedError(
            f"run {self.run_id} has ended; nothing was logged. Start a new run, or take this one up again with "
            f"reopen() or start_run(run_id={self.run_id!r})"
        )

    def check_key(self, kind: str, key: Any) -> None:
        """Raise InvalidInputError for a key that the store can never hold, by itself or beside the keys logged
        before."""
        try:
            self.keys.check(kind, key)
        except InvalidInputError as error:
            raise InvalidInputError(f"run {self.run_id}: {error}") from None

    @property
    def end_is_written(self) -> bool:
        """Whether the run has ended and its end is in the journal (the end of an attached run is not written)."""
        return self.ended and not self._ending

    def end(self, status: str, end_time: int) -> Receipt[RunInfo | None] | None:
        """Log the run's end and return a receipt for everything before it; None if it has ended already.

        ``status``: a `RunStatus` name; ``end_time``: ms since the epoch. May be called again after an interrupted call
        (Ctrl-C). None, too, for a run whose end waits for nothing.
        """
        if self.pid != os.getpid() and not self.ended:
            self.check_open_now()
        if not self.log_end(status, end_time, self.engine.settings.close_timeout) or not self.waits:
            return None
        return self.engine.flush(self.number)

    def log_end(self, status: str, end_time: int, patience: float) -> bool:
        """Log the run's end; False if it has ended already. Safe in a signal handler. ``patience``: seconds to wait for
        room in the spool, and for the lock of a thread that waits for room."""
        deadline = monotonic() + patience
        if not self.lock.acquire(timeout=max(deadline - monotonic(), 0.0)):
            logger.error(
                "asynctrack: run %s stays RUNNING: another thread still waits for room in the spool", self.run_id
            )
            return False
        try:
            if self.end_is_written:
                return False
            # This may run twice: a signal handler can interrupt this thread right here and end the run itself, and the
            # interpreter's exit ends a run whose first end was interrupted by Ctrl-C.
            self.ended = self._ending = True
            self.streams.clear()
            if not self.attached:
                entry = ["end", self.number, status, end_time]
                # Wait for room: if the end were dropped, the run would stay RUNNING for ever.
                if not self.engine.journal.write_frame(entry, patience=max(deadline - monotonic(), 0.0)):
                    logger.error("asynctrack: run %s: no room in the spool for its end; it stays RUNNING", self.run_id)
            self._ending = False
        finally:
            self.lock.release()
        return True

    def reopen(self, spec: RunSpec) -> None:
        """Take the run up again, after its end is written. Raises what opening a run raises."""
        with self.lock:
            if not self.end_is_written:
                return
            self.stored_params = {**self.params, **self.stored_params}
            self.params = {}
            self.spec, self.attached, self.in_block = spec, False, False
            self.number = _open(self)
            self.streams.clear()
            self.stream_numbers = set()
            self._rest = Rest()
            self.told_rejected, self.told_dropped = 0, self.engine.journal.dropped
            self.pid = os.getpid()
            self.ended = False


def begun(again: Callable[[], Engine], engine: Engine, spec: RunSpec, *, strict: bool, waits: bool) -> RunState:
    """A run that begins now. Where another thread has had ``engine`` shut down since it was found, with the engine that
    it finds ``again``. Raises SpoolError, SpoolFullError, RunEndedError."""
    try:
        return RunState(engine, spec, strict=strict, waits=waits)
    except RunEndedError:
        return RunState(again(), spec, strict=strict, waits=waits)


def _open(state: RunState) -> int:
    """The run's number in the journal, where its start is logged now. Raises SpoolError, SpoolFullError."""
    try:
        return state.engine.open_run(state.spec, attached=state if state.attached else None)
    except SpoolFullError as error:
        raise SpoolFullError(f"cannot start a run: {error}") from None
    except RunEndedError:
        raise RunEndedError("cannot start a run: asynctrack is just being shut down in this process") from None
    except OSError as error:
        where = state.engine.journal.spool.path
        raise SpoolError(
            error.errno, f"cannot start a run: the spool {where} cannot be written: {why(error)}"
        ) from error

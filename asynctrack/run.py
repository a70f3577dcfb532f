"""start_run, and what a training loop holds: `ActiveRun`, and `AsyncActiveRun` inside ``async with``.

Two thin faces of one engine: the log verbs are the same plain calls in both; only what waits comes in two colours.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asynctrack.constants import PARENT_RUN_TAG, RunStatus
from asynctrack.context import automatic_tags
from asynctrack.engine.lifecycle import after_fork, before_exit, engine_for, engine_for_store, heed_signals, status_of
from asynctrack.engine.progress import Waiting
from asynctrack.engine.receipts import Receipt
from asynctrack.errors import (
    AmbiguousRunError,
    AsynctrackError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    NoActiveRunError,
    RunEndedError,
    StoreError,
    UnavailableError,
)
from asynctrack.runlog import RunLog, RunState
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.io import delivers_here, in_event_loop
from asynctrack.stores.uri import resolve_store_uri
from asynctrack.tracking import get_tracking_uri
from asynctrack.values import to_text

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = [
    "ActiveRun",
    "AsyncActiveRun",
    "active_run",
    "attached_run",
    "detach",
    "flush_all",
    "last_active_run",
    "logging_run",
    "open_states",
    "raise_refused",
    "start_run",
    "timed_out",
    "wait_blocking",
    "wait_on_loop",
]

logger = logging.getLogger("asynctrack")

#: the runs opened in this context (thread, or asyncio or trio task), innermost last
_active: ContextVar[tuple[RunState, ...]] = ContextVar("asynctrack_active_runs", default=())
#: every open run of the process
_open: dict[int, RunState] = {}
_last: ContextVar[RunState | None] = ContextVar("asynctrack_last_run", default=None)

_attaching = threading.RLock()
_FOREVER = 1e9


class _Face(RunLog):
    """What both faces share besides the log verbs."""

    __slots__ = ()

    @property
    def run_id(self) -> str:
        """The run's id, 32 hex digits. An MLflow server chooses it: while that cannot be reached, this is the id under
        which asynctrack knows the run, which the server's run has in its tag ``asynctrack.uid``."""
        return self._state.run_id

    @property
    def tracking_uri(self) -> str:
        """The store this run goes to, without credentials."""
        return self._state.engine.store.uri

    def __repr__(self) -> str:
        state = "ended" if self._state.ended else "open"
        return f"<{type(self).__name__} {self.run_id} at {self.tracking_uri}, {state}>"


class ActiveRun(_Face):
    """An open run. Leaving its ``with`` block, or `terminate`, delivers everything; ``async with`` gives an
    `AsyncActiveRun`. Used without a block it is ended, and delivered, when the interpreter ends."""

    __slots__ = ()

    @property
    def run_id(self) -> str:
        """As above. Used bare it waits for the server, at most ``connect_timeout`` seconds and once."""
        state = self._state
        if not state.knows_id and not state.has_waited:
            state.has_waited = True
            state.engine.created(state.number).wait(state.engine.settings.connect_timeout)
        return state.run_id

    @property
    def info(self) -> RunInfo:
        """The run as the store created it. Waits for that; raises what the store says when it refuses."""
        receipt = self._state.engine.created(self._state.number)
        if not receipt.wait(self._state.engine.settings.close_timeout) or receipt.result() is None:
            raise _not_created(self._state)
        return receipt.result()  # type: ignore[return-value]  # not None: tested above

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything logged so far is in the store.

        Raises FlushTimeoutError after ``timeout`` seconds (None: as long as it takes; the events stay in the spool and
        go on being delivered), DeliveryError when events were refused since the last flush.
        """
        receipt = self._state.engine.flush(self._state.number)
        if not wait_blocking(self._state, receipt, timeout):
            raise timed_out(self._state, timeout)
        receipt.result()
        raise_refused(self._state)

    def terminate(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """End the run (a `RunStatus` name; ms since the epoch, default now) and wait for delivery, for at most
        ``close_timeout`` seconds. What is not delivered then stays in the spool, and a warning says so (with
        ``strict=True`` it is an error). A second call does nothing."""
        receipt = _end(self._state, status, end_time)
        if receipt is not None and not delivers_here():  # a destructor may be called in any thread
            done = wait_blocking(self._state, receipt, self._state.engine.settings.close_timeout)
            _after_end(self._state, receipt, done)

    def __enter__(self) -> ActiveRun:
        _activate(self._state)
        receipt = self._state.engine.created(self._state.number)
        if not delivers_here():
            with _entering(self._state):
                _check_created(self._state, receipt.wait(_entry_timeout(self._state)), receipt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.terminate(status_of(error))
        except AsynctrackError:
            if error is None:
                raise
            logger.exception("asynctrack: run %s", self.run_id)  # the block's own exception is the one to see

    async def __aenter__(self) -> AsyncActiveRun:
        _activate(self._state)
        receipt = self._state.engine.created(self._state.number)
        with _entering(self._state):
            _check_created(self._state, await wait_on_loop(receipt, _entry_timeout(self._state)), receipt)
        return AsyncActiveRun(self._state)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from anyio import CancelScope

        try:
            # Delivering goes on although the task is being cancelled; terminate() bounds it.
            with CancelScope(shield=True):
                await AsyncActiveRun(self._state).terminate(status_of(error))
        except AsynctrackError:
            if error is None:
                raise
            logger.exception("asynctrack: run %s", self.run_id)


class AsyncActiveRun(_Face):
    """An open run inside ``async with``, on asyncio or trio. The log verbs are plain calls; what waits is awaited."""

    __slots__ = ()

    async def info(self) -> RunInfo:
        """The run as the store created it. Raises what the store says when it refuses."""
        receipt = self._state.engine.created(self._state.number)
        done = await wait_on_loop(receipt, self._state.engine.settings.close_timeout)
        if not done or receipt.result() is None:
            raise _not_created(self._state)
        return receipt.result()  # type: ignore[return-value]  # not None: tested above

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the twin of ActiveRun.flush
        """As `ActiveRun.flush`. Cancelling it changes nothing about the delivery."""
        receipt = self._state.engine.flush(self._state.number)
        if not await wait_on_loop(receipt, timeout):
            raise timed_out(self._state, timeout)
        receipt.result()
        raise_refused(self._state)

    async def terminate(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """As `ActiveRun.terminate`."""
        receipt = _end(self._state, status, end_time)
        if receipt is not None:
            done = await wait_on_loop(receipt, self._state.engine.settings.close_timeout)
            _after_end(self._state, receipt, done)


def start_run(
    run_id: str | None = None,
    experiment_id: str | int | None = None,
    run_name: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    log_system_metrics: bool | None = None,
    *,
    experiment_name: str | None = None,
    tracking_uri: str | None = None,
    strict: bool = False,
) -> ActiveRun:
    """Open a run and make it the active run of this thread or task. Does not wait for the store.

    Arguments are `mlflow.start_run`'s. ``run_id`` takes up an existing run again; without it ``MLFLOW_RUN_ID`` is used
    once, if set. ``experiment_name`` is created when missing. ``strict``: leaving the block raises DeliveryError
    where it would only warn. Raises InvalidInputError, and AsynctrackError where a run is active already and
    ``nested`` is not given.
    """
    from asynctrack.experiments import choose_experiment

    parents = open_here()
    if parents and not nested:
        raise AsynctrackError(
            f"run {parents[-1].run_id} is active already; end it first with end_run(), or start a run inside it with "
            "start_run(nested=True)"
        )
    if log_system_metrics:
        logger.warning("asynctrack: log_system_metrics is not available in this version; the run goes on without")
    run_id = run_id or os.environ.pop("MLFLOW_RUN_ID", None)
    all_tags = {} if run_id else automatic_tags()
    if description is not None:
        all_tags["mlflow.note.content"] = description
    # Not yet known to a server, it is the parent's uid, which the engine replaces when it creates this run.
    parent = parent_run_id or (parents[-1].run_id if parents else None)
    if parent is not None:
        all_tags[PARENT_RUN_TAG] = parent
    given = {key: to_text("tag", key, value) for key, value in dict(tags or {}).items()}
    chosen = (None, None) if run_id else choose_experiment(experiment_id, experiment_name)
    engine = engine_for(tracking_uri or get_tracking_uri())
    for key in given:
        engine.store.check_key("tag", key)
    spec = RunSpec(
        uid=_new_id(),
        run_id=run_id,
        experiment_id=chosen[0],
        experiment_name=chosen[1],
        run_name=run_name,
        user_id=all_tags.get("mlflow.user", ""),
        start_time=time.time_ns() // 1_000_000,
        tags=all_tags | given,
    )
    state = RunState(engine, spec, strict=strict)
    _open[id(state)] = state
    heed_signals(engine.settings)
    _activate(state)
    return ActiveRun(state)


def active_run() -> ActiveRun | None:
    """The active run of this thread or task, or None. Each asyncio or trio task sees its own (and, where it was
    started inside one, its parent's)."""
    states = open_here()
    return ActiveRun(states[-1]) if states else None


def last_active_run() -> ActiveRun | None:
    """The active run, else the one that was active last in this thread or task."""
    current = active_run()
    last = _last.get()
    return current or (ActiveRun(last) if last is not None else None)


def logging_run() -> ActiveRun | None:
    """The run that a fluent function logs to here; None where a new one is to be started.

    The active run; in a thread without one, the only run that is open in the process. Raises AmbiguousRunError where
    several are, and NoActiveRunError in a task without one: tasks never see each other's runs.
    """
    states = open_here()
    if states:
        return ActiveRun(states[-1])
    candidates = [state for state in list(_open.values()) if not state.ended and not state.attached]
    if not candidates:
        return None
    if in_event_loop():
        raise NoActiveRunError(
            "no run is active in this task; open one with `async with asynctrack.start_run()`, or log through the run "
            "object: run.log_metric(…)"
        )
    if len(candidates) > 1:
        ids = ", ".join(state.run_id for state in candidates[:5])
        raise AmbiguousRunError(
            f"no run is active in this thread, and {len(candidates)} are open in the process ({ids}); log through the "
            "run object: run.log_metric(…)"
        )
    return ActiveRun(candidates[0])


def attached_run(run_id: str, tracking_uri: str | None = None, *, store: AbstractStore | None = None) -> RunLog:
    """The log verbs for a run known by its id: one open in this process, or any other, which is then logged to and not
    ended. The run is in ``store``, else at ``tracking_uri``, else in the store of an open run of that id, else in the
    current one. A run that does not exist is found out in the background: its events are refused, and reported."""
    uri = None if tracking_uri is None else resolve_store_uri(tracking_uri)
    engine = None if store is None else engine_for_store(store)
    with _attaching:  # one lane a run: two would deliver to it at once
        for state in list(_open.values()):
            if state.run_id != run_id or state.ended or (engine is not None and state.engine is not engine):
                continue
            if uri is None or state.engine.store.uri == uri:
                return RunLog(state)
        engine = engine or engine_for(uri or get_tracking_uri())
        state = RunState(engine, RunSpec(uid=_new_id(), run_id=run_id), strict=False, attached=True)
        _open[id(state)] = state
        return RunLog(state)


def detach(state: RunState, status: str = "", end_time: int = 0) -> None:
    """Forget a run that was only logged to; nothing more is logged through this state. With a ``status`` the engine
    sets it, and ``end_time``, behind what was logged before."""
    state.detach(status, end_time)
    _open.pop(id(state), None)


def open_states(uri: str, run_id: str | None = None) -> list[RunState]:
    """What this process has open in the store at ``uri``: all of it, or one run's."""
    here = os.getpid()
    return [
        state
        for state in list(_open.values())
        if state.engine.store.uri == uri and state.pid == here and run_id in (None, state.run_id)
    ]


def flush_all(tracking_uri: str | None = None) -> None:
    """Wait until everything logged in this process (to one store) is delivered, for at most ``close_timeout`` seconds.
    Raises FlushTimeoutError."""
    states = list(_open.values()) if tracking_uri is None else open_states(tracking_uri)
    waiting = [(state, state.engine.flush(state.number)) for state in states if state.pid == os.getpid()]
    for state, receipt in waiting:
        timeout = state.engine.settings.close_timeout
        if not wait_blocking(state, receipt, timeout):
            raise timed_out(state, timeout)
        receipt.result()


def open_here() -> tuple[RunState, ...]:
    """The open runs of this context, outermost first."""
    return tuple(state for state in _active.get() if not state.ended)


# ── what both faces do, apart from waiting


def _new_id() -> str:
    return os.urandom(16).hex()


def _activate(state: RunState) -> None:
    if state.ended:
        raise state.ended_error()
    if state not in _active.get():
        _active.set((*open_here(), state))
        _last.set(state)


def _entry_timeout(state: RunState) -> float:
    state.has_waited = True
    return state.engine.settings.connect_timeout


@contextmanager
def _entering(state: RunState) -> Iterator[None]:
    """A block that is not entered (refused, unreachable, cancelled, Ctrl-C) will not be left either: end the run."""
    try:
        yield
    except BaseException as error:
        _end(state, status_of(error), None)
        # The store does not answer, or not to us: the interpreter's end does not wait for it once more.
        state.engine.gave_up |= isinstance(error, StoreError)
        raise


def _check_created(state: RunState, done: bool, receipt: Receipt[RunInfo | None]) -> None:
    if done:
        receipt.result()
    elif state.engine.settings.on_unreachable == "raise":
        raise _not_created(state)
    else:
        logger.warning("asynctrack: %s. The run goes on meanwhile", _not_created(state))


def _end(
    state: RunState, status: str, end_time: int | None, patience: float | None = None
) -> Receipt[RunInfo | None] | None:
    try:
        if not RunStatus.is_terminated(RunStatus.from_string(status)):
            raise ValueError(f"{status!r} does not end a run; use FINISHED, FAILED or KILLED")
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
    try:
        return state.end(status, end_time, patience)
    finally:
        _open.pop(id(state), None)
        _active.set(open_here())


def _after_end(state: RunState, receipt: Receipt[RunInfo | None], done: bool) -> None:
    """Say, or with ``strict`` raise, what did not go well."""
    try:
        if not done:
            state.engine.gave_up = True
            raise timed_out(state, state.engine.settings.close_timeout)
        receipt.result()
        raise_refused(state)
    except AsynctrackError as error:
        if state.strict:
            raise
        logger.warning("asynctrack: %s", error)


def wait_blocking(state: RunState, receipt: Receipt[Any], timeout: float | None) -> bool:
    """Hold up this thread for at most ``timeout`` seconds, with a progress line; whether the receipt is settled.

    Raises AsynctrackError in a thread that delivers, which would wait for itself.
    """
    if delivers_here():
        raise AsynctrackError(
            f"run {state.run_id}: this is a thread that delivers (on_error and some destructors are called in it), so "
            "it cannot wait for the delivery; flush in another one"
        )
    with Waiting(state.engine.pending, state.engine.pending_artifact_bytes) as waiting:
        return waiting.until(receipt.wait, _FOREVER if timeout is None else timeout)


async def wait_on_loop(receipt: Receipt[Any], timeout: float | None) -> bool:  # noqa: ASYNC109  # as flush
    """`wait_blocking` for a task, on asyncio or trio."""
    from anyio import move_on_after

    if not receipt.done:
        with move_on_after(timeout):
            await receipt.wait_async()
    return receipt.done


def timed_out(state: RunState, timeout: float | None) -> FlushTimeoutError:
    """What is not delivered after ``timeout`` seconds, and where it is kept."""
    stats = state.stats()
    why = f" ({stats.last_error})" if stats.last_error else ""
    where = state.engine.journal.spool.path
    kept = f"they are kept in {where} and go on being delivered" if where else "they are kept in memory only"
    new = stats.dropped - state.told_dropped
    lost = f". Besides, {new} events of this process were dropped, because the spool was full" if new > 0 else ""
    return FlushTimeoutError(
        f"run {state.run_id}: {stats.pending} of {stats.accepted} events are not in {state.engine.store.uri} after "
        f"{timeout:g} s{why}; {kept}{lost}"
    )


def raise_refused(state: RunState) -> None:
    """Raise DeliveryError for what was refused or dropped since the last time."""
    stats = state.stats()
    new = stats.rejected - state.told_rejected
    dropped, state.told_dropped = stats.dropped - state.told_dropped, stats.dropped
    if dropped > 0:
        raise DeliveryError(
            f"run {state.run_id}: {dropped} events of this process were dropped, because the spool was full. Raise "
            'max_spool_bytes, make room on the disk, or choose spool_full="block"'
        )
    if new <= 0:
        return
    state.told_rejected = stats.rejected
    lane = state.engine.lane(state.number)
    lanes = [found for found in (lane, lane.uploads if lane is not None else None) if found is not None]
    reasons = "; ".join([reason for found in lanes for reason in found.refusals][-3:])
    spool = state.engine.journal.spool
    where = f" They are kept in {spool.rejected_path()}." if spool.path else ""
    raise DeliveryError(f"run {state.run_id}: {state.engine.store.uri} refused {new} events: {reasons}.{where}")


def _not_created(state: RunState) -> UnavailableError:
    if state.engine.offline:
        return UnavailableError(
            f"run {state.spec.uid} is offline: {state.engine.store.uri} knows it, and gives it its info, only once "
            f"`asynctrack sync` has delivered {state.engine.journal.spool.path}"
        )
    error = state.stats().last_error or "no answer yet"
    return UnavailableError(
        f"run {state.run_id or state.spec.uid} could not be created in {state.engine.store.uri}: {error}. What is "
        f"logged is kept in {state.engine.journal.spool.path}"
    )


# ── the process


def _end_open_runs(status: str) -> None:
    """At interpreter exit: runs that nobody ended."""
    started = time.monotonic()
    for state in list(_open.values()):
        if state.pid != os.getpid():
            continue  # the parent's, and this forked child never logged to it
        try:
            # All of them together wait no longer than one of them may.
            left = started + state.engine.settings.close_timeout - time.monotonic()
            _end(state, status, None, max(left, 0.0))
        except (AsynctrackError, OSError, RunEndedError) as error:
            logger.error("asynctrack: run %s could not be ended: %s", state.run_id, error)


def _forked() -> None:
    global _attaching
    _attaching = threading.RLock()
    for state in _open.values():
        state.knows_id  # noqa: B018  # as long as the parent's engine can be asked
        state.lock = threading.RLock()
        state.streams.clear()


before_exit(_end_open_runs)
after_fork(_forked)

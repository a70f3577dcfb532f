"""What all run objects have in common: who they are, copies of them, and waiting for delivery.

`ActiveRun` is a run that is ended here. `AttachedRun` logs to one that somebody else ends; it is also what a pickled
run becomes in another process.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from asynctrack.arguments import flag_of, given, run_id_of, timeout_of
from asynctrack.clock import monotonic
from asynctrack.errors import InvalidInputError
from asynctrack.runs.active import attach_state, attached_run, leave_state
from asynctrack.runs.asking import Question, ask_on_loop
from asynctrack.runs.log import RunLog
from asynctrack.runs.readback import AwaitedReading, BlockingReading
from asynctrack.runs.waiting import raise_refused, shielded, timed_out, wait_blocking, wait_on_loop
from asynctrack.runs.workers import wait_for_workers, wait_for_workers_on_loop
from asynctrack.settings import current_settings
from asynctrack.stores.io import delivers_here, in_event_loop

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["AsyncAttachedRun", "AttachedRun", "AwaitedRun", "BlockingRun", "attach", "handed_run", "handed_state"]

#: the variable that names a run which the processes started from here log to
_ATTACH = "ASYNCTRACK_ATTACH"


class RunFace(RunLog):
    """The log verbs of a run, and which run it is."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunFace) and self._state is other._state

    def __hash__(self) -> int:
        return hash(self._state)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # of a model, say, that holds it: both log to this run

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """In another process it is an `AttachedRun`, with the same store, spool folder and mode, and as of the same
        rank."""
        state = self._state
        spool = state.engine.journal.spool.path
        folder = None if spool is None else os.path.dirname(os.path.abspath(spool))
        mode, prefix = state.engine.settings.mode, state.keys.prefix
        return _attach_elsewhere, (self.run_id, self.tracking_uri, folder, mode, prefix)

    @property
    def run_id(self) -> str:
        """The run's id, 32 hex digits. An MLflow server chooses it. Until the
        server has answered, this is the run's uid, which the server keeps in
        the tag ``mlflow.asynctrack.uid``."""
        return self._state.run_id

    @property
    def tracking_uri(self) -> str:
        """The canonical URI of the run's store, without credentials."""
        return self._state.engine.store.uri

    def __repr__(self) -> str:
        state = "ended" if self._state.ended else "open"
        return f"<{type(self).__name__} {self.run_id} at {self.tracking_uri}, {state}>"


class BlockingRun(BlockingReading, RunFace):
    """A run object whose methods that wait block."""

    __slots__ = ()

    def flush(self, timeout: float | None = None, *, workers: bool = False) -> None:
        """Wait until everything logged so far in this process is in the store.

        ``workers=True``: and what other processes on this host have logged to
        the run, those with the same spool folder (forked children, workers
        that were given the run object, ranks).

        Raises FlushTimeoutError after ``timeout`` seconds (None: no limit);
        the events stay in the spool, and delivery goes on. Raises
        DeliveryError if events were refused or dropped since the last flush.
        """
        timeout, beside = timeout_of(timeout), flag_of("workers", workers)
        receipt = self._state.engine.flush(self._state.number)
        if not wait_blocking(self._state, receipt, timeout):
            raise timed_out(self._state, timeout)
        receipt.result()
        if beside:
            wait_for_workers(self._state, timeout)
        raise_refused(self._state)


class AwaitedRun(AwaitedReading, RunFace):
    """A run object whose methods that wait are awaited, on asyncio or trio. The log verbs are plain calls."""

    __slots__ = ()

    async def flush(self, timeout: float | None = None, *, workers: bool = False) -> None:  # noqa: ASYNC109  # a twin
        """Wait until everything logged so far in this process is in the store;
        see `ActiveRun.flush`, which raises the same. If the wait is cancelled,
        delivery goes on."""
        timeout, beside = timeout_of(timeout), flag_of("workers", workers)
        receipt = self._state.engine.flush(self._state.number)
        if not await wait_on_loop(receipt, timeout):
            raise timed_out(self._state, timeout)
        receipt.result()
        if beside:
            await wait_for_workers_on_loop(self._state, timeout)
        raise_refused(self._state)


class AttachedRun(BlockingRun):
    """A run that somebody else has begun and will end. Any thread may log to
    it; see `attach`.

    Leaving its ``with`` block waits until what this process has logged is in
    the store, at most ``close_timeout`` seconds, and detaches. It never ends
    the run. Without a block, everything is delivered when the process ends.
    """

    __slots__ = ("_left",)

    def __init__(self, state: RunState) -> None:
        super().__init__(state)
        self._left = False

    def detach(self) -> None:
        """Wait for delivery, at most ``close_timeout`` seconds, and let go of
        the run. A second call does nothing. Raises what `flush` raises; it is
        detached then, too, and delivery goes on."""
        if self._left:
            return
        self._left = True
        state, waits = self._state, not delivers_here()  # the engine's thread may run a destructor that calls this
        deadline = monotonic() + state.engine.settings.close_timeout
        try:
            if waits:
                self.flush(state.engine.settings.close_timeout)
        finally:
            forgotten = leave_state(state)
        if waits and forgotten:
            # If this was the last run in it, the spool goes: the process may die before anything else sees to that.
            wait_blocking(state, state.engine.flush(state.number), max(deadline - monotonic(), 0.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    async def __aenter__(self) -> AsyncAttachedRun:
        state = self._state
        if not state.confirmed:
            state.confirmed = True
            state.stored_params = await ask_on_loop(state.engine, Question(run_id=state.run_id))
        return AsyncAttachedRun(state)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._left:
            return
        self._left = True
        state = self._state
        deadline = monotonic() + state.engine.settings.close_timeout
        with shielded():
            try:
                await AsyncAttachedRun(state).flush(state.engine.settings.close_timeout)
            finally:
                forgotten = leave_state(state)
            if forgotten:
                await wait_on_loop(state.engine.flush(state.number), max(deadline - monotonic(), 0.0))


class AsyncAttachedRun(AwaitedRun):
    """An `AttachedRun` in ``async with``, on asyncio or trio. The log verbs
    are plain calls; `flush` is awaited."""

    __slots__ = ()


def attach(run_id: str | None = None, tracking_uri: str | None = None) -> AttachedRun:
    """Log to a run that somebody else has begun and will end: from a worker, a
    rank, another machine.

    ``run_id``: default is the environment variable ``ASYNCTRACK_ATTACH``.
    ``tracking_uri``: default `get_tracking_uri`. Any thread may call. The run
    is looked up in the store, for about ``connect_timeout`` seconds at most. A
    store that is away does not keep the program. On an event loop, entering
    ``async with`` looks it up.

    With ``ASYNCTRACK_ATTACH``, functions such as `asynctrack.log_metric` log
    to that run as well, where no run is active.

    Raises InvalidInputError if no run is named; NotFoundError or RefusedError
    for a run that the store does not have, or has deleted; SpoolError if the
    spool cannot be written.
    """
    named = os.environ.get(_ATTACH) or None if given(run_id) is None else run_id
    if named is None:
        raise InvalidInputError(
            f"which run? Give attach() its id, or set {_ATTACH} to it before this process is started"
        )
    return AttachedRun(attach_state(run_id_of(named), tracking_uri, asks=not in_event_loop()))


def handed_run() -> RunLog | None:
    """The log verbs for the run that ``ASYNCTRACK_ATTACH`` names, if it does. Raises NotFoundError, RefusedError."""
    named = os.environ.get(_ATTACH)
    return attached_run(run_id_of(named), asks=True) if named else None


def handed_state() -> RunState | None:
    """The state of the same, for somebody who calls `leave_state` when done with it."""
    named = os.environ.get(_ATTACH)
    return attach_state(run_id_of(named), None, asks=True) if named else None


def _attach_elsewhere(
    run_id: str, tracking_uri: str, spool_dir: str | None, mode: Any, prefix: str = ""
) -> AttachedRun:
    """What a pickled run becomes. Nothing is asked: the run exists, or is being created by whoever pickled it."""
    settings = current_settings()._replace(mode=mode)
    if spool_dir is not None:
        settings = settings._replace(spool_dir=spool_dir)
    state = attach_state(run_id, tracking_uri, settings=settings)
    if state.attached:  # else it is a rank that was given another one's run
        state.keys.prefix = prefix
    return AttachedRun(state)

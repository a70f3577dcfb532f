"""`start_run`, and the run objects it gives: `ActiveRun`, and `AsyncActiveRun` in ``async with``.

Both have the same log verbs, which are plain calls. The methods that wait block in `ActiveRun` and are awaited in
`AsyncActiveRun`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from asynctrack.arguments import flag_of, given, run_id_of, step_of
from asynctrack.current import current_store_uri, store_for
from asynctrack.engine.lifecycle import engine_for
from asynctrack.engine.status import status_of
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.runs.active import (
    activate,
    active_state,
    foreign_run,
    last_state,
    logging_state,
    open_here,
    opened,
    taken_up_again,
)
from asynctrack.runs.asking import Question, ask_blocking, ask_on_loop
from asynctrack.runs.ending import check_created, confirm, end, entering, say_outcome, tell_if_refused
from asynctrack.runs.faces import AwaitedRun, BlockingRun
from asynctrack.runs.origin import in_interactive_session
from asynctrack.runs.reopening import reopen
from asynctrack.runs.sharing import refuse_unshared, share_of
from asynctrack.runs.spec import new_spec
from asynctrack.runs.state import RunState, begun
from asynctrack.runs.waiting import not_created, shielded, timed_out, wait_blocking, wait_on_loop
from asynctrack.stores.io import delivers_here, drive, in_event_loop

if TYPE_CHECKING:
    from asynctrack.entities import Run, RunData, RunInfo, RunInputs, RunOutputs

__all__ = ["ActiveRun", "AsyncActiveRun", "active_run", "last_active_run", "logging_run", "start_run"]

logger = logging.getLogger("asynctrack")

#: the variable that names a run to take up again; used once
_RUN_ID = "MLFLOW_RUN_ID"


class ActiveRun(BlockingRun):
    """An open run. Any thread may log to it.

    Leaving its ``with`` block, or `terminate`, ends it and waits for delivery
    (with ``start_run(wait=False)`` it does not wait).
    ``async with`` gives an `AsyncActiveRun`. Without a block, the run is ended
    and delivered when the interpreter exits.

    It is a `Run` as well: `data`, `inputs` and `outputs` are what the store
    has.
    """

    __slots__ = ("__weakref__",)

    #: for `isinstance(run, asynctrack.Run)`
    stands_for = "Run"

    @property
    def run_id(self) -> str:
        """The run's id, 32 hex digits.

        An MLflow server chooses it. The first access waits for the server, at
        most ``connect_timeout`` seconds. Until the server has answered, this
        is the run's uid, which the server keeps in the tag ``mlflow.asynctrack.uid``.
        """
        state = self._state
        if not state.knows_id and not state.has_waited:
            state.has_waited = True
            state.engine.created(state.number).wait(state.engine.settings.connect_timeout)
        return state.run_id

    @property
    def info(self) -> RunInfo:
        """The run as the store created it. Waits for that at most
        ``close_timeout`` seconds. Raises UnavailableError after that, and the
        `StoreError` with which the store refused the run."""
        receipt = self._state.engine.created(self._state.number)
        if not receipt.wait(self._state.engine.settings.close_timeout) or receipt.result() is None:
            raise not_created(self._state)
        return receipt.result()  # type: ignore[return-value]  # not None: tested above

    @property
    def data(self) -> RunData:
        """The run's latest metrics, its params and tags, as the store has them
        once everything logged so far is delivered. Each access waits and asks
        the store. Raises FlushTimeoutError after ``close_timeout`` seconds,
        and a `StoreError`."""
        return self._stored().data

    @property
    def inputs(self) -> RunInputs | None:
        """The datasets and models that the run has used, as the store has
        them. Raises what `data` raises."""
        return self._stored().inputs

    @property
    def outputs(self) -> RunOutputs | None:
        """The models that the run has logged, as the store has them. Raises
        what `data` raises."""
        return self._stored().outputs

    def to_dictionary(self) -> dict[str, Any]:
        """The run as the store has it, ready for JSON or YAML. Raises what
        `data` raises."""
        return self._stored().to_dictionary()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._stored())

    def _stored(self) -> Run:
        return _stored(self._state)

    def terminate(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """End the run and wait for delivery, at most ``close_timeout``
        seconds. A second call does nothing.

        ``status``: "FINISHED", "FAILED" or "KILLED". ``end_time``: ms since
        the epoch, default now. Events that are not delivered in time stay in
        the spool, and a warning says so; with ``start_run(strict=True)``
        FlushTimeoutError is raised, and DeliveryError for refused events.
        Raises InvalidInputError for a bad ``status`` or ``end_time``.
        """
        receipt = end(self._state, status, end_time)
        if receipt is not None and not delivers_here():  # the engine's thread may run a destructor that calls this
            done = wait_blocking(self._state, receipt, self._state.engine.settings.close_timeout)
            say_outcome(self._state, receipt, done)

    def reopen(self, from_step: int | None = None) -> Self:
        """Take the run up again after its end, for what comes behind a
        training: this object logs again, the run is RUNNING and the active
        one, and has to be ended again. Does not wait for the store. Open
        already, it is only made the active run. ``from_step``: see
        `start_run`. Raises InvalidInputError, SpoolError.

        ``stats()`` counts from here on.
        """
        reopen(self._state, from_step)
        return self

    def __enter__(self) -> ActiveRun:
        activate(self._state)
        self._state.in_block = True
        if self._state.waits and not self._state.confirmed and not delivers_here():
            confirm(self._state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            again = taken_up_again(self._state)
            (self if again is None else _face(again)).terminate(status_of(error))
        except AsynctrackError:
            if error is None:
                raise
            logger.exception("asynctrack: run %s", self.run_id)  # only logged: the block's own exception is raised

    async def __aenter__(self) -> AsyncActiveRun:
        state = self._state
        activate(state)
        state.in_block = True
        if state.waits and not state.confirmed:
            state.confirmed = state.has_waited = True
            receipt = state.engine.created(state.number)
            with entering(state):
                state.stored_params = await ask_on_loop(state.engine, state.question)
                check_created(state, await wait_on_loop(receipt, state.engine.settings.connect_timeout), receipt)
        return AsyncActiveRun(state)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with shielded():
                await AsyncActiveRun(taken_up_again(self._state) or self._state).terminate(status_of(error))
        except AsynctrackError:
            if error is None:
                raise
            logger.exception("asynctrack: run %s", self.run_id)


class AsyncActiveRun(AwaitedRun):
    """An open run in ``async with``, on asyncio or trio. The log verbs are
    plain calls; methods that wait are awaited."""

    __slots__ = ()

    async def info(self) -> RunInfo:
        """The run as the store created it; see `ActiveRun.info`, which raises
        the same."""
        receipt = self._state.engine.created(self._state.number)
        done = await wait_on_loop(receipt, self._state.engine.settings.close_timeout)
        if not done or receipt.result() is None:
            raise not_created(self._state)
        return receipt.result()  # type: ignore[return-value]  # not None: tested above

    def reopen(self, from_step: int | None = None) -> Self:
        """Take the run up again after its end; see `ActiveRun.reopen`."""
        reopen(self._state, from_step)
        return self

    async def terminate(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """End the run and wait for delivery; see `ActiveRun.terminate`, which
        raises the same."""
        receipt = end(self._state, status, end_time)
        if receipt is not None:
            done = await wait_on_loop(receipt, self._state.engine.settings.close_timeout)
            say_outcome(self._state, receipt, done)


def _face(state: RunState) -> ActiveRun:
    """The run's `ActiveRun`: always the same object, as long as anybody holds it."""
    face = None if state.face is None else state.face()
    if face is None:
        face = ActiveRun(state)
        state.face = ref(face)
    return face


def _stored(state: RunState) -> Run:
    """The run as the store has it, with everything that was logged. Raises FlushTimeoutError, a StoreError."""
    timeout = state.engine.settings.close_timeout
    receipt = state.engine.flush(state.number)
    if not wait_blocking(state, receipt, timeout):
        raise timed_out(state, timeout)
    receipt.result()
    return drive(store_for(state.engine.store.uri).get_run(state.run_id))


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
    wait: bool = True,
    shared: bool = False,
    per_rank: str | None = None,
    from_step: int | None = None,
    view: bool = False,
) -> ActiveRun:
    """Open a run and make it the active run of this thread or task.

    Waits, at most ``connect_timeout`` seconds, until the store has created the
    run. A store that is away does not keep the program: a warning says so, and
    the run is created later (see ``on_unreachable`` in `Settings`). On an
    event loop the call does not wait; entering ``async with`` does.

    The positional arguments are those of `mlflow.start_run`. ``run_id``: an
    existing run to log to again (default: ``MLFLOW_RUN_ID``, which is used
    once). ``experiment_name``: created if it is missing. ``tracking_uri``:
    default `get_tracking_uri`. ``strict``: leaving the block raises
    DeliveryError for events that are not delivered, instead of a warning.
    ``wait=False``: nothing is asked of the store, and neither the start nor
    the end of the run waits for it; for sweeps of many short runs. A wrong id
    is then found only in the background, and reported in the log.
    ``shared=True``: one run for all processes that torchrun, Slurm, MPI or the
    ``run_id`` given brings together. Rank 0 creates it. It ends with the last
    process, with the worst status of all (docs/many-processes.md).
    ``per_rank="prefix"`` logs the metric ``loss`` of rank 3 as ``rank/3/loss``.
    ``from_step``: with ``run_id``, training goes on from a checkpoint at this
    step. What was logged at this step and behind is replaced: deleted in files
    and databases; a server cannot, and ``get_metric_history(…,
    branches="latest")`` leaves it out there. A param that has changed becomes
    a tag (see `log_param`). A new run has nothing to replace.
    ``view=True`` prints the address of a page that shows the store's runs,
    live, as long as this program runs (see `asynctrack.view`).
    ``log_system_metrics`` is not available yet; it logs a warning.

    In a notebook or at a prompt, a run that was left open is ended first.

    Raises InvalidInputError; AsynctrackError if a run is active already and
    ``nested`` is false; SpoolError if the spool cannot be written; NotFoundError
    or another `StoreError` if the store refuses the run, has no run ``run_id``
    or ``parent_run_id``, or has deleted it; UnavailableError with
    ``on_unreachable="raise"``.
    """
    flags = {
        "nested": nested,
        "log_system_metrics": log_system_metrics,
        "strict": strict,
        "wait": wait,
        "shared": shared,
        "view": view,
    }
    for name, flag in flags.items():
        flag_of(name, flag)
    if strict and not wait:
        raise InvalidInputError("strict=True raises at the run's end what wait=False does not wait for; give one")
    refuse_unshared(shared, per_rank, from_step)
    parents = open_here()
    if parents and not nested and in_interactive_session() and not any(parent.in_block for parent in parents):
        parents = _end_left(parents)
    if parents and not nested:
        raise AsynctrackError(
            f"run {parents[-1].run_id} is active already; end it first with end_run(), or start a run inside it with "
            "start_run(nested=True)"
        )
    if log_system_metrics:
        logger.warning("asynctrack: log_system_metrics is not available in this version; the run goes on without")
    run_id, parent_run_id = given(run_id), given(parent_run_id)
    named_by_environment = os.environ.get(_RUN_ID) if run_id is None else None
    spec = new_spec(
        run_id=named_by_environment or None if run_id is None else run_id,
        experiment_id=experiment_id,
        experiment_name=experiment_name,
        run_name=run_name,
        parent_run_id=parents[-1].run_id if parent_run_id is None and parents else parent_run_id,
        description=description,
        tags=tags,
        from_step=None if from_step is None else step_of("from_step", from_step),
    )
    share = share_of(spec, per_rank) if shared else None
    spec = spec if share is None else share.spec
    uri = current_store_uri() if given(tracking_uri) is None else tracking_uri
    engine = engine_for(uri)
    if named_by_environment:
        os.environ.pop(_RUN_ID, None)
    chosen_here = spec.run_id is not None or experiment_id is not None or experiment_name is not None
    question = Question(
        run_id=spec.run_id,
        parent=None if parent_run_id is None else foreign_run(run_id_of(parent_run_id)),
        experiment=None if chosen_here else spec.experiment_name,
    )
    # A task that waited here would hold up all others; in a notebook there are none while a cell runs.
    waits_here = wait and not delivers_here() and not (in_event_loop() and not in_interactive_session())
    stored = ask_blocking(engine, question) if waits_here else {}
    state = begun(lambda: engine_for(uri), engine, spec, strict=strict, waits=wait)
    if share is not None:
        state.keys.prefix, state.prints_links = share.prefix, share.first
    state.outer = parents[-1] if parents else None
    state.stored_params = stored
    state.question = state.question if waits_here else question  # for the block
    opened(state)
    if waits_here:
        confirm(state)
    elif wait and spec.run_id is not None and in_event_loop():
        tell_if_refused(state)
    activate(state)
    if view:
        from asynctrack.runs.viewer import announce

        announce(engine.store.uri)
    return _face(state)


def _end_left(states: tuple[RunState, ...]) -> tuple[RunState, ...]:
    """End the runs that a notebook's earlier cell has left open, as its author starts another one, perhaps by running
    the same cell again; those that are open still."""
    for state in reversed(states):
        logger.warning(
            "asynctrack: run %s was still open and is ended as FINISHED, because another one is started; "
            "start_run(nested=True) would start that inside it", state.run_id,
        )  # fmt: skip
        _face(state).terminate()
    return open_here()


def active_run() -> ActiveRun | None:
    """The active run of this thread or task, or None. An asyncio or trio task
    also sees the run in which it was started. Without one it is the only open
    run of the process, if the task or thread that opened it is over (a
    notebook's cell that awaited, say). Raises nothing."""
    state = active_state()
    return None if state is None else _face(state)


def last_active_run() -> ActiveRun | Run | None:
    """The active run of this thread or task, else the one that was active last,
    as the store has it, else None. Without an active run, raises what
    `ActiveRun.data` raises."""
    last = last_state()
    return active_run() or (_stored(last) if last is not None else None)


def logging_run() -> ActiveRun | None:
    """The run that a fluent function logs to, or None if it has to start one.
    Raises what `asynctrack.runs.active.logging_state` raises."""
    state = logging_state()
    return None if state is None else _face(state)

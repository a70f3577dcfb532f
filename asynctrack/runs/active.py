"""Which runs are open in this process, and which of them is active in this thread or task."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING

from asynctrack.clock import monotonic
from asynctrack.current import current_store_uri
from asynctrack.engine.lifecycle import after_fork, engine_for, engine_for_store
from asynctrack.errors import AmbiguousRunError, NoActiveRunError
from asynctrack.runs.asking import stored_params
from asynctrack.runs.log import RunLog
from asynctrack.runs.named import NamedRuns
from asynctrack.runs.origin import in_interactive_session
from asynctrack.runs.spec import attached_spec
from asynctrack.runs.state import RunState
from asynctrack.runs.waiting import timed_out, wait_blocking
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.io import delivers_here, in_event_loop
from asynctrack.stores.uri import resolve_store_uri

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine
    from asynctrack.settings import Settings

__all__ = [
    "activate",
    "active_state",
    "attach_state",
    "attached_run",
    "begun_run",
    "close",
    "detach",
    "flush_all",
    "flush_states",
    "foreign_run",
    "last_state",
    "leave_state",
    "logging_state",
    "open_here",
    "open_states",
    "opened",
    "say_that_nothing_ended",
    "states_of_process",
    "taken_up_again",
]

logger = logging.getLogger("asynctrack")

#: the runs opened in this context (a thread, or an asyncio or trio task), innermost last
_active: ContextVar[tuple[RunState, ...]] = ContextVar("asynctrack_active_runs", default=())
#: every open run of the process
_open: dict[int, RunState] = {}
#: the same, by their ids and uids
_named = NamedRuns()
_last: ContextVar[RunState | None] = ContextVar("asynctrack_last_run", default=None)
#: the same of the whole process, for contexts that a context variable does not reach
_last_anywhere: RunState | None = None

_attaching = threading.RLock()

#: seconds, at least, in which a thread that logs is done with a run's lock: it does not wait for room with that
_MOMENT = 0.5

_has_ended = attrgetter("ended")


# ── the runs of this context


def open_here() -> tuple[RunState, ...]:
    """The open runs of this context, outermost first.

    In an interactive session the runs that its earlier bits have left open are among them, if this context has none of
    its own, or has the run that they are nested in.
    """
    found = list(filterfalse(_has_ended, _active.get()))
    if in_interactive_session():
        alone = not found
        for state in _own_open():
            if state not in found and state.origin.left_here and (alone or state.outer in found):
                found.append(state)
    return tuple(found)


def active_state() -> RunState | None:
    """The active run: the innermost one of this context. Without any, the only open run of the process, if it was left
    open where context variables do not carry it on: by a task or a thread that is over, or by a callback."""
    states = open_here()
    if states:
        return states[-1]
    others = _own_open()
    return others[0] if len(others) == 1 and others[0].origin.left else None


def taken_up_again(state: RunState) -> RunState | None:
    """The same run as it is open in this context once more, after ``state`` has ended; None if it is not. As in MLflow,
    a block ends the run of its id, whoever opened it last."""
    if not state.ended:
        return None
    again = [other for other in open_here() if other.run_id == state.run_id and other.engine is state.engine]
    return again[-1] if again else None


def activate(state: RunState) -> None:
    """Make a run the active one of this context. Raises RunEndedError."""
    global _last_anywhere
    if state.ended:
        raise state.ended_error()
    if state not in _active.get():
        _active.set((*filterfalse(_has_ended, _active.get()), state))
        _last.set(state)
        _last_anywhere = state


def last_state() -> RunState | None:
    """The run that was made active last in this context, or where nobody is any more."""
    last = _last.get()
    return _last_anywhere if last is None and _last_anywhere is not None and _last_anywhere.origin.left else last


def logging_state() -> RunState | None:
    """The run that a fluent function logs to, or None if it has to start one.

    This is the active run; without one, the only open run of the process. In a task, runs of other tasks that still
    run do not count. Raises AmbiguousRunError if several runs are open, NoActiveRunError if they are all other tasks'.
    """
    state = active_state()
    if state is not None:
        return state
    candidates = _own_open()
    if not candidates:
        return None
    here = "thread"
    if in_event_loop():
        here = "task"
        candidates = [state for state in candidates if not state.origin.task_lives]
    if not candidates:
        raise NoActiveRunError(
            "no run is active in this task; open one with `async with asynctrack.start_run()`, or log through the run "
            "object: run.log_metric(…)"
        )
    if len(candidates) > 1:
        raise AmbiguousRunError(
            f"no run is active in this {here}, and {len(candidates)} are open in the process ({_ids(candidates)}); log "
            "through the run object: run.log_metric(…)"
        )
    return candidates[0]


def say_that_nothing_ended() -> None:
    """Warn of runs that somebody who wants to end the active run cannot reach that way."""
    candidates = _own_open()
    if candidates:
        logger.warning(
            "asynctrack: end_run() has ended nothing: no run is active in this %s, but open in this process: %s; end a "
            "run where it was started, or with run.terminate()",
            "task" if in_event_loop() else "thread",
            _ids(candidates),
        )


def _own_open() -> list[RunState]:
    """The runs that were opened in this process, oldest first."""
    return [state for state in states_of_process() if not state.ended and not state.attached]


def _ids(states: list[RunState]) -> str:
    return ", ".join(state.run_id for state in states[:5])


# ── the runs of the process


def opened(state: RunState) -> None:
    """Remember a run that is open from now on."""
    _open[id(state)] = state
    _named.add(state)


def close(state: RunState) -> None:
    """Forget a run that has ended."""
    _forget(state)
    _active.set(tuple(filterfalse(_has_ended, _active.get())))


def _forget(state: RunState) -> None:
    _open.pop(id(state), None)
    _named.remove(state)


def states_of_process() -> list[RunState]:
    """Every open run. In a forked child that includes the runs of the parent."""
    return list(_open.values())


def open_states(uri: str, run_id: str | None = None) -> list[RunState]:
    """The runs that this process has open in the store at ``uri``, or only the run ``run_id``."""
    here = os.getpid()
    states = states_of_process() if run_id is None else _states_of(run_id)
    return [state for state in states if state.engine.store.uri == uri and state.pid == here]


def _states_of(run_id: str) -> list[RunState]:
    """The open runs with this id or uid, in the order in which they were opened."""
    found = _named.find(run_id)
    return found if len(found) < 2 else [state for state in states_of_process() if state in found]


def foreign_run(run_id: str) -> str | None:
    """``run_id``, or None if it is a run that this process has open, or its uid: the store need not know it yet."""
    return None if _states_of(run_id) else run_id


def attached_run(
    run_id: str, tracking_uri: str | None = None, *, store: AbstractStore | None = None, asks: bool = False
) -> RunLog:
    """The log verbs for the run ``run_id``. If it is not open in this process, it is logged to and never ended here.

    The run's store is ``store``, else the one at ``tracking_uri``, else the store of the open run of that id, else the
    current one. ``asks``: raise NotFoundError or RefusedError for a run that the store does not have, or has deleted.
    If nothing is asked, the events of such a run are refused and reported later.
    """
    while True:
        state = _attached_state(run_id, tracking_uri, store=store, asks=asks)
        with _attaching:
            if not state.ended:  # by the last of the others, who has left it meanwhile
                state.attached_for_good = True
                return RunLog(state)


def attach_state(
    run_id: str, tracking_uri: str | None, *, asks: bool = False, settings: Settings | None = None
) -> RunState:
    """The state of the same, for somebody who calls `leave_state` when done with it."""
    while True:
        state = _attached_state(run_id, tracking_uri, asks=asks, settings=settings)
        with _attaching:
            if not state.ended:  # by the last of the others, who has left it meanwhile
                state.attachments += 1
                return state


def leave_state(state: RunState) -> bool:
    """The last who leaves a run that was only attached to has the engine forget it; whether that was so."""
    with ExitStack() as held:
        with _attaching:
            state.attachments -= 1
            last = state.attachments <= 0 and state.attached and not state.attached_for_good
            last = last and held.enter_context(_locked(state, _MOMENT))
            here = last and not state.ended and _stop(state)
        # Without that lock, which whoever attaches to any run needs.
        if here:
            state.engine.journal.write_frame(["end", state.number, "", 0], patience=0.0)
    if last:
        _forget(state)
    return last


def _attached_state(
    run_id: str,
    tracking_uri: str | None,
    *,
    store: AbstractStore | None = None,
    asks: bool = False,
    settings: Settings | None = None,
) -> RunState:
    spec = attached_spec(run_id)
    uri = None if tracking_uri is None else resolve_store_uri(tracking_uri)
    engine = None if store is None else engine_for_store(store)
    found = _open_here_as(spec, engine, uri)
    if found is not None:
        if asks and found.attached and not (found.confirmed or delivers_here() or in_event_loop()):
            # Somebody who could not wait was here first: an awaited service.
            found.stored_params = stored_params(found.engine, spec.run_id or "", store)
            found.confirmed = True
        return found
    engine = engine or engine_for(uri or current_store_uri(), settings)
    stored = stored_params(engine, spec.run_id or "", store) if asks and not delivers_here() else {}
    with _attaching:  # two states of one run would be two lanes, which deliver at the same time
        state = _open_here_as(spec, engine, uri)
        if state is None:
            state = RunState(engine, spec, strict=False, attached=True)
            state.stored_params, state.confirmed = stored, asks
            opened(state)
        return state


def _open_here_as(spec: RunSpec, engine: Engine | None, uri: str | None) -> RunState | None:
    """The run ``spec.run_id``, if this process has it open."""
    for state in _states_of(spec.run_id or ""):
        if state.run_id != spec.run_id or state.ended or (engine is not None and state.engine is not engine):
            continue
        if uri is None or state.engine.store.uri == uri:
            return state
    return None


def begun_run(spec: RunSpec, tracking_uri: str) -> RunLog:
    """The log verbs for a run that is created now, from a spec that was kept. The caller ends it with `detach`."""
    state = RunState(engine_for(tracking_uri), spec, strict=False)
    opened(state)
    return RunLog(state)


def detach(state: RunState, status: str = "", end_time: int = 0, *, patience: float | None = None) -> bool:
    """Forget a run that was attached to; nothing more can be logged through ``state``. With a ``status``, the engine
    sets it and ``end_time`` (ms since the epoch) after it delivered what was logged before.

    It waits for room in the spool for ``patience`` seconds at most, by default ``close_timeout``. False where there is
    none for the ``status``: a log line says so. A second call does nothing.
    """
    if patience is None:
        patience = state.engine.settings.close_timeout
    deadline = monotonic() + patience
    written = False
    with _locked(state, max(patience, _MOMENT)) as locked:
        if locked:
            written = state.ended or not _stop(state, status)
            if not written:
                entry, left = ["end", state.number, status, end_time], max(deadline - monotonic(), 0.0)
                written = state.engine.journal.write_frame(entry, patience=left)
    if state.ended:
        _forget(state)
    if status and not written:
        logger.error(
            "asynctrack: run %s: no room in the spool for its end; its status stays what it is, and not %s",
            state.run_id, status,
        )  # fmt: skip
    return written


def _stop(state: RunState, status: str = "") -> bool:
    """Nothing more is logged through ``state``. Whether that is to be in the journal. With the run's lock held."""
    here = bool(status) or not state.is_absent()  # what is not in the spool needs no end there
    if here:
        state.check_open()
    state.ended = True
    state.streams.clear()
    return here


@contextmanager
def _locked(state: RunState, seconds: float) -> Iterator[bool]:
    """With the run's lock; False where it was not to be had in so many seconds."""
    locked = state.lock.acquire(timeout=seconds)
    try:
        yield locked
    finally:
        if locked:
            state.lock.release()


def flush_all(tracking_uri: str | None = None) -> None:
    """Wait until everything logged in this process, or to the store at ``tracking_uri``, is delivered. Raises
    FlushTimeoutError after ``close_timeout`` seconds."""
    flush_states(states_of_process() if tracking_uri is None else open_states(tracking_uri))


def flush_states(states: Iterable[RunState]) -> None:
    """Wait until everything logged to these runs is delivered. Raises as `flush_all`."""
    waiting = [(state, state.engine.flush(state.number)) for state in states if state.pid == os.getpid()]
    for state, receipt in waiting:
        timeout = state.engine.settings.close_timeout
        if not wait_blocking(state, receipt, timeout):
            raise timed_out(state, timeout)
        receipt.result()


def _forked() -> None:
    global _attaching
    _attaching = threading.RLock()
    for state in _open.values():
        state.knows_id  # noqa: B018  # asked now, while the parent's engine can still answer
        state.lock = threading.RLock()
        state.engine.journal.chain.former.take(state.streams)


after_fork(_forked)

"""How a run ends: by `terminate`, at the end of its block, when its block cannot be entered, with the process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asynctrack.arguments import moment_of, terminal_status
from asynctrack.clock import monotonic
from asynctrack.engine.shutdown import Phase, Shutdown, at_shutdown
from asynctrack.engine.status import status_of
from asynctrack.errors import AsynctrackError, RunEndedError, StoreError
from asynctrack.runs.active import close, states_of_process
from asynctrack.runs.asking import ask_blocking
from asynctrack.runs.links import print_links
from asynctrack.runs.state import RunState
from asynctrack.runs.waiting import not_created, raise_refused, timed_out
from asynctrack.stores.io import call_soon

if TYPE_CHECKING:
    from asynctrack.delivery.receipts import Receipt
    from asynctrack.entities import RunInfo

__all__ = ["check_created", "confirm", "end", "entering", "say_outcome", "tell_if_refused"]

logger = logging.getLogger("asynctrack")


@contextmanager
def entering(state: RunState) -> Iterator[None]:
    """End the run if entering its block fails (refused, unreachable, cancelled, Ctrl-C): ``__exit__`` is not called
    then."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, StoreError) and not error.retryable:
            # There is no run whose end could be stored: what is said here must not be reported once more as refused.
            close_refused(state)
        else:
            end(state, status_of(error), None)
        # The store did not answer or refused us: the interpreter's exit must not wait for it again.
        state.engine.gave_up |= isinstance(error, StoreError)
        raise


def confirm(state: RunState) -> None:
    """Wait, at most ``connect_timeout`` seconds, until the store has created the run. Raises what `check_created` does;
    the run is ended then."""
    state.confirmed = state.has_waited = True
    receipt = state.engine.created(state.number)
    with entering(state):
        if state.question:
            state.stored_params = ask_blocking(state.engine, state.question)
        check_created(state, receipt.wait(state.engine.settings.connect_timeout), receipt)


def check_created(state: RunState, done: bool, receipt: Receipt[RunInfo | None]) -> None:
    """Raise or log that the run is not created yet, according to ``on_unreachable``. Raises what the store raised."""
    if done:
        receipt.result()
    elif state.engine.settings.on_unreachable == "raise":
        raise not_created(state)
    else:
        logger.warning("asynctrack: %s. The run goes on meanwhile", not_created(state))


def end(state: RunState, status: str, end_time: int | None) -> Receipt[RunInfo | None] | None:
    """Log the run's end and return a receipt for everything before it; None if it has ended already. Raises
    InvalidInputError."""
    # Checked before any state changes: otherwise the run would count as ended, and its end would never be written.
    name, moment = terminal_status(status), moment_of("end_time", end_time, time.time_ns() // 1_000_000)
    try:
        return state.end(name, moment)
    finally:
        # If Ctrl-C interrupted the write, the run stays open here, and its end is written at the interpreter's exit.
        if state.end_is_written:
            close(state)


def close_refused(state: RunState) -> None:
    """Be done with a run that the store has refused to create, or does not have."""
    try:
        state.log_end("", 0, state.engine.settings.close_timeout)
    finally:
        if state.end_is_written:
            close(state)


def tell_if_refused(state: RunState) -> None:
    """Log that the store has no such run, once that is known. For a run that is started on an event loop, where the
    call does not wait; entering its block raises that instead."""
    receipt = state.engine.created(state.number)
    soon = call_soon()

    def told() -> None:
        if not state.confirmed:
            try:
                receipt.result()
            except StoreError as error:
                logger.error("asynctrack: run %s: %s; nothing that is logged to it will be stored", state.run_id, error)

    # On the loop, where the block is entered before: the engine may be faster than the task that starts the run.
    receipt.when_done(lambda: soon(told))


def say_outcome(state: RunState, receipt: Receipt[RunInfo | None], done: bool) -> None:
    """Log what was not delivered, or raise it with ``strict``."""
    try:
        if not done:
            state.engine.gave_up = True
            raise timed_out(state, state.engine.settings.close_timeout)
        print_links(state, receipt.result())
        raise_refused(state)
    except AsynctrackError as error:
        if state.strict:
            raise
        logger.warning("asynctrack: %s", error)


def _end_open_runs(ending: Shutdown) -> None:
    """End the runs that are still open when the process ends."""
    # Without the parent's runs that this forked child never logged to.
    states = [state for state in states_of_process() if state.pid == os.getpid()]
    if ending.signal and not all(state.attached for state in states):
        logger.warning(
            "asynctrack: %s: ending open runs as KILLED, delivering for at most %g s", ending.signal, ending.seconds
        )
    for state in states:
        try:
            # One deadline for all runs.
            left = ending.deadline(state.engine) - monotonic()
            ended = state.log_end(ending.status, time.time_ns() // 1_000_000, max(left, 0.0))
            lane = state.engine.lane(state.number)
            if ended and lane is not None and not ending.signal:
                print_links(state, lane.info)
        except (AsynctrackError, OSError, RunEndedError) as error:
            logger.error("asynctrack: run %s could not be ended: %s", state.run_id, error)
        finally:
            close(state)


at_shutdown(Phase.ENDING_RUNS, _end_open_runs)

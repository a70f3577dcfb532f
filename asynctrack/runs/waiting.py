"""Waiting for the engine in a thread or a task, and the errors that follow a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrack.engine.progress import Waiting
from asynctrack.errors import AsynctrackError, DeliveryError, FlushTimeoutError, UnavailableError
from asynctrack.stores.io import delivers_here

if TYPE_CHECKING:
    from anyio import CancelScope

    from asynctrack.delivery.receipts import Receipt
    from asynctrack.runs.state import RunState

__all__ = [
    "in_thread",
    "not_created",
    "pause_on_loop",
    "raise_refused",
    "shielded",
    "timed_out",
    "wait_blocking",
    "wait_on_loop",
]

T = TypeVar("T")

_FOREVER = 1e9


def wait_blocking(state: RunState, receipt: Receipt[Any], timeout: float | None) -> bool:
    """Block this thread, with a progress line, until the receipt is settled; False after ``timeout`` seconds (None: no
    limit). Raises AsynctrackError in a thread that delivers, because it would wait for itself."""
    if delivers_here():
        raise AsynctrackError(
            f"run {state.run_id}: this thread delivers (it calls on_error and some destructors), so it cannot wait for "
            "delivery; wait in another thread"
        )
    with Waiting(state.engine.pending, state.engine.pending_artifact_bytes) as waiting:
        return waiting.until(receipt.wait, _FOREVER if timeout is None else timeout)


async def wait_on_loop(receipt: Receipt[Any], timeout: float | None) -> bool:  # noqa: ASYNC109  # as flush
    """Wait in a task (asyncio, trio) until the receipt is settled; False after ``timeout`` seconds (None: no limit)."""
    from anyio import move_on_after

    if not receipt.done:
        with move_on_after(timeout):
            await receipt.wait_async()
    return receipt.done


async def in_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns, which reads files, and holds up no other task."""
    from anyio.to_thread import run_sync

    return await run_sync(work)


async def pause_on_loop(seconds: float) -> None:
    """Let other tasks go on for so long."""
    from anyio import sleep

    await sleep(seconds)


def shielded() -> CancelScope:
    """A scope in a task that is seen through when the task is cancelled: its waits have a time limit of their own."""
    from anyio import CancelScope

    return CancelScope(shield=True)


def timed_out(state: RunState, timeout: float | None) -> FlushTimeoutError:
    """The error that says how many events are not delivered after ``timeout`` seconds, and where they are kept."""
    stats = state.stats()
    # A database that others keep locked is waited for; until the wait has failed, nobody knows more.
    said = stats.last_error or ("" if stats.delivered or state.engine.offline else "no answer yet")
    why = f" ({said})" if said else ""
    what = f"{stats.pending} of {stats.accepted} events are" if stats.pending else "its start or its end is"
    where = state.engine.journal.spool.path
    kept = f"that is kept in {where} and goes on being delivered" if where else "that is kept in memory only"
    new = stats.dropped - state.told_dropped
    lost = f". Besides, {new} events of this process were dropped, because the spool was full" if new > 0 else ""
    return FlushTimeoutError(
        f"run {state.run_id}: {what} not in {state.engine.store.uri} after {timeout:g} s{why}; {kept}{lost}"
    )


def raise_refused(state: RunState) -> None:
    """Raise DeliveryError for events that were refused or dropped since the last call."""
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
    where = state.engine.journal.spool.refusals.place
    raise DeliveryError(
        f"run {state.run_id}: {state.engine.store.uri} refused {new} events: {reasons}. They are kept in {where}."
    )


def not_created(state: RunState) -> UnavailableError:
    """The error that says why the store has not created the run, and where its events are kept."""
    if state.engine.offline:
        return UnavailableError(
            f"run {state.spec.uid} is offline: {state.engine.store.uri} knows it, and gives it its info, only once "
            f"`asynctrack sync` has delivered {state.engine.journal.spool.path}"
        )
    error = state.stats().last_error or "no answer yet"
    return UnavailableError(
        f"run {state.run_id or state.spec.uid} could not be created in {state.engine.store.uri}: {error}. What is "
        f"logged is kept in {state.engine.journal.spool.place}"
    )

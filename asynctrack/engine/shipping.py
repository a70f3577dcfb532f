"""Delivering spools without logging: what the shipper process and ``asynctrack sync`` do with a `Pump`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from asynctrack.engine.batcher import Lane, Work
from asynctrack.engine.pump import Pump
from asynctrack.engine.source import Loaded, Source

__all__ = ["ship"]

#: longest pause in seconds between two looks at whether to stop
_TICK = 0.5
#: seconds for closing the store's connections
_GOODBYE = 1.0


async def ship(
    pump: Pump, stop: Callable[[bool], bool], *, wake: Callable[[Callable[[], None]], None] | None = None
) -> None:
    """Deliver what is in the pump's sources until ``stop(idle)`` is true; it is asked after each round.

    ``idle``: everything that can be read now is delivered. ``wake`` is given a function that any thread may call to
    have the next round at once. Runs on asyncio or trio; cancelling it leaves the rest in the spools.
    """
    import anyio
    from anyio.lowlevel import current_token

    native: Any = current_token().native_token
    soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    event = anyio.Event()
    if wake is not None:
        wake(lambda: soon(lambda: event.set()))

    async def step(source: Source, lane: Lane, work: Work) -> None:
        try:
            await pump.step(source, lane, work)
        finally:
            event.set()

    try:
        async with anyio.create_task_group() as steps:
            while True:
                event = anyio.Event()
                pump.take_over()
                found = pump.load()
                for due in pump.due():
                    steps.start_soon(step, *due)
                pump.publish()
                if stop(pump.drained and not found & {Loaded.MORE, Loaded.NO_ROOM}):
                    steps.cancel_scope.cancel()
                    break
                with anyio.move_on_after(_pause(pump, found)):
                    await event.wait()
    finally:
        with anyio.move_on_after(_GOODBYE, shield=True):
            await pump.store.aclose()  # its connections belong to this loop


def _pause(pump: Pump, found: set[Loaded]) -> float:
    if Loaded.MORE in found:
        return 0.0
    return max(min(_TICK, pump.settings.flush_interval, pump.next_retry() - time.monotonic()), 0.0)

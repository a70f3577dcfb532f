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

    ``idle``: everything that could be read at the last look is delivered. Where all was read, the next look is
    `Settings.flush_interval` later, so that a program that logs a little all the time gets batches. ``wake`` is given a
    function that any thread may call to have a look at once. Runs on asyncio or trio; cancelling it leaves the rest in
    the spools.
    """
    import anyio
    from anyio.lowlevel import current_token

    native: Any = current_token().native_token
    soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    event = anyio.Event()
    look_at = 0.0
    found: set[Loaded] = set()

    def woken() -> None:
        nonlocal look_at
        look_at = 0.0
        event.set()

    if wake is not None:
        wake(lambda: soon(woken))

    async def step(source: Source, lane: Lane, work: Work) -> None:
        nonlocal look_at
        try:
            await pump.step(source, lane, work)
        finally:
            if Loaded.NO_ROOM in found or pump.can_catch_up or (source.adopted and source.drained):
                look_at = 0.0  # there is room now; or nothing comes any more, and the spool is deleted at once
            event.set()

    try:
        async with anyio.create_task_group() as steps:
            while True:
                event = anyio.Event()
                if pump.take_over() or time.monotonic() >= look_at:
                    look_at = time.monotonic() + _until_next(pump)
                    found = pump.load()
                    if Loaded.MORE in found:
                        look_at = 0.0
                for due in pump.due():
                    steps.start_soon(step, *due)
                pump.publish()
                if stop(pump.drained and not found & {Loaded.MORE, Loaded.NO_ROOM}):
                    steps.cancel_scope.cancel()
                    break
                rest = min(look_at, pump.next_retry()) - time.monotonic()
                with anyio.move_on_after(min(max(rest, 0.0), _TICK)):
                    await event.wait()
    finally:
        with anyio.move_on_after(_GOODBYE, shield=True):
            await pump.store.aclose()  # its connections belong to this loop


def _until_next(pump: Pump) -> float:
    """Seconds from one look to the next."""
    interval = pump.settings.flush_interval
    # Nothing is added to a dead process's spool, but how that has ended may become known any moment.
    return interval if all(source.followed for source in pump.sources) else min(interval, _TICK)

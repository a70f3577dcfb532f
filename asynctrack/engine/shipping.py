"""Delivering spools without logging: what the shipper process and ``asynctrack sync`` do with a `Pump`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.work import Work
from asynctrack.stores.io import call_soon, delivering_for_good

__all__ = ["make_own_loop", "ship"]

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

    soon = call_soon()
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
            if Loaded.NO_ROOM in found or pump.can_catch_up(source, lane) or (source.adopted and source.drained):
                look_at = 0.0  # there is room now; or nothing comes any more, and the spool is deleted at once
            event.set()

    try:
        async with anyio.create_task_group() as steps:
            while True:
                event = anyio.Event()
                if pump.take_over() or monotonic() >= look_at:
                    look_at = monotonic() + _until_next(pump)
                    found = pump.load()
                    if Loaded.MORE in found:
                        look_at = 0.0
                for due in pump.due():
                    steps.start_soon(step, *due)
                pump.publish()
                if stop(pump.drained and not found & {Loaded.MORE, Loaded.NO_ROOM}):
                    steps.cancel_scope.cancel()
                    break
                rest = min(look_at, pump.next_retry()) - monotonic()
                with anyio.move_on_after(min(max(rest, 0.0), _TICK)):
                    await event.wait()
    finally:
        with anyio.move_on_after(_GOODBYE, shield=True):
            await pump.store.aclose()  # its connections belong to this loop


def make_own_loop() -> None:
    """Make this asyncio loop one that delivers: its naps end when the program has stopped the clock, too, and a
    destructor in one of its threads (where names are looked up, and files opened) does not wait for delivery."""
    import asyncio

    loop: Any = asyncio.get_running_loop()
    in_executor = loop.run_in_executor
    with suppress(AttributeError):  # another kind of loop, by the program's policy
        loop.time = monotonic
        loop.run_in_executor = lambda executor, function, *args: in_executor(
            executor, delivering_for_good, function, *args
        )


def _until_next(pump: Pump) -> float:
    """Seconds from one look to the next."""
    interval = pump.settings.flush_interval
    # Nothing is added to a dead process's spool, but how that has ended may become known any moment.
    return interval if all(source.followed for source in pump.sources) else min(interval, _TICK)

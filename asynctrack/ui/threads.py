"""Blocking work beside an event loop, in threads that nobody waits for at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from traceback import clear_frames
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """What a function returns, or raises. A store that does not answer keeps its thread, but not the end of the
    process, as a pool of threads would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return  # who asked has gone
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may be Optional itself

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # it is raised where it is awaited
            error = raised
            # Its traceback holds the frames that it passed, with all that they worked on, until garbage is collected.
            clear_frames(raised.__traceback__)
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    threading.Thread(target=work, name="asynctrack-view", daemon=True).start()
    return await future

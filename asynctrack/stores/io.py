"""How a store waits.

A store's methods are written once, as coroutines over one of these. On the event loop they hop to a worker thread;
in a plain thread, and at interpreter exit when no thread pool works any more, the same coroutines run straight
through (`drive`), because nothing in them ever suspends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, TypeVarTuple

__all__ = ["InlineIO", "StoreIO", "ThreadedIO", "drive", "write_file_atomically"]

T = TypeVar("T")
Args = TypeVarTuple("Args")


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its end, without an event loop, in the calling thread."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is untyped
    work.close()
    raise RuntimeError(f"{work!r} suspended, but only work over InlineIO can run without an event loop")


def write_file_atomically(path: str, data: bytes) -> None:
    """Replace ``path``: a reader sees the old bytes or the new ones, also after a crash. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        _remove_quietly(temporary)
        raise


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _remove_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the error that brought us here is the one to report


class StoreIO(Protocol):
    """The blocking work a file-like store needs."""

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run one blocking function: one thread hop on the event loop, none elsewhere."""

    async def read(self, path: str) -> bytes:
        """A whole file. Raises OSError."""

    async def replace(self, path: str, data: bytes) -> None:
        """`write_file_atomically`. Raises OSError."""


class InlineIO:
    """In the calling thread. For the blocking faces and for interpreter exit."""

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return function(*args)

    async def read(self, path: str) -> bytes:
        return _read_file(path)

    async def replace(self, path: str, data: bytes) -> None:
        write_file_atomically(path, data)


class ThreadedIO:
    """On the event loop (asyncio or trio): worker threads through anyio and aiofiles."""

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        from anyio import to_thread

        return await to_thread.run_sync(function, *args)

    async def read(self, path: str) -> bytes:
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return await self.call(_read_file, path)  # trio, which aiofiles does not know
        import aiofiles

        async with aiofiles.open(path, "rb") as file:
            return await file.read()

    async def replace(self, path: str, data: bytes) -> None:
        await self.call(write_file_atomically, path, data)

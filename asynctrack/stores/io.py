"""How a store waits.

A store's methods are written once, as coroutines over one of these. On the event loop they hop to a worker thread;
in a plain thread, and at interpreter exit when no thread pool works any more, the same coroutines run straight
through (`drive`), because nothing in them ever suspends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import IO, Any, Protocol, TypeVar, TypeVarTuple

from asynctrack.errors import UnavailableError

__all__ = [
    "PIECE",
    "InlineIO",
    "StoreIO",
    "ThreadedIO",
    "deliver_here",
    "delivers_here",
    "drive",
    "in_event_loop",
    "this_loop",
    "write_file_atomically",
]

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: bytes of one piece of a streamed file: large enough that a thread hop for each costs nothing
PIECE = 1 << 20

_thread = threading.local()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its end, without an event loop, in the calling thread."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is untyped
    work.close()
    raise RuntimeError(f"{work!r} suspended, but only work over InlineIO can run without an event loop")


def this_loop() -> object:
    """The asyncio or trio loop that runs here, to be compared: what belongs to one cannot be used in another."""
    from anyio.lowlevel import current_token

    return current_token()


def write_file_atomically(path: str, data: bytes, durable: bool = True) -> None:
    """Replace ``path``: a reader sees the old bytes or the new ones, also after a power cut. Raises OSError.

    Without ``durable``, for a file that did not exist before, the disk begins to write but is not waited for (an fsync
    takes from 0.4 ms on an idle disk to 10 on a busy one): a power cut in that moment can leave an empty file.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            else:
                _begin_writing(file.fileno(), len(data))
        os.replace(temporary, path)
    except BaseException:
        _remove_quietly(temporary)
        raise


def _begin_writing(fd: int, size: int) -> None:
    # What is said to be needed no more is written at once, not in the half minute that the kernel gives itself. But for
    # the last byte: a page that is needed in part is not dropped, for which Linux may wait for every processor.
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # it is advice
            os.posix_fadvise(fd, 0, max(size - 1, 1), os.POSIX_FADV_DONTNEED)


def _open_file(path: str) -> IO[bytes]:
    return open(path, "rb", buffering=0)


def _read_file(path: str) -> bytes:
    with _open_file(path) as file:
        return file.read()


def _pieces(file: IO[bytes], path: str, length: int | None) -> Iterator[bytes]:
    left = length
    while left is None or left > 0:
        piece = file.read(PIECE if left is None else min(PIECE, left))
        if not piece:
            break
        left = None if left is None else left - len(piece)
        yield piece
    _check_complete(path, left)


async def _pieces_async(file: Any, path: str, length: int | None) -> AsyncGenerator[bytes, None]:
    left = length
    while left is None or left > 0:
        piece = await file.read(PIECE if left is None else min(PIECE, left))
        if not piece:
            break
        left = None if left is None else left - len(piece)
        yield piece
    _check_complete(path, left)


def _check_complete(path: str, missing: int | None) -> None:
    if missing:
        raise UnavailableError(f"{path} became {missing} bytes shorter while it was read; do not write to it meanwhile")


def in_event_loop() -> bool:
    """Whether this thread runs an event loop: then nothing may block it."""
    # Another thread may be importing either.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    in_trio_run = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_run", None)
    return (running_loop is not None and running_loop() is not None) or (in_trio_run is not None and in_trio_run())


def deliver_here() -> None:
    """Say that this thread delivers from now on."""
    _thread.delivers = True


def delivers_here() -> bool:
    """Whether this thread delivers: what waits in it for the delivery waits for itself."""
    return getattr(_thread, "delivers", False)


def _delivering(function: Callable[[*Args], T], *args: *Args) -> T:
    _thread.delivers = True
    try:
        return function(*args)
    finally:
        _thread.delivers = False


def _on_asyncio() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False  # trio, which aiofiles does not know
    return True


def _remove_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the error that brought us here is the one to report


class StoreIO(Protocol):
    """The blocking work a file-like store needs."""

    #: whether everything happens in the calling thread, without ever suspending
    blocking: bool

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run one blocking function: one thread hop on the event loop, none elsewhere."""

    async def read(self, path: str) -> bytes:
        """A whole file. Raises OSError."""

    async def replace(self, path: str, data: bytes, durable: bool) -> None:
        """`write_file_atomically`. Raises OSError."""

    def stream(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[Iterable[bytes] | AsyncIterable[bytes]]:
        """The ``length`` bytes (None: all) of a file from ``offset`` on, in pieces of at most 1 MiB.

        What the block gets is what httpx takes as content: to be iterated once, with ``async for`` on an event loop
        and with ``for`` elsewhere. A file that grows does no harm when ``length`` is given; one that has become
        shorter raises `UnavailableError` from the iteration. Raises OSError.
        """


class InlineIO:
    """In the calling thread. For the blocking faces and for interpreter exit."""

    blocking = True

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return function(*args)

    async def read(self, path: str) -> bytes:
        return _read_file(path)

    async def replace(self, path: str, data: bytes, durable: bool) -> None:
        write_file_atomically(path, data, durable)

    @asynccontextmanager
    async def stream(self, path: str, offset: int = 0, length: int | None = None) -> AsyncIterator[Iterable[bytes]]:
        with _open_file(path) as file:
            file.seek(offset)
            yield _pieces(file, path, length)


class ThreadedIO:
    """On the event loop (asyncio or trio): worker threads through anyio and aiofiles."""

    blocking = False

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        from anyio import to_thread

        return await to_thread.run_sync(_delivering, function, *args)

    async def read(self, path: str) -> bytes:
        if not _on_asyncio():
            return await self.call(_read_file, path)
        import aiofiles

        async with aiofiles.open(path, "rb") as file:
            return await file.read()

    async def replace(self, path: str, data: bytes, durable: bool) -> None:
        await self.call(write_file_atomically, path, data, durable)

    @asynccontextmanager
    async def stream(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        import anyio

        if _on_asyncio():
            import aiofiles

            file: Any = await aiofiles.open(path, "rb")
            close: Callable[[], Coroutine[Any, Any, None]] = file.close
        else:
            file = await anyio.open_file(path, "rb")
            close = file.aclose
        try:
            await file.seek(offset)
            pieces = _pieces_async(file, path, length)
            try:
                yield pieces
            finally:
                await pieces.aclose()  # a connection that broke has left it in the middle
        finally:
            with anyio.CancelScope(shield=True):
                await close()

"""How a store blocks: `StoreIO`, and its two implementations.

The methods of a store are coroutines that block only through a `StoreIO`. With `ThreadedIO`, on an event loop, the
blocking work is done in a worker thread. With `InlineIO` it is done in the calling thread, and the coroutine never
suspends, so `drive` runs it without a loop: in blocking calls, and at interpreter exit, when no thread pool works any
more.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

from asynctrack.errors import UnavailableError

if TYPE_CHECKING:
    from anyio import CancelScope

__all__ = [
    "PIECE",
    "InlineIO",
    "StoreIO",
    "ThreadedIO",
    "call_soon",
    "cancel_scope",
    "deliver_here",
    "delivering_for_good",
    "delivers_here",
    "drive",
    "in_event_loop",
    "loop_time",
    "this_loop",
    "this_task",
    "write_file_atomically",
]

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: bytes of one piece of a streamed file: so large that the thread switch for each piece does not matter
PIECE = 1 << 20

_thread = threading.local()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop, in the calling thread. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is untyped
    work.close()
    raise RuntimeError(f"{work!r} suspended, but only work over InlineIO can run without an event loop")


def this_loop() -> object:
    """An object that identifies the asyncio or trio loop that runs here: connections belong to one loop."""
    from anyio.lowlevel import current_token

    return current_token()


def call_soon() -> Callable[[Callable[[], object]], None]:
    """A function that any other thread may call to run something in the loop that runs here (asyncio or trio). It does
    not wait. It raises RuntimeError once the loop has ended."""
    from anyio.lowlevel import current_token

    token = current_token()
    native = getattr(token, "native_token", token)  # before anyio 4.11 the token is the loop's own
    for name in ("call_soon_threadsafe", "run_sync_soon"):  # asyncio's loop, trio's token
        if hasattr(native, name):
            soon: Callable[[Callable[[], object]], None] = getattr(native, name)
            return soon
    raise RuntimeError(f"asynctrack runs on asyncio and trio, not on {type(native).__name__}")


def cancel_scope() -> CancelScope:
    """A scope in a coroutine that can be cancelled alone, or after a time; on asyncio and trio."""
    from anyio import CancelScope

    return CancelScope()


def loop_time() -> float:
    """The time, in seconds, of the clock that a `cancel_scope` uses."""
    from anyio import current_time

    return current_time()


def write_file_atomically(path: str, data: bytes, durable: bool = True) -> None:
    """Replace ``path``: a reader sees either the old bytes or the new ones, also after a power cut. Raises OSError.

    With ``durable=False``, for a file that did not exist before, the disk starts to write, but nobody waits for it (an
    fsync takes from 0.4 ms on an idle disk to 10 ms on a busy one). A power cut at that moment can leave an empty file.
    """
    # A name never used before: two threads, or two hosts that share the folder, must not write into one file.
    temporary = f"{path}.{os.getpid()}-{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
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
    # The kernel writes pages to disk within half a minute, but pages marked as not needed it writes at once. The last
    # byte is left out, so the last page stays needed: to drop a page, Linux may have to wait for every processor.
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # it is advice
            os.posix_fadvise(fd, 0, max(size - 1, 1), os.POSIX_FADV_DONTNEED)


def _open_file(path: str) -> IO[bytes]:
    return open(path, "rb", buffering=0)


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
    """Whether this thread runs an event loop, and must not be blocked."""
    # With getattr, because another thread may be importing asyncio or trio at this moment.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    in_trio_run = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_run", None)
    return (running_loop is not None and running_loop() is not None) or (in_trio_run is not None and in_trio_run())


def this_task() -> Any | None:
    """The asyncio or trio task that runs here; None in a plain thread, and in a callback of a loop."""
    for name in ("asyncio", "trio.lowlevel"):
        current_task = getattr(sys.modules.get(name), "current_task", None)
        try:
            task = None if current_task is None else current_task()
        except RuntimeError:
            task = None  # that loop does not run here
        if task is not None:
            return task
    return None


def deliver_here() -> None:
    """Mark this thread as one that delivers."""
    _thread.delivers = True


def delivers_here() -> bool:
    """Whether this thread delivers. Waiting for delivery in it would never end."""
    return getattr(_thread, "delivers", False)


def _delivering(function: Callable[[*Args], T], *args: *Args) -> T:
    before, _thread.delivers = delivers_here(), True
    try:
        return function(*args)
    finally:
        _thread.delivers = before


def delivering_for_good(function: Callable[[*Args], T], *args: *Args) -> T:
    """Call a function in a helper thread of a loop that delivers. A destructor may run in that thread between two
    calls, too: while the outcome of one is handed over, say."""
    _thread.delivers = True
    return function(*args)


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
        pass  # the caller reports the error that came before


class StoreIO(Protocol):
    """The blocking operations of a store."""

    #: whether all work is done in the calling thread, so that a coroutine never suspends
    blocking: bool

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run a blocking function: on an event loop in a worker thread, elsewhere in the calling thread."""

    def stream(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[Iterable[bytes] | AsyncIterable[bytes]]:
        """A context manager: ``length`` bytes (None: all) of a file from ``offset`` on, in pieces of at most 1 MiB.

        It gives an iterable that httpx takes as content. Iterate it once: with ``async for`` on an event loop, with
        ``for`` elsewhere. If the file has become shorter than ``length``, the iteration raises `UnavailableError`. If
        it grows, nothing changes. Raises OSError.
        """


class InlineIO:
    """Does the work in the calling thread. For blocking services and for interpreter exit."""

    blocking = True

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return function(*args)

    @asynccontextmanager
    async def stream(self, path: str, offset: int = 0, length: int | None = None) -> AsyncIterator[Iterable[bytes]]:
        with _open_file(path) as file:
            file.seek(offset)
            yield _pieces(file, path, length)


class ThreadedIO:
    """Does the work in worker threads (anyio, aiofiles). For event loops, asyncio or trio."""

    blocking = False

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        from anyio import to_thread

        # The worker threads of a loop that delivers work for nobody else.
        marked = delivering_for_good if delivers_here() else _delivering
        return await to_thread.run_sync(marked, function, *args)

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
                await pieces.aclose()  # when the connection broke, the iteration stopped in the middle
        finally:
            with anyio.CancelScope(shield=True):
                await close()

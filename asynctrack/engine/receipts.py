"""What a caller waits on: set once by the engine, awaited from any thread or from an asyncio or trio task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Receipt"]

T = TypeVar("T")


class Receipt(Generic[T]):
    """A promise of the engine. Any thread may wait; the engine's thread resolves it and never waits for a waiter."""

    __slots__ = ("_callbacks", "_done", "_error", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._callbacks: list[Callable[[], object]] = []
        self._value: T | None = None
        self._error: BaseException | None = None

    def resolve(self, value: T) -> None:
        """Fulfil the promise; a second call changes nothing."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Break the promise: every waiter gets ``error``."""
        self._settle(None, error)

    @property
    def done(self) -> bool:
        """Whether it is settled, one way or the other."""
        return self._done.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread for at most ``timeout`` seconds; whether it was settled."""
        return self._done.wait(timeout)

    async def wait_async(self) -> None:
        """Wait without blocking the running asyncio or trio loop. Cancellable; bound it with a cancel scope."""
        import anyio

        event = anyio.Event()
        soon = _call_soon()
        self._when_done(lambda: soon(event.set))
        await event.wait()

    def result(self) -> T:
        """The value of a settled receipt, or the error raised."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # settled without an error: it is a T

    def _when_done(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._value, self._error = value, error
            callbacks, self._callbacks = self._callbacks, []
            self._done.set()
        for callback in callbacks:
            try:
                callback()
            except RuntimeError:
                pass  # the waiter's loop has ended without waiting for us


def _call_soon() -> Callable[[Callable[[], object]], object]:
    """How to run a function in the current loop from another thread, without waiting for it to run."""
    from anyio.lowlevel import current_token

    native = current_token().native_token
    for name in ("call_soon_threadsafe", "run_sync_soon"):  # asyncio's loop, trio's token
        if hasattr(native, name):
            soon: Callable[[Callable[[], object]], object] = getattr(native, name)
            return soon
    raise RuntimeError(f"asynctrack runs on asyncio and trio, not on {type(native).__name__}")

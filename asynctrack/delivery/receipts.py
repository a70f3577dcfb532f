"""What a caller waits on: settled once by the engine, awaited from any thread or from an asyncio or trio task."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from asynctrack.errors import AsynctrackError
from asynctrack.reentrant import Gate
from asynctrack.stores.io import call_soon

__all__ = ["Receipt"]

T = TypeVar("T")

#: what a forked child is told: its parent's engine is not there, and nobody else would ever settle it
_ELSEWHERE = (
    "this receipt is of the process that has forked this one, and delivers what it stands for: wait for it there, or "
    "for what was logged here with flush()"
)


class Receipt(Generic[T]):
    """A promise of the engine. Any thread may wait; the engine's thread settles it and never waits for a waiter.

    There is no lock in it: a signal handler may interrupt a thread anywhere in here, and wait for the same receipt.
    Appending to a list and taking from it are single steps that no other thread can interrupt.
    """

    __slots__ = ("_asks", "_callbacks", "_outcomes", "_pid")

    def __init__(self, ask: Callable[[Receipt[T]], None] | None = None) -> None:
        """``ask`` is called once, when somebody first wants to know: it has the engine settle this receipt."""
        self._pid = os.getpid()
        self._asks = [] if ask is None else [ask]
        self._callbacks: list[Callable[[], object]] = []
        #: value and error, exactly one of which counts; the first entry is the outcome
        self._outcomes: list[tuple[T | None, BaseException | None]] = []

    def resolve(self, value: T) -> None:
        """Fulfil the promise; a second call changes nothing."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Break the promise: every waiter gets ``error``."""
        self._settle(None, error)

    @property
    def done(self) -> bool:
        """Whether it is settled, one way or the other."""
        if not self._outcomes:
            self._ask()
        return bool(self._outcomes)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread for at most ``timeout`` seconds; whether it was settled."""
        if not self.done:
            settled = Gate()
            wake = settled.set
            self.when_done(wake)
            try:
                settled.wait(timeout)
            finally:
                self._forget(wake)
        return bool(self._outcomes)

    async def wait_async(self) -> None:
        """Wait without blocking the running asyncio or trio loop. Cancellable; bound it with a cancel scope."""
        import anyio

        event = anyio.Event()
        soon = call_soon()

        def wake() -> None:
            soon(event.set)

        if not self.done:
            self.when_done(wake)
            try:
                await event.wait()
            finally:
                self._forget(wake)

    def result(self) -> T:
        """The value of a settled receipt, or the error raised."""
        value, error = self._outcomes[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # settled without an error: it is a T

    def _ask(self) -> None:
        if self._pid != os.getpid():
            self.fail(AsynctrackError(_ELSEWHERE))
            return
        try:
            ask = self._asks.pop()
        except IndexError:
            return  # somebody has asked already
        ask(self)

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call something once it is settled: in the engine's thread, or at once."""
        if not self._outcomes:
            self._ask()
        self._callbacks.append(callback)
        if self._outcomes:
            self._call_back()

    def _forget(self, callback: Callable[[], object]) -> None:
        try:
            self._callbacks.remove(callback)
        except ValueError:
            pass  # it was called just now

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        self._outcomes.append((value, error))
        self._call_back()

    def _call_back(self) -> None:
        while True:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            try:
                callback()
            except RuntimeError:
                pass  # the waiter's loop has ended without waiting for us

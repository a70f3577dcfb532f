"""`RunOperations`: what a log function returns with ``synchronous=False``."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import timeout_of
from asynctrack.runs.waiting import raise_refused, timed_out, wait_blocking

if TYPE_CHECKING:
    from asynctrack.runs.log import RunLog

__all__ = ["RunOperations"]


class RunOperations:
    """Tells when what was logged to a run until now is delivered: `wait` in a
    thread, or await it on asyncio or trio. Both are optional.

    Awaiting raises what `wait` raises.
    """

    __slots__ = ("_receipt", "_state")

    def __init__(self, log: RunLog) -> None:
        self._state = log._state
        self._receipt = self._state.engine.flushed(self._state.number)

    def __repr__(self) -> str:
        return f"<RunOperations of run {self._state.run_id}: {'done' if self.done else 'on their way'}>"

    @property
    def done(self) -> bool:
        """Whether everything is delivered or refused."""
        return self._receipt.done

    def wait(self, timeout: float | None = None) -> None:
        """Block this thread until everything is delivered. Raises
        FlushTimeoutError after ``timeout`` seconds (None: no limit),
        DeliveryError if events of the run were refused or dropped since it was
        last asked."""
        timeout = timeout_of(timeout)
        if not wait_blocking(self._state, self._receipt, timeout):
            raise timed_out(self._state, timeout)
        self._settled()

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._receipt.wait_async().__await__()
        self._settled()

    def _settled(self) -> None:
        self._receipt.result()
        raise_refused(self._state)

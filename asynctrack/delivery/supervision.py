"""Each unit of work fails alone: it is said once, and tried again after a growing pause, while all others go on."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TypeVar

from asynctrack.clock import chance, monotonic
from asynctrack.delivery.retry import Backoff
from asynctrack.errors import UnavailableError

__all__ = ["Supervision"]

logger = logging.getLogger("asynctrack")

T = TypeVar("T")


class _Trouble:
    """What went wrong with one thing, and when it is tried again."""

    def __init__(self) -> None:
        self.backoff = Backoff()
        self.said: str | None = None
        #: the kind of it, by which it is known to have been said
        self.kind: object = None


class Supervision:
    """Things that are done to spools again and again, each of which may fail for one spool."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._troubles: weakref.WeakKeyDictionary[object, dict[str, _Trouble]] = weakref.WeakKeyDictionary()

    def attempt(self, unit: object, what: str, do: Callable[[], T], otherwise: T) -> T:
        """What ``do`` gives; ``otherwise`` where it raises, or has raised and it is too early to try again.

        ``what`` is what cannot be done then, in words, the unit named.
        """
        trouble = self._troubles.get(unit, {}).get(what)
        begun = self._clock()
        if trouble is not None and trouble.backoff.waits(begun):
            return otherwise
        try:
            result = do()
        except Exception as error:
            trouble = self._troubles.setdefault(unit, {}).setdefault(what, trouble or _Trouble())
            self._failed(trouble, what, error, begun)
            return otherwise
        if trouble is not None:
            self._well(unit, what)
        return result

    def in_trouble(self, unit: object) -> str | None:
        """What cannot be done to a unit, and why; None where all goes well."""
        return next((trouble.said for trouble in self._troubles.get(unit, {}).values()), None)

    def next_retry(self) -> float:
        """When something is tried again; infinity: nothing is."""
        now = self._clock()
        troubles = [trouble for units in self._troubles.values() for trouble in units.values()]
        return min((each.backoff.retry_at for each in troubles if each.backoff.waits(now)), default=float("inf"))

    def _failed(self, trouble: _Trouble, what: str, error: Exception, begun: float) -> None:
        trouble.backoff.put_off(UnavailableError(what), begun=begun, now=self._clock(), random=chance())
        expected = isinstance(error, OSError)  # else it is a bug: with its traceback
        trouble.said = f"{what}: {error if expected else repr(error)}"
        kind = type(error), getattr(error, "errno", None)
        if kind != trouble.kind:
            trouble.kind = kind
            logger.error("asynctrack: %s; trying again", trouble.said, exc_info=not expected)

    def _well(self, unit: object, what: str) -> None:
        troubles = self._troubles[unit]
        del troubles[what]
        if not troubles:
            del self._troubles[unit]

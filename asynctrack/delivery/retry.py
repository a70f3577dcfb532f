"""When to try again. Pure: the caller gives the time and the random number, and does the waiting."""

from __future__ import annotations

from asynctrack.errors import StoreError

__all__ = ["Backoff", "retry_delay"]

_BASE = 0.5
_CAP = 30.0
_HELD_BASE = 5.0
_HELD_CAP = 120.0


def retry_delay(error: StoreError, failing: float, random: float) -> float:
    """Seconds to wait before the next attempt after ``error``, where all have failed for ``failing`` seconds.

    Anything (``random`` in 0 … 1) up to as long again, so that everybody is back soon after an outage, and not in twice
    its time, as the unlucky ones are where each attempt doubles the wait. At least up to 0.5 s and at most 30; 5 … 120
    where the user has to mend something first. A ``retry_after`` is never undercut.
    """
    base, cap = (_HELD_BASE, _HELD_CAP) if error.held else (_BASE, _CAP)
    ceiling = min(cap, max(base, failing))
    # From a tenth of the ceiling on, so that a lucky draw does not become a busy loop.
    delay = ceiling * (0.1 + 0.9 * random)
    return max(delay, error.retry_after or 0.0)


class Backoff:
    """The pauses between the attempts at one thing that fails: the work of one run, or the files of one spool.

    All times are seconds of `asynctrack.clock.monotonic`.
    """

    __slots__ = ("attempts", "failed_at", "failing_since", "not_before", "retry_at")

    def __init__(self) -> None:
        #: failures in a row; those that were under way together count once
        self.attempts = 0
        self.failed_at = self.failing_since = 0.0
        #: nothing is tried before this; a success elsewhere brings it forward, but not to before `not_before`
        self.retry_at = 0.0
        #: what the store has asked for
        self.not_before = 0.0

    def waits(self, now: float) -> bool:
        """Whether it is too early to try again."""
        return self.retry_at > now

    def put_off(self, error: StoreError, *, begun: float, now: float, random: float) -> None:
        """An attempt that was ``begun`` at that time has failed just now: the next one is later than now."""
        if not self.attempts:
            self.failing_since = now
        if begun > self.failed_at or not self.attempts:
            self.attempts += 1
        self.failed_at = now
        self.not_before = max(self.not_before, now + (error.retry_after or 0.0))
        self.retry_at = max(self.not_before, now + retry_delay(error, now - self.failing_since, random))
        assert self.retry_at > now

    def bring_forward(self) -> None:
        """What it waited for seems to be well again: it need not wait longer than it was asked to."""
        self.retry_at = self.not_before

    def succeeded(self) -> None:
        """An attempt has succeeded."""
        self.attempts = 0
        self.bring_forward()

"""When to try again. Pure: the caller gives the random number and does the waiting."""

from __future__ import annotations

from asynctrack.errors import StoreError

__all__ = ["retry_delay"]

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

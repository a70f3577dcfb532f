"""When to try again. Pure: the caller gives the random number and does the waiting."""

from __future__ import annotations

from asynctrack.errors import StoreError

__all__ = ["retry_delay"]

_BASE = 0.5
_CAP = 30.0
_HELD_BASE = 5.0
_HELD_CAP = 120.0


def retry_delay(error: StoreError, attempt: int, random: float) -> float:
    """Seconds to wait before attempt ``attempt + 1`` (``attempt`` counts from 1) after ``error``.

    Exponential with full jitter (``random`` in 0 … 1): at most 0.5, 1, 2 … 30 s; 5 … 120 s where the user has to mend
    something first. A ``retry_after`` is never undercut.
    """
    base, cap = (_HELD_BASE, _HELD_CAP) if error.held else (_BASE, _CAP)
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 30))
    # From a tenth of the ceiling on, so that a lucky draw does not become a busy loop.
    delay = ceiling * (0.1 + 0.9 * random)
    return max(delay, error.retry_after or 0.0)

"""How long an answer may take as a whole. A time limit for each read alone never ends where a server drips bytes."""

from __future__ import annotations

import math

from asynctrack.clock import monotonic

__all__ = ["Deadline"]

#: bytes a second; a long answer is given more time, as long as it comes at least as fast as this
_SLOWEST = 16_384


class Deadline:
    """When one answer must be there: ``seconds`` after the request was sent, and later for a long answer.

    ``total``: the seconds are all there is, from now on, sending included.

    It stands for a number of seconds, too, where a blocking socket is told how long to wait: the socket asks anew
    before each read.
    """

    def __init__(self, seconds: float, *, total: bool) -> None:
        self.total = total
        self._seconds = seconds
        self._until = monotonic() + seconds if total else None

    def left(self) -> float:
        """Seconds; unless ``total`` they begin to run at the first look."""
        if self._until is None:
            self._until = monotonic() + self._seconds
        return self._until - monotonic()

    def sent(self) -> None:
        """A request has been sent: unless ``total`` the seconds run from now on. That may be the second one, which goes
        through the tunnel that a proxy was asked for with the first."""
        if not self.total:
            self._until = monotonic() + self._seconds

    def came(self, size: int) -> None:
        """So many bytes have come."""
        self.left()
        if not self.total and self._until is not None:
            self._until += size / _SLOWEST

    def __index__(self) -> int:
        left = self.left()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        return math.ceil(left)

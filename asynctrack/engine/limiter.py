"""How many requests a server is given at once. Pure: told what happened, answers with a number."""

from __future__ import annotations

from asynctrack.errors import StoreError

__all__ = ["Limiter"]

#: requests that may queue inside the server: fewer than one, and it has time to spare; more than two only wait
_SPARE, _QUEUED = 0.7, 2.0
#: requests after which the fastest times are measured anew, with less under way: the server's tables grow, its
#: neighbours come and go. Merely letting them fade would take the waiting of a busy server for its work
_MEASURED = 500


class Limiter:
    """Finds the number of concurrent requests at which a server is busy and none waits for long (as TCP Vegas does).

    ``limit`` requests that each take ``t`` seconds, of which ``t0`` are work, have ``limit * (1 - t0/t)`` of them
    queueing. ``t0`` is the fastest time seen lately for requests of about that size.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        #: how many requests may be under way now
        self.limit = 1
        self._fastest: dict[int, float] = {}
        self._since_change = 0
        self._since_measured = 0

    def succeeded(self, entities: int, seconds: float, in_flight: int) -> None:
        """A request with so many ``entities`` took so long, while ``in_flight`` were under way, itself among them."""
        size = entities.bit_length()
        fastest = self._fastest[size] = min(seconds, self._fastest.get(size, seconds))
        self._since_change += 1
        self._since_measured += 1
        if self._since_measured >= _MEASURED:
            self._since_measured = 0
            self._fastest.clear()
            self._change(max(1, self.limit // 2))
            return
        if self._since_change < self.limit or in_flight < self.limit:
            return  # those under way began before the last change, or the limit was not what held us back
        queued = self.limit * (1 - fastest / seconds) if seconds > 0 else 0.0
        if queued < _SPARE and self.limit < self.most:
            self._change(self.limit + 1)
        elif queued > _QUEUED and self.limit > 1:
            self._change(self.limit - 1)

    def failed(self, error: StoreError) -> None:
        """The server could not be reached, or said that it has too much to do."""
        if error.retryable and not error.suspicious:
            self._change(max(1, self.limit // 2))

    def _change(self, limit: int) -> None:
        self.limit = limit
        self._since_change = 0

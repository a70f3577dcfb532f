"""How many requests a server is given at once. Pure: told what happened, answers with a number."""

from __future__ import annotations

from asynctrack.errors import StoreError

__all__ = ["Limiter"]

#: of the gain that one more request at once would bring to a server with a worker for it, what it has to bring to
#: stay. Less than half: to wait for a server is cheap, and to leave it idle is not
_PAYS = 0.15
#: requests that make one measurement, at least; of the first, which has nothing to be compared with and leaves a
#: server idle that has a worker for more
_WINDOW, _FIRST = 4, 3
#: requests after which one more at once is tried again: at first, and after it has not paid time and again
_TRY_MORE, _TRY_MORE_AT_LAST = 30, 240
#: and one fewer: the server's tables grow, its neighbours come and go
_TRY_LESS = 500


class Limiter:
    """Finds the number of concurrent requests beyond which a server does not get on faster: there more would only wait.

    It climbs: one more at once is tried, and taken back where it does not pay. ``limit`` requests that take ``t``
    seconds each are ``limit / t`` a second (Little's law). So a server that writes for one at a time, as MLflow on
    SQLite does, is given one, one with two workers three, and a distant one as many as keep it busy.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        #: how many requests may be under way now
        self.limit = 1
        #: it has just been raised
        self._on_trial = False
        #: what was measured last at each limit that counts: the sizes of requests, and their seconds
        self._seen: dict[int, list[tuple[int, float]]] = {}
        self._fastest: dict[int, float] = {}
        self._until_more, self._until_less, self._pause = 0, _TRY_LESS, _TRY_MORE
        self._change(1)

    def succeeded(self, entities: int, seconds: float, in_flight: int) -> None:
        """A request with so many ``entities`` took so long, while ``in_flight`` were under way, itself among them."""
        size = entities.bit_length()
        seconds = max(seconds, 1e-9)
        self._fastest[size] = min(seconds, self._fastest.get(size, seconds))
        if in_flight < self.limit:
            return  # the limit was not what held us back
        self._until_more -= 1
        self._until_less -= 1
        if self._unchanged < self.limit:
            self._unchanged += 1  # it began before the last change
            return
        self._times.append((size, seconds))
        enough = len(self._times) >= max(_WINDOW if self._seen else _FIRST, self.limit)
        if enough or (self._on_trial and len(self._times) >= self.limit and not self._pays(at_best=True)):
            self._measured()

    def _measured(self) -> None:
        if not self._pays():
            if self._on_trial:
                self._until_more, self._pause = self._pause, min(2 * self._pause, _TRY_MORE_AT_LAST)
                self._change(self._fewer)
            else:
                self._measure_anew()  # it did once
            return
        if self._on_trial:
            self._pause = _TRY_MORE
        self._seen[self.limit] = self._times
        if self._until_less <= 0:
            self._measure_anew()
        elif (self._until_more <= 0 or self.limit == 2) and self.limit < self.most:
            self._change(self.limit + 1, on_trial=True)
        else:
            self._change(self.limit)

    def _measure_anew(self) -> None:
        """With fewer, and then with more again."""
        self._until_more, self._until_less = 0, _TRY_LESS
        self._seen, self._fastest = {}, {}
        self._change(self._fewer)

    @property
    def _fewer(self) -> int:
        # Two is a step only: both connections come to the same of two workers every other time, three rarely.
        return self.limit - 1 if self.limit > 3 else 1

    def _pays(self, *, at_best: bool = False) -> bool:
        """Whether the server does enough more a second than with fewer at once; ``at_best``: if all its answers were as
        quick as the quickest."""
        fewer = self._fewer
        before = self._seen.get(fewer)
        if before is None or fewer == self.limit:
            return True
        needed = (fewer + _PAYS * (self.limit - fewer)) / self._slowness(before)
        return self.limit / self._slowness(self._times, at_best=at_best) >= needed

    def _slowness(self, times: list[tuple[int, float]], *, at_best: bool = False) -> float:
        """How long requests take, against the fastest of about their size: half of them may be very slow, as those are
        during which the server collects its garbage. ``at_best``: the quickest of them."""
        found = sorted(seconds / self._fastest.get(size, seconds) for size, seconds in times)
        return found[0 if at_best else (len(found) - 1) // 2]

    def failed(self, error: StoreError) -> None:
        """The server could not be reached, or said that it has too much to do."""
        if error.retryable and not error.suspicious:
            self._change(max(1, self.limit // 2))

    def _change(self, limit: int, *, on_trial: bool = False) -> None:
        self._unchanged = limit if limit == self.limit else 0
        self._on_trial = on_trial
        self.limit = limit
        self._times: list[tuple[int, float]] = []

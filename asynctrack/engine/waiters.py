"""Who waits for the engine, and for what."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.delivery.receipts import Receipt

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["Request", "Waiters"]


class Request(NamedTuple):
    """Somebody waits: for a run's events before ``mark`` (of its artifacts alone, where ``run`` is below 0), or, with
    ``mark`` None, for its creation."""

    run: int
    mark: int | None
    receipt: Receipt[RunInfo | None]


class Waiters:
    """Requests, until they are answered.

    Any thread may `ask`; everything else, until it is over, belongs to the engine's thread. Requests whose mark is not
    read yet lie in a heap by mark, the others under their run: so that neither a batch nor a look walks all who wait.
    """

    def __init__(self) -> None:
        self._new: deque[Request] = deque()
        self._unread: list[tuple[int, int, Request]] = []
        self._by_run: dict[int, list[Request]] = {}
        self._order = itertools.count()
        #: runs with a request that nobody has tried to answer yet
        self._untried: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._new or self._unread or self._by_run)

    def ask(self, request: Request) -> None:
        """Wait for an answer. From any thread, and in signal handlers."""
        self._new.append(request)

    def take(self, is_past: Callable[[int], bool] = lambda _run: False) -> None:
        """Take in what was asked until now. A look at the journal that begins after this sees everything that was
        logged before the asking. A mark says nothing of a run that ``is_past``: it was another journal's."""
        while self._new:
            request = self._new.popleft()
            if request.mark is None or is_past(request.run):
                self._wait_for_run(request)
            else:
                heapq.heappush(self._unread, (request.mark, next(self._order), request))

    def answer(self, front: int, moved: Iterable[int] | None, settle: Callable[[Request], bool]) -> None:
        """Have ``settle`` answer whose time may have come: it says of each whether it has.

        ``front``: everything before it is read. ``moved``: runs of which something has changed since; None: any may.
        """
        while self._unread and self._unread[0][0] <= front:
            self._wait_for_run(heapq.heappop(self._unread)[2])
        runs = list(self._by_run) if moved is None else self._untried.union(map(abs, moved))
        self._untried = set()
        for run in runs:
            left = [request for request in self._by_run.pop(run, ()) if not settle(request)]
            if left:
                self._by_run[run] = left

    def fail(self, error: BaseException) -> None:
        """No answer will ever come."""
        self.answer_all(lambda request: request.receipt.fail(error))

    def answer_all(self, settle: Callable[[Request], None]) -> None:
        """Everybody has the answer now, read or not. Once it is over, from any thread, and from several at once."""
        taken = [request for _, _, request in self._unread]
        taken += [request for requests in list(self._by_run.values()) for request in requests]
        for request in taken:
            settle(request)
        self._unread, self._by_run, self._untried = [], {}, set()
        # One by one, and to nowhere else: whoever takes one answers it.
        while True:
            try:
                request = self._new.popleft()
            except IndexError:
                return
            settle(request)

    def _wait_for_run(self, request: Request) -> None:
        run = abs(request.run)
        self._by_run.setdefault(run, []).append(request)
        self._untried.add(run)

"""`Aggregator`: a few metrics per window of time, instead of a point per request."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, SupportsFloat
from weakref import WeakSet

from asynctrack.arguments import several, text_of
from asynctrack.engine.lifecycle import after_fork
from asynctrack.errors import AsynctrackError, InvalidInputError, NoActiveRunError
from asynctrack.integrations.book import Book
from asynctrack.integrations.windows import GaugeMerge
from asynctrack.runs.active import leave_state
from asynctrack.runs.faces import handed_state
from asynctrack.runs.log import RunLog
from asynctrack.runs.run import logging_run
from asynctrack.values import shortened, to_float

if TYPE_CHECKING:
    from asynctrack.runs.faces import RunFace
    from asynctrack.runs.state import RunState

__all__ = ["Aggregator"]

#: seconds between two looks at what has come. Each look holds up what the program does at that moment, so they are
#: rare; but no pile of values is to be worked off at once
_TICK = 1.0
_MERGES = ("sum", "mean", "max", "min")
_WORKERS = ("each", "merged")

_all: WeakSet[Aggregator] = WeakSet()


class Aggregator:
    """Counts, distributions and gauges of a service, logged to a run once per
    window of ``every`` seconds: for what would be thousands of points a second.

    ``run``: the run to log to, by default the one that `asynctrack.log_metric`
    would log to. ``quantiles``: of `observe`, from 0 to 1. ``prefix`` stands
    before each metric's key.

    ``workers``: how several processes of one host that log to one run share
    it. None: this is the only one. "merged": their windows are merged, so
    counts are those of all, and percentiles too. "each": each logs keys of its
    own, ``worker/0/…``, ``worker/1/…``; a number that is free is given again.

    Windows begin at multiples of ``every`` seconds since the epoch. A point's
    step is the window's number since then, so that it goes on rising when the
    service is started again, and is the same in all workers; its time is the
    window's end. A service that is started again within a window logs a second
    point for it.

    Any thread may call, and no call waits: values go through a queue to a
    thread of its own, which begins with the first value. Leaving the ``with``
    block, `close`, or the end of the interpreter logs the last window. Needs
    the extra ``services`` (Apache DataSketches).
    """

    def __init__(
        self,
        run: RunFace | None = None,
        every: float = 10.0,
        *,
        quantiles: Sequence[float] = (0.5, 0.9, 0.99),
        prefix: str = "",
        workers: Literal["each", "merged"] | None = None,
    ) -> None:
        """Raises InvalidInputError, and ImportError without the extra."""
        self._every = _seconds(every)
        if workers is not None and not (isinstance(workers, str) and workers in _WORKERS):
            raise InvalidInputError(f"workers={shortened(workers)}: it must be None, 'each' or 'merged'")
        if not isinstance(prefix, str):
            raise InvalidInputError(f"prefix={shortened(prefix)}: it must be text")
        import datasketches  # noqa: F401  # an extra: better missed here than in the middle of a request

        self._run: RunLog | None = run
        #: the run that ``ASYNCTRACK_ATTACH`` names, where it is that: let go at the end
        self._handed: RunState | None = None
        self._lock = threading.RLock()
        self._book = Book(self._every, [_quantile(one) for one in several("quantiles", quantiles)], prefix, workers)
        self._observed, self._counted = self._book.observed, self._book.counted
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False
        _all.add(self)

    # ── for whoever counts

    def observe(self, name: str, value: SupportsFloat, total: str | None = None) -> None:
        """Take in one value of a distribution, a latency in ms say. Logged are
        ``name/count``, ``/rate`` (per second), ``/mean``, ``/p50``, ``/p90``,
        ``/p99``, ``/max``; and as ``total`` the same of all names that were
        first observed with it."""
        try:
            self._observed[name].append(value)
        except (KeyError, TypeError):  # TypeError: no name at all
            if total is not None:
                self._book.totals[text_of("name", name)] = text_of("total", total)
            self._queue(self._observed, name).append(value)

    def count(self, name: str, amount: SupportsFloat = 1) -> None:
        """Count something. Logged are ``name/count`` and ``name/rate`` (per
        second)."""
        try:
            self._counted[name].append(amount)
        except (KeyError, TypeError):
            self._queue(self._counted, name).append(amount)

    def gauge(self, name: str, function: Callable[[], SupportsFloat], merge: GaugeMerge = "sum") -> None:
        """Call ``function`` at the end of each window, in the aggregator's
        thread, and log what it returns as ``name``. ``merge``: what the values
        of merged workers become, "sum", "mean", "max" or "min". Raises
        InvalidInputError."""
        if not callable(function):
            raise InvalidInputError(f"gauge {shortened(name)}: {shortened(function)} cannot be called")
        if not isinstance(merge, str) or merge not in _MERGES:
            raise InvalidInputError(f"gauge {shortened(name)}: merge={shortened(merge)} must be one of {_MERGES}")
        with self._lock:
            self._book.gauges[text_of("name", name)] = function, merge
            self.start()

    @property
    def run(self) -> RunLog | None:
        """The run that is logged to; None before the first value, where none was given."""
        return self._run

    def start(self) -> Self:
        """Begin, if it has not begun. The first value does so as well. Raises
        NoActiveRunError where no run was given and none is open, and the
        errors of `attach`."""
        with self._lock:
            if self._closed:
                raise AsynctrackError("this Aggregator is closed; make a new one")
            if self._thread is None:
                if self._run is None:
                    self._handed = handed_state()
                    self._run = logging_run() if self._handed is None else RunLog(self._handed)
                if self._run is None:
                    raise NoActiveRunError("an Aggregator needs a run: give it one, or open one first")
                self._book.begin(self._run)
                self._thread = threading.Thread(target=self._work, name="asynctrack-aggregator", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        return self

    def close(self) -> None:
        """Log the last window, and be done. The run stays open. Waits for no
        store. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        atexit.unregister(self.close)
        if thread is not None:
            self._wake.set()
            thread.join()
        handed, self._handed = self._handed, None
        if handed is not None and handed.pid == os.getpid():
            leave_state(handed)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()  # the thread ends within a tick

    def _queue(self, queues: dict[str, deque[SupportsFloat]], name: str) -> deque[SupportsFloat]:
        named = text_of("name", name)
        with self._lock:
            self.start()
            return queues.setdefault(named, deque())

    # ── the thread

    def _work(self) -> None:
        book = self._book
        book.safely(book.meet)
        while not self._wake.wait(min(_TICK, self._every / 4, book.left())):
            book.safely(book.look)
        book.safely(book.end)

    def _forked(self) -> None:
        """In a forked child nothing has happened yet, and the thread is the parent's."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread = None
        self._book.forked()
        self._observed, self._counted = self._book.observed, self._book.counted
        if self._book.gauges and not self._closed:
            self._book.safely(self._start_again)

    def _start_again(self) -> None:
        self.start()


def _seconds(every: object) -> float:
    try:
        seconds = to_float("every", every)
    except InvalidInputError:
        seconds = float("nan")
    if not 0.05 <= seconds <= 86_400:
        raise InvalidInputError(f"every={shortened(every)}: a window has from 0.05 to 86,400 seconds")
    return seconds


def _quantile(given: object) -> float:
    try:
        quantile = to_float("quantiles", given)
    except InvalidInputError:
        quantile = float("nan")
    if not 0 <= quantile <= 1:
        raise InvalidInputError(f"quantiles: {shortened(given)} must be a number from 0 to 1")
    return quantile


def _in_forked_child() -> None:
    for aggregator in list(_all):
        aggregator._forked()


after_fork(_in_forked_child)

"""What an `Aggregator`'s thread does: it takes in what was counted, and logs each window when it is over."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsFloat

from asynctrack.clock import monotonic
from asynctrack.errors import InvalidInputError
from asynctrack.integrations.windows import GaugeMerge, Window
from asynctrack.integrations.workers import Workers
from asynctrack.journal.homes import spool_homes
from asynctrack.runs.log import RunLog
from asynctrack.stores.keys import clean_key
from asynctrack.values import to_float

__all__ = ["Book"]

logger = logging.getLogger("asynctrack")

#: seconds after a window's end, at most, in which the other workers hand theirs over
_GRACE = 2.0
_LEAST_PAUSE = 0.02
_FLOATS = {float}


class Book:
    """The windows of one process. ``observed`` and ``counted``: by name, the values that nobody has looked at yet; any
    thread puts them there. ``totals``: by the name of a part, the name of the whole. ``gauges``: by name, what to call,
    and how it is merged. All else is the thread's."""

    def __init__(
        self, every: float, quantiles: Sequence[float], prefix: str, sharing: Literal["each", "merged"] | None
    ) -> None:
        self.observed: dict[str, deque[SupportsFloat]] = {}
        self.counted: dict[str, deque[SupportsFloat]] = {}
        self.totals: dict[str, str] = {}
        self.gauges: dict[str, tuple[Callable[[], SupportsFloat], GaugeMerge]] = {}
        self._every, self._quantiles, self._prefix, self._sharing = every, quantiles, prefix, sharing
        self._run: RunLog | None = None
        self._workers: Workers | None = None
        self._told: set[str] = set()
        self._begin_window()

    def begin(self, run: RunLog) -> None:
        """From now on it is counted, for this run."""
        self._run = run
        self._begin_window()

    def safely(self, step: Callable[[], None]) -> None:
        """Take a step. What goes wrong is told, and ends nothing."""
        try:
            step()
        except Exception as error:
            self._tell(type(error).__name__, "an Aggregator could not log a window: %s", error)

    def forked(self) -> None:
        """In a forked child nothing has happened yet."""
        self.observed, self.counted = {}, {}
        if self._workers is not None:
            self._workers.forget()
            self._workers = None

    def left(self) -> float:
        """Seconds until the window is over; a little more where that is at once, for a clock may stand still."""
        return max(self._every - time.time() % self._every, _LEAST_PAUSE)

    def look(self) -> None:
        """Take in what has come; log the window that is over."""
        self._take_in()
        now = time.time()
        number = int(now // self._every)
        if number != self._window.number:
            self._close_window()
        into = now - number * self._every
        if self._workers is not None and self._sharing == "merged" and into >= min(_GRACE, self._every / 2):
            self._workers.merge(number, self._log)

    def end(self) -> None:
        """Log the last window."""
        self._take_in()
        self._close_window()
        if self._workers is not None:
            self._workers.close(int(time.time() // self._every), self._log)

    def _take_in(self) -> None:
        for name, queue in list(self.observed.items()):
            if queue:
                self._window.observe(name, self._numbers(name, queue))
        for name, queue in list(self.counted.items()):
            if queue:
                self._window.count(name, sum(self._numbers(name, queue)))

    def _numbers(self, name: str, queue: deque[SupportsFloat]) -> list[float]:
        """What is in a queue now; other threads go on to put values into it."""
        take = queue.popleft
        values = [take() for _ in range(len(queue))]
        if {*map(type, values)} == _FLOATS:
            return values  # type: ignore[return-value]  # as it nearly always is; the rest takes three times as long
        found = []
        for value in values:
            try:
                found.append(to_float(name, value))
            except InvalidInputError as error:
                self._tell(name, "left out: %s", error)
        return found

    def _begin_window(self) -> None:
        self._window = Window(int(time.time() // self._every))
        self._begun = monotonic()

    def _close_window(self) -> None:
        window, begun = self._window, self._begun
        self._begin_window()
        window.add_up(self.totals)
        for name, (function, how) in list(self.gauges.items()):
            try:
                window.gauge(name, how, to_float(name, function()))
            except Exception as error:
                self._tell(name, "gauge %s: %r", name, error)
        window.close(self._begun - begun)
        if not window:
            return
        self.meet()
        if self._workers is not None and self._sharing == "merged":
            self._workers.put(window)
        else:
            self._log(window)

    def _log(self, window: Window) -> None:
        assert self._run is not None
        own = f"worker/{self._workers.number}/" if self._sharing == "each" and self._workers is not None else ""
        entries = window.entries(self._quantiles)
        metrics = {clean_key(f"{self._prefix}{own}{name}"): value for name, value in entries.items()}
        ends = min((window.number + 1) * self._every, time.time())
        self._run.log_metrics(metrics, step=window.number, timestamp=int(ends * 1000), on_invalid="warn")

    def meet(self) -> None:
        """Take a place among the workers of this run, who meet beside the spools."""
        if self._sharing is None or self._workers is not None:
            return
        assert self._run is not None
        state = self._run._state
        name = hashlib.sha256(f"{state.run_id} {self._prefix} {self._every}".encode()).hexdigest()[:32]
        engine = state.engine
        [home, *_] = spool_homes(engine.settings.spool_dir, engine.store.uri)
        self._workers = Workers(os.path.join(home, f"workers-{name}"))

    def _tell(self, about: str, message: str, *values: Any) -> None:
        """Log a warning, once about one thing."""
        if about not in self._told and len(self._told) < 100:
            self._told.add(about)
            logger.warning("asynctrack: " + message, *values)

"""What has been read of runs, kept so that a look reads only what is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asynctrack.clock import monotonic
from asynctrack.reading.follower import Follower
from asynctrack.reading.growing import Growing, same_memory
from asynctrack.reading.series import Series
from asynctrack.stores.columns import Columns
from asynctrack.stores.io import drive
from asynctrack.ui.grid import ema, ema_on

if TYPE_CHECKING:
    from asynctrack.errors import StoreError
    from asynctrack.stores.base import AbstractStore

__all__ = ["Averages", "Points", "Tape", "Tapes"]

#: points that are kept of all runs together; about 64 bytes each, with the room that they grow into (benchmarks.soak)
MOST_POINTS = 20_000_000
#: points that are made doubles at once: a heap keeps what a large array has taken
_BLOCK = 1 << 14


class Averages:
    """The moving average of a metric that grows, made once for each of its points. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._weight = 0.0
        self._made = Growing("d")
        self._of: Any = Columns().values
        self._last = 0.0, 0

    def of(self, values: Any, weight: float) -> Any:
        """As `asynctrack.ui.grid.ema` of these values, a view of the metric's column."""
        numbers = np.frombuffer(values)
        with self._lock:
            at = len(self._of)
            if weight != self._weight or not same_memory(self._of, values) or at > len(numbers):
                self._weight, self._made, self._last, at = weight, Growing("d"), (0.0, 0), 0
            found, self._last = ema_on(numbers[at:], weight, self._last)
            self._made.put(at, found)
            self._of = values
            return np.frombuffer(self._made.view())


class Points(NamedTuple):
    """The points of one metric of one run: three arrays of doubles that nothing changes. ``times``: ms since the epoch.
    ``series``: what they were made of. ``averages``: what is known of their moving average."""

    steps: Any
    times: Any
    values: Any
    series: Series
    averages: Averages | None = None

    def smoothed(self, weight: float) -> Any:
        """The values, or their moving average."""
        if not weight or self.averages is None:
            return ema(self.values, weight)
        return self.averages.of(self.series.columns.values, weight)


class _Doubles:
    """A metric's points as doubles, made once each."""

    def __init__(self) -> None:
        self._steps, self._times = Growing("d"), Growing("d")
        self._before = Columns()
        self._averages = Averages()

    def of(self, series: Series) -> Points:
        columns, before = series.columns, self._before
        for made, integers, known in (
            (self._steps, columns.steps, before.steps),
            (self._times, columns.times, before.times),
        ):
            at = min(len(known), len(integers)) if same_memory(known, integers) else 0
            found = np.frombuffer(integers, np.int64)
            made.put(at, np.empty(0))
            for start in range(at, len(found), _BLOCK):
                made.put(start, found[start : start + _BLOCK].astype(np.float64))
        self._before = columns
        steps, times = np.frombuffer(self._steps.view()), np.frombuffer(self._times.view())
        return Points(steps, times, np.frombuffer(columns.values), series, self._averages)


class Tape:
    """Metrics of one run. Any thread may read ``points``, whose values are replaced and never changed."""

    def __init__(self, store: AbstractStore, run_id: str) -> None:
        self.points: dict[str, Points] = {}
        self.trouble: StoreError | None = None
        self._store, self._run_id = store, run_id
        self._follower: Follower | None = None
        self._doubles: dict[str, _Doubles] = {}
        self._keys: set[str] = set()
        self._looked_at = -1e9
        self._lock = threading.Lock()

    def want(self, keys: Collection[str]) -> bool:
        """Read these metrics, of which some may be read already; whether there was anything to read. Raises
        `StoreError`."""
        if self._keys.issuperset(keys):
            return False
        with self._lock:
            new = [key for key in keys if key not in self._keys]
            if new and self._follower is None:
                follower = Follower(self._store, self._run_id, new)
                self._take(follower, drive(follower.look()))
                self._follower = follower
            elif new and self._follower is not None:
                self._take(self._follower, drive(self._follower.look_for(new)))
            self._keys.update(new)
            return bool(new)

    def look(self, every: float) -> set[str]:
        """Read what is new, unless that was done within the last ``every`` seconds, or is being done. The keys that
        have changed. Raises `StoreError`."""
        if not self._lock.acquire(blocking=False):
            return set()
        try:
            if monotonic() < self._looked_at + every:
                return set()
            changed = set[str]()
            if self._follower is not None:
                changed = self._take(self._follower, drive(self._follower.look()))
            self._looked_at = monotonic()
            return changed
        finally:
            self._lock.release()

    def _take(self, follower: Follower, changed: set[str]) -> set[str]:
        self.trouble = follower.trouble
        for key in changed:
            if key in follower.series:
                self.points[key] = self._doubles.setdefault(key, _Doubles()).of(follower.series[key])
            else:
                self.points.pop(key, None)
        return changed

    def __len__(self) -> int:
        return sum(len(points.values) for points in list(self.points.values()))


class Tapes:
    """The tapes of the runs that were asked for last, as many as memory is meant for."""

    def __init__(self, store: AbstractStore, most_points: int = MOST_POINTS) -> None:
        self._store = store
        self._most_points = most_points
        self._tapes: OrderedDict[str, Tape] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run_id: str) -> Tape:
        """The tape of a run, empty at first."""
        with self._lock:
            tape = self._tapes.get(run_id)
            if tape is None:
                tape = self._tapes[run_id] = Tape(self._store, run_id)
            self._tapes.move_to_end(run_id)
            return tape

    def known(self, run_ids: Iterable[str]) -> list[tuple[str, Tape]]:
        """The tapes that there are of some runs."""
        with self._lock:
            return [(run_id, self._tapes[run_id]) for run_id in run_ids if run_id in self._tapes]

    def trim(self, besides: Collection[str]) -> None:
        """Forget what was asked for longest ago, if there is too much, but not these runs."""
        with self._lock:
            sizes = {run_id: len(tape) for run_id, tape in self._tapes.items()}
            total = sum(sizes.values())
            for run_id in list(self._tapes):
                if total <= self._most_points:
                    break
                if run_id not in besides:
                    del self._tapes[run_id]
                    total -= sizes[run_id]

"""How much is loaded, of however many runs: asked at each look at the journal, so it walks them seldom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import EVENT_BYTES
from asynctrack.delivery.progress import Front

if TYPE_CHECKING:
    from asynctrack.delivery.source import Source

__all__ = ["Crowd", "load_of"]

#: seconds after which runs are walked anew whatever has changed: what does not get on may have begun to, with time
_LATEST = 0.25


def load_of(front: Front) -> int:
    """What is loaded of all runs of a journal, as so many events; see `Lane.load`."""
    return front.weight + front.bytes // EVENT_BYTES


class Crowd:
    """Counts what is loaded for the runs that get on. Belongs to the engine's thread.

    What is loaded is counted as it comes and goes. What of it belongs to runs that do not get on is found by a walk,
    and then believed until a quarter of the runs have got on, or for a moment: so a walk costs each of them little.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        #: when they were walked last, at how many changes, and after how many more they are again
        self._walked_at, self._changes, self._apart = float("-inf"), 0, 0
        #: of runs that do not get on: how much is loaded, and of how many
        self._stalled, self._stalled_runs = 0, 0

    def gets_on(self, sources: Sequence[Source]) -> tuple[int, int]:
        """How many events are loaded for runs that get on, and for how many runs."""
        fronts = [source.loader.front for source in sources]
        now, changes = self._clock(), sum(front.changes for front in fronts)
        if now >= self._walked_at + _LATEST or not 0 <= changes - self._changes < self._apart:
            self._walked_at, self._changes = now, changes
            self._walk(sources, now)
        loaded, runs = sum(map(load_of, fronts)), sum(front.laden for front in fronts)
        return max(loaded - self._stalled, 0), max(runs - self._stalled_runs, 0)

    def _walk(self, sources: Sequence[Source], now: float) -> None:
        lanes = [lane for source in sources for lane in source.active if lane.loaded_weight]
        loads = [lane.load for lane in lanes if lane.stalled(now)]
        self._stalled, self._stalled_runs, self._apart = sum(loads), len(loads), len(lanes) // 4

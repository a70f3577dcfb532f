"""The extremes of metrics for the list of runs, each summarized again only when something new was logged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asynctrack.errors import StoreError
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Summary

__all__ = ["Extremes"]


class Extremes:
    """What was asked for is kept."""

    def __init__(self, store: AbstractStore) -> None:
        self._store = store
        self._summaries: dict[tuple[str, str], tuple[Any, Summary | None]] = {}

    def value(self, found: FoundRun, key: str, part: str) -> float | str | None:
        """The value of a metric of a run that is ``part``: "last", "min" or "max"; as text where JSON has no such
        number, None where the run has none."""
        value = found.run.data.metrics.get(key)
        if value is None:
            return None
        if part != "last":
            summary = self._summary(found, key)
            spot = None if summary is None else getattr(summary, part)
            if spot is None:
                return None
            value = spot.value
        return value if math.isfinite(value) else str(value)

    def _summary(self, found: FoundRun, key: str) -> Summary | None:
        run_id = found.run.info.run_id
        latest = found.run.data.latest.get(key)
        at = (found.last_time,) if latest is None else (latest.step, latest.timestamp)
        mark = found.run.data.metrics[key], at
        known = self._summaries.get((run_id, key))
        # A NaN is never equal to another: then the summary is made anew, which costs a look and nothing else.
        if known is None or known[0] != mark:
            try:
                summary = drive(self._store.summarize(run_id, [key])).get(key)
            except StoreError:
                return None if known is None else known[1]  # the list says what troubles the store
            known = self._summaries[run_id, key] = mark, summary
        return known[1]

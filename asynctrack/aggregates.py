"""What the ranks of a run have logged under one key, step by step. For readers: it costs the ranks nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.arguments import run_id_of, text_of
from asynctrack.tracking import get_service

if TYPE_CHECKING:
    from asynctrack.entities import Metric

__all__ = ["OverRanks", "over_ranks"]

_PREFIX = re.compile(r"rank/\d+/")


class OverRanks(NamedTuple):
    """What was logged at one step: so many ``points``, their mean, the smallest and the largest; NaN if one of them is
    NaN."""

    step: int
    mean: float
    min: float
    max: float
    points: int


def over_ranks(run_id: str, key: str) -> list[OverRanks]:
    """Mean, minimum and maximum over the ranks of a run, for each step of a
    metric, in order.

    ``key``: as the ranks logged it. With ``start_run(shared=True,
    per_rank="prefix")`` each rank counts once a step, with the value that it
    logged last; without, each point counts. An empty list if the run has no
    such metric. Raises what `get_run` raises.
    """
    service, found, named = get_service(), run_id_of(run_id), text_of("key", key)
    keys = [name for name in service.get_run(found).data.metrics if _PREFIX.sub("", name, count=1) == named != name]
    if keys:
        return aggregated(_last_values(service.get_metric_history(found, name, "latest")) for name in sorted(keys))
    return aggregated([[(point.step, point.value) for point in service.get_metric_history(found, named, "latest")]])


def _last_values(points: Iterable[Metric]) -> Iterable[tuple[int, float]]:
    """Of each step the value that was logged last: a rank that was started again may have logged it before."""
    last: dict[int, Metric] = {}
    for point in points:
        if point.step not in last or point.timestamp >= last[point.step].timestamp:
            last[point.step] = point
    return [(step, point.value) for step, point in last.items()]


def aggregated(series: Iterable[Iterable[tuple[int, float]]]) -> list[OverRanks]:
    """The aggregates of some series of steps and values. Pure."""
    values: dict[int, list[float]] = {}
    for points in series:
        for step, value in points:
            values.setdefault(step, []).append(value)
    return [_aggregate(step, found) for step, found in sorted(values.items())]


def _aggregate(step: int, values: list[float]) -> OverRanks:
    if any(math.isnan(value) for value in values):
        return OverRanks(step, math.nan, math.nan, math.nan, len(values))
    # The sum of large values may be too large, and so may an infinite one be both.
    mean = math.fsum(value / len(values) for value in values) if all(map(math.isfinite, values)) else sum(values)
    return OverRanks(step, mean, min(values), max(values), len(values))

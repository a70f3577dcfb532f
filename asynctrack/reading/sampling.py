"""Fewer points without losing an extreme: of each stretch of x the smallest and the largest value."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened

__all__ = ["check_samples", "sampled"]

#: the fewest points that show what a series does: its ends, its smallest and its largest value
_FEWEST = 4
#: points of one series from which on NumPy, if it is installed, pays for its import
_MANY = 200_000


def check_samples(points: object) -> int:
    """How many points of a series are to be left. Raises InvalidInputError for fewer than 4."""
    if isinstance(points, bool) or not isinstance(points, int) or points < _FEWEST:
        raise InvalidInputError(f"samples: expected an integer of at least {_FEWEST}, got {shortened(points)}")
    return points


def sampled(x: Sequence[float], values: Sequence[float], most: int, low: float, high: float) -> list[int]:
    """The indexes, rising, of at most ``most`` points: of each of ``(most - 2) // 2`` equal stretches of x from ``low``
    to ``high`` the ones with the smallest and the largest value, and the first and the last of all points. ±Inf are
    values; where a stretch has only NaN, one of them stays. All of them if there are no more than ``most``, which is at
    least 4."""
    if len(values) <= most:
        return list(range(len(values)))
    stretches = (most - 2) // 2
    if len(values) >= _MANY or "numpy" in sys.modules:
        try:
            import numpy as np
        except ImportError:
            pass  # it takes longer then
        else:
            return _by_numpy(np, x, values, stretches, low, high)
    width = (high / stretches - low / stretches) or 1.0
    kept: dict[int, list[Any]] = {}
    for index, (at, value) in enumerate(zip(x, values, strict=True)):
        stretch = min(max(int(at / width - low / width), 0), stretches - 1) if at == at else 0
        found = kept.get(stretch)
        if found is None:
            kept[stretch] = [index, value, index, value]
            continue
        if value < found[1] or (found[1] != found[1] and value == value):
            found[0], found[1] = index, value
        if value > found[3] or (found[3] != found[3] and value == value):
            found[2], found[3] = index, value
    chosen = {0, len(values) - 1}
    for smallest, _, largest, _ in kept.values():
        chosen |= {smallest, largest}
    return sorted(chosen)


def _by_numpy(
    np: Any, x: Sequence[float], values: Sequence[float], stretches: int, low: float, high: float
) -> list[int]:
    width = (high / stretches - low / stretches) or 1.0
    at, found = np.asarray(x, "f8"), np.asarray(values, "f8")
    with np.errstate(all="ignore"):
        stretch = np.clip(np.trunc(at / width - low / width), 0, stretches - 1)
    stretch = np.where(np.isnan(stretch), 0, stretch).astype("i8")
    smallest = _first_of_each(np, stretch, np.where(np.isnan(found), math.inf, found), np.isnan(found))
    largest = _first_of_each(np, stretch, np.where(np.isnan(found), math.inf, -found), np.isnan(found))
    return np.unique(np.concatenate([[0, len(found) - 1], smallest, largest])).tolist()  # type: ignore[no-any-return]


def _first_of_each(np: Any, stretch: Any, rank: Any, is_nan: Any) -> Any:
    """Of each stretch the index with the least rank, numbers before NaN, the earliest of equals."""
    order = np.lexsort((rank, is_nan, stretch))
    begins = np.empty(len(order), bool)
    begins[0] = True
    begins[1:] = stretch[order[1:]] != stretch[order[:-1]]
    return order[begins]

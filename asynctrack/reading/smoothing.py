"""Smoothing, on all points, before any of them is left out."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened

__all__ = ["check_weight", "smoothed"]


def check_weight(weight: object) -> float:
    """The weight of a moving average. Raises InvalidInputError unless it is at least 0 and below 1."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < 1:
        raise InvalidInputError(f"smoothing: expected a number from 0 to below 1, as 0.9, got {shortened(weight)}")
    return float(weight)


def smoothed(values: Iterable[float], weight: float) -> array[float]:
    """The exponential moving average: ``weight`` of what was before, the rest of the value. It is debiased, as in
    TensorBoard, so the first values are not drawn towards 0. NaN and ±Inf stand as they are and do not count."""
    found = array("d")
    add = found.append
    mean, left, rest = 0.0, 1.0, 1.0 - weight
    for value in values:
        if not math.isfinite(value):
            add(value)
            continue
        mean = mean * weight + value * rest
        left *= weight
        add(mean / (1.0 - left))
    return found

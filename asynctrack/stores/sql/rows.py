"""From events to what columns hold. Pure; the rules are those of MLflow's own store.

The points of one metric are a *flat* list here: time, step, value, time, step, value, … That is what a statement takes,
and it needs no object for each point: half of what storing them costs in Python.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from asynctrack.journal.slots import records
from asynctrack.stores.base import Batch, Point

__all__ = [
    "MAX_PARAM_LENGTH",
    "MAX_TAG_LENGTH",
    "Flat",
    "Latest",
    "flat_points",
    "latest_of",
    "storable",
    "without_nan",
]

#: characters, beyond which MLflow cuts
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000

#: time (ms), step, value of one point after another
Flat = list[Any]

_MOST = sys.float_info.max
_TIME, _STEP, _VALUE = itemgetter(0), itemgetter(1), itemgetter(2)


class Latest(NamedTuple):
    """A row of `latest_metrics`, but for the run and the key."""

    value: float
    timestamp: int
    step: int
    is_nan: bool


def storable(text: str) -> str:
    """Text that UTF-8 can encode, with "?" for what it cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def flat_points(batch: Batch) -> tuple[dict[str, Flat], list[tuple[str, Point, str]]]:
    """The points of each metric, in order; and as (key, point, reason) those that no column takes."""
    found: dict[str, Flat] = {}
    refused: list[tuple[str, Point, str]] = []
    for key, points in batch.decoded.items():
        sound = points
        if not _is_sound(points):
            sound = []
            for point in points:
                reason = _fault(point)
                if reason is None:
                    sound.append((int(point[0]), int(point[1]), float(point[2])))
                else:
                    refused.append((key, point, reason))
        found[key] = [item for point in sound for item in point[:3]]
    for block in batch.blocks:  # from the journal, whose numbers have 64 bits
        extend = {stream: found.setdefault(key, []).extend for stream, key in block.keys.items()}
        for timestamp, step, value, stream in records(block.data):
            extend[stream]((timestamp, step, value))
    return found, refused


def without_nan(flat: Flat) -> tuple[Flat, Flat]:
    """The points that have a number, infinities as ± the largest double; and those that were NaN, with 0 instead."""
    # One sum finds out whether any value is NaN or infinite; it may overflow, and then each is looked at.
    if math.isfinite(sum(flat[2::3])):
        return flat, []
    numbers: Flat = []
    nans: Flat = []
    for timestamp, step, value in zip(flat[0::3], flat[1::3], flat[2::3], strict=True):
        if value != value:
            nans += timestamp, step, 0.0
        else:
            numbers += timestamp, step, min(max(value, -_MOST), _MOST)
    return numbers, nans


def latest_of(flat: Flat) -> Latest:
    """Of the points with the largest step, time and value the first; NaN counts as 0, the infinities as ± the largest
    double."""
    steps = flat[1::3]
    step = max(steps)
    at = steps.index(step)
    best = _latest(flat, at)
    for _ in range(steps.count(step) - 1):
        at = steps.index(step, at + 1)
        other = _latest(flat, at)
        if (other.timestamp, other.value) > (best.timestamp, best.value):
            best = other
    return best


def _latest(flat: Flat, at: int) -> Latest:
    timestamp, step, value = flat[3 * at : 3 * at + 3]
    is_nan = value != value
    return Latest(0.0 if is_nan else min(max(value, -_MOST), _MOST), timestamp, step, is_nan)


def _is_sound(points: Sequence[Point]) -> bool:
    """Whether every time and step is a whole number of 64 bits, no time is negative, and every value is a float."""
    try:
        times = array("q", map(_TIME, points))
        array("q", map(_STEP, points))
    except (TypeError, OverflowError):
        return False
    return min(times, default=0) >= 0 and set(map(type, map(_VALUE, points))) <= {float}


def _fault(point: Point) -> str | None:
    """Why no column takes a point; None if one does."""
    for what, number, least in (("timestamp", point[0], 0), ("step", point[1], -(1 << 63))):
        if not isinstance(number, int) or not least <= number < 1 << 63:
            return f"its {what} {number!r} is not a whole number from {least} to {(1 << 63) - 1}"
    try:
        float(point[2])
    except (TypeError, ValueError, OverflowError) as error:
        return f"its value {point[2]!r} is no number: {error}"
    return None

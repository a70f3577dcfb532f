"""Metric files as text: one ``<timestamp ms> <value> <step>`` line a point.

Two points are *identical* where MLflow's migration to SQL takes them for one, and aborts: same timestamp and step, and
a value that is the same number once ±Inf has become ± the largest double. NaN is identical to NaN, -0.0 to 0.0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any

from asynctrack.entities import Metric
from asynctrack.stores.base import Point

__all__ = ["WINDOW", "Block", "Identity", "identities", "identity", "latest", "parse_line", "parse_lines"]

#: lines of one metric file behind which an identical point is not written again
WINDOW = 256
#: timestamp (ms), step, value as SQL would hold it; None for NaN
Identity = tuple[int, int, float | None]

_FINITE = b"0123456789.e+- \n"
_TIMESTAMP, _VALUE, _STREAM = itemgetter(0), itemgetter(2), itemgetter(3)


def identity(timestamp: int, step: int, value: float) -> Identity:
    """What makes a point the same as another."""
    if math.isfinite(value):
        return timestamp, step, value
    if math.isnan(value):
        return timestamp, step, None
    return timestamp, step, math.copysign(sys.float_info.max, value)


class Block:
    """The points of one metric, encoded, each identity once, in the order given.

    ``lines`` and ``data`` (all of them, in bytes) are what goes to the file; ``oldest`` and ``newest`` are the smallest
    and the largest timestamp.
    """

    __slots__ = ("_points", "data", "lines", "newest", "oldest")

    def __init__(self, points: Sequence[Point]) -> None:
        """Encode at least one point. Timestamps and steps must be ints, values floats (what the journal decodes)."""
        # No call per point from here on: it would cost as much as the formatting.
        if set(map(type, map(_VALUE, points))) != {float}:  # a NumPy float64 is a float, but its repr is no number
            points = [(point[0], point[1], float(point[2])) for point in points]
        lines = _encode(points)
        data = "".join(lines).encode("ascii")
        timestamps = list(map(_TIMESTAMP, points))
        self.oldest, self.newest = min(timestamps), max(timestamps)
        self._points = points
        self.lines, self.data = lines, data
        # NaN and Inf leave letters here; the set takes 0.0 and -0.0 for one.
        if data.translate(None, _FINITE) or _repeats(points):
            self._keep_first()

    def _keep_first(self) -> None:
        first: dict[Identity, tuple[str, Point]] = {}
        for mark, line, point in zip(self.identities(), self.lines, self._points, strict=True):
            first.setdefault(mark, (line, point))
        self.lines = [line for line, _ in first.values()]
        self._points = [point for _, point in first.values()]
        self.data = "".join(self.lines).encode("ascii")

    def identities(self) -> list[Identity]:
        """Of each line."""
        return [identity(point[0], point[1], point[2]) for point in self._points]

    def without(self, seen: AbstractSet[Identity]) -> list[str]:
        """The lines whose points are not in ``seen``; `lines` itself where none is."""
        if not seen:
            return self.lines
        lines = [line for mark, line in zip(self.identities(), self.lines, strict=True) if mark not in seen]
        return lines if len(lines) < len(self.lines) else self.lines


def _encode(points: Sequence[Any]) -> list[str]:
    try:
        if len(points[0]) == 4:
            return [f"{timestamp} {value!r} {step}\n" for timestamp, step, value, _ in points]
        return [f"{timestamp} {value!r} {step}\n" for timestamp, step, value in points]
    except ValueError:  # some with a stream number and some without
        return [f"{timestamp} {value!r} {step}\n" for timestamp, step, value, *_ in points]


def _repeats(points: Sequence[Point]) -> bool:
    """Whether two finite points may be the same; True also where only the stream numbers could tell."""
    if len(set(points)) < len(points):
        return True
    try:
        return len(set(map(_STREAM, points))) > 1
    except IndexError:
        return set(map(len, points)) != {3}


def parse_line(line: str) -> tuple[int, int, float] | None:
    """(timestamp, step, value) of a line of 2, 3 or 5 fields as MLflow wrote them over the years; None for any other.

    In a line of 5 fields (a dataset's name and digest at the end) the step is the third field, as MLflow's writer and
    migration have it; MLflow's own file store reads it as 0.
    """
    fields = line.strip().split(" ")
    if len(fields) not in (2, 3, 5):
        return None
    try:
        return int(fields[0]), int(fields[2]) if len(fields) > 2 else 0, float(fields[1])
    except ValueError:
        return None


def parse_lines(data: bytes) -> tuple[list[tuple[int, int, float]], int]:
    """Every point of a metric file, in order, and the number of lines that are none.

    A last line without its newline counts as none: a writer died within it, so its numbers may lack digits.
    """
    lines = data.decode("utf-8", "replace").split("\n")
    damaged = 1 if lines.pop() else 0
    points = []
    for line in lines:
        point = parse_line(line)
        if point is None:
            damaged += 1
        else:
            points.append(point)
    return points, damaged


def identities(data: bytes) -> set[Identity]:
    """The identity of every whole line in ``data``."""
    return {identity(at, step, value) for at, step, value in parse_lines(data)[0]}


def latest(key: str, points: Iterable[tuple[int, int, float]]) -> Metric | None:
    """The point with the largest step, then timestamp, then value; NaN counts as 0, as in MLflow's SQL store.

    Of equals the first. None where there is no point.
    """
    best = max(points, key=lambda point: (point[1], point[0], 0.0 if math.isnan(point[2]) else point[2]), default=None)
    return None if best is None else Metric(key, best[2], best[0], best[1])

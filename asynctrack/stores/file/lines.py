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
from asynctrack.journal.slots import records
from asynctrack.stores.base import Point, RecordBlock
from asynctrack.stores.file.measured import dataset_of

__all__ = [
    "WINDOW",
    "Block",
    "Identity",
    "encode",
    "encode_records",
    "identities",
    "identity",
    "is_canonical",
    "latest",
    "parse_line",
    "parse_lines",
]

#: lines of one metric file behind which an identical point is not written again
WINDOW = 256
#: timestamp (ms), step, value as SQL would hold it; None for NaN
Identity = tuple[int, int, float | None]

_VALUE = itemgetter(2)


def identity(timestamp: int, step: int, value: float) -> Identity:
    """What makes a point the same as another."""
    if math.isfinite(value):
        return timestamp, step, value
    if math.isnan(value):
        return timestamp, step, None
    return timestamp, step, math.copysign(sys.float_info.max, value)


class Block:
    """Some points of one metric, encoded, each identity once, in the order given.

    ``lines`` and ``data`` (all of them, in bytes) are what goes to the file.
    """

    __slots__ = ("_unique", "canonical", "data", "lines")

    def __init__(self, points: Sequence[Point] = (), lines: list[str] | None = None) -> None:
        """Encode ``points`` (timestamps and steps are ints), with ``lines`` of ours behind them."""
        self.lines = [*encode(points), *(lines or ())] if points else lines or []
        self.data = "".join(self.lines).encode()
        self.canonical = is_canonical(self.data)
        self._unique = set(self.lines)
        if self.canonical:
            kept = list(dict.fromkeys(self.lines)) if len(self._unique) < len(self.lines) else self.lines
        else:
            first: dict[Identity, str] = {}
            for line, point in zip(self.lines, parse_lines(self.data)[0], strict=True):
                first.setdefault(identity(*point), line)
            kept = list(first.values())
        if len(kept) < len(self.lines):
            self.lines = kept
            self.data = "".join(kept).encode()

    def without(self, seen: AbstractSet[Identity]) -> list[str]:
        """The lines whose points are not in ``seen``; `lines` itself where none is."""
        if not seen:
            return self.lines
        points = parse_lines(self.data)[0]
        lines = [line for line, point in zip(self.lines, points, strict=True) if identity(*point) not in seen]
        return lines if len(lines) < len(self.lines) else self.lines

    def without_lines(self, lines: Sequence[str], *, canonical: bool) -> list[str]:
        """The same for the points of lines that this module has written, at a fraction of the price."""
        if not (self.canonical and canonical):
            return self.without(identities("".join(lines).encode()))
        if self._unique.isdisjoint(lines):
            return self.lines
        seen = set(lines)
        return [line for line in self.lines if line not in seen]


def encode_records(blocks: Iterable[RecordBlock]) -> dict[str, list[str]]:
    """The lines of each metric in undecoded records: in one pass, without an object a point that would outlive it."""
    lines: dict[str, list[str]] = {}
    for block in blocks:
        of_stream = {stream: lines.setdefault(key, []) for stream, key in block.keys.items()}
        at, head, last, tail = -1, "", None, ""
        for timestamp, step, value, stream in records(block.data):
            if timestamp != at:  # at full speed a thousand points share their millisecond
                at, head = timestamp, f"{timestamp} "
            if step != last:  # as metrics of one step do, mostly
                last, tail = step, f" {step}\n"
            of_stream[stream].append(f"{head}{value!r}{tail}")
    return lines


def is_canonical(data: bytes) -> bool:
    """Whether, among these lines of ours, points are identical exactly if their lines are the same text."""
    # "nan" and "inf" have an n, and nothing else has; Inf is the largest double to SQL, and -0.0 is 0.0. One byte is
    # looked for ten times as fast as several.
    return (
        b"n" not in data and (b"-" not in data or b" -0.0 " not in data) and (b"+" not in data or b"e+308" not in data)
    )


def encode(points: Sequence[Any]) -> list[str]:
    """The lines of any number of points, each as given, in our spelling."""
    # A NumPy float64 is a float, but its repr is no number.
    if not set(map(type, map(_VALUE, points))) <= {float}:
        points = [(point[0], point[1], float(point[2]), *point[3:]) for point in points]
    try:
        return [f"{timestamp} {value!r} {step}\n" for timestamp, step, value, _ in points]
    except ValueError:  # without stream numbers, or some with more than these
        return [f"{point[0]} {point[2]!r} {point[1]}{dataset_of(point)}\n" for point in points]


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

"""One point of a metric, as stores are given it."""

from __future__ import annotations

from asynctrack.journal.measured import MeasuredOn

__all__ = ["MeasuredOn", "Point", "measured_on"]

#: timestamp (ms), step, value; points from the journal have their stream number as a fourth item, which stores ignore.
#: The fifth item is there where a metric is about a logged model, or was measured on a dataset
Point = tuple[int, int, float] | tuple[int, int, float, int] | tuple[int, int, float, int, MeasuredOn]


def measured_on(point: Point) -> MeasuredOn | None:
    """The logged model and the dataset of a point; None for most."""
    return point[4] if len(point) > 4 else None

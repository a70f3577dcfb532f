"""What columns hold of an event."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from asynctrack.journal.slots import PACK_SETTLED, SLOT_SIZE
from asynctrack.stores.base import Batch, RecordBlock
from asynctrack.stores.sql.rows import flat_points, latest_of, storable, without_nan

MAX = sys.float_info.max
NAN, INF = math.nan, math.inf


def packed(timestamp: int, step: int, stream: int) -> bytes:
    """A record as the journal has it."""
    data = bytearray(SLOT_SIZE)
    PACK_SETTLED(data, 0, timestamp, step, float(step), stream, timestamp, step, float(step), stream)
    return bytes(data)


def flat(points: Any) -> list[Any]:
    return [item for point in points for item in point[:3]]


def test_nan_is_0_and_said_so_and_infinities_are_the_largest_doubles() -> None:
    numbers, nans = without_nan(flat([(1, 1, 2.0), (2, 2, NAN), (3, 3, INF), (4, 4, -INF)]))
    assert numbers == flat([(1, 1, 2.0), (3, 3, MAX), (4, 4, -MAX)])
    assert nans == [2, 2, 0.0]


def test_finite_values_whose_sum_is_not_stay_as_they_are() -> None:
    points = flat([(1, 1, MAX), (2, 2, MAX), (3, 3, 5e-324)])
    assert without_nan(points) == (points, [])


def test_records_follow_the_points_that_were_decoded_before() -> None:
    """Each metric's in order, with what the journal adds left out."""
    data = b"".join(packed(number, number, stream) for number, stream in ((3, 7), (4, 8), (5, 7)))
    batch = Batch({"a": [(1, 1, 1.0, 7), (2, 2, 2.0)]}, blocks=[RecordBlock(data, {7: "a", 8: "b", 9: "none"})])
    assert flat_points(batch) == (
        {"a": [1, 1, 1.0, 2, 2, 2.0, 3, 3, 3.0, 5, 5, 5.0], "b": [4, 4, 4.0], "none": []},
        [],
    )


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ((-1, 0, 1.0), "timestamp -1"),
        ((1.5, 0, 1.0), "timestamp 1.5"),
        ((2**63, 0, 1.0), "timestamp 9223372036854775808"),
        ((1, -(2**63) - 1, 1.0), "step -9223372036854775809"),
        ((1, "2", 1.0), "step '2'"),
        ((1, 2, "x"), "value 'x'"),
        ((1, 2, 10**400), "no number"),
    ],
)
def test_a_point_that_no_column_takes_is_refused_alone(point: Any, reason: str) -> None:
    found, [(key, refused, said)] = flat_points(Batch({"m": [(1, 1, 1.0), point, (2, 2, 2.0)]}))
    assert found == {"m": [1, 1, 1.0, 2, 2, 2.0]}
    assert (key, refused) == ("m", point)
    assert reason in said


def test_whole_numbers_become_floats() -> None:
    found, _ = flat_points(Batch({"m": [(1, 1, 3)]}))
    assert list(map(type, found["m"])) == [int, int, float]


@pytest.mark.parametrize(
    ("points", "latest"),
    [
        ([(5, 9, 1.0), (7, 9, 3.0), (7, 9, 2.0), (99, 8, 4.0)], (3.0, 7, 9, False)),
        ([(1, 1, NAN), (1, 1, 0.0)], (0.0, 1, 1, True)),
        ([(1, 1, 0.0), (1, 1, NAN)], (0.0, 1, 1, False)),
        ([(1, 1, -1.0), (1, 1, NAN)], (0.0, 1, 1, True)),
        ([(1, 1, INF), (1, 1, 1.0)], (MAX, 1, 1, False)),
        ([(0, -5, 1.0, 7), (0, -6, 2.0, 7)], (1.0, 0, -5, False)),
    ],
)
def test_the_latest_is_the_first_of_the_largest(points: Any, latest: Any) -> None:
    assert latest_of(flat(points)) == latest


def test_text_that_utf8_cannot_encode_has_marks_instead() -> None:
    assert (storable("a\ud800b"), storable("é"), storable("a\0b")) == ("a?b", "é", "a\0b")

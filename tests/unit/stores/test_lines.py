"""Metric lines: what is written is read back, and identical points are written once."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.stores.file.lines import Block, identities, identity, latest, parse_line, parse_lines

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, sys.float_info.max, 5e-324])
POINTS = st.lists(st.tuples(st.integers(0, 2**63 - 1), INT64, VALUES), min_size=1)
CLOSE_POINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), VALUES), min_size=1, max_size=30)


def same(one: tuple[int, int, float], other: tuple[int, int, float]) -> bool:
    """Equal, with NaN equal to NaN and 0.0 told from -0.0."""
    return repr(one) == repr(other)


@given(POINTS)
def test_what_is_encoded_is_parsed_back_bit_for_bit(points: list[Any]) -> None:
    """Any timestamp, step and double, in order, identical ones once."""
    parsed, damaged = parse_lines(Block(points).data)
    first: dict[Any, Any] = {}
    for at, step, value in points:
        first.setdefault(identity(at, step, value), (at, step, value))
    assert damaged == 0
    assert all(map(same, parsed, first.values()))
    assert len(parsed) == len(first)


@given(CLOSE_POINTS, st.data())
def test_streams_do_not_tell_points_apart(points: list[Any], data: st.DataObject) -> None:
    """The fourth item of a decoded point is ignored, whichever points have one."""
    numbered = [(*point, data.draw(st.integers(0, 1))) if data.draw(st.booleans()) else point for point in points]
    assert Block(numbered).data == Block(points).data


@given(CLOSE_POINTS, CLOSE_POINTS)
def test_without_drops_exactly_what_was_seen(points: list[Any], before: list[Any]) -> None:
    """A filtered block holds the identities that were not there, each once."""
    seen = identities(Block(before).data)
    left = parse_lines("".join(Block(points).without(seen)).encode())[0]
    marks = [identity(*point) for point in left]
    assert len(set(marks)) == len(marks)
    assert set(marks) == {identity(*point) for point in points} - seen


@pytest.mark.parametrize(
    ("one", "other"),
    [(math.nan, math.nan), (math.inf, sys.float_info.max), (-math.inf, -sys.float_info.max), (0.0, -0.0)],
)
def test_values_that_migration_takes_for_one_are_identical(one: float, other: float) -> None:
    """MLflow's migration to SQL would abort on both."""
    assert identity(1, 2, one) == identity(1, 2, other)
    assert Block([(1, 2, one), (1, 2, other)]).data == f"1 {one!r} 2\n".encode()


def test_nan_is_not_zero() -> None:
    """SQL keeps a NaN as 0 with a flag that is part of the key."""
    assert len(Block([(1, 2, math.nan), (1, 2, 0.0)]).lines) == 2


def test_values_that_are_not_plain_floats_become_some() -> None:
    """An int or a NumPy scalar is written as MLflow's reader expects it."""

    class Odd(float):
        def __repr__(self) -> str:
            return "odd"

    assert Block([(1, 2, Odd(0.5)), (2, 3, 1)]).data == b"1 0.5 2\n2 1.0 3\n"


def test_lines_of_every_mlflow_are_read() -> None:
    """Two fields before 1.0, three since, five with a dataset."""
    assert parse_line("7 0.5") == (7, 0, 0.5)
    assert parse_line("7 1E5 3\r") == (7, 3, 1e5)
    assert parse_line("7 0.5 3 data digest") == (7, 3, 0.5)
    assert parse_line("7 Infinity -3") == (7, -3, math.inf)


@pytest.mark.parametrize("line", ["", "7", "7 0.5 3 4", "7.5 0.5 3", "7 x 3", "\0\0\0", "a b c"])
def test_damaged_lines_are_counted_and_do_not_hide_their_neighbours(line: str) -> None:
    """A torn line is skipped; those around it are read."""
    assert parse_lines(f"1 1.0 0\n{line}\n2 2.0 1\n".encode()) == ([(1, 0, 1.0), (2, 1, 2.0)], 1)


def test_a_last_line_without_its_end_is_not_believed() -> None:
    """ "2 2.0 1" may be the beginning of "2 2.0 17"."""
    assert parse_lines(b"1 1.0 0\n2 2.0 1") == ([(1, 0, 1.0)], 1)


@given(st.binary())
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    """Whatever is in a metric file, reading it raises nothing."""
    points, damaged = parse_lines(data)
    assert len(points) + damaged <= data.count(b"\n") + 1


def test_the_latest_point_does_not_depend_on_the_order() -> None:
    """Largest step, then timestamp, then value, NaN as 0, as MLflow's SQL store has it."""
    points = [(5, 1, math.nan), (5, 1, -1.0), (4, 1, 9.0), (9, 0, 9.0)]
    for order in (points, points[::-1]):
        found = latest("m", order)
        assert found is not None
        assert math.isnan(found.value)
    assert latest("m", []) is None

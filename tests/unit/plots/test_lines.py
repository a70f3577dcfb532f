"""No value is lost between the points that were logged and the columns of a canvas."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrack.plots.lines import Frame, Line, Stroke, frame_of, strokes_of
from asynctrack.plots.many import strokes_of_many
from asynctrack.plots.scales import Scale, number, scale_of

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.integers(-(2**53), 2**53)
POINTS = st.lists(st.tuples(STEPS | st.integers(0, 20), NUMBERS | st.floats(-1, 1)), max_size=60)


def line_of(points: list[tuple[int, float]]) -> Line:
    return Line("loss", [float(x) for x, _ in points], [y for _, y in points])


def test_a_spike_among_a_million_points_is_in_its_column() -> None:
    values = array("d", bytes(8 * 1_000_000))
    values[777_777] = 1000.0
    line = Line("loss", range(1_000_000), values)

    strokes = strokes_of(line, frame_of([line]), 100)

    assert [stroke.column for stroke in strokes if stroke.high == 1.0] == [77]
    assert len(strokes) == 100


def test_without_many_points_the_plain_way_is_taken_and_gives_the_same() -> None:
    line = line_of([(0, 1.0), (1, math.nan), (2, 3.0), (1, 2.0), (2, math.inf)])
    frame = frame_of([line])
    assert strokes_of(line, frame, 4) == [Stroke(*fields) for fields in strokes_of_many(line, frame, 4)]
    assert [stroke.joined for stroke in strokes_of(line, frame, 4)] == [False, False, False, True]


@given(POINTS, st.integers(1, 50), st.booleans(), st.booleans())
@example([(0, 5e-324), (1, 1.7e308), (2, -1.7e308)], 3, False, False)
def test_numpy_draws_what_plain_python_draws(
    points: list[tuple[int, float]], columns: int, log_x: bool, log_y: bool
) -> None:
    line = line_of(points)
    frame = frame_of([line], log_x=log_x, log_y=log_y)

    plain = strokes_of(line, frame, columns)
    quick = [Stroke(*fields) for fields in strokes_of_many(line, frame, columns)]

    assert [stroke.joined for stroke in plain] == [stroke.joined for stroke in quick] or log_x or log_y
    if not (log_x or log_y):  # the two logarithms differ in the last bit, and so may a column
        assert [stroke.column for stroke in plain] == [stroke.column for stroke in quick]
        for one, other in zip(plain, quick, strict=True):
            assert one[1:5] == pytest.approx(other[1:5], abs=1e-12)


@given(POINTS, st.integers(1, 50))
def test_the_smallest_and_the_largest_value_are_always_drawn(points: list[tuple[int, float]], columns: int) -> None:
    line = line_of(points)
    frame = frame_of([line])
    strokes = strokes_of(line, frame, columns)
    shown = [(x, y) for x, y in points if not math.isnan(y)]
    assert bool(strokes) == bool(shown)
    if shown:
        places = [frame.y.place(y) for _, y in shown]
        assert min(stroke.low for stroke in strokes) == min(place for place in places if place is not None)
        assert max(stroke.high for stroke in strokes) == max(place for place in places if place is not None)
    assert all(0 <= stroke.column < columns for stroke in strokes)
    assert all(0 <= stroke.low <= stroke.high <= 1 for stroke in strokes)


def test_a_line_that_goes_back_begins_anew() -> None:
    line = line_of([(0, 0.0), (10, 1.0), (5, 0.5), (15, 2.0)])
    assert [(stroke.column, stroke.joined) for stroke in strokes_of(line, frame_of([line]), 16)] == [
        (0, False),
        (10, True),
        (5, False),
        (15, True),
    ]


def test_what_cannot_be_on_a_logarithmic_axis_is_left_out_and_counted() -> None:
    line = line_of([(1, 1.0), (2, 0.0), (3, -5.0), (4, 100.0)])
    frame = frame_of([line], log_y=True)
    assert frame.left_out == 2
    assert frame.y == Scale(1.0, 100.0, True)
    assert strokes_of(line, frame, 1000) == [Stroke(0, 0.0, 0.0, 0.0, 0.0, False), Stroke(999, 1, 1, 1, 1, False)]
    assert frame.notes() == ["2 not above 0, left out on the log axis"]


def test_nan_and_infinity_do_not_stretch_the_axis_and_are_counted() -> None:
    line = line_of([(1, 1.0), (2, math.nan), (3, math.inf), (4, 2.0), (5, -math.inf)])
    frame = frame_of([line])
    assert frame == Frame(Scale(1.0, 5.0), Scale(1.0, 2.0), 0, 1, 2)
    assert frame.notes() == ["1 NaN", "2 ±Inf"]


@given(NUMBERS, NUMBERS, st.booleans(), st.integers(1, 20))
@example(-1.7976931348623157e308, 1.7976931348623157e308, False, 5)
@example(5e-324, 1e-323, True, 5)
@example(1.0, 1.0000000000000002, False, 5)
def test_every_axis_has_round_ticks_within_it(low: float, high: float, log: bool, most: int) -> None:
    values = [value for value in (low, high) if math.isfinite(value) and not (log and value <= 0)]
    scale = scale_of(min(values, default=math.inf), max(values, default=-math.inf), log=log)
    ticks = scale.ticks(most)
    assert scale.low < scale.high
    assert 1 <= len(ticks) <= most
    assert ticks == sorted(ticks)
    for tick in ticks:
        place = scale.place(tick)
        assert place is not None
        assert 0 <= place <= 1
        assert number(tick)


def test_numbers_are_short() -> None:
    shown = [number(value) for value in (0.0, 0.25, 1000.0, 12_000.0, 2.5e6, 3e9, 1.5e-7, -0.0, math.nan, math.inf)]
    assert shown == ["0", "0.25", "1000", "12k", "2.5M", "3G", "1.5e-07", "0", "nan", "inf"]

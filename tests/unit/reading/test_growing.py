"""Arrays that grow in place: who looks keeps what was there, and a look costs what is new."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.reading.growing import Growing, GrowingColumns, same_memory
from asynctrack.stores.columns import Columns, Summary


@given(st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(-3, 3), max_size=12)), max_size=30))
def test_each_view_stays_as_it_was_given(puts: list[tuple[int, list[int]]]) -> None:
    growing, expected = Growing("q"), list[int]()
    given_out = []
    for at, items in puts:
        at = min(at, len(expected))
        expected = expected[:at] + items
        growing.put(at, array("q", items))
        assert list(growing.part(0, len(growing))) == expected
        given_out.append((growing.view(), expected))
        assert all(list(view) == then for view, then in given_out)
    for one, its in given_out:
        for other, of_the_other in given_out:
            if same_memory(one, other):
                shorter = min(len(its), len(of_the_other))
                assert its[:shorter] == of_the_other[:shorter]


def test_what_was_read_at_once_is_the_array_itself_and_is_not_written_to() -> None:
    growing, whole = Growing("d"), array("d", [1.0, 2.0])
    growing.put(0, whole)
    assert growing.view() is whole
    growing.put(1, array("d", [math.nan, 4.0]))
    assert list(whole) == [1.0, 2.0]
    assert growing.view()[:1].tolist() == [1.0]


def test_points_one_by_one_move_seldom() -> None:
    growing, moves, before = Growing("q"), 0, None
    for number in range(10_000):
        growing.put(number, array("q", [number]))
        view = growing.view()
        moves += before is None or not same_memory(before, view)
        before = view
    assert moves < 100


@pytest.mark.parametrize("points", [100, 100_000])
def test_points_that_waited_and_come_to_the_store_are_not_moved(points: int) -> None:
    growing = Growing("q")
    growing.put(0, array("q", range(points)))
    growing.put(points, array("q", [1, 2]))
    before = growing.view()
    growing.put(points, array("q", [1]))
    growing.put(points + 1, array("q", [2, 3]))
    assert same_memory(before, growing.view())
    growing.put(points + 1, array("q", [7]))
    assert not same_memory(before, growing.view())
    assert list(before[-2:]) == [1, 2]
    assert list(growing.view()[-2:]) == [1, 7]


def test_columns_of_views_are_columns() -> None:
    growing, plain = GrowingColumns(), Columns([3, 1, 2], [5, 6, 7], [0.5, math.nan, -1.0])
    for number in range(3):
        growing.put(number, plain.part(number, number + 1))
    growing.put(2, plain.part(2))
    views = growing.view()
    assert type(views.steps).__name__ == "memoryview"
    assert views == plain
    assert plain == views
    assert views.part(1) == plain.part(1)
    assert isinstance(views.part(1).steps, array)
    assert views.between(2, 3) == plain.between(2, 3)
    assert [step for step, _, _ in views.rows_by_step()] == [1, 2, 3]
    assert views.mark() == plain.mark()
    assert repr(Summary.of(views)) == repr(Summary.of(plain))

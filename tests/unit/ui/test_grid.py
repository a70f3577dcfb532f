"""Many points on few places: extremes stay, whatever the width."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.reading.growing import GrowingColumns
from asynctrack.reading.smoothing import smoothed
from asynctrack.stores.columns import Columns
from asynctrack.ui import tapes
from asynctrack.ui.grid import INF, NAN, NEGATIVE_INF, Axis, cells_of, ema, ema_on, grid_of, takes_of

VALUES = st.lists(st.floats(width=64), max_size=200)


def test_a_spike_among_ten_thousand_points_is_on_every_grid() -> None:
    x, y = np.arange(10_000.0), np.full(10_000, 1.0)
    y[5_000] = 1000.0
    for places in (2, 3, 77, 500, 20_000):
        cells = cells_of(grid_of([Axis.of(x)], places, 0, 9_999), Axis.of(x), y)
        assert np.nanmax(cells.high) == 1000.0
        assert np.nanmin(cells.low) == 1.0


@given(st.lists(st.tuples(st.integers(-50, 50), st.floats()), max_size=120), st.integers(2, 40), st.booleans())
def test_each_place_has_the_extremes_and_the_last_of_its_points(
    points: list[tuple[int, float]], most: int, rising: bool
) -> None:
    points = sorted(points, key=lambda point: point[0]) if rising else points
    x = np.array([float(at) for at, _ in points])
    y = np.array([value for _, value in points])
    low, high = (float(x.min()), float(x.max())) if len(x) else (math.inf, -math.inf)
    grid = grid_of([Axis.of(x)], most, low, high)
    assert len(grid.x) <= most
    assert (np.diff(grid.x) > 0).all()
    cells = cells_of(grid, Axis.of(x), y)
    places = grid.places(x)
    assert (places >= 0).all()
    for place in range(len(grid.x)):
        here = [value for at, value in zip(places, y.tolist(), strict=True) if at == place]
        finite = [value for value in here if math.isfinite(value)]
        expected = (min(finite), max(finite), finite[-1]) if finite else (math.nan,) * 3
        assert np.array_equal([cells.low[place], cells.high[place], cells.last[place]], expected, equal_nan=True)
        odd = NAN * any(map(math.isnan, here)) | INF * (math.inf in here) | NEGATIVE_INF * (-math.inf in here)
        assert cells.marks[place] == odd


def test_few_points_stand_where_they_were_logged() -> None:
    grid = grid_of([Axis.of(np.array([1.0, 7.0])), Axis.of(np.array([2.5, 7.0]))], 10, 1, 7)
    assert grid.exact
    assert grid.x.tolist() == [1.0, 2.5, 7.0]


def test_a_zoom_is_finer() -> None:
    x = np.arange(10_000.0)
    assert grid_of([Axis.of(x)], 400, 0, 9_999).exact is False
    zoomed = grid_of([Axis.of(x)], 400, 5_000, 5_100)
    assert zoomed.exact
    assert zoomed.x.tolist() == list(range(5_000, 5_101))


@pytest.mark.parametrize(("low", "high"), [(math.inf, -math.inf), (math.nan, math.nan)])
def test_of_no_points_there_is_no_place(low: float, high: float) -> None:
    grid = grid_of([Axis.of(np.empty(0))], 10, low, high)
    assert len(grid.x) == 0
    assert cells_of(grid, Axis.of(np.empty(0)), np.empty(0)).last.tolist() == []


def test_a_logarithmic_axis_shows_no_value_that_it_cannot_and_says_how_many() -> None:
    x, y = np.arange(5.0), np.array([-1.0, 0.0, 0.1, math.nan, 10.0])
    cells = cells_of(grid_of([Axis.of(x)], 10, 0, 4), Axis.of(x), y, log=True)
    assert cells.left_out == 2
    assert np.nanmin(cells.low) == 0.1
    stretches = grid_of([Axis.of(np.arange(1, 10_001.0))], 4, 1, 10_000, log=True)
    assert stretches.x == pytest.approx([10**0.5, 10**1.5, 10**2.5, 10**3.5])
    assert stretches.places(np.array([1, 9, 11, 10_000, 0, -5, 20_000.0])).tolist() == [0, 0, 1, 3, -1, -1, -1]


@pytest.mark.parametrize("high", [1e308, 1.7e308])
def test_the_widest_axis_has_places(high: float) -> None:
    x: Any = np.append(np.linspace(-1e300, 1e300, 50), [-high, high])
    grid = grid_of([Axis.of(x)], 10, -high, high)
    assert np.isfinite(grid.x).all()
    assert (grid.places(x) >= 0).all()


@given(VALUES, st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.999999]))
def test_the_moving_average_is_the_one_that_history_smooth_gives(values: list[float], weight: float) -> None:
    tame = [value if not math.isfinite(value) else math.fmod(value, 1e6) for value in values]
    assert ema(np.array(tame), weight) == pytest.approx(list(smoothed(tame, weight)), rel=1e-6, abs=1e-6, nan_ok=True)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_of_a_line_that_goes_back_each_point_is_current_or_earlier(steps: list[int]) -> None:
    x = np.array(steps, np.float64)
    takes = takes_of(x)
    back = sum(later < before for before, later in pairwise(steps))
    assert (takes is None) == (not 1 <= back <= 8)
    if takes is None:
        return
    assert takes.again == [float(later) for before, later in pairwise(steps) if later < before]
    places = [at for part in (*takes.current, *takes.earlier) for at in range(len(steps))[part]]
    assert sorted(places) == list(range(len(steps)))
    current = [at for part in takes.current for at in range(len(steps))[part]]
    assert Axis.of(x[current]).rises
    for part in takes.earlier:
        assert Axis.of(x[part]).rises
        assert part.start < part.stop
    assert current[-1] == len(steps) - 1, "what was logged last is not replaced"


def test_a_long_axis_rises_or_does_not() -> None:
    x = np.arange(100_000.0)
    assert Axis.of(x).rises
    for at in (1, 1 << 14, (1 << 14) + 1, 99_999):
        broken = x.copy()
        broken[at] = -1.0
        assert not Axis.of(broken).rises


@given(VALUES, st.lists(st.integers(0, 200), max_size=5), st.sampled_from([0.3, 0.9, 0.999]))
def test_a_moving_average_that_goes_on_is_that_of_all(values: list[float], cuts: list[int], weight: float) -> None:
    tame = np.array([value if not math.isfinite(value) else math.fmod(value, 1e6) for value in values])
    parts, before = [], (0.0, 0)
    for part in np.split(tame, sorted(cuts)):
        found, before = ema_on(part, weight, before)
        parts.append(found)
    whole = ema(tame, weight)
    assert np.concatenate(parts) == pytest.approx(list(whole), rel=1e-9, abs=1e-6, nan_ok=True)


def test_a_look_averages_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric of a million points that goes on is not averaged anew with each look."""
    made: list[int] = []

    def counted(values: Any, weight: float, before: tuple[float, int]) -> Any:
        made.append(len(values))
        return ema_on(values, weight, before)

    monkeypatch.setattr(tapes, "ema_on", counted)
    points, averages = GrowingColumns(), tapes.Averages()

    def put(at: int, values: list[float]) -> None:
        points.put(at, Columns(range(at, at + len(values)), range(at, at + len(values)), values))

    def looked(weight: float) -> list[float]:
        values = points.view().values
        found: list[float] = averages.of(values, weight).tolist()
        assert found == pytest.approx(smoothed(values, weight), nan_ok=True)
        return found

    put(0, [1.0, 5.0, math.nan, 2.0])
    looked(0.9)
    put(4, [7.0])  # to memory with room for more
    looked(0.9)
    made.clear()
    first = looked(0.9)
    put(5, [math.inf, 3.0, -1.0])
    assert np.array_equal(looked(0.9)[:5], first, equal_nan=True)
    assert made == [0, 3]
    put(5, [8.0, 8.0])  # what waited stands there otherwise, and is less
    looked(0.9)
    looked(0.5)
    put(7, [])
    looked(0.5)
    put(0, [])
    assert looked(0.5) == []

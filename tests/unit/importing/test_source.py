"""The points of one metric, each once."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from asynctrack.importing.source import distinct
from asynctrack.stores.file.lines import identity

POINTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, 2.0])),
    max_size=12,
)


@given(POINTS)
def test_of_identical_points_the_first_is_kept(points: list[tuple[int, int, float]]) -> None:
    first: dict[object, tuple[int, int, float]] = {}
    for point in points:
        first.setdefault(identity(*point), point)
    assert list(map(repr, distinct(lambda: iter(points)))) == list(map(repr, first.values()))

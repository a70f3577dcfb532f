"""Groups of runs: means, medians and how far their runs are from them, of all points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asynctrack
from asynctrack.ui.groups import SPREADS, by_place, by_step
from asynctrack.ui.tapes import Points
from tests.unit.ui.conftest import Get

VALUES = st.lists(
    st.tuples(st.integers(0, 6), st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])), min_size=1, max_size=30
)


def points_of(pairs: list[tuple[int, float]]) -> Points:
    steps = np.array([float(step) for step, _ in pairs])
    return Points(steps, np.arange(float(len(pairs))), np.array([value for _, value in pairs]), None)  # type: ignore[arg-type]  # nothing here reads the series


@given(st.lists(VALUES, min_size=1, max_size=5), st.sampled_from(SPREADS))
def test_each_step_has_the_middle_and_the_spread_of_the_runs_that_logged_there(
    runs: list[list[tuple[int, float]]], spread: str
) -> None:
    [group] = by_step(["all"] * len(runs), [points_of(pairs) for pairs in runs], spread)
    last = [dict(pairs) for pairs in runs]  # the value that was logged last at a step
    assert group.x.tolist() == sorted({step for pairs in last for step in pairs})
    for place, step in enumerate(group.x.tolist()):
        logged = [pairs[step] for pairs in last if step in pairs]
        finite = [value for value in logged if math.isfinite(value)]
        assert group.counts[place] == len(finite)
        assert bool(group.odd[place]) is (len(finite) < len(logged))
        if not finite:
            assert math.isnan(group.middle[place])
            continue
        below, middle, above = {
            "quartiles": np.quantile(finite, (0.25, 0.5, 0.75)),
            "range": (min(finite), np.mean(finite), max(finite)),
            "std": np.mean(finite) + np.array([-1, 0, 1]) * (np.std(finite, ddof=1) if len(finite) > 1 else 0),
        }[spread]
        found = [group.below[place], group.middle[place], group.above[place]]
        assert found == pytest.approx([below, middle, above], rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(
    ("spread", "expected"),
    [("std", (2 - 1, 2, 2 + 1)), ("quartiles", (1.5, 2, 2.5)), ("range", (1, 2, 3))],
)
def test_times_that_hardly_coincide_are_grouped_by_place(spread: str, expected: tuple[float, ...]) -> None:
    rows = [np.array([1.0, math.nan]), np.array([2.0, math.nan]), np.array([3.0, math.nan])]
    odds = [np.array([False, True])] * 3
    [group] = by_place(["a"] * 3, rows, odds, np.array([10.0, 20.0]), spread)
    assert group.x.tolist() == [10.0]
    assert (group.below[0], group.middle[0], group.above[0]) == pytest.approx(expected)
    assert group.counts.tolist() == [3]


@pytest.fixture
def seeds() -> str:
    """Ids of runs that differ in lr and seed."""
    ids = []
    for number in range(4):
        with asynctrack.start_run() as run:
            ids.append(run.run_id)
            run.log_params({"lr": number % 2, "seed": number, "model": "m"})
            for step in range(3):
                run.log_metric("loss", number + 10 * step, step)
    asynctrack.shutdown()
    return ".".join(ids)


def lines(get: Get, runs: str, **query: Any) -> list[Any]:
    [chart] = get("/api/charts", key="loss", runs=runs, **query).charts
    return chart["lines"]  # type: ignore[no-any-return]


def test_runs_that_differ_in_nothing_but_some_params_are_a_group(get: Get, seeds: str) -> None:
    found = lines(get, seeds, besides="seed")
    assert [(line["name"], line["runs"]) for line in found] == [("lr=0", 2), ("lr=1", 2)]
    assert [line["name"] for line in lines(get, seeds, besides=["seed", "lr"])] == ["all runs"]
    assert [line["runs"] for line in lines(get, seeds, besides="none")] == [1, 1, 1, 1]


def test_a_group_is_called_the_same_in_all_charts(get: Get, seeds: str) -> None:
    with asynctrack.start_run() as run:
        run.log_param("model", "other")
        run.log_metric("loss", 1.0, 0)
    asynctrack.shutdown()
    first = seeds.partition(".")[0]
    with asynctrack.start_run(first) as run:
        run.log_metric("acc", 1.0, 0)
    asynctrack.shutdown()
    runs = ".".join(each.info.run_id for each in asynctrack.search_runs(output_format="list"))
    [acc, loss] = get("/api/charts", key=["acc", "loss"], runs=runs, besides="seed").charts
    assert {line["name"] for line in acc["lines"]} <= {line["name"] for line in loss["lines"]}


def test_a_group_may_be_shown_by_its_median_and_quartiles(get: Get, seeds: str) -> None:
    [line] = lines(get, seeds, group="", spread="quartiles")
    assert line["at"][0].tolist() == [1.5, 11.5, 21.5]
    assert [band.tolist() for band in line["band"]] == [[0.75, 10.75, 20.75], [2.25, 12.25, 22.25]]
    assert line["counts"].tolist() == [4, 4, 4]
    [line] = lines(get, seeds, group="", spread="range")
    assert [band.tolist() for band in line["band"]] == [[0, 10, 20], [3, 13, 23]]
    assert get("/api/charts", key="loss", runs=seeds, spread="x").response.status_code == 400

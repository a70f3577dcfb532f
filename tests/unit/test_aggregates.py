"""Aggregates over the ranks of a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import asynctrack
from asynctrack import OverRanks, over_ranks
from asynctrack.aggregates import aggregated


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 6.0], (3.0, 1.0, 6.0)),
        ([1.7e308, 1.7e308], (1.7e308, 1.7e308, 1.7e308)),
        ([1.0, math.inf], (math.inf, 1.0, math.inf)),
        ([-2.0, -math.inf], (-math.inf, -math.inf, -2.0)),
    ],
)
def test_mean_minimum_and_maximum(values: list[float], expected: tuple[float, float, float]) -> None:
    (found,) = aggregated([[(7, value)] for value in values])
    assert found == OverRanks(7, *expected, len(values))


@pytest.mark.parametrize("values", [[math.nan, 1.0], [1.0, math.nan], [math.inf, -math.inf]])
def test_what_has_no_mean_is_nan(values: list[float]) -> None:
    (found,) = aggregated([[(0, value)] for value in values])
    assert math.isnan(found.mean)
    assert found.points == 2


def test_ranks_with_keys_of_their_own_count_once_a_step(tmp_path: Path) -> None:
    """The last value of a step counts: a rank that was started again logs some steps twice."""
    asynctrack.set_tracking_uri(tmp_path / "mlruns")
    with asynctrack.start_run() as run:
        for rank in range(3):
            for step in range(2):
                run.log_metric(f"rank/{rank}/loss", 100.0, step, timestamp=1)
                run.log_metric(f"rank/{rank}/loss", rank + 10.0 * step, step, timestamp=2)
        run.log_metric("rank/0/other", 5.0)
        run.log_metric("all", 1.0, 4)
        run.log_metric("all", 3.0, 4)
    assert over_ranks(run.run_id, "loss") == [OverRanks(0, 1.0, 0.0, 2.0, 3), OverRanks(1, 11.0, 10.0, 12.0, 3)]
    assert over_ranks(run.run_id, "all") == [OverRanks(4, 2.0, 1.0, 3.0, 2)]
    assert over_ranks(run.run_id, "nothing") == []

"""Histories as tables: each point once, whoever takes them, smoothed, sampled, averaged or wide."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.entities import Run, RunData, RunInfo
from asynctrack.errors import InvalidInputError
from asynctrack.markup import moment
from asynctrack.reading.sampling import _by_numpy, sampled
from asynctrack.reading.series import Series
from asynctrack.reading.smoothing import smoothed
from asynctrack.reading.table import History, Piece
from asynctrack.stores.columns import Columns

START = 1_700_000_000_000


def a_run(run_id: str, **params: str) -> Run:
    info = RunInfo(run_id, "0", "ada", "RUNNING", START, run_name=f"run {run_id}")
    return Run(info, RunData(params=params))


def a_piece(run: Run, key: str, points: list[tuple[int, float]], waiting: int = 0) -> Piece:
    columns = Columns(
        [step for step, _ in points],
        [START + 1000 * index for index in range(len(points))],
        [value for _, value in points],
    )
    return Piece(run, key, Series(columns, len(points) - waiting))


ONE, TWO, THREE = a_run("1", lr="0.1", seed="1"), a_run("2", lr="0.1", seed="2"), a_run("3", lr="0.2", seed="1")
HISTORY = History(
    [
        a_piece(ONE, "acc", [(0, 0.5), (1, 0.75)]),
        a_piece(ONE, "loss", [(0, 3.0), (1, math.nan), (2, 1.0)], waiting=1),
        a_piece(TWO, "loss", [(0, 5.0), (2, 2.0), (2, 3.0)]),
        a_piece(THREE, "loss", [(0, 7.0)]),
    ]
)


def same(found: Any, expected: list[Any]) -> bool:
    """Equal, NaN as well."""
    return repr(list(found)) == repr(expected)


def test_rows_are_the_points_in_order() -> None:
    assert HISTORY.columns == ["run_id", "key", "step", "time", "value", "delivered"]
    assert len(HISTORY) == 9
    assert same(
        HISTORY.rows(),
        [
            ("1", "acc", 0, START, 0.5, True),
            ("1", "acc", 1, START + 1000, 0.75, True),
            ("1", "loss", 0, START, 3.0, True),
            ("1", "loss", 1, START + 1000, math.nan, True),
            ("1", "loss", 2, START + 2000, 1.0, False),
            ("2", "loss", 0, START, 5.0, True),
            ("2", "loss", 2, START + 1000, 2.0, True),
            ("2", "loss", 2, START + 2000, 3.0, True),
            ("3", "loss", 0, START, 7.0, True),
        ],
    )
    assert HISTORY.keys == ["acc", "loss"]
    assert HISTORY.run_ids == ["1", "2", "3"]


@pytest.mark.parametrize("form", ["dict", "pandas", "polars", "arrow", "duckdb"])
def test_every_library_gets_every_point(form: str) -> None:
    expected = [(run, key, step, value, here) for run, key, step, _, value, here in HISTORY.rows()]
    names = ["run_id", "key", "step", "value", "delivered"]
    if form == "dict":
        found = HISTORY.to_dict()
        assert found["time"][:2] == [START, START + 1000]
    elif form == "pandas":
        frame = HISTORY.to("pandas")
        assert str(frame["time"][1]) == "2023-11-14 22:13:21+00:00"
        found = {name: frame[name].tolist() for name in names}
    elif form == "polars":
        frame = HISTORY.to("polars")
        assert str(frame["time"][1]) == "2023-11-14 22:13:21+00:00"
        found = frame.to_dict(as_series=False)
    elif form == "arrow":
        table = HISTORY.to("arrow")
        table.validate(full=True)
        assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
        found = table.to_pydict()
    else:
        import duckdb

        relation = duckdb.sql("select run_id, key, step, value, delivered from HISTORY")
        assert relation is not None
        rows = relation.fetchall()
        found = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    assert same(zip(*(found[name] for name in names), strict=True), expected)


def test_arrow_takes_any_text_and_more_rows_than_a_batch_holds() -> None:
    import pyarrow

    many = [(step, float(step)) for step in range(70_000)]
    history = History([a_piece(ONE, "größe/漢\ud800", many, waiting=3), a_piece(TWO, "", [(1, 1.0)])])

    table = pyarrow.table(history)

    table.validate(full=True)
    assert table.num_rows == 70_001
    assert table["key"][0].as_py() == "größe/漢?"
    assert table["key"][70_000].as_py() == ""
    assert table["step"].to_pylist()[:70_000] == list(range(70_000))
    assert table["delivered"].to_pylist()[-5:] == [True, False, False, False, True]


def test_an_empty_history_is_an_empty_table() -> None:
    empty = History([])
    assert len(empty) == 0
    assert not empty
    assert list(empty.rows()) == []
    assert list(empty.to("pandas").columns) == HISTORY.columns
    assert empty.to("pandas").empty
    assert empty.wide().to_dict() == {"run_id": [], "step": []}
    assert str(empty.plot()) == ""
    assert len(empty.mean_over()) == 0
    assert "<table>" in empty._repr_html_()


def test_formats_are_checked() -> None:
    assert HISTORY.to("columns") is HISTORY
    with pytest.raises(InvalidInputError, match=r"format: expected one of 'pandas', .*, got 'excel'"):
        HISTORY.to("excel")
    with pytest.raises(InvalidInputError, match="got None"):
        HISTORY.to(None)


def test_a_wide_table_has_a_row_for_each_step_and_loses_no_value() -> None:
    assert same(
        HISTORY.wide().rows(),
        [
            ("1", 0, 0.5, 3.0),
            ("1", 1, 0.75, math.nan),
            ("1", 2, math.nan, 1.0),
            ("2", 0, math.nan, 5.0),
            ("2", 2, math.nan, 2.0),
            ("2", 2, math.nan, 3.0),
            ("3", 0, math.nan, 7.0),
        ],
    )
    assert HISTORY.wide().columns == ["run_id", "step", "acc", "loss"]


def test_metrics_may_be_called_as_the_columns_are() -> None:
    history = History(
        [a_piece(ONE, "step", [(0, 1.0)]), a_piece(ONE, "run_id", [(0, 2.0)]), a_piece(ONE, "value", [(0, 3.0)])]
    )
    assert history.wide().to_dict() == {
        "run_id": ["1"], "step": [0], "step (metric)": [1.0], "run_id (metric)": [2.0], "value": [3.0],
    }  # fmt: skip
    assert history.over("value").columns[-1] == "value (metric)"


def test_other_axes() -> None:
    relative = HISTORY.over("relative")
    assert relative.columns[-1] == "relative"
    assert relative.to_dict()["relative"][:5] == [0.0, 1.0, 0.0, 1.0, 2.0]
    assert same(HISTORY.over("acc").to_dict()["acc"][2:5], [0.5, 0.75, math.nan])
    assert HISTORY.over("acc").smooth(0.5).sample(4).to_dict()["acc"][2:4] == [0.5, 0.75]
    assert HISTORY.over("time").wide().to_dict()["time"][:2] == [START, START + 1000]
    with pytest.raises(InvalidInputError, match=r"x: expected 'step', .*'acc', 'loss'.*, got 'epoch'"):
        HISTORY.over("epoch")


def test_smoothing_is_debiased_and_passes_over_what_is_no_number() -> None:
    found = smoothed([1.0, 3.0, math.nan, 5.0, math.inf, 5.0], 0.5)
    assert found[0] == 1.0
    assert found[1] == pytest.approx((1 * 0.25 + 3 * 0.5) / 0.75)
    assert math.isnan(found[2])
    assert found[3] == pytest.approx((1 * 0.125 + 3 * 0.25 + 5 * 0.5) / 0.875)
    assert found[4] == math.inf
    assert list(smoothed([4.0] * 50, 0.99)) == pytest.approx([4.0] * 50)
    assert list(smoothed([1.0, 2.0], 0)) == [1.0, 2.0]
    assert HISTORY.smooth(0.5).to_dict()["value"][0] == 0.5
    assert HISTORY.to_dict()["value"][0] == 0.5


@pytest.mark.parametrize("weight", [1, -0.1, math.nan, "0.9", True, None])
def test_a_weight_that_is_none_is_refused(weight: Any) -> None:
    with pytest.raises(InvalidInputError, match="smoothing: expected a number from 0 to below 1"):
        HISTORY.smooth(weight)


def test_a_sample_keeps_the_spikes_and_what_waits() -> None:
    points = [(step, 0.1) for step in range(10_000)]
    points[5_000], points[7_000] = (5_000, 1000.0), (7_000, -1000.0)
    sample = History([a_piece(ONE, "loss", points, waiting=1)]).sample(40)
    found = sample.to_dict()
    assert len(sample) <= 40
    assert {1000.0, -1000.0} <= set(found["value"])
    assert found["step"][0] == 0
    assert found["step"][-1] == 9_999
    assert found["delivered"][-2:] == [True, False]
    assert found["step"] == sorted(found["step"])
    with pytest.raises(InvalidInputError, match="samples: expected an integer of at least 4, got 3"):
        HISTORY.sample(3)


VALUES = st.lists(st.tuples(st.floats(-100, 100) | st.just(math.nan), st.floats()), min_size=1, max_size=200)


@given(VALUES, st.integers(4, 50))
def test_numpy_samples_as_plain_python_does(points: list[tuple[float, float]], most: int) -> None:
    import numpy

    x, values = [x for x, _ in points], [value for _, value in points]
    plain = _plainly(x, values, most)
    assert len(plain) <= max(most, len(points) if len(points) <= most else 0)
    if len(values) > most:
        assert _by_numpy(numpy, x, values, (most - 2) // 2, -100.0, 100.0) == plain
    numbers = [value for value in values if not math.isnan(value)]
    if numbers:
        kept = [values[index] for index in plain if not math.isnan(values[index])]
        assert min(kept) == min(numbers)
        assert max(kept) == max(numbers)
    assert plain[0] == 0
    assert plain[-1] == len(values) - 1


def _plainly(x: list[float], values: list[float], most: int) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(__import__("sys").modules, "numpy", raising=False)
        return sampled(x, values, most, -100.0, 100.0)


def test_means_are_over_the_runs_that_share_a_param() -> None:
    means = HISTORY.only(["loss"]).mean_over("lr")
    assert same(
        means.rows(),
        [
            ("lr=0.1", "loss", 0, 4.0, math.sqrt(2), 3.0, 5.0, 2),
            ("lr=0.1", "loss", 1, math.nan, math.nan, math.nan, math.nan, 1),
            ("lr=0.1", "loss", 2, 2.0, math.sqrt(2), 1.0, 3.0, 2),
            ("lr=0.2", "loss", 0, 7.0, math.nan, 7.0, 7.0, 1),
        ],
    )
    assert same(HISTORY.only(["loss"]).mean_over(besides="seed").rows(), list(means.rows()))
    assert [row[:4] for row in HISTORY.only(["acc"]).mean_over().rows()] == [
        ("all runs", "acc", 0, 0.5),
        ("all runs", "acc", 1, 0.75),
    ]
    assert len(means.to("pandas")) == 4
    assert "lr=0.1" in str(means.plot())


def test_a_group_that_cannot_be_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match="none of the runs has a param or tag 'Lr'; their params are 'lr', 'seed'"
    ):
        HISTORY.mean_over("Lr")
    with pytest.raises(InvalidInputError, match="not both"):
        HISTORY.mean_over("lr", besides=["seed"])
    with pytest.raises(InvalidInputError, match="got 3"):
        HISTORY.mean_over(3)  # type: ignore[arg-type]  # what is tested


def test_charts_have_a_line_for_each_run_and_are_saved(tmp_path: Any) -> None:
    charts = HISTORY.plot(log_y=True)
    assert [chart.title for chart in charts] == ["acc", "loss"]
    assert [line.label for line in charts[1].lines] == ["run 1", "run 2", "run 3"]
    assert charts._repr_html_().count("<svg") == 2
    charts.save(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text().count("<svg") == 2
    one = HISTORY.only(["loss"]).plot()
    one.save(tmp_path / "a.svg")
    one.save(tmp_path / "a.png")
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInputError, match=r"holds one chart, and these are 2; \.html holds any number"):
        charts.save(tmp_path / "b.png")
    with pytest.raises(InvalidInputError, match=r"to \.svg, \.png or \.html"):
        one.save(tmp_path / "b.pdf")


def test_a_notebook_shows_the_first_rows_and_escapes_them() -> None:
    shown = History([a_piece(ONE, "<b>", [(step, 1.0) for step in range(30)])])._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "30 rows, the first 10 of them shown" in shown
    assert f"<td>{moment(START + 9000)}.{START % 1000:03d}</td>" in shown, "a time as people read it"
    assert repr(HISTORY) == "<History: 9 rows of run_id, key, step, time, value, delivered>"

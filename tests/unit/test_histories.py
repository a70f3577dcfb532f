"""`asynctrack.history` and what a run object reads back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack import InvalidInputError, NotFoundError

POINTS = [(step, 1 / (step + 1)) for step in range(100)]


@pytest.fixture(params=["files", "sqlite"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[asynctrack.ActiveRun]:
    """A run with a hundred points of "loss", one of "acc" and the param lr."""
    asynctrack.set_tracking_uri(tmp_path / "store" if request.param == "files" else f"sqlite:///{tmp_path}/mlflow.db")
    with asynctrack.start_run(run_name="baseline") as run:
        run.log_param("lr", 0.1)
        for step, value in POINTS:
            run.log_metric("loss", value, step=step, timestamp=1_700_000_000_000 + step)
        run.log_metric("acc", 0.5, step=7)
        run.flush()
        yield run


def test_a_run_gives_its_history_as_a_data_frame(run: asynctrack.ActiveRun) -> None:
    frame = run.history("loss")
    assert list(frame.columns) == ["run_id", "key", "step", "time", "value", "delivered"]
    assert list(zip(frame["step"], frame["value"], strict=True)) == POINTS
    assert set(frame["run_id"]) == {run.run_id}
    assert frame["delivered"].all()
    assert run.history(["loss"], min_step=10, max_step=12)["step"].tolist() == [10, 11, 12]
    assert set(run.history()["key"]) == {"loss", "acc"}
    assert run.history("none").empty


def test_what_is_not_asked_for_in_full_keeps_its_extremes(run: asynctrack.ActiveRun) -> None:
    run.log_metric("loss", 1000.0, step=50)
    run.flush()
    few = run.history("loss", samples=10, format="dict")
    assert len(few["value"]) <= 10
    assert {1000.0, 1.0, 0.01} <= set(few["value"])


def test_a_run_is_scanned_step_by_step(run: asynctrack.ActiveRun) -> None:
    run.log_metric("loss", 5.0, step=7, timestamp=1_700_000_000_999)
    run.flush()
    rows = [row for row in run.scan_history() if row["step"] == 7]
    assert len(rows) == 2
    assert rows[0]["acc"] == 0.5
    assert [row["loss"] for row in rows] == [0.125, 5.0]
    assert [row["time"] for row in run.scan_history("loss", max_step=1)] == [1_700_000_000_000, 1_700_000_000_001]


def test_runs_of_a_search_are_compared(run: asynctrack.ActiveRun) -> None:
    with asynctrack.start_run(nested=True) as other:
        other.log_param("lr", 0.2)
        other.log_metric("loss", 3.0, step=1)
    for runs in (
        [run, other.run_id],
        asynctrack.search_runs(order_by=["start_time"]),
        asynctrack.search_runs(order_by=["start_time"], output_format="polars"),
        asynctrack.search_runs(order_by=["start_time"], output_format="list"),
    ):
        history = asynctrack.history(runs, ["loss"], tracking_uri=run.tracking_uri)
        assert isinstance(history, asynctrack.History)
        assert sorted(history.run_ids) == sorted([run.run_id, other.run_id])
        assert len(history) == 101
    assert [row[:4] for row in history.mean_over().rows()][1] == ("all runs", "loss", 1, 1.75)
    groups = {row[0] for row in history.mean_over("lr").rows()}
    assert groups == {"lr=0.1", "lr=0.2"}
    over_acc = asynctrack.history(run, "loss", x="acc", format="dict")
    assert list(over_acc) == ["run_id", "key", "step", "time", "value", "delivered", "acc"]
    assert over_acc["acc"][7] == 0.5


def test_a_table_of_runs_in_every_format(run: asynctrack.ActiveRun) -> None:
    expected = asynctrack.search_runs(output_format="pandas")
    polars, arrow = (asynctrack.search_runs(output_format=name) for name in ("polars", "arrow"))
    for found in (polars.to_dicts(), arrow.to_pylist()):
        assert len(found) == 1
        assert list(found[0]) == list(expected.columns)
        assert found[0]["metrics.loss"] == expected["metrics.loss"][0]
        assert found[0]["params.lr"] == "0.1"
        assert found[0]["start_time"] == expected["start_time"][0]
        assert found[0]["end_time"] is None
    assert asynctrack.search_runs(["0"], "params.lr = '7'", output_format="polars").is_empty()
    with pytest.raises(InvalidInputError, match="it must be one of pandas, polars, arrow, list"):
        asynctrack.search_runs(output_format="excel")


def test_a_run_is_plotted(run: asynctrack.ActiveRun, tmp_path: Path) -> None:
    charts = run.plot(["loss"], log_y=True)
    assert "baseline" in str(charts)
    assert charts._repr_html_().startswith("<svg")
    charts.save(tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").stat().st_size > 1000
    shown = run._repr_html_()
    assert "baseline" in shown
    assert shown.count("<svg") == 2


def test_a_page_of_runs_is_a_table_in_a_notebook(run: asynctrack.ActiveRun) -> None:
    run.set_tag("note", "<script>")
    page = asynctrack.MlflowClient().search_runs(["0"])
    shown = page._repr_html_()
    assert shown is not None
    assert "baseline" in shown
    assert "&lt;script&gt;" in asynctrack.get_run(run.run_id)._repr_html_()
    assert asynctrack.MlflowClient().search_experiments()._repr_html_() is None


def test_an_open_run_in_async_with_reads_without_holding_up_the_loop(tmp_path: Path) -> None:
    async def read() -> tuple[Any, ...]:
        async with asynctrack.start_run(tracking_uri=str(tmp_path / "store")) as run:
            run.log_metric("loss", 0.5, step=3)
            await run.flush()
            frame = await run.history("loss", format="dict")
            rows = [row async for row in run.scan_history()]
            return frame["value"], rows[0]["loss"], len(await run.plot())

    assert asyncio.run(read()) == ([0.5], 0.5, 1)


def test_points_are_there_before_they_are_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "offline")
    run = asynctrack.start_run(tracking_uri=str(tmp_path / "store"), run_name="away")
    run.log_param("lr", 0.1)
    run.log_metrics({"loss": 0.5, "acc": 0.25}, step=3)
    assert run.history(format="dict")["delivered"] == [False, False]
    assert run.history("loss", format="dict")["value"] == [0.5]
    assert asynctrack.history(run).mean_over("lr").to_dict()["group"] == ["lr=0.1", "lr=0.1"]
    assert next(iter(run.scan_history()))["acc"] == 0.25
    assert "away" in run._repr_html_()
    assert not (tmp_path / "store").exists()
    run.terminate()


def test_what_cannot_be_read_is_said(run: asynctrack.ActiveRun) -> None:
    with pytest.raises(NotFoundError, match="f" * 32):
        asynctrack.history("f" * 32)
    with pytest.raises(NotFoundError, match=run.run_id):
        asynctrack.history(run.run_id, tracking_uri="elsewhere")
    with pytest.raises(InvalidInputError, match="min_step=3 is above max_step=2"):
        run.history(min_step=3, max_step=2)
    with pytest.raises(InvalidInputError, match="x: expected 'step', 'time', 'relative'"):
        run.history("loss", x="epoch")
    assert asynctrack.history([]).to_dict()["value"] == []


def test_a_format_whose_package_is_missing_says_what_to_install(
    run: asynctrack.ActiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    for form, package in (("pandas", "pandas"), ("polars", "polars"), ("arrow", "pyarrow")):
        with pytest.raises(ImportError, match=f"pip install '{package}'"):
            run.history("loss", format=form)  # type: ignore[arg-type]  # each is one of the formats
        with pytest.raises(ImportError, match=f"pip install '{package}'"):
            asynctrack.search_runs(output_format=form)
    assert len(run.history("loss", format="columns")) == 100

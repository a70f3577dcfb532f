"""`asynctrack plot` and `export`: charts, and files of all points."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.cli.drawing import between, chosen_keys, in_units
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.plots.lines import Line
from tests.unit.cli.conftest import Call


def test_a_chart_for_each_metric_with_a_line_for_each_run(call: Call, trials: list[str]) -> None:
    shown = call("plot", "good", "failed", "--width", "60", "--height", "10", LANG="C.UTF-8").out
    assert "━━ good" in shown
    assert "━━ failed" in shown
    assert shown.count("val/acc") == 1
    assert max(map(len, shown.splitlines())) <= 60
    assert "\x1b" not in shown
    assert "\x1b" in call("plot", "good", FORCE_COLOR="1").out
    assert call("plot", "good", LANG="C").out.isascii()


def test_no_spike_is_lost_in_ten_thousand_points(call: Call) -> None:
    with asynctrack.start_run() as run:
        for step in range(10_000):
            run.log_metric("loss", 1000.0 if step == 7321 else 1.0, step)
    asynctrack.shutdown()
    (line,) = call("plot", "@", "--json").json
    assert len(line["points"]) <= 100
    assert [7321, 1000] in line["points"]
    assert "1000" in call("plot", "@", "--width", "40").out


def test_points_over_other_axes(call: Call, trials: list[str]) -> None:
    def points(*options: str) -> list[list[Any]]:
        found: list[list[Any]] = call("plot", "good", "-k", "loss", "--json", "points", *options).json[0]["points"]
        return found

    assert points("--from", "3", "--to", "4") == [[3, 0.25], [4, 0.2]]
    assert points("--x", "val/acc", "--to", "0.95") == [[0.9, 1.0]]
    assert points("--smooth", "0.5")[1] == [1, pytest.approx((0.5 * 0.5 * 1 + 0.5 * 0.5) / 0.75)]
    assert points("--x", "relative")[0][0] >= 0
    assert points("--x", "time")[0] == [0, 1.0]
    (line,) = call("plot", "good", "-k", "loss", "--json", "--x", "relative").json
    assert line["x"].endswith("since the run's start")
    assert "must be step" in call("plot", "good", "--x", "epoch", status=2).err
    assert "below 1" in call("plot", "good", "--smooth", "1", status=2).err


def test_where_no_steps_were_given_the_order_is_x(call: Call) -> None:
    with asynctrack.start_run() as run:
        for value in (3.0, 2.0, 1.0):
            run.log_metric("loss", value)
    asynctrack.shutdown()
    assert call("plot", "@", "--json", "points").json == [{"points": [[0, 3.0], [1, 2.0], [2, 1.0]]}]


@pytest.mark.parametrize(("ending", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!doctype html>")])
def test_a_chart_is_written_to_a_file(
    call: Call, trials: list[str], tmp_path: Path, ending: str, begins: bytes
) -> None:
    said = call("plot", "good", "failed", "-o", f"chart.{ending}")
    assert said.out == ""
    data = (tmp_path / f"chart.{ending}").read_bytes()
    assert data.startswith(begins)
    assert f"{len(data):,} bytes" in said.err


def test_a_file_that_cannot_be_written_is_said_so(call: Call, trials: list[str]) -> None:
    assert "chart.gif" in call("plot", "good", "-o", "chart.gif", status=2).err
    assert "give one" in call("plot", "good", "-o", "chart.svg", "--json", status=2).err
    assert not os.path.exists("chart.svg")
    assert "No such file" in call("plot", "good", "-o", "gone/chart.svg", status=2).err
    assert "No such file" in call("export", "-o", "gone/all.csv", status=2).err


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [(["loss"], ["loss"]), (["los"], ["loss", "val_loss"]), (["^v"], ["val/acc", "val_loss"]),
     (["acc", "loss"], ["loss", "val/acc"])],
)  # fmt: skip
def test_keys_are_meant_by_name_or_by_regular_expression(patterns: list[str], chosen: list[str]) -> None:
    assert chosen_keys({"loss", "val_loss", "val/acc"}, patterns) == chosen


def test_keys_that_nothing_is_called_like_are_said_with_those_that_are_there() -> None:
    with pytest.raises(NotFoundError, match="there are loss"):
        chosen_keys({"loss"}, ["acc"])
    with pytest.raises(InvalidInputError, match="regular expression"):
        chosen_keys({"loss"}, ["("])


def test_x_is_cut_and_scaled() -> None:
    assert between([1, 2, 3], [4, 5, 6], 2, None) == ([2, 3], [5, 6])
    assert in_units([Line("a", [0.0, 7200.0], [1, 1])]) == ([Line("a", [0.0, 2.0], [1, 1])], "h")
    assert in_units([]) == ([], "s")


def logged() -> list[tuple[str, int, float]]:
    """Key, step and value of each point of the three trials."""
    found = []
    for number, steps in enumerate((20, 15, 20)):
        for step in range(steps):
            value = 1 / (step + 1) + number
            found.append(("loss", step, math.nan if number == 2 and step >= 12 else value))
            if step % 5 == 0:
                found.append(("val/acc", step, 1 - value / 10))
    return found


def test_every_point_is_exported(call: Call, trials: list[str], tmp_path: Path) -> None:
    expected = sorted(map(repr, logged()))
    call("export", "-o", "all.csv")
    with open("all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(repr((row["key"], int(row["step"]), float(row["value"]))) for row in rows) == expected
    assert {row["run_id"] for row in rows} == set(trials)
    assert call("export").out == Path("all.csv").read_text()
    call("export", "-o", "all.jsonl")
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert sorted(repr((each["key"], each["step"], float(each["value"]))) for each in lines) == expected
    assert lines[0]["time"].endswith("Z")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["all.csv", "all.jsonl"]


def test_arrow_and_parquet_have_the_same_points(call: Call, trials: list[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    said = call("export", "-o", "all.parquet", "--json").json
    assert (said["runs"], said["rows"]) == (3, len(logged()))
    assert said["bytes"] == Path("all.parquet").stat().st_size
    call("export", "--format", "arrow", "-o", "all.bin")
    for table in (parquet.read_table("all.parquet"), pyarrow.ipc.open_file("all.bin").read_all()):
        found = zip(table["key"].to_pylist(), table["step"].to_pylist(), table["value"].to_pylist(), strict=True)
        assert sorted(map(repr, found)) == sorted(map(repr, logged()))
        assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_wide_has_a_column_for_each_metric(call: Call, trials: list[str], form: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    call("export", "good", "-o", f"wide.{form}", "--wide")
    if form == "csv":
        with open("wide.csv", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        rows = parquet.read_table("wide.parquet").to_pylist()
    assert [int(row["step"]) for row in rows] == list(range(20))
    assert [bool(row["val/acc"]) for row in rows] == [step % 5 == 0 for step in range(20)]
    assert float(rows[4]["loss"]) == 0.2


def test_some_runs_and_some_metrics_are_exported(call: Call, trials: list[str]) -> None:
    rows = list(csv.DictReader(call("export", "good", "-k", "val").out.splitlines()))
    assert [(row["run_id"], row["key"]) for row in rows] == [(trials[0], "val/acc")] * 4
    assert len(call("export", "-e", "vision").out.splitlines()) == len(logged()) + 1
    assert "must end in" in call("export", "-o", "all.xls", status=2).err


def test_a_metric_called_like_a_formula_is_none_in_a_csv(call: Call) -> None:
    with asynctrack.start_run() as run:
        run.log_metric("-x", -1.0)
    asynctrack.shutdown()
    (row,) = csv.DictReader(call("export", "@").out.splitlines())
    assert (row["key"], row["value"]) == ("'-x", "-1.0")


def test_odd_times_values_and_steps_that_go_back_are_exported_as_they_are(call: Call) -> None:
    points = [(3, 10**17, math.inf), (1, 1, math.nan), (2, 1_700_000_000_999, 5e-324), (1, 0, -0.0)]
    with asynctrack.start_run() as run:
        for step, time, value in points:
            run.log_metric("loss", value, step, timestamp=time)
    asynctrack.shutdown()
    times = [str(10**17), "1970-01-01T00:00:00.001Z", "2023-11-14T22:13:20.999Z", "1970-01-01T00:00:00.000Z"]
    rows = list(csv.DictReader(call("export", "@").out.splitlines()))
    assert [(int(row["step"]), row["time"], row["value"]) for row in rows] == [
        (step, said, repr(value)) for (step, _, value), said in zip(points, times, strict=True)
    ]
    lines = [json.loads(line) for line in call("export", "@", "--format", "jsonl").out.splitlines()]
    assert [line["time"] for line in lines] == [10**17, *times[1:]]
    assert [line["value"] for line in lines] == ["Infinity", "NaN", 5e-324, -0.0]
    wide = list(csv.DictReader(call("export", "@", "--wide").out.splitlines()))
    assert [(row["step"], row["loss"]) for row in wide] == [("1", "nan"), ("1", "-0.0"), ("2", "5e-324"), ("3", "inf")]

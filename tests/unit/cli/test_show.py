"""`asynctrack show`, `diff` and `compare`, as a user in a shell meets them."""

from __future__ import annotations

import json
import math

import pytest

import asynctrack
from tests.unit.cli.conftest import Call


def test_a_run_is_shown_in_summaries(call: Call, trials: list[str]) -> None:
    found = call("show", "diverged", "--json").json
    assert (found["id"], found["name"], found["status"]) == (trials[2], "diverged", "FINISHED")
    assert found["params"] == {"batch": "32", "lr": "3.0", "note": "n2"}
    assert found["metrics"]["loss"] == {
        "last": "NaN", "nan_from": 12, "step": 19, "min": 1 / 12 + 2, "min_step": 11, "max": 3.0, "max_step": 0,
        "first": 3.0, "points": 20,
    }  # fmt: skip
    assert found["tags"] == {"team": "a"}
    assert "mlflow.user" in call("show", "diverged", "--json", "--all").json["tags"]


@pytest.mark.parametrize("at", [2, 1, 0])
def test_a_run_is_named_by_id_by_its_start_by_name_or_by_its_place(call: Call, trials: list[str], at: int) -> None:
    name = ("good", "failed", "diverged")[at]
    for text in (trials[at], trials[at][:12], name, "@" if at == 2 else f"@{2 - at}"):
        assert call("show", text, "--json", "id").json == {"id": trials[at]}


def test_a_run_that_is_not_there_is_status_3_and_nothing_on_standard_output(call: Call, trials: list[str]) -> None:
    for verb in (["show", "god"], ["diff", "@", "god"], ["tail", "god"], ["plot", "god"], ["wait", "god", "ended"]):
        said = call(*verb, status=3)
        assert "god" in said.err
        assert said.out == ""


def test_all_metrics_at_a_step_and_around_one(call: Call, trials: list[str]) -> None:
    rows = call("show", "good", "--at", "7").rows
    assert [(row["key"], row["step"], row["value"]) for row in rows] == [
        ("loss", "7", "0.125"),
        ("val/acc", "5", str(1 - (1 / 6) / 10)),
    ]
    rows = call("show", "good", "--around", "5", "--window", "1").rows
    assert [(row["step"], row["loss"], row["val/acc"]) for row in rows] == [
        ("4", "0.2", ""),
        ("5", str(1 / 6), str(1 - (1 / 6) / 10)),
        ("6", str(1 / 7), ""),
    ]
    assert call("show", "good", "--around", "5", "--window", "0", "--json").json[0]["loss"] == 1 / 6
    assert "ask one" in call("show", "@", "--at", "1", "--around", "1", status=2).err


def test_the_page_for_people_has_everything(call: Call, trials: list[str]) -> None:
    shown = call("show", "failed", "-o", "table", LANG="C.UTF-8", COLUMNS="100").out
    for part in ("failed  FAILED", trials[1], "vision", "lr", "0.3", "team", "1.067@14", "▁"):
        assert part in shown
    assert call("show", "failed", "-o", "table", LANG="C").out.isascii()


def test_tsv_of_a_run_has_a_line_a_field(call: Call, trials: list[str]) -> None:
    fields = {row["field"]: row["value"] for row in call("show", "good").rows}
    assert fields["name"] == "good"
    assert fields["params.lr"] == "0.1"
    assert fields["metrics.loss.min"] == "0.05"


def test_an_unknown_field_lists_the_known_ones(call: Call, trials: list[str]) -> None:
    assert "params" in call("show", "@", "--json=colour", status=2).err


def test_diff_says_what_differs_and_its_status_whether(call: Call, trials: list[str]) -> None:
    rows = call("diff", "good", "failed", status=1).rows
    assert [(row["kind"], row["key"]) for row in rows] == [
        ("param", "lr"), ("param", "note"), ("metric", "loss"), ("metric", "val/acc"),
    ]  # fmt: skip
    assert rows[0] == {"kind": "param", "key": "lr", "a": "0.1", "b": "0.3"}
    assert call("diff", "good", "good").rows == []
    assert {"kind": "tag", "key": "team", "a": "a", "b": "a"} in call("diff", "@", "@", "--all", "--json").json


def test_of_many_metrics_some_are_shown(call: Call, trials: list[str]) -> None:
    assert list(call("show", "good", "-k", "acc", "--json").json["metrics"]) == ["val/acc"]
    assert [each["key"] for each in call("show", "good", "-k", "loss", "--at", "5", "--json").json] == ["loss"]
    assert "val/acc" not in call("show", "good", "-k", "loss", "-o", "table").out
    found = call("diff", "good", "failed", "-k", "acc", "--json", status=1).json
    assert [(each["kind"], each["key"]) for each in found if each["kind"] == "metric"] == [("metric", "val/acc")]
    assert "there are loss, val/acc" in call("show", "good", "-k", "nonsense", status=3).err


def test_nan_is_no_difference_from_nan(call: Call) -> None:
    for _ in range(2):
        with asynctrack.start_run() as run:
            run.log_metric("loss", float("nan"))
    asynctrack.shutdown()
    assert call("diff", "@", "@1").rows == []


def test_runs_are_compared_side_by_side(call: Call, trials: list[str]) -> None:
    rows = call("compare", "good", "failed", "diverged").rows
    assert rows[0] == {"kind": "param", "key": "lr", "good": "0.1", "failed": "0.3", "diverged": "3.0"}
    assert "batch" not in {row["key"] for row in rows}
    assert "batch" in {row["key"] for row in call("compare", "good", "failed", "--all").rows}
    shown = call("compare", "good", "failed", "-k", "loss", "-o", "table", LANG="C.UTF-8").out
    assert "━━ good" in shown
    assert "⠉" in shown or "⣀" in shown or "⡇" in shown


def test_runs_of_one_name_are_told_apart(call: Call) -> None:
    ids = []
    for value in (1, 2):
        with asynctrack.start_run(run_name="twin") as run:
            run.log_param("lr", value)
            ids.append(run.run_id)
    asynctrack.shutdown()
    (row,) = call("compare", *ids, "--json").json
    assert row == {"kind": "param", "key": "lr", f"twin {ids[0][:8]}": "1", f"twin {ids[1][:8]}": "2"}


def test_what_a_name_holds_is_not_obeyed(call: Call) -> None:
    hostile = "x\x1b[31m\u202e"
    with asynctrack.start_run(run_name=hostile, tags={"t": hostile}) as run:
        run.log_params({"p": hostile})
        run.log_metric("m", 1.0)
    asynctrack.shutdown()
    for arguments in (["show", "@", "-o", "table"], ["show", "@"], ["compare", "@", "--all"], ["tail", "@"]):
        assert not set(call(*arguments).out) & set("\x1b\u202e")
    assert json.loads(call("show", "@", "--json").out)["name"] == hostile


def test_it_says_where_a_metric_became_nan(call: Call) -> None:
    """In order of the steps; NaN that a number follows is none of that."""
    with asynctrack.start_run() as run:
        for step in (0, 3, 2, 1, 5, 4):
            run.log_metrics({"gone": math.nan if step >= 3 else 1.0, "back": math.nan if step == 3 else 1.0}, step)
    assert "nan from 3" in call("show", "@", "-o", "table").out
    metrics = call("show", "@", "--json").json["metrics"]
    assert metrics["gone"]["nan_from"] == 3
    assert "nan_from" not in metrics["back"]


def test_show_gives_the_fields_of_runs_that_are_asked_for(trials: list[str], call: Call) -> None:
    asked = "name,lr,loss,loss.max,loss.min_step,tags.team"
    found = call("show", "good", "--json", asked).json
    assert found == {"name": "good", "lr": "0.1", "loss": 0.05, "loss.max": 1.0, "loss.min_step": 19, "tags.team": "a"}

"""The command `asynctrack runs`, as a user in a shell meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

import asynctrack
from tests.unit.cli.conftest import Call, log_trials


def test_the_latest_start_comes_first_and_nothing_is_cut_in_a_pipe(call: Call, trials: list[str]) -> None:
    rows = call("runs").rows
    assert [row["id"] for row in rows] == trials[::-1]
    assert [row["name"] for row in rows] == ["diverged", "failed", "good"]
    assert [row["status"] for row in rows] == ["FINISHED", "FAILED", "FINISHED"]
    assert {row["experiment"] for row in rows} == {"vision"}
    assert call("ls").rows == rows


def test_columns_are_fields_params_metrics_and_their_parts(call: Call, trials: list[str]) -> None:
    rows = call("runs", "-c", "name,lr,loss.min,loss.min_step,loss.last,val/acc.max,tags.team,loss.points").rows
    assert rows[-1] == {
        "name": "good", "lr": "0.1", "loss.min": "0.05", "loss.min_step": "19", "loss.last": "0.05",
        "val/acc.max": str(1 - (1 / 16) / 10), "tags.team": "a", "loss.points": "20",
    }  # fmt: skip
    assert rows[0]["loss.last"] == "nan"
    assert rows[0]["loss.min"] == str(1 / 12 + 2)


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("loss.min", ["good", "failed", "diverged"]),
        ("-loss.min", ["diverged", "failed", "good"]),
        ("loss.min desc", ["diverged", "failed", "good"]),
        ("lr", ["good", "failed", "diverged"]),
        ("loss", ["good", "failed", "diverged"]),  # NaN is last, whatever the direction
        ("-loss", ["failed", "good", "diverged"]),
        ("name", ["diverged", "failed", "good"]),
    ],
)
def test_runs_are_sorted_by_any_field(call: Call, trials: list[str], sort: str, names: list[str]) -> None:
    assert [row["name"] for row in call("runs", "--sort", sort).rows] == names
    assert [row["name"] for row in call("runs", "--sort", sort, "-n", "1").rows] == names[:1]


def test_a_filter_asks_open_runs_for_what_the_list_does_not_show(call: Call) -> None:
    with asynctrack.start_run(run_name="open") as run:
        run.log_param("lr", 0.1)
        run.flush()
        run.log_metric("loss", 0.5)
        assert [row["name"] for row in call("runs", "params.lr = '0.1'").rows] == ["open"]
        assert call("runs", "params.lr = '0.2'").rows == []
        assert [row["lr"] for row in call("runs", "-c", "lr", "--sort", "lr").rows] == ["0.1"]
        assert [row["lr"] for row in call("runs", "-c", "lr", "--sort", "-started").rows] == ["0.1"]


def test_the_filter_is_mlflows(call: Call, trials: list[str]) -> None:
    assert call("runs", "-q", "params.lr = '0.1'").out.split() == trials[:1]
    assert call("runs", "-q", "--filter", "metrics.`val/acc` > 0.8").out.split() == trials[1::-1]
    assert call("runs", "-q", "-e", "vision", "attributes.status = 'FAILED'").out.split() == trials[1:2]
    assert "metrics" in call("runs", "nonsense !", status=2).err


def test_json_has_what_a_pipe_gets_or_the_fields_that_are_asked_for(call: Call, trials: list[str]) -> None:
    short = call("runs", "--json").json
    assert [each["id"] for each in short] == trials[::-1]
    assert list(short[0]) == list(call("runs").rows[0])
    assert list(call("runs", "--json", "-c", "name,lr").json[0]) == ["name", "lr"]
    whole = call("runs", "--json", "params,metrics,tags,started").json
    assert whole[2]["params"] == {"batch": "32", "lr": "0.1", "note": "n0"}
    assert whole[0]["metrics"]["loss"] == "NaN"
    assert whole[2]["tags"] == {"team": "a"}
    assert whole[2]["started"].endswith("Z")
    assert call("runs", "--json", "name,lr,loss.min", "-n", "1", "--sort", "loss.min").json == [
        {"name": "good", "lr": "0.1", "loss.min": 0.05}
    ]
    error = call("runs", "--json=name,colour", status=2).err
    assert "'colour'" in error
    assert "artifact_uri" in error
    assert "val/acc" in error


def test_ids_only(call: Call, trials: list[str]) -> None:
    assert call("runs", "-q", "-n", "2").out.split() == trials[:0:-1]


def test_a_deleted_run_is_shown_with_all(call: Call, trials: list[str]) -> None:
    asynctrack.delete_run(trials[0])
    assert call("runs", "-q").out.split() == trials[:0:-1]
    assert {each["id"]: each["deleted"] for each in call("runs", "--all", "--json", "id,deleted").json} == {
        trials[0]: True, trials[1]: False, trials[2]: False,
    }  # fmt: skip


def test_an_experiment_that_is_not_there_is_said_with_those_that_are(call: Call, trials: list[str]) -> None:
    assert "vision" in call("runs", "-e", "vison", status=3).err


def test_a_table_fits_the_terminal(call: Call, trials: list[str]) -> None:
    for width in (40, 80, 200):
        lines = call("runs", "-o", "table", COLUMNS=str(width), LANG="C.UTF-8").out.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].startswith("ID")
        assert [line.split()[0] for line in lines[1:4]] == [run_id[:8] for run_id in trials[::-1]]


def test_where_nothing_is_nothing_is_made(call: Call, tmp_path: Path) -> None:
    assert call("runs").rows == []
    assert call("runs", "--json").json == []
    assert "no database" in call("runs", "--store", "sqlite:///gone.db", status=3).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "asynctrack+"])
def test_another_store_also_as_mlflow_spells_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    ids = log_trials()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{tmp_path}/files")
    assert call("runs", "-q").out == ""
    assert call("runs", "-q", "--store", f"{prefix}sqlite:///{tmp_path}/other.db").out.split() == ids[::-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{prefix}sqlite:///{tmp_path}/other.db")
    assert call("runs", "-q").out.split() == ids[::-1]


def test_a_hostile_name_reaches_no_terminal(call: Call) -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\u202e"
    with asynctrack.start_run(run_name=f"n{hostile}", tags={"t": hostile}) as run:
        run.log_param("p", hostile)
    asynctrack.shutdown()
    for form in ("table", "tsv"):
        said = call("runs", "-o", form, "-c", "name,tags.t,p")
        assert not set(said.out) & set("\x1b\x07\u202e")
        assert "\\x1b[2J" in said.out
    assert call("runs", "--json", "name").json == [{"name": f"n{hostile}"}]

"""The command `asynctrack import`, as a user or a script meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from tests.imports import make_source


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["import", *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result.output


def test_a_folder_goes_into_a_database_and_the_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    make_source(tmp_path / "mlruns", points=10)
    text = call("mlruns", "--to", "sqlite:///mlflow.db")
    assert "3 experiments, 5 runs with 121 events imported, 0 runs were there already" in text
    told = json.loads(call("./mlruns", "--to", "sqlite:///mlflow.db", "--json"))
    assert (told["runs"], told["left"], told["problems"]) == (1, 0, [])  # the one that is running is looked at again
    some = json.loads(call("./mlruns", "--to", "sqlite:///mlflow.db", "--json", "runs,present"))
    assert some == {"runs": 1, "present": 4}
    assert "the fields are source, store" in call("./mlruns", "--to", "sqlite:///b.db", "--json", "a,b", code=2)


def test_what_a_database_beside_the_folder_uses_of_it_is_named(tmp_path: Path) -> None:
    """It keeps its own artifacts there, also those of experiments that had the number of an old one."""
    asynctrack.set_tracking_uri("./mlruns")
    with asynctrack.start_run() as run:
        run.log_text("weights", "model.txt")
    asynctrack.create_experiment("old")
    [old] = [path for path in Path("mlruns").iterdir() if path.name not in ("0", ".trash")]
    meta = old / "meta.yaml"
    meta.write_text(meta.read_text().replace(old.name, "1"))
    old.rename("mlruns/1")  # as in folders that an early MLflow has made
    asynctrack.set_tracking_uri("sqlite:///mlflow.db")
    with asynctrack.start_run(experiment_name="new") as other:
        other.log_text("weights", "model.txt")
    text = call("mlruns", "--to", "sqlite:///mlflow.db")
    places = [str(tmp_path / "mlruns" / number) for number in "01"]
    assert f"Still in use, for artifacts of sqlite:///{tmp_path}/mlflow.db: {', '.join(places)}; keep these" in text
    assert json.loads(call("mlruns", "--to", "sqlite:///mlflow.db", "--json", "in_use")) == {"in_use": places}
    assert "Still in use" not in call("mlruns", "--to", "sqlite:///elsewhere/mlflow.db")
    for folder in Path("mlruns").iterdir():  # as the documentation says
        if str(folder.resolve()) in places:
            (folder / "meta.yaml").unlink()
        else:
            shutil.rmtree(folder)
    asynctrack.set_tracking_uri("")
    assert asynctrack.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    for each in (run, other):
        found = asynctrack.get_service().list_artifacts(each.run_id)
        assert [file.path for file in found] == ["model.txt"]


def test_damaged_files_are_named_at_the_end_and_the_status_says_so(tmp_path: Path) -> None:
    made = make_source(tmp_path / "mlruns", points=10)
    [path] = made.root.glob(f"*/{made.parent}/metrics/loss")
    path.write_text("oops\n")
    text = call("mlruns", "--to", "sqlite:///mlflow.db", code=1)
    assert f"{path}: 1 damaged lines" in text
    assert "1 problems, named above; everything else is imported" in text


def test_wrong_usage(tmp_path: Path) -> None:
    assert "holds no experiments" in call("mlruns", "--to", "sqlite:///mlflow.db", code=2)
    make_source(tmp_path / "mlruns", points=1)
    assert "is none of" in call("mlruns", "--to", "sqlight:x", code=2)
    assert "into itself" in call("mlruns", "--to", "file:mlruns", code=2)
    call("mlruns", code=2)


def test_a_store_that_cannot_be_written_ends_with_one(tmp_path: Path) -> None:
    make_source(tmp_path / "mlruns", points=1)
    (tmp_path / "mlflow.db").write_text("no database, but long enough to be taken for one" * 100)
    text = call("mlruns", "--to", "sqlite:///mlflow.db", "--timeout", "0", code=1)
    assert "The same command goes on from there" in text

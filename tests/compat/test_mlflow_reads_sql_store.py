"""The real MLflow opens the databases that SqlStore makes, and SqlStore writes those that versions of MLflow made."""

from __future__ import annotations

import math
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import WrongServerError
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from tests.mlflow_store import make_database, open_mlflow

MAX = sys.float_info.max
#: MLflow 1.28, 3.10
REVISIONS = ("97727af70f4d", "1b5f0d9ad7c1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database of each revision."""
    folder = tmp_path_factory.mktemp("revisions")
    found = {revision: folder / f"{revision}.db" for revision in REVISIONS}
    for revision, path in found.items():
        make_database(path, revision)
    return found


@pytest.fixture
def path(memory_path: Path) -> Path:
    return memory_path / "mlflow.db"


@pytest.fixture
def store(path: Path) -> Iterator[AbstractStore]:
    store = open_store(f"sqlite:///{path}", InlineIO())
    yield store
    drive(store.aclose())


@pytest.fixture
def mlflow(path: Path) -> Iterator[Any]:
    """Opens MLflow's store on the database, and closes what it has opened."""
    opened: list[Any] = []

    def begin() -> Any:
        opened.append(open_mlflow(path))
        return opened[-1]

    yield begin
    for theirs in opened:
        theirs._dispose_engine()


def write_run(store: AbstractStore, name: str) -> str:
    """A finished run with everything in it."""
    spec = RunSpec(uuid.uuid4().hex, None, None, "vision", name, "ann", 1_700_000_000_000, {"team": "cv"})
    run_id = drive(store.create_run(spec)).run_id
    metrics: dict[str, Any] = {
        "loss": [(i, i, i / 7) for i in range(1000)],
        "odd": [(1, 1, math.nan), (2, 2, math.inf), (3, 3, -math.inf)],
    }
    batch = Batch(metrics, [("lr", "0.1"), ("text", "a\r\n é")], [("mlflow.note.content", "# note")])
    assert drive(store.log_batch(run_id, batch)) == []
    drive(store.update_run(run_id, status="FAILED", end_time=1_700_000_000_001))
    return run_id


def check_run(theirs: Any, ours: AbstractStore, run_id: str) -> None:
    """MLflow reads of a run what was written, and what we read."""
    run, same = theirs.get_run(run_id), drive(ours.get_run(run_id))
    for name in type(same.info).__dataclass_fields__:
        assert getattr(same.info, name) == getattr(run.info, name), name
    assert (run.data.metrics, run.data.params, run.data.tags) == (same.data.metrics, same.data.params, same.data.tags)
    assert run.data.params == {"lr": "0.1", "text": "a\r\n é"}
    assert run.data.tags == {"team": "cv", "mlflow.note.content": "# note", "mlflow.runName": run.info.run_name}
    assert run.data.metrics == {"loss": 999 / 7, "odd": -MAX}
    history = theirs.get_metric_history(run_id, "loss")
    assert [(point.timestamp, point.step, point.value) for point in history] == [(i, i, i / 7) for i in range(1000)]
    odd = [point.value for point in theirs.get_metric_history(run_id, "odd")]
    assert math.isnan(odd[0])
    assert odd[1:] == [MAX, -MAX]


def test_mlflow_opens_and_upgrades_a_database_that_we_made(store: AbstractStore, mlflow: Any, path: Path) -> None:
    """Both go on to write it, ours over the connection that it had before."""
    run_id = write_run(store, "first")
    theirs = mlflow()
    check_run(theirs, store, run_id)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() != ("6953534de441",)
    connection.close()
    second = write_run(store, "second")
    check_run(theirs, store, second)
    own = theirs.create_run("0", "bob", 1, [], "theirs").info
    assert drive(store.log_batch(own.run_id, Batch({"m": [(1, 1, 2.5)]}))) == []
    assert theirs.get_run(own.run_id).data.metrics == {"m": 2.5}
    names = {experiment.name for experiment in theirs.search_experiments()}
    assert names == {"Default", "vision"}
    found = drive(store.search_runs(["0", "1"], "attributes.run_name != 'second'")).items
    assert {run.info.run_id for run in found} == {run_id, own.run_id}
    # Artifacts are where MLflow puts those of a database in this folder.
    assert theirs.get_experiment("1").artifact_location == str(path.parent / "mlruns" / "1")
    place = theirs.create_experiment("place")
    ours = drive(store.create_experiment("ours"))
    assert [drive(store.get_experiment(each)).artifact_location for each in (place, ours)] == [
        str(path.parent / "mlruns" / each) for each in (place, ours)
    ]


def test_datasets_and_models_that_mlflow_has_logged_are_read(store: AbstractStore, mlflow: Any) -> None:
    """With their tags and steps; of each run its own."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput

    run_id, other = write_run(store, "first"), write_run(store, "second")
    theirs = mlflow()
    sets = [
        DatasetInput(Dataset(name, "d1", "local", "{}", "schema", None), [InputTag("mlflow.data.context", name)])
        for name in ("train", "eval")
    ]
    theirs.log_inputs(run_id, sets, [LoggedModelInput("m-1")])
    theirs.log_inputs(other, sets[:1])
    theirs.log_outputs(run_id, [LoggedModelOutput("m-2", 7)])
    for each in (run_id, other):
        expected = theirs.get_run(each)
        [found] = drive(store.search_runs(["1"], f"attributes.run_id = '{each}'")).items
        assert found == drive(store.get_run(each))
        assert sorted(map(_input, found.inputs.dataset_inputs)) == sorted(map(_input, expected.inputs.dataset_inputs))
        models = [model.model_id for model in expected.inputs.model_inputs]
        assert [model.model_id for model in found.inputs.model_inputs] == models
        made = [(model.model_id, model.step) for model in expected.outputs.model_outputs]
        assert [(model.model_id, model.step) for model in found.outputs.model_outputs] == made
        assert len(found.inputs.dataset_inputs) == (2 if each == run_id else 1)


def test_datasets_and_models_are_the_rows_that_mlflow_writes(store: AbstractStore, tmp_path: Path, path: Path) -> None:
    """But for ids that are another each time. MLflow is given no output twice: it refuses that."""
    from mlflow import entities

    from asynctrack import entities as own

    found = {}
    for whose, kinds in (("theirs", entities), ("ours", own)):
        at = path.with_name(f"{whose}.db")
        theirs = open_mlflow(at)
        runs = [theirs.create_run("0", "ann", 1, [], f"{number}").info.run_id for number in range(2)]
        log: Any = theirs
        if whose == "ours":
            log = _Blocking(open_store(f"sqlite:///{at}", InlineIO()))

        def used(name: str, digest: str, context: str, kinds: Any = kinds, **about: Any) -> Any:
            dataset = kinds.Dataset(name, digest, "local", "{}", **about)
            return kinds.DatasetInput(dataset, [kinds.InputTag("mlflow.data.context", context)])

        sets = [used("b", "1", "train", schema="s"), used("a", "1", "train", profile="ü"), used("b", "1", "eval")]
        log.log_inputs(runs[0], sets, [kinds.LoggedModelInput("m-1")])
        log.log_inputs(runs[0], [used("a", "1", "other", profile="p"), used("a", "2", "test")], [])
        log.log_inputs(runs[1], sets[:1], [kinds.LoggedModelInput("m-1")])
        log.log_outputs(runs[0], [kinds.LoggedModelOutput("m-2", 0), kinds.LoggedModelOutput("m-3", -4)])
        theirs._dispose_engine()
        found[whose] = _rows_about_inputs(at)
    assert found["ours"] == found["theirs"]
    assert {table: len(rows) for table, rows in found["ours"].items()} == {"datasets": 3, "inputs": 8, "input_tags": 4}


class _Blocking:
    """A store's coroutines as functions."""

    def __init__(self, store: AbstractStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return lambda *args: drive(getattr(self._store, name)(*args))


def _rows_about_inputs(path: Path) -> dict[str, list[Any]]:
    """With names in the place of ids; of the ids of rows their form."""
    connection = sqlite3.connect(path)
    try:
        names = dict(connection.execute("SELECT run_uuid, name FROM runs"))
        names |= dict(connection.execute("SELECT dataset_uuid, name || digest FROM datasets"))
        columns = "experiment_id, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile"
        edges = "source_type, source_id, destination_type, destination_id, step"
        found = {
            "datasets": f"SELECT length(dataset_uuid), {columns} FROM datasets",
            "inputs": f"SELECT length(input_uuid), {edges} FROM inputs",
            "input_tags": f"SELECT {edges}, name, value FROM input_tags JOIN inputs USING (input_uuid)",
        }
        return {
            table: sorted(repr([names.get(value, value) for value in row]) for row in connection.execute(statement))
            for table, statement in found.items()
        }
    finally:
        connection.close()


def _input(each: Any) -> tuple[Any, ...]:
    data = each.dataset
    about = data.name, data.digest, data.source_type, data.source, data.schema or "", data.profile or ""
    return (*about, *((tag.key, tag.value) for tag in each.tags))


@pytest.mark.parametrize("revision", REVISIONS)
def test_databases_of_older_versions_are_written_and_mlflow_reads_them(
    revision: str, made: dict[str, Path], store: AbstractStore, mlflow: Any, path: Path
) -> None:
    shutil.copy(made[revision], path)
    runs = [write_run(store, name) for name in ("a", "b")]
    drive(store.create_run(RunSpec(uuid.uuid4().hex, start_time=1)))  # makes the default experiment
    theirs = mlflow()
    for run_id in runs:
        check_run(theirs, store, run_id)
    assert {experiment.experiment_id for experiment in theirs.search_experiments()} == {"0", "1"}


def test_a_run_logged_by_a_program_is_whole_for_mlflow(mlflow: Any, path: Path) -> None:
    """Through the engine, with an artifact and a nested run."""
    with asynctrack.start_run(tracking_uri=f"sqlite:///{path}", run_name="outer") as run:
        for step in range(500):
            run.log_metric("loss", step / 2, step=step)
        run.log_text("hello", "notes/a.txt")
        with asynctrack.start_run(tracking_uri=f"sqlite:///{path}", run_name="inner", nested=True) as inner:
            inner.log_param("p", 1)
    theirs = mlflow()
    stored = theirs.get_run(run.run_id)
    assert (stored.info.status, stored.info.experiment_id, stored.data.metrics) == ("FINISHED", "0", {"loss": 249.5})
    assert theirs.get_run(inner.run_id).data.tags["mlflow.parentRunId"] == run.run_id
    assert (Path(stored.info.artifact_uri) / "notes/a.txt").read_text() == "hello"
    assert asynctrack.get_service(f"sqlite:///{path}").get_run(run.run_id).data.metrics == {"loss": 249.5}


def test_a_newer_schema_is_written_where_it_fits_and_refused_where_it_does_not(
    store: AbstractStore, path: Path
) -> None:
    """It is never changed by us, and what was logged waits."""
    run_id = write_run(store, "a")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("ALTER TABLE runs ADD COLUMN mood VARCHAR(9)")
    connection.execute("ALTER TABLE metrics ADD COLUMN unit VARCHAR(9) NOT NULL DEFAULT ''")
    assert drive(store.log_batch(run_id, Batch({"m": [(1, 1, 1.0)]}))) == []
    connection.execute("CREATE TABLE other (key, value, run_uuid, owner TEXT NOT NULL, PRIMARY KEY (key, run_uuid))")
    connection.execute("DROP TABLE tags")
    connection.execute("ALTER TABLE other RENAME TO tags")
    connection.close()
    with pytest.raises(WrongServerError, match="owner in its table tags") as caught:
        drive(store.log_batch(run_id, Batch(tags=[("t", "1")])))
    assert caught.value.held

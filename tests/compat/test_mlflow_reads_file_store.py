"""The real MLflow reads what FileStore writes, FileStore reads what MLflow writes, and the two search alike."""

from __future__ import annotations

import math
import pathlib
import sqlite3
import subprocess
import sys
import uuid
import warnings
from typing import Any, cast

import pytest

from asynctrack.entities import RunInfo
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive

MAX = sys.float_info.max
#: everything a double can be, and neighbours that SQL takes for one
POINTS = [
    (1000, 0, 0.1 + 0.2),
    (1001, 1, math.nan),
    (1001, 1, math.nan),
    (1002, 2, math.inf),
    (1002, 2, MAX),
    (1003, 3, -MAX),
    (1003, 3, -math.inf),
    (1004, 4, -0.0),
    (1004, 4, 0.0),
    (1005, 5, math.nan),
    (1005, 5, 0.0),
    (1006, -7, 5e-324),
    (1006, -7, 1e22),
    (900, 9, 1.0),
]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is allowed to use files and told to keep to itself."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def mlflow(settings: None) -> Any:
    """MLflow's tracking module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, while they are imported
        return pytest.importorskip("mlflow.tracking")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A path that must be quoted in URIs."""
    return tmp_path / "ml rüns"


@pytest.fixture
def store(root: pathlib.Path) -> FileStore:
    """Ours."""
    return FileStore(root, InlineIO())


@pytest.fixture
def client(mlflow: Any, root: pathlib.Path) -> Any:
    """MLflow's, on the same directory."""
    return mlflow.MlflowClient(str(root))


def new_run(store: FileStore, **given: Any) -> RunInfo:
    """A run of ours."""
    return drive(store.create_run(RunSpec(**{"uid": uuid.uuid4().hex, "start_time": 1_700_000_000_000, **given})))


def points_of(history: Any) -> list[str]:
    """Comparable, with NaN equal to NaN and 0.0 told from -0.0."""
    return [repr((point.key, point.timestamp, point.step, point.value)) for point in history]


def same_run(ours: Any, theirs: Any) -> None:
    """Every field of the two runs is equal."""
    for name in RunInfo.__dataclass_fields__:
        assert getattr(ours.info, name) == getattr(theirs.info, name), name
    assert repr(dict(sorted(ours.data.metrics.items()))) == repr(dict(sorted(theirs.data.metrics.items())))
    assert (ours.data.params, ours.data.tags) == (theirs.data.params, theirs.data.tags)


def same_experiment(ours: Any, theirs: Any) -> None:
    """Every field of the two experiments is equal."""
    for name in ("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.tags == theirs.tags


def test_mlflow_reads_every_point_param_and_tag(store: FileStore, client: Any) -> None:
    """In order, bit for bit, NaN and both infinities included."""
    info = new_run(store, experiment_name="visión", run_name="1e5", user_id="ann", tags={"team": "cv: a"})
    batch = Batch(
        {"loss/train x": list(POINTS), "m.1": [(i, i, i / 7) for i in range(3000)]},
        [("lr", "0.1"), ("text", "a\r\nb\n é"), ("empty", "")],
        [("a b", "v"), ("mlflow.note.content", "# note")],
    )
    assert drive(store.log_batch(info.run_id, batch)) == []
    drive(store.update_run(info.run_id, status="FAILED", end_time=1_700_000_000_001))
    theirs = client.get_run(info.run_id)
    for name in RunInfo.__dataclass_fields__:
        assert getattr(drive(store.get_run(info.run_id)).info, name) == getattr(theirs.info, name), name
    assert theirs.data.params == {"lr": "0.1", "text": "a\r\nb\n é", "empty": ""}
    assert theirs.data.tags == {
        "a b": "v", "mlflow.note.content": "# note", "team": "cv: a", "mlflow.runName": "1e5",
    }  # fmt: skip
    for key, count in (("loss/train x", 10), ("m.1", 3000)):
        history = client.get_metric_history(info.run_id, key)
        assert points_of(history) == points_of(drive(store.get_metric_history(info.run_id, key)))
        assert len(history) == count
    assert theirs.data.metrics == {"loss/train x": 1.0, "m.1": 2999 / 7}
    assert client.get_experiment_by_name("visión").experiment_id == info.experiment_id


def test_mlflow_goes_on_where_we_stopped(store: FileStore, client: Any, tmp_path: pathlib.Path) -> None:
    """It logs to our run, stores artifacts, renames, deletes and restores what we made; we see all of it."""
    info = new_run(store, experiment_name="x")
    run_id = info.run_id
    drive(store.log_batch(run_id, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")])))
    client.log_metric(run_id, "m", 2, timestamp=2, step=1)
    client.log_param(run_id, "p", "1")
    client.set_tag(run_id, "mlflow.runName", "theirs")
    client.log_text(run_id, "hello", "a/b.txt")
    drive(store.log_batch(run_id, Batch({"m": [(2, 1, 2.0), (3, 2, 3.0)]}, [], [("t", "1")])))
    assert [point.value for point in client.get_metric_history(run_id, "m")] == [1.0, 2.0, 3.0]
    assert [item.path for item in client.list_artifacts(run_id, "a")] == ["a/b.txt"]
    same_run(drive(store.get_run(run_id)), client.get_run(run_id))
    client.rename_experiment(info.experiment_id, "y")
    client.delete_experiment(info.experiment_id)
    same_experiment(drive(store.get_experiment(info.experiment_id)), client.get_experiment(info.experiment_id))
    assert len(drive(store.log_batch(run_id, Batch(params=[("q", "1")])))) == 1
    drive(store.restore_experiment(info.experiment_id))
    same_experiment(drive(store.get_experiment(info.experiment_id)), client.get_experiment(info.experiment_id))
    same_run(drive(store.get_run(run_id)), client.get_run(run_id))
    drive(store.delete_experiment(info.experiment_id))
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    client.restore_experiment(info.experiment_id)
    assert drive(store.get_run(run_id)).info.lifecycle_stage == "active"


def test_we_read_what_mlflow_wrote(client: Any, store: FileStore) -> None:
    """Experiments, runs, values and points, field by field, deleted ones too."""
    experiment_id = client.create_experiment("theirs: 1", tags={"k/l": "v"})
    for i in range(3):
        run = client.create_run(experiment_id, run_name=f"r{i}", tags={"a b": f"v{i}"}, start_time=1000 + i)
        for at, step, value in POINTS:
            client.log_metric(run.info.run_id, "m/n", value, timestamp=at, step=step)
        client.log_param(run.info.run_id, "p", f"{i}\r\nx")
        client.set_terminated(run.info.run_id, "KILLED", 2000)
        same_run(drive(store.get_run(run.info.run_id)), client.get_run(run.info.run_id))
        history = drive(store.get_metric_history(run.info.run_id, "m/n"))
        assert points_of(history) == points_of(client.get_metric_history(run.info.run_id, "m/n"))
    client.delete_run(run.info.run_id)
    ours, theirs = (
        drive(store.search_runs([experiment_id], run_view_type=3)).items,
        client.search_runs([experiment_id], run_view_type=3),
    )
    for one, other in zip(ours, theirs, strict=True):
        same_run(one, other)
    for one, other in zip(drive(store.search_experiments()).items, client.search_experiments(), strict=True):
        same_experiment(one, other)


RUN_FILTERS = [
    "",
    "metrics.acc > 0.2",
    "metrics.acc>=0.25 and metrics.acc <= 0.5",
    "metrics.acc != 0.5",
    "metrics.`a/b` < -1e-3",
    "metrics.nan > 0",
    "metrics.nan != 0",
    "params.p = '1'",
    'params.p = "1"',
    "param.p != '1' AND metrics.acc > 0",
    "params.`a b` LIKE '%b_'",
    "params.none IS NULL",
    "params.odd IS NOT NULL",
    "tags.`a b` ILIKE 'V%'",
    "tags.\"a b\" LIKE '%1'",
    "tag.mlflow.runName = 'r1'",
    "attributes.status = 'FINISHED'",
    "status != 'FINISHED'",
    "attribute.run_name LIKE 'r%'",
    "attributes.`Run name` = 'r2'",
    "run.start_time > 1001",
    "attributes.created <= 1002",
    "end_time > 0",
    "attributes.user_id = 'unknown'",
    "artifact_uri LIKE '%artifacts'",
]
ORDERS: list[list[str]] = [
    [],
    ["metrics.acc DESC"],
    ["metrics.acc"],
    ["metrics.nan ASC", "start_time ASC"],
    ["metrics.nan DESC"],
    ["params.odd DESC", "attributes.run_name desc"],
    ["tags.`a b` ASC"],
    ["attributes.end_time DESC"],
]


def test_searches_agree_with_mlflow(client: Any, store: FileStore) -> None:
    """The same runs in the same order, for every filter and order MLflow documents."""
    experiment_id = client.create_experiment("s")
    ids = []
    for i in range(6):
        run_id = client.create_run(experiment_id, run_name=f"r{i}", start_time=1000 + i // 2).info.run_id
        ids.append(run_id)
        batch = Batch({"nan": [(1, 0, math.nan if i % 3 == 1 else float(i))]}, [("p", str(i % 2)), ("a b", f"xb{i}")])
        if i < 4:
            batch.add("acc", [(1, 0, i / 4)])
            batch.add("a/b", [(1, 0, -i / 2)])
            batch.tags.append(("a b", f"v{i}"))
        if i % 2:
            batch.params.append(("odd", str(i)))
            drive(store.update_run(run_id, status="FINISHED", end_time=2000 - i))
        assert drive(store.log_batch(run_id, batch)) == []
    filters = [*RUN_FILTERS, f"run_id IN ('{ids[1]}', '{ids[4]}')", f"attributes.run_id NOT IN ('{ids[0]}')"]
    for text in filters:
        for order_by in ORDERS if text in ("", "params.p = '1'") else [[]]:
            ours = drive(store.search_runs([experiment_id], text, order_by=order_by)).items
            theirs = client.search_runs([experiment_id], text, order_by=order_by)
            assert [run.info.run_id for run in ours] == [run.info.run_id for run in theirs], (text, order_by)


@pytest.mark.parametrize(
    "text",
    [
        "metrics.a > 'x'",
        "params.p = 1",
        "params.p > '1'",
        "metrics.a LIKE 'x'",
        "status IN ('a')",
        "nothing = 'x'",
        "columns.a = 'x'",
        "metrics.a > 1 OR metrics.a < 0",
        "metrics.a IS NULL",
        "metrics.a-b > 1",
    ],
)
def test_what_mlflow_refuses_we_refuse(client: Any, store: FileStore, text: str) -> None:
    """No filter means something here and nothing there."""
    client.create_run("0")
    for search in (lambda: client.search_runs(["0"], text), lambda: drive(store.search_runs(["0"], text))):
        with pytest.raises(Exception, match=r".") as caught:
            search()
        assert type(caught.value).__name__ in ("MlflowException", "InvalidInputError")


def test_experiment_searches_agree_with_mlflow(client: Any, store: FileStore) -> None:
    """By name, time and tag."""
    for name in ("aa", "ab", "b"):
        drive(store.create_experiment(name, tags={"t": name} if name != "b" else None))
    for text in ("", "name LIKE 'a%'", "name ILIKE 'A%' AND tags.t != 'ab'", "attribute.name = 'b'", "tag.t IS NULL"):
        for order_by in ([], ["name ASC"], ["name DESC"], ["experiment_id"], ["last_update_time DESC", "name"]):
            ours = drive(store.search_experiments(filter_string=text, order_by=order_by)).items
            theirs = client.search_experiments(filter_string=text, order_by=order_by)
            assert [found.name for found in ours] == [found.name for found in theirs], (text, order_by)


def migrate(source: pathlib.Path, target: pathlib.Path) -> subprocess.CompletedProcess[bytes]:
    """MLflow's own migration."""
    command = [sys.executable, "-m", "mlflow", "migrate-filestore", "--no-progress"]
    return subprocess.run(
        [*command, "--source", str(source), "--target", f"sqlite:///{target}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


def test_migration_to_sql_takes_our_store(store: FileStore, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """All or nothing: one identical point twice, one torn line, and nothing is migrated."""
    info = new_run(store, experiment_name="x", tags={"t": "1"})
    batch = Batch({"edge": list(POINTS), "m": [(i, i, i / 7) for i in range(1000)]}, [("p", "1")])
    bookmark = drive(store.bookmark(info.run_id, batch))
    drive(store.log_batch(info.run_id, batch))
    drive(store.log_batch(info.run_id, batch, bookmark))
    gone = drive(store.create_experiment("gone"))
    drive(store.delete_experiment(gone))
    target = tmp_path / "x.db"
    done = migrate(root, target)
    assert done.returncode == 0, done.stderr
    database = sqlite3.connect(target)
    try:
        counts = dict(database.execute("SELECT key, count(*) FROM metrics GROUP BY key"))
        assert counts == {"edge": 10, "m": 1000}
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        assert sorted(database.execute("SELECT name, lifecycle_stage FROM experiments")) == [
            ("Default", "active"), ("gone", "deleted"), ("x", "active"),
        ]  # fmt: skip
        assert database.execute("SELECT key, value FROM params").fetchall() == [("p", "1")]
    finally:
        database.close()


@pytest.mark.parametrize(("one", "other"), [("inf", repr(MAX)), ("-0.0", "0.0"), ("nan", "nan")])
def test_what_we_call_identical_stops_a_migration(
    store: FileStore, root: pathlib.Path, tmp_path: pathlib.Path, one: str, other: str
) -> None:
    """The reason for the rule: were both written, nothing could be migrated."""
    info = new_run(store)
    (root / "0" / info.run_id / "metrics" / "m").write_text(f"1 {one} 0\n1 {other} 0\n")
    done = migrate(root, tmp_path / "x.db")
    assert done.returncode != 0
    assert b"UNIQUE" in done.stderr


def test_datasets_and_models_of_runs_are_read_as_mlflow_reads_them(mlflow: Any, tmp_path: pathlib.Path) -> None:
    """One that is damaged is left out."""
    from mlflow import entities
    from mlflow.store.tracking import file_store

    root, module = tmp_path / "store", cast("Any", file_store)
    theirs, ours = module.FileStore(str(root)), FileStore(root, InlineIO())
    run_id = theirs.create_run("0", "ann", 1, [], "r").info.run_id
    assert drive(ours.get_run(run_id)).to_dictionary()["inputs"] == {"dataset_inputs": [], "model_inputs": []}
    train = entities.Dataset("train", "d1", "local", "{}", "schema", "profile")
    inputs = [entities.DatasetInput(train, [entities.InputTag("mlflow.data.context", "train")])]
    inputs.append(entities.DatasetInput(entities.Dataset("test", "d2", "http", "{}"), []))
    theirs.log_inputs(run_id, inputs, [entities.LoggedModelInput("m-1")])
    theirs.log_outputs(run_id, [entities.LoggedModelOutput("m-2", 7)])
    found, expected = drive(ours.get_run(run_id)), theirs.get_run(run_id)
    assert found.inputs is not None
    assert found.outputs is not None
    read = sorted(dataset.to_dictionary()["dataset"]["name"] for dataset in found.inputs.dataset_inputs)
    assert read == ["test", "train"]
    for mine in found.inputs.dataset_inputs:
        [same] = [each for each in expected.inputs.dataset_inputs if each.dataset.name == mine.dataset.name]
        assert mine.to_dictionary() == same.to_dictionary()
    assert [model.model_id for model in found.inputs.model_inputs] == ["m-1"]
    assert [(model.model_id, model.step) for model in found.outputs.model_outputs] == [("m-2", 7)]
    [page] = drive(ours.search_runs(["0"])).items
    assert page.inputs == found.inputs
    next((root / "0" / run_id / "outputs").rglob("meta.yaml")).write_text("[")
    outputs = drive(FileStore(root, InlineIO()).get_run(run_id)).outputs
    assert outputs is not None
    assert outputs.model_outputs == []

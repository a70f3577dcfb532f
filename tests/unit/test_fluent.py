"""MLflow's functions: an ordinary training script runs with `import asynctrack as mlflow`."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
import asynctrack as mlflow
from asynctrack.entities import PagedList
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnavailableError
from asynctrack.tracking import get_service
from tests.mlruns import only_run, read_runs


def test_a_plain_mlflow_script(tmp_path: Path) -> None:
    """The calls of MLflow's quick start, unchanged, and their results."""
    mlflow.set_tracking_uri(tmp_path / "store")
    experiment = mlflow.set_experiment("vision")
    assert experiment.name == "vision"
    mlflow.start_run(run_name="script")
    assert mlflow.log_param("lr", 0.1) == 0.1
    mlflow.log_params({"epochs": 3})
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"acc": 0.9, "f1": 0.8}, step=3)
    mlflow.set_tag("a", 1)
    mlflow.set_tags({"b": 2})
    run = mlflow.active_run()
    assert run is not None
    mlflow.end_run()
    assert mlflow.active_run() is None
    last = mlflow.last_active_run()
    assert last is not None
    assert (last.info.run_id, last.info.status) == (run.run_id, "FINISHED")

    stored = mlflow.get_run(run.info.run_id)
    assert stored.info.experiment_id == experiment.experiment_id
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics == {"loss": 1 / 3, "acc": 0.9, "f1": 0.8}
    assert stored.data.params == {"lr": "0.1", "epochs": "3"}
    assert stored.data.tags["b"] == "2"
    assert [point.step for point in mlflow.get_metric_history(run.run_id, "loss")] == [0, 1, 2]
    found = mlflow.search_runs(filter_string="metrics.acc > 0.5", output_format="list")
    assert isinstance(found, PagedList), "a notebook shows it as a table"
    assert [item.info.run_id for item in found] == [run.run_id]
    assert mlflow.search_runs(filter_string="metrics.acc > 0.95", output_format="list") == []


def test_logging_without_a_run_starts_one(tmp_path: Path) -> None:
    """As MLflow does."""
    mlflow.log_metric("loss", 1.0)
    mlflow.end_run()
    assert list(only_run(tmp_path / "mlruns").metrics) == ["loss"]


def test_a_run_is_the_same_object_wherever_it_is_asked_for(tmp_path: Path) -> None:
    """`active_run() is run`, as in MLflow; the face of ``async with`` is equal to it."""
    mlflow.set_tracking_uri(tmp_path)
    run = mlflow.start_run()
    assert mlflow.active_run() is run
    assert mlflow.last_active_run() is run
    with mlflow.start_run(nested=True) as child:
        assert mlflow.active_run() is child
        assert child != run
    assert mlflow.active_run() is run

    async def enter() -> bool:
        async with mlflow.start_run(nested=True) as inner:
            outer: object = mlflow.active_run()
            return (inner, hash(inner)) == (outer, hash(outer)) and inner != run

    assert anyio.run(enter)
    assert len({run, mlflow.active_run(), child}) == 2
    assert run != run.run_id
    mlflow.end_run()


def test_an_open_run_is_a_run_with_what_the_store_has(tmp_path: Path) -> None:
    """MLflow's attributes; what was just logged is in them."""
    mlflow.set_tracking_uri(tmp_path)
    with mlflow.start_run(run_name="first") as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("lr", 1)
        assert run.data.metrics == {"loss": 0.5}
        mlflow.log_metric("loss", 0.25, step=1)
        mlflow.set_tag("k", "v")
        assert (run.data.metrics, run.data.params, run.data.tags["k"]) == ({"loss": 0.25}, {"lr": "1"}, "v")
        assert isinstance(run, mlflow.Run)
        assert issubclass(mlflow.ActiveRun, mlflow.Run)
        found = run.to_dictionary()
        assert (found["info"]["run_id"], found["data"]["params"]) == (run.info.run_id, {"lr": "1"})
        assert list(dict(run)) == ["info", "data", "inputs", "outputs"]
        assert (dict(run)["inputs"], dict(run)["outputs"]) == (run.inputs, run.outputs)
    assert run.data.metrics == {"loss": 0.25}  # the same after its end
    last = mlflow.last_active_run()
    assert last is not None
    assert (last.info.status, last.data.metrics, last.info.run_id) == ("FINISHED", {"loss": 0.25}, run.info.run_id)
    assert not isinstance(run.info, mlflow.Run)


def test_end_run_without_a_run_does_nothing() -> None:
    """A script may call it twice."""
    mlflow.end_run()
    assert mlflow.active_run() is None


def test_what_reads_finds_what_was_just_logged() -> None:
    """get_run on an open run waits for this process's events."""
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.25)
        assert mlflow.get_run(run.run_id).data.metrics == {"loss": 0.25}


def test_synchronous_waits(tmp_path: Path) -> None:
    """`synchronous=True`, MLflow's keyword, returns when the point is stored."""
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.25, synchronous=True)
        assert len(only_run(tmp_path / "mlruns").metrics["loss"]) == 1


def test_logging_to_a_run_by_id(tmp_path: Path) -> None:
    """`run_id=` logs to another run, open or ended, without ending it or changing its status."""
    with mlflow.start_run() as other:
        pass
    with mlflow.start_run() as active:
        mlflow.log_metric("loss", 1.0, run_id=other.run_id)
        mlflow.log_metrics({"acc": 1.0}, run_id=active.run_id)
        mlflow.log_params({"p": 1}, run_id=other.run_id)
    mlflow.flush_async_logging()
    runs = read_runs(tmp_path / "mlruns")
    assert (list(runs[other.run_id].metrics), runs[other.run_id].params) == (["loss"], {"p": "1"})
    assert list(runs[active.run_id].metrics) == ["acc"]
    assert runs[other.run_id].status == "FINISHED"


def test_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Created, found, set, chosen by the environment, deleted: as in MLflow."""
    first = mlflow.create_experiment("one", tags={"a": 1})
    with pytest.raises(AlreadyExistsError, match="one"):
        mlflow.create_experiment("one")
    found = mlflow.get_experiment_by_name("one")
    assert found is not None
    assert (found.experiment_id, found.tags) == (first, {"a": "1"})
    assert mlflow.get_experiment_by_name("two") is None
    with pytest.raises(NotFoundError, match="999"):
        mlflow.get_experiment("999")

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    with mlflow.start_run() as run:
        assert mlflow.get_experiment(run.info.experiment_id).name == "by name"
    assert mlflow.set_experiment(experiment_id=first).name == "one"
    assert os.environ["MLFLOW_EXPERIMENT_ID"] == first
    with mlflow.start_run() as run:
        assert run.info.experiment_id == first
    with mlflow.start_run(experiment_id="0") as run:
        assert run.info.experiment_id == "0"
    mlflow.set_experiment_tag("color", "red")
    assert mlflow.get_experiment(first).tags == {"a": "1", "color": "red"}
    assert {item.name for item in mlflow.search_experiments()} == {"Default", "one", "by name"}
    mlflow.delete_experiment_tag("color")
    assert mlflow.get_experiment(first).tags == {"a": "1"}
    with pytest.raises(NotFoundError, match="color"):
        mlflow.delete_experiment_tag("color")
    mlflow.delete_experiment(first)
    with pytest.raises(InvalidInputError, match="deleted"):
        mlflow.set_experiment("one")
    with pytest.raises(InvalidInputError, match="exactly one"):
        mlflow.set_experiment()


def test_tags_of_an_experiment_that_is_named_and_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting one makes the experiment, as starting a run does; removing one does not."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "soon")
    with pytest.raises(NotFoundError, match="no experiment 'soon'"):
        mlflow.delete_experiment_tag("k")
    assert mlflow.get_experiment_by_name("soon") is None
    mlflow.set_experiment_tag("k", "v")
    found = mlflow.get_experiment_by_name("soon")
    assert found is not None
    assert found.tags == {"k": "v"}
    mlflow.delete_experiment_tag("k")
    assert mlflow.get_experiment(found.experiment_id).tags == {}


def test_offline_the_tag_of_a_named_experiment_is_that_experiments() -> None:
    """Its id is not known then, but the folder can be looked into; a server cannot, and nothing is set elsewhere."""
    mlflow.configure(mode="offline")
    mlflow.set_experiment("vision")
    mlflow.set_experiment_tag("k", "v")
    assert {found.name: found.tags for found in mlflow.search_experiments()} == {"Default": {}, "vision": {"k": "v"}}
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    with pytest.raises(UnavailableError, match="offline"):
        mlflow.set_experiment_tag("k", "v")


@pytest.mark.filterwarnings("ignore")  # of pandas, while it is imported
def test_a_run_beyond_the_years_of_pandas_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """MLflow stores any number of milliseconds; the table leaves out what pandas has no time for, and says so."""
    pandas = pytest.importorskip("pandas")
    client = mlflow.MlflowClient()
    late, usual = (client.create_run("0", start_time=start).info.run_id for start in (2**63 - 1, 1_700_000_000_000))
    client.set_terminated(late, end_time=2**63 - 1)
    table = mlflow.search_runs()
    assert list(table["run_id"]) == [late, usual]
    assert [pandas.isna(moment) for moment in table["start_time"]] == [True, False]
    assert table["start_time"][1] == pandas.Timestamp(1_700_000_000_000, unit="ms", tz="UTC")
    assert [record.getMessage().count(late) for record in caplog.records] == [1, 1]
    assert [run.info.start_time for run in mlflow.search_runs(output_format="list")] == [2**63 - 1, 1_700_000_000_000]


def test_runs_are_deleted_and_restored() -> None:
    """A deleted run is found by nobody who does not ask for it."""
    with mlflow.start_run() as run:
        mlflow.set_tag("mine", 1)
    mlflow.delete_run(run.run_id)
    assert mlflow.search_runs(output_format="list") == []
    assert len(mlflow.search_runs(run_view_type=2, output_format="list")) == 1
    mlflow.restore_run(run.run_id)
    assert len(mlflow.search_runs(output_format="list")) == 1
    with mlflow.start_run(run_id=run.run_id):
        mlflow.delete_tag("mine")
        with pytest.raises(NotFoundError, match="mine"):
            mlflow.delete_tag("mine")
    assert "mine" not in mlflow.get_run(run.run_id).data.tags


def test_the_parent_of_a_nested_run() -> None:
    """get_parent_run follows the tag."""
    with mlflow.start_run() as outer, mlflow.start_run(nested=True) as inner:
        pass
    parent = mlflow.get_parent_run(inner.run_id)
    assert parent is not None
    assert parent.info.run_id == outer.run_id
    assert mlflow.get_parent_run(outer.run_id) is None


def test_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes into MLflow's default database, and to ./mlruns where that holds experiments."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert not mlflow.is_tracking_uri_set()
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    with mlflow.start_run() as run:
        run.log_metric("loss", 1.0)
        run.log_text("hello", "a.txt")
    assert mlflow.get_run(run.run_id).data.metrics == {"loss": 1.0}
    assert (tmp_path / "mlruns" / "0" / run.run_id / "artifacts" / "a.txt").read_text() == "hello"
    assert mlflow.get_tracking_uri() == run.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.get_service("./mlruns").create_experiment("vision")
    assert mlflow.get_tracking_uri() == (tmp_path / "mlruns").as_uri()


def test_tracking_uris(tmp_path: Path) -> None:
    """Setting the URI takes effect for the next run, not for an open one, and reaches child processes."""
    with mlflow.start_run() as run:
        mlflow.set_tracking_uri("other")
        run.log_metric("loss", 1.0)
        assert mlflow.get_tracking_uri() == "other" == os.environ["MLFLOW_TRACKING_URI"]
        assert run.tracking_uri == (tmp_path / "mlruns").as_uri()
    assert list(read_runs(tmp_path / "mlruns")) == [run.run_id]
    assert not (tmp_path / "other").exists()
    with pytest.raises(InvalidInputError, match="mlflow server"):
        mlflow.set_tracking_uri("mysql://host/db")
    assert mlflow.get_tracking_uri() == "other"


@pytest.mark.parametrize(
    "uri",
    ["rel", "./rel/", "file:/tmp/x", "file:///tmp/x/", "HTTP://Host:80", "http://ann:secret@h:5000/x/", "databricks"],
)
def test_a_tracking_uri_is_returned_as_it_was_given(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in MLflow, also from the environment; what a run and a service show has no credentials."""
    mlflow.set_tracking_uri(uri)
    assert (mlflow.get_tracking_uri(), os.environ["MLFLOW_TRACKING_URI"]) == (uri, uri)
    mlflow.set_tracking_uri(None)
    assert not mlflow.is_tracking_uri_set()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert (mlflow.get_tracking_uri(), os.environ["MLFLOW_TRACKING_URI"]) == (uri, uri)
    assert "secret" not in f"{get_service().tracking_uri} {get_service()!r}"


def test_a_relative_uri_means_the_folder_where_it_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its working directory keeps its store."""
    mlflow.set_tracking_uri("rel")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with mlflow.start_run() as run:
        run.log_metric("loss", 1.0)
    assert list(read_runs(tmp_path / "rel")) == [run.run_id]
    assert mlflow.get_run(run.run_id).data.metrics == {"loss": 1.0}


def test_arguments_of_later_versions_say_so() -> None:
    """Keywords of MLflow's that do nothing here are an error, never silence."""
    with mlflow.start_run(), pytest.raises(InvalidInputError, match="dataset="):
        mlflow.log_metric("loss", 1.0, dataset=object())


def test_search_as_a_table() -> None:
    """The default output is pandas, with MLflow's columns."""
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("lr", 1)
    table = mlflow.search_runs()
    assert list(table["run_id"]) == [run.run_id]
    assert list(table["metrics.loss"]) == [0.5]
    assert list(table["params.lr"]) == ["1"]
    assert {"experiment_id", "status", "artifact_uri", "start_time", "end_time", "tags.mlflow.runName"} <= set(table)


def parameters(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.filterwarnings("ignore")  # importing the real MLflow warns about things of its own
def test_names_and_keywords_are_mlflows() -> None:
    """Each fluent function takes MLflow's parameters, in MLflow's order, with MLflow's defaults."""
    real = pytest.importorskip("mlflow")
    beyond = {"trace_location", "telemetry"}  # of services that are not tracking
    checked = 0
    for name in asynctrack.__all__:
        ours, theirs = getattr(asynctrack, name), getattr(real, name, None)
        if not inspect.isfunction(ours) or not inspect.isfunction(theirs):
            continue
        expected = {key: value for key, value in parameters(theirs).items() if key not in beyond}
        actual = parameters(ours)
        assert list(actual)[: len(expected)] == list(expected), name
        for key, default in expected.items():
            if not isinstance(default, int | str):
                continue
            assert actual[key] == default, (name, key)
        checked += 1
    assert checked >= 25


def test_a_tag_is_deleted_where_the_run_is(tmp_path: Path) -> None:
    """Also when another store has been chosen meanwhile for runs to come."""
    with mlflow.start_run(tracking_uri=str(tmp_path / "one"), tags={"t": "1"}) as run:
        mlflow.set_tracking_uri(tmp_path / "two")
        mlflow.delete_tag("t")
    assert "t" not in read_runs(tmp_path / "one")[run.run_id].tags


def test_a_store_without_runs_has_the_default_experiment(tmp_path: Path) -> None:
    """MLflow makes it when it opens a store; asking creates nothing."""
    mlflow.set_tracking_uri(tmp_path / "store")
    assert mlflow.get_experiment("0").name == "Default"
    default = mlflow.get_experiment_by_name("Default")
    assert default is not None
    assert [found.name for found in mlflow.search_experiments()] == ["Default"]
    assert mlflow.set_experiment(experiment_id="0") == default
    assert not (tmp_path / "store").exists()
    with mlflow.start_run() as run:
        pass
    assert run.info.experiment_id == "0"
    mlflow.set_experiment_tag("k", "v")
    assert mlflow.get_experiment("0").tags == {"k": "v"}


@pytest.mark.parametrize("location", ["rel", Path("rel"), "./a/../rel"])
def test_a_relative_artifact_location_is_one_of_this_folder(tmp_path: Path, location: Any) -> None:
    """As in MLflow; other processes read it."""
    found = mlflow.get_experiment(mlflow.create_experiment("vision", artifact_location=location))
    assert found.artifact_location == str(tmp_path / "rel")
    with mlflow.start_run(experiment_id=found.experiment_id):
        mlflow.log_text("hello", "a.txt")
    assert [path.read_text() for path in (tmp_path / "rel").rglob("a.txt")] == ["hello"]


@pytest.mark.parametrize("location", [5, "", b"rel", ["rel"], "a\0b"])
def test_a_bad_artifact_location_leaves_no_half_experiment(tmp_path: Path, location: Any) -> None:
    """The name stays free."""
    with pytest.raises(InvalidInputError, match="artifact location"):
        mlflow.create_experiment("vision", artifact_location=location)
    assert mlflow.get_experiment_by_name("vision") is None
    assert not (tmp_path / "mlruns").exists()


def test_a_search_that_finds_nothing_by_its_arguments() -> None:
    """MLflow's answers to odd names and numbers."""
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.5)
    assert mlflow.get_experiment_by_name(None) is None
    assert mlflow.get_experiment_by_name("") is None
    for arguments in (
        {"experiment_names": [None]},
        {"experiment_names": ["nope"]},
        {"max_results": 0},
        {"max_results": -1},
    ):
        assert mlflow.search_runs(**arguments, output_format="list") == []
    assert len(mlflow.search_runs(["0"], max_results=None, output_format="list")) == 1
    assert mlflow.search_experiments(max_results=0) == []
    with pytest.raises(InvalidInputError, match="max_results"):
        mlflow.MlflowClient().search_runs(["0"], max_results=0)


def test_a_metric_may_be_the_text_of_a_number() -> None:
    """A value out of a file or of the command line; other text is refused."""
    with mlflow.start_run() as run:
        mlflow.log_metric("a", "0.5")
        mlflow.log_metrics({"b": "1e3", "c": 2})
        with pytest.raises(InvalidInputError, match="'abc' is not one number"):
            mlflow.log_metric("a", "abc")
    assert run.data.metrics == {"a": 0.5, "b": 1000.0, "c": 2.0}

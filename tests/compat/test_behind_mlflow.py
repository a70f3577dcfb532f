"""Programs that call ``mlflow`` behave the same behind asynctrack, and leave the same in the store."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import random
import time
import uuid
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asynctrack
from asynctrack.mlflow import installed, quick, wrapping
from asynctrack.mlflow.store import JournalStore, drawn_name
from asynctrack.recovery.sync import spool_paths
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

MISSING = "f" * 32
of_mlflow_3 = pytest.mark.skipif(mlflow.__version__ < "3", reason="MLflow 2 has no logged models, nor these parameters")


@pytest.fixture(params=["server", "files"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store, as MLflow is given it."""
    if request.param == "files":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return str(tmp_path / "mlruns")
    server: servers.MlflowServer = request.getfixturevalue("sqlite_server")
    return server.url


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


def store() -> Any:
    """The store that MLflow uses now."""
    return mlflow.tracking._tracking_service.utils._get_store()


def everyday(client: Any, experiment_id: str) -> list[Any]:
    """A bit of everything that programs log."""
    seen: list[Any] = []
    with mlflow.start_run(experiment_id=experiment_id, tags={"team": "cv"}, description="of the run") as run:
        mlflow.log_params({"lr": 0.1, "layers": [1, 2], "none": None})
        mlflow.log_param("depth", 3)
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.log_metrics({"acc": step / 5, "lr": np.float32(0.5)}, step=step)
        # With a step each: of two in one millisecond, plain MLflow on files, too, takes the larger for the latest.
        for step, value in enumerate((math.nan, math.inf, -math.inf, True, 7, "0.5", np.array([2.0]))):
            mlflow.log_metric("odd", value, step=step)
        mlflow.log_metric("when", 1.0, step=-3, timestamp=1_000)
        mlflow.set_tags({"a": 1, "b": "two"})
        mlflow.set_tag("a", "changed")
        mlflow.set_tag("long", "x" * 9_000)
        mlflow.set_tags({"longer": "x" * 9_000})
        mlflow.log_text("text", "notes/file.txt")
        mlflow.log_metric("later", 1.0, synchronous=False).wait()
        client.log_metric(run.info.run_id, "by id", 2.0)
        mlflow.log_metric("by id", 3.0, run_id=run.info.run_id, step=1)
        seen.append(client.get_run(run.info.run_id).data.metrics["loss"])
        with mlflow.start_run(experiment_id=experiment_id, nested=True):
            mlflow.log_metric("child", 1.0)
    with pytest.raises(KeyError), mlflow.start_run(experiment_id=experiment_id):
        raise KeyError
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("again", 1.0)
    client.log_metric(run.info.run_id, "late", 1.0)
    made = client.create_run(experiment_id, tags={"by": "client"}, run_name="named")
    client.log_batch(made.info.run_id, [mlflow.entities.Metric("m", 1.0, 5, 6)], [mlflow.entities.Param("p", "v")])
    client.set_tag(made.info.run_id, "mlflow.note.content", "note")
    client.set_terminated(made.info.run_id, "KILLED", end_time=10**12)
    client.delete_run(made.info.run_id)
    seen.append(len(client.search_runs([experiment_id])))
    seen.append([point.value for point in client.get_metric_history(run.info.run_id, "loss")])
    return seen


def test_a_program_leaves_what_it_would_leave_without_asynctrack(uri: str) -> None:
    plain = behind.after(uri, everyday)
    assert len(plain[1]) == 4
    assert behind.after(uri, everyday, behind.PREFIX) == plain
    assert behind.after(uri, everyday, behind.INSTALLED) == plain


@pytest.mark.filterwarnings("ignore")  # of MLflow's dependencies, while they are imported
def test_names_come_from_python_s_random_as_without_asynctrack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a program that seeds it has the same run names, and draws the same numbers later."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = str(tmp_path / "mlruns")

    def program(client: Any, experiment_id: str) -> list[Any]:
        random.seed(7)
        with mlflow.start_run(experiment_id=experiment_id) as run:
            mlflow.log_metric("loss", 1.0)
        made = client.create_run(experiment_id)
        named = client.create_run(experiment_id, run_name="named")
        return [run.info.run_name, made.info.run_name, named.info.run_name, random.random()]

    names, _ = behind.after(uri, program)
    assert behind.after(uri, program, behind.PREFIX)[0] == names
    for module, name, draws in (
        ("file_store", "FileStore", True),
        ("sqlalchemy_store", "SqlAlchemyStore", True),
        ("rest_store", "RestStore", False),
    ):
        random.seed(7)
        of_mlflow: Any = getattr(import_module(f"mlflow.store.tracking.{module}"), name)
        assert drawn_name(of_mlflow.__new__(of_mlflow)) == (names[0] if draws else None)


def test_what_copies_the_working_directory_does_not_copy_the_spool(
    server: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``log_model(code_paths=[os.getcwd()])`` does; the spool is in the user's state folder, and is found there."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    (tmp_path / "train.py").write_text("")
    with behind.tracking(f"asynctrack+{server}") as client:
        experiment_id = client.create_experiment(f"copies-{uuid.uuid4().hex}")
        with mlflow.start_run(experiment_id=experiment_id) as run:
            mlflow.log_metric("loss", 1.0)
            [spool] = spool_paths()
            assert Path(spool).parent == state / "asynctrack"
            assert os.stat(spool).st_mode & 0o777 == 0o700
            mlflow.log_artifacts(".", "code")
        assert [file.path for file in client.list_artifacts(run.info.run_id, "code")] == ["code/train.py"]


def statements(client: Any, experiment_id: str) -> list[tuple[Callable[[], Any], str]]:
    """Calls that plain MLflow refuses, with words for the failure's message."""
    run_id = client.create_run(experiment_id).info.run_id
    gone = client.create_run(experiment_id).info.run_id
    client.delete_run(gone)
    client.log_param(run_id, "taken", "1")
    metric, param = mlflow.entities.Metric, mlflow.entities.Param
    numbers: list[tuple[Callable[[], Any], str]] = [
        (lambda: client.log_metric(run_id, "m", 1.0, step=2.5), "fraction as step"),
        (lambda: client.log_metric(run_id, "m", 1.0, step=1 << 63), "large step"),
        (lambda: client.log_metric(run_id, "m", 1.0, timestamp="now"), "text as timestamp"),
    ]
    if not mlflow.get_tracking_uri().startswith("http"):
        numbers = []  # plain MLflow writes them into its files, and cannot read the run any more
    return [
        *numbers,
        (lambda: client.log_metric(run_id, "a=b", 1.0), "bad metric key"),
        (lambda: client.log_metric(run_id, "", 1.0), "empty key"),
        (lambda: client.log_metric(run_id, "k" * 251, 1.0), "long key"),
        (lambda: client.log_metric(run_id, "m", "text"), "text as value"),
        (lambda: client.log_metric(run_id, "m", None), "no value"),
        (lambda: client.log_metric(MISSING, "m", 1.0), "unknown run, metric"),
        (lambda: client.log_param(MISSING, "p", 1), "unknown run, param"),
        (lambda: client.set_tag("no/id", "t", 1), "malformed run, tag"),
        (lambda: client.log_metric(gone, "m", 1.0), "deleted run, metric"),
        (lambda: client.log_param(gone, "p", 1), "deleted run, param"),
        (lambda: client.log_param(run_id, "taken", "2"), "another value of a param"),
        (lambda: client.log_param(run_id, "a=b", "2"), "bad param key"),
        (lambda: client.set_tag(run_id, "a=b", "2"), "bad tag key"),
        (lambda: client.log_batch(run_id, [metric("ok", 1.0, 0, 0), metric("bad", None, 0, 0)]), "half bad batch"),
        (lambda: client.log_batch(run_id, (), [param("twice", "1"), param("twice", "2")]), "a param twice"),
        (lambda: client.create_run("999999"), "unknown experiment"),
        (lambda: client.get_run(MISSING), "unknown run, read"),
        (lambda: client.set_terminated(MISSING), "unknown run, ended"),
    ]


def outcomes(client: Any, experiment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for call, words in statements(client, experiment_id):
        try:
            call()
        except Exception as error:
            found[words] = type(error), getattr(error, "error_code", None)
        else:
            found[words] = "accepted"
    return found


def test_what_mlflow_refuses_is_refused_at_the_call_by_the_same_exception(uri: str) -> None:
    plain, tables = behind.after(uri, outcomes)
    through, left = behind.after(uri, outcomes, behind.PREFIX)
    assert len(plain) >= 18
    assert through == plain
    assert [run["points"] for run in left] == [run["points"] for run in tables]


def fluent_outcomes(client: Any, experiment_id: str) -> dict[int, Any]:
    """The same for the fluent functions, which return something, too."""
    calls: list[Callable[[], Any]] = [
        lambda: mlflow.log_metric("a=b", 1.0),
        lambda: mlflow.log_metric("m", "text"),
        lambda: mlflow.log_metric("m", [1.0, 2.0]),
        lambda: mlflow.log_metric(["m"], 1.0),
        lambda: mlflow.log_metric("m", 1.0, step=True),
        lambda: mlflow.log_metrics({"ok": 1.0, "bad": None}),
        lambda: mlflow.log_metrics([("m", 1.0)]),
        lambda: mlflow.log_param("p", 1),
        lambda: mlflow.log_param("p", 2),
        lambda: mlflow.log_params({"q": 1, "a=b": 1}),
        lambda: mlflow.set_tag("a=b", 1),
        lambda: mlflow.set_tags({"ok": 1, 7: 1}),
        lambda: type(mlflow.log_metric("m", 1.0, synchronous=False)),
        lambda: mlflow.log_metric("m"),
    ]
    found = {}
    with mlflow.start_run(experiment_id=experiment_id):
        mlflow.log_metric("first", 1.0)
        for number, call in enumerate(calls):
            try:
                found[number] = call()
            except Exception as error:
                found[number] = type(error), getattr(error, "error_code", None)
    return found


def test_the_replaced_functions_refuse_and_return_what_mlflows_do(server: str) -> None:
    assert behind.after(server, fluent_outcomes, behind.INSTALLED) == behind.after(server, fluent_outcomes)


def test_a_param_that_an_earlier_process_has_logged_conflicts_at_the_call(server: str) -> None:
    with behind.tracking(server) as client:
        run_id = client.create_run("0").info.run_id
        client.log_param(run_id, "lr", "1")
    with behind.tracking(f"asynctrack+{server}") as client:
        client.log_param(run_id, "lr", "1")
        with pytest.raises(mlflow.MlflowException, match="Changing param values is not allowed"):
            client.log_param(run_id, "lr", "2")


def test_a_param_conflicts_at_the_call_after_the_run_s_end_too(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client:
        with mlflow.start_run() as run:
            mlflow.log_param("lr", "1")
        client.log_param(run.info.run_id, "late", "1")
        for key in ("lr", "late"):
            with pytest.raises(mlflow.MlflowException, match="Changing param values is not allowed"):
                client.log_param(run.info.run_id, key, "2")


def test_equal_observations_of_one_millisecond_all_stay(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        for _ in range(20):
            mlflow.log_metric("same", 1.0, step=3)
            mlflow.log_metric("to and fro", 1.0, step=4)
            mlflow.log_metric("to and fro", 1.0, step=3)
            mlflow.log_metrics({"nan": math.nan})
            client.log_metric(run.info.run_id, "given", 1.0, timestamp=5)
            client.log_batch(run.info.run_id, [mlflow.entities.Metric("now", 1.0, int(time.time() * 1000), 3)])
        found = {
            key: client.get_metric_history(run.info.run_id, key)
            for key in ("same", "to and fro", "nan", "now", "given")
        }
    counts = {key: len(points) for key, points in found.items()}
    assert counts == {"same": 20, "to and fro": 40, "nan": 20, "now": 20, "given": 1}
    assert all(abs(point.timestamp - time.time() * 1000) < 60_000 for point in found["same"])


def test_logging_asks_the_server_for_nothing(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: Any, **__: Any) -> Any:
        raise AssertionError("MLflow sends a request")

    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        mlflow.log_metric("m", 1.0)
        with monkeypatch.context() as patched:
            patched.setattr(store()._asynctrack_inner, "_call_endpoint", request)
            mlflow.log_metric("m", 2.0, step=1)
            mlflow.log_metric("m", 3.0, step=2, run_id=run.info.run_id)
            mlflow.log_metrics({"m": 4.0}, step=3, run_id=run.info.run_id)
            mlflow.log_params({"p": 1})
            client.set_tag(run.info.run_id, "t", "1")
            mlflow.log_metric("m", 5.0, step=4, synchronous=False).wait()
            with pytest.raises(AssertionError):
                client.get_run(run.info.run_id)
        assert client.get_run(run.info.run_id).data.metrics == {"m": 5.0}


@of_mlflow_3
def test_a_metric_of_a_logged_model_reaches_the_model(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
        mlflow.log_metric("m", 1.0, model_id=model.model_id)
        mlflow.log_metric("m", 2.0, run_id=run.info.run_id, step=1, model_id=model.model_id)
        client.log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, step=5)])
        mlflow.log_metric("m", 3.0, run_id=run.info.run_id, step=5)
        assert [metric.value for metric in client.get_logged_model(model.model_id).metrics] == [1.0, 2.0, 3.0]
        assert client.get_run(run.info.run_id).data.metrics == {"m": 3.0}


@pytest.mark.skipif(
    tuple(map(int, mlflow.__version__.split(".")[:2])) < (3, 17),
    reason="older ones say at each call of a fluent function that the run uses the model",
)
def test_a_metric_of_a_logged_model_goes_through_the_journal(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request for it, once the model is known and the run is known to use it; and it is read back."""

    def request(*_: Any, **__: Any) -> Any:
        raise AssertionError("MLflow sends a request")

    dataset = mlflow.data.meta_dataset.MetaDataset(mlflow.data.http_dataset_source.HTTPDatasetSource("http://x"), "d")
    with behind.tracking(f"asynctrack+{server}") as client:
        experiment_id = client.create_experiment(f"models-{time.time_ns()}")
        with mlflow.start_run(experiment_id=experiment_id) as run:
            model_id = client.create_logged_model(experiment_id, source_run_id=run.info.run_id).model_id
            mlflow.log_metric("m", 1.0, model_id=model_id, dataset=dataset)
            with monkeypatch.context() as patched:
                patched.setattr(store()._asynctrack_inner, "_call_endpoint", request)
                mlflow.log_metric("m", 2.0, step=1, model_id=model_id, dataset=dataset)
                mlflow.log_metrics({"m": 3.0, "n": 4.0}, step=2, model_id=model_id)
                client.log_metric(run.info.run_id, "m", 5.0, step=3, model_id=model_id)
                client.log_batch(run.info.run_id, [mlflow.entities.Metric("m", 6.0, 5, 4, model_id=model_id)])
            (found,) = client.search_logged_models([experiment_id])
            points = [(metric.key, metric.step, metric.value, metric.dataset_name) for metric in found.metrics]
            of_dataset = [("m", 0, 1.0, dataset.name), ("m", 1, 2.0, dataset.name)]
            assert sorted(points) == [
                *of_dataset,
                ("m", 2, 3.0, None),
                ("m", 3, 5.0, None),
                ("m", 4, 6.0, None),
                ("n", 2, 4.0, None),
            ]


@of_mlflow_3
def test_a_model_that_is_not_there_is_refused_as_by_mlflow(server: str) -> None:
    def program(client: Any, experiment_id: str) -> Any:
        run_id = client.create_run(experiment_id).info.run_id
        with pytest.raises(mlflow.MlflowException) as refused:
            client.log_metric(run_id, "m", 1.0, model_id="m-" + 32 * "0")
        return type(refused.value), refused.value.error_code

    assert behind.after(server, program, behind.PREFIX)[0] == behind.after(server, program)[0]


def test_a_refusal_of_an_asynchronous_call_comes_with_its_wait(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}"), mlflow.start_run():
        refused = mlflow.log_metric("a=b", 1.0, synchronous=False)
        with pytest.raises(mlflow.MlflowException, match="a=b"):
            refused.wait()


def test_clients_and_stores_can_be_pickled_and_copied(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        for each in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
            each.log_metric(run.info.run_id, "m", 1.0)
        assert pickle.loads(pickle.dumps(store())) is store()
        assert copy.deepcopy(store()) is store()


def test_who_asks_finds_mlflow_as_it_is(server: str) -> None:
    from mlflow.store.tracking.rest_store import RestStore

    with behind.tracking(f"asynctrack+{server}"):
        assert mlflow.get_tracking_uri() == server
        assert mlflow.get_registry_uri() == server
        assert isinstance(store(), RestStore)
        assert isinstance(store(), JournalStore)
        assert store().get_host_creds().host == server
    with behind.tracking(server):
        assert not isinstance(store(), JournalStore)


def test_a_registry_may_be_named_with_the_prefix_too(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client:
        client.search_experiments(max_results=1)
        try:
            mlflow.set_registry_uri(f"asynctrack+{server}")
            assert mlflow.get_registry_uri() == server
            name = f"model-{time.time_ns()}"
            client.create_registered_model(name)
            other = mlflow.MlflowClient(registry_uri=f"asynctrack+{server}")
            assert other.get_registered_model(name).name == name
        finally:
            mlflow.set_registry_uri(None)


def test_a_store_that_asynctrack_cannot_deliver_to_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    inner = object()
    assert wrapping.wrapped(inner, "mssql://host/db") is inner
    assert "goes to MLflow's own store" in caplog.text


#: methods of MLflow's stores that name a run and are forwarded as they are
AS_THEY_ARE = {
    *(
        "create_issue",
        "create_logged_model",
        "link_traces_to_run",
        "unlink_traces_from_run",
        "search_traces",
        "start_trace",
    ),
    *("get_metric_history_bulk_interval", "get_metric_history_bulk"),
}


def test_each_method_about_a_run_is_decided_on() -> None:
    pytest.importorskip("sqlalchemy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.store.tracking.file_store import FileStore
        from mlflow.store.tracking.rest_store import RestStore
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    decided = {*dir(JournalStore), *wrapping.AFTER_ITS_EVENTS, *wrapping.ABOUT_ONE_RUN, *wrapping.AFTER_ALL_EVENTS}
    new = set()
    for cls in (RestStore, FileStore, SqlAlchemyStore):
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            names = inspect.signature(method).parameters.keys() & {"run_id", "run_ids", "source_run_id"}
            if not name.startswith("_") and names and name not in decided | AS_THEY_ARE:
                new.add(name)
    assert not new, f"decide in asynctrack/mlflow/wrapping.py what {sorted(new)} have to wait for"


def test_a_metric_is_logged_in_order_of_the_calls_whatever_the_millisecond(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        for value in (5.0, 9.0, 1.0):
            mlflow.log_metric("m", value)
        assert client.get_run(run.info.run_id).data.metrics == {"m": 1.0}
        assert [point.value for point in client.get_metric_history(run.info.run_id, "m")] == [5.0, 9.0, 1.0]


@of_mlflow_3
def test_install_reaches_functions_that_were_imported_before_and_may_be_taken_back_in_an_open_run(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, code = mlflow.log_metric, mlflow.log_metric.__code__
    with behind.tracking(server) as client:
        with installed():
            run_id = mlflow.start_run().info.run_id
            early("m", 0.0)
            with monkeypatch.context() as patched:
                for name in quick._own:  # MLflow's own functions
                    patched.setitem(quick._own, name, None)
                early("m", 1.0, step=1)
                assert mlflow.log_param("p", 1) == 1
                mlflow.log_metrics({"n": 1}, step=1)
        assert early.__code__ is code
        found = client.get_run(run_id).data
        assert (found.metrics, found.params) == ({"m": 1.0, "n": 1.0}, {"p": "1"})
        early("m", 2.0, step=2)
        mlflow.end_run("FAILED")
        asynctrack.shutdown()
        assert client.get_run(run_id).info.status == "FAILED"
        assert len(client.get_metric_history(run_id, "m")) == 3


@of_mlflow_3
def test_where_to_look_at_a_run_is_said_once(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    with behind.tracking(f"asynctrack+{server}"):
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1.0)
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_metric("m", 2.0)
        open_still = mlflow.start_run().info.run_id
        asynctrack.shutdown()
    printed = capsys.readouterr().out
    assert (printed.count(f"/runs/{run.info.run_id}"), printed.count(f"/runs/{open_still}")) == (2, 1)

"""Metrics of logged models and datasets, and of runs by their id, take the short way through the journal, and are the
same afterwards."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from asynctrack.mlflow import quick
from asynctrack.mlflow.points import Moments
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

pytestmark = pytest.mark.skipif(
    tuple(map(int, mlflow.__version__.split(".")[:2])) < (3, 17),
    reason="older ones say at each call of a fluent function that the run uses the model",
)


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


@pytest.fixture(autouse=True)
def _no_active_model() -> Iterator[None]:
    yield
    mlflow.clear_active_model()


def dataset(name: str) -> Any:
    source = mlflow.data.http_dataset_source.HTTPDatasetSource("http://x")
    return mlflow.data.meta_dataset.MetaDataset(source, name)


def model(client: Any, experiment_id: str, run_id: str | None = None) -> str:
    return str(client.create_logged_model(experiment_id, source_run_id=run_id).model_id)


def about_models(client: Any, experiment_id: str) -> str:
    """Everything that a metric can be about, each more than once: from the second time on the way is short."""
    train, test = dataset("train"), dataset("test")
    mlflow.set_experiment(experiment_id=experiment_id)
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        one, other = model(client, experiment_id, run_id), model(client, experiment_id)
        for step in range(3):
            mlflow.log_metric("by model", step / 2, step=step, model_id=one)
            mlflow.log_metric("by id", step / 2, step=step, run_id=run_id)
            mlflow.log_metric("by both", step / 2, step=step, run_id=run_id, model_id=other)
            mlflow.log_metric("measured", step / 2, step=step, dataset=train)
            mlflow.log_metric("measured", step / 4, step=step, model_id=one, dataset=test, run_id=run_id)
            mlflow.log_metric("when", 1.0, step=step, timestamp=1_000, model_id=one)
            mlflow.log_metrics({"a": step, "b": 0.5}, step=step, model_id=one)
            mlflow.log_metrics({"a": step + 10, "b": "2"}, step=step, run_id=run_id, dataset=train)
            mlflow.log_params({"by id": 1}, run_id=run_id)
            client.log_metric(run_id, "of client", 1.0, step=step, model_id=other)
        mlflow.log_metric("without step", 1.0, model_id=one)
        mlflow.log_metric("without step", 2.0, model_id=one)
        with mlflow.set_active_model(model_id=other):
            for step in range(3):
                mlflow.log_metric("active", step, step=step)
                mlflow.log_metrics({"active too": step}, step=step, run_id=run_id)
                mlflow.log_metric("not the active one", step, step=step, model_id=one)
        mlflow.log_metric("active", 7, step=7)
    with mlflow.start_run() as made:
        first, second = model(client, experiment_id), model(client, experiment_id)
        outputs = [mlflow.entities.LoggedModelOutput(first, 5), mlflow.entities.LoggedModelOutput(second, 5)]
        client.log_outputs(made.info.run_id, outputs)
    with mlflow.start_run(run_id=made.info.run_id):
        for step in (5, 4, 5, 6, 5, 0):
            mlflow.log_metrics({"of outputs": step}, step=step)
            mlflow.log_metric("of the first", step, step=step)
            mlflow.log_metric("of the first", step, step=step, run_id=made.info.run_id, timestamp=3)
    return experiment_id


def test_metrics_about_models_and_datasets_are_where_mlflow_puts_them(server: str) -> None:
    def left(by: str) -> Any:
        try:
            experiment_id, runs = behind.after(server, about_models, by)
        finally:
            mlflow.tracking.fluent._active_experiment_id = None
        with behind.tracking(server) as client:
            return runs, behind.models(client, experiment_id)

    plain = left(behind.PLAIN)
    assert [len(found["points"]) for found in plain[1]].count(0) == 0
    assert left(behind.PREFIX) == plain
    assert left(behind.INSTALLED) == plain


def test_the_way_is_short_from_the_second_time_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own function is not called."""

    def slow(*_: Any) -> Any:
        raise AssertionError("MLflow's own function is called")

    data = dataset("short")
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        run_id, model_id = run.info.run_id, model(client, run.info.experiment_id)

        def log(step: int) -> None:
            mlflow.log_metric("m", 1.0, step=step, model_id=model_id)
            mlflow.log_metric("m", 1.0, step=step, run_id=run_id)
            mlflow.log_metric("m", 1.0, step=step, run_id=run_id, model_id=model_id, dataset=data)
            mlflow.log_metrics({"m": 1.0}, step=step, model_id=model_id, dataset=data)
            mlflow.log_params({"p": 1}, run_id=run_id)
            with mlflow.set_active_model(model_id=model_id):
                mlflow.log_metric("active", 1.0, step=step)

        log(0)
        log(1)  # by its id, the run is looked up once more after it was noted that it uses the model
        with monkeypatch.context() as patched:
            for name in quick._own:
                patched.setitem(quick._own, name, slow)
            log(2)
        assert len(client.get_metric_history(run_id, "active")) == 3
        assert len(client.get_metric_history(run_id, "m")) == 12


def test_one_observation_about_several_models_has_one_timestamp(server: str) -> None:
    """As from MLflow; the next one has another."""
    with behind.tracking(f"asynctrack+{server}") as client:
        run_id = client.create_run("0").info.run_id
        ids = [model(client, "0") for _ in range(2)]
        client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(each, 1) for each in ids])
        with mlflow.start_run(run_id=run_id):
            for _ in range(3):
                mlflow.log_metrics({"m": 1.0}, step=1)
        found = {each: [point.timestamp for point in client.get_logged_model(each).metrics] for each in ids}
    assert found[ids[0]] == found[ids[1]]
    assert len(set(found[ids[0]])) == 3
    assert abs(found[ids[0]][0] - time.time() * 1000) < 60_000


def test_a_metric_of_a_model_that_was_deleted_meets_what_it_meets_in_mlflow(server: str) -> None:
    def program(client: Any, experiment_id: str) -> Any:
        with mlflow.start_run(experiment_id=experiment_id):
            model_id = model(client, experiment_id)
            for step in range(3):
                mlflow.log_metric("m", 1.0, step=step, model_id=model_id)
            client.delete_logged_model(model_id)
            try:
                mlflow.log_metric("m", 1.0, step=3, model_id=model_id)
            except mlflow.MlflowException as error:
                return type(error), error.error_code
            return "accepted"

    plain = behind.after(server, program)
    assert behind.after(server, program, behind.PREFIX) == plain


def test_what_has_replaced_a_method_of_mlflow_s_store_is_called(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also by the functions that take the short way; what was logged before is in the store by then."""
    called: list[str] = []
    verbs = ("create_run", "log_metric", "log_batch", "log_param", "set_tag", "update_run_info")

    def log(client: Any, run_id: str, step: int) -> None:
        mlflow.log_metric("m", step / 2, step=step)
        mlflow.log_metrics({"m": 1.5}, step=step + 10)
        mlflow.log_param(f"p{step}", step)
        mlflow.log_params({f"q{step}": step})
        mlflow.set_tag("t", step)
        mlflow.set_tags({"u": step})
        client.log_metric(run_id, "by client", 1.0, step=step)
        mlflow.log_metric("m", 2.5, step=step + 20, synchronous=True)

    def recording(own: Any) -> Any:
        @functools.wraps(own)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            called.append(own.__name__)
            return own(*args, **kwargs)

        return replacement

    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        run_id = run.info.run_id
        for step in range(3):
            log(client, run_id, step)
        kind: Any = type(mlflow.tracking._tracking_service.utils._get_store()._asynctrack_inner)
        with monkeypatch.context() as patched:
            for verb in verbs:
                patched.setattr(kind, verb, recording(getattr(kind, verb)))
            log(client, run_id, 3)
            made = client.create_run("0")
            client.set_terminated(made.info.run_id)
        expected = ["log_metric", "log_batch", "log_param", "log_batch", "set_tag", "log_batch", "log_metric"]
        assert called == [*expected, "log_metric", "create_run", "update_run_info"]
        log(client, run_id, 4)
        assert len(called) == 10
        assert len(client.get_metric_history(run_id, "m")) == 15
        assert len(client.get_run(run_id).data.params) == 10
    said = [record.getMessage() for record in caplog.records if "is not MLflow's own" in record.getMessage()]
    assert len(said) == len(set(said)) == len(verbs)


@pytest.mark.parametrize("module", ["mlflow.tracking.fluent", "mlflow.tracking._tracking_service.client"])
def test_the_time_is_asked_where_mlflow_asks_for_it(server: str, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """A program's tests put another function there, and nothing moves what that says."""
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        run_id = run.info.run_id

        def log(step: int) -> None:
            if module == "mlflow.tracking.fluent":
                mlflow.log_metric("m", 1.0, step=step)
                mlflow.log_metric("m", 2.0, step=step, run_id=run_id)
                mlflow.log_metrics({"m": 3.0}, step=step)
            client.log_metric(run_id, "by client", 1.0, step=step)

        log(0)
        log(0)  # by the short way
        with monkeypatch.context() as patched:
            patched.setattr(f"{module}.get_current_time_millis", lambda: 123)
            log(1)
        found = [*client.get_metric_history(run_id, "m"), *client.get_metric_history(run_id, "by client")]
    own = {point.timestamp for point in found if point.step == 1 and (point.key == "m") is ("fluent" in module)}
    assert own == {123}
    assert min(point.timestamp for point in found if point.step == 0) > 123


def test_points_of_several_threads_with_one_step_have_a_timestamp_each() -> None:
    moments, wait = Moments(), threading.Barrier(4)
    found: list[list[int]] = [[] for _ in range(4)]

    def log(mine: list[int]) -> None:
        wait.wait()
        mine.extend(moments.own("m", 3, 1_000) for _ in range(20_000))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=log, args=[mine]) for mine in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    every = [when for mine in found for when in mine]
    assert len(set(every)) == len(every) == 80_000
    assert moments.moved_to == max(every)

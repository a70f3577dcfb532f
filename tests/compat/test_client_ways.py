"""The log methods of ``MlflowClient`` take the short way through the journal, and do what MLflow's do: with whatever
they are given, in whatever process or thread, and also where somebody has replaced a part of MLflow."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from asynctrack.mlflow import clients, install, uninstall
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

pytestmark = pytest.mark.skipif(
    tuple(map(int, mlflow.__version__.split(".")[:2])) < (3, 17), reason="those of older ones stay as they are"
)

Metric, Param, RunTag = mlflow.entities.Metric, mlflow.entities.Param, mlflow.entities.RunTag


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


def said(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class and code of its exception."""
    try:
        return call()
    except Exception as error:
        return type(error).__mro__[-4:-2], getattr(error, "error_code", None)


class Odd:
    """Has a number in it, as tensors do."""

    def __float__(self) -> float:
        return 0.25


def calls(client: Any, experiment_id: str) -> Any:
    """Each more than once: from the second time on the way is short."""
    run_id = client.create_run(experiment_id).info.run_id
    model_id = client.create_logged_model(experiment_id).model_id
    found = []

    def log(step: Any) -> None:
        found.append(client.log_metric(run_id, "m", 0.5, step=step))
        found.append(client.log_metric(run_id, "m", step, 1_000 + step, step))
        found.append(client.log_metric(run_id, "at 0", 1.0, timestamp=0))
        for value in (Odd(), True, "1.5", float("nan"), float("-inf")):
            found.append(client.log_metric(run_id, "values", value, step=step))
        found.append(client.log_metric(run_id, "of model", step, step=step, model_id=model_id))
        found.append(client.log_metric(run_id, "m", step, step=step, dataset_name="d", dataset_digest="1"))
        found.append(client.log_param(run_id, "p", 1))
        found.append(client.log_param(run_id, f"p{step}", Odd))
        found.append(client.set_tag(run_id, "t", step))
        metrics = [Metric("b", step / 2, 1_000 + step, step), Metric("c", step, 7, -step, model_id=model_id)]
        found.append(client.log_batch(run_id, metrics, [Param(f"b{step}", 3)], [RunTag("b", "x")]))
        found.append(client.log_batch(run_id, tuple(metrics[:1])))
        found.append(client.log_batch(run_id))
        many = [Metric(f"many {each}", 1.0, 5, step) for each in range(1_020)]
        found.append(client.log_batch(run_id, many[: 1_020 if step == 1 else 3]))
        found.append(client.log_batch(run_id, params=[Param(f"many {each} {step}", each) for each in range(110)]))
        with mlflow.set_active_model(model_id=model_id):
            found.append(client.log_metric(run_id, "active", step, step=step))
            found.append(client.log_batch(run_id, [Metric("active too", step, 7, step)]))
        client.log_metric(run_id, "later", step, step=step, synchronous=False).wait()

    def fail() -> None:
        for wrong in (
            lambda: client.log_metric(run_id, "a=b", 1.0),
            lambda: client.log_metric(run_id, "", 1.0),
            lambda: client.log_metric(run_id, None, 1.0),
            lambda: client.log_metric(run_id, "m", None),
            lambda: client.log_metric(run_id, "m", "high"),
            lambda: client.log_metric(run_id, "m", 1.0, step=1.5),
            lambda: client.log_metric(run_id, "m", 1.0, step=1 << 63),
            lambda: client.log_metric(run_id, "m", 1.0, timestamp=-1),
            lambda: client.log_metric("nothing", "m", 1.0),
            lambda: client.log_metric(None, "m", 1.0),
            lambda: client.log_metric(run_id, "m", 1.0, model_id="m-none"),
            lambda: client.log_param(run_id, "p", 2),
            lambda: client.log_param(run_id, "a=b", 2),
            lambda: client.set_tag(run_id, "", 2),
            lambda: client.log_batch(run_id, [Metric("ok", 1.0, 1, 1), Metric("bad", None, 1, 1)]),
            lambda: client.log_batch(run_id, [Metric("ok", 1.0, 1, 1)], [Param("p", "2")]),
            lambda: client.log_batch(run_id, params=[Param("twice", "1"), Param("twice", "2")]),
            lambda: client.log_batch(run_id, tags=[RunTag("t", 1)]),
            lambda: client.log_batch(run_id, [{"key": "m"}]),
            lambda: client.log_batch(run_id, iter([Metric("m", 1.0, 1, 1)])),
        ):
            found.append(said(wrong))

    for step in range(2):
        log(step)
        fail()
    client.set_terminated(run_id)
    found.append(client.log_metric(run_id, "m", 99.0, step=99))
    found.append(client.log_param(run_id, "late", 1))
    client.delete_run(run_id)
    found.append(said(lambda: client.log_metric(run_id, "m", 100.0, step=100)))
    found.append(said(lambda: client.set_tag(run_id, "t", 100)))
    client.restore_run(run_id)
    return found


def test_each_call_does_and_answers_what_mlflows_does(server: str) -> None:
    plain = behind.after(server, calls)
    assert len(plain[1][0]["points"]["m"]) == 5
    for way in (behind.PREFIX, behind.INSTALLED):
        assert behind.after(server, calls, way) == plain


def test_the_way_is_short_from_the_second_time_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own method is not called, by a client that was copied neither."""
    with behind.tracking(f"asynctrack+{server}") as client:
        run_id = client.create_run("0").info.run_id
        model_id = client.create_logged_model("0").model_id

        def log(client: Any, step: int) -> None:
            client.log_metric(run_id, "m", 1.0, step=step)
            client.log_metric(run_id, "m", 1, timestamp=3, step=step)
            client.log_metric(run_id, "of model", 1.0, step=step, model_id=model_id)
            client.log_param(run_id, "p", 1)
            client.set_tag(run_id, "t", step)
            client.log_batch(run_id, [Metric("b", 1.0, 7, step)], [Param(f"p{step}", 1)], [RunTag("u", "1")])

        log(client, 0)
        with monkeypatch.context() as patched:
            for name in clients.SWAP.own:
                patched.setitem(clients.SWAP.own, name, lambda *_: pytest.fail("MLflow's own method is called"))
            log(client, 1)
            log(pickle.loads(pickle.dumps(client)), 2)
            log(copy.deepcopy(client), 3)
            client.log_metric(run_id, "new key", 1.0)
            log(mlflow.MlflowClient(server), 4)
        assert len(client.get_metric_history(run_id, "m")) == 10
        assert len(client.get_run(run_id).data.params) == 6
        assert len(client.get_logged_model(model_id).metrics) == 5


class Recording:
    """Puts something in the place of a part of MLflow, which does the same and says so."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def of(self, own: Any) -> Any:
        def replacement(*args: Any, **kwargs: Any) -> Any:
            self.called.append(own.__name__)
            return own(*args, **kwargs)

        return replacement


def test_what_has_replaced_a_part_of_mlflow_is_called(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the class or of one object: MLflow's service client, its store, the clock; and a subclass's method."""
    service: Any = mlflow.tracking._tracking_service.client.TrackingServiceClient
    utils: Any = mlflow.tracking._tracking_service.utils
    verbs = ("log_metric", "log_param", "set_tag", "log_batch")

    with behind.tracking(f"asynctrack+{server}") as client:
        run_id = client.create_run("0").info.run_id
        step = iter(range(100))

        def log(client: Any) -> None:
            client.log_metric(run_id, "m", 1.0, step=next(step))
            client.log_param(run_id, "p", 1)
            client.set_tag(run_id, "t", 1)
            client.log_batch(run_id, [Metric("b", 1.0, 7, next(step))])

        log(client)
        log(client)
        for owner in (service, client._tracking_client, client._tracking_client.store):
            recording = Recording()
            with monkeypatch.context() as patched:
                for verb in verbs:
                    patched.setattr(owner, verb, recording.of(getattr(owner, verb)))
                log(client)
            assert recording.called == list(verbs), owner
            log(client)
            assert recording.called == list(verbs), owner
        with monkeypatch.context() as patched:
            recording = Recording()
            patched.setattr(utils, "_get_store", recording.of(utils._get_store))
            log(client)
            assert len(recording.called) >= 4
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: 1.0)
            for _ in range(3):
                client.log_metric(run_id, "now", 1.0)
        assert {point.timestamp for point in client.get_metric_history(run_id, "now")} == {1_000}

        class Louder(mlflow.MlflowClient):  # type: ignore[misc]  # mlflow is Any here
            def log_metric(self, run_id: str, key: str, value: float, *args: Any, **kwargs: Any) -> Any:
                return super().log_metric(run_id, key.upper(), value * 2, *args, **kwargs)

        for _ in range(3):
            Louder().log_metric(run_id, "loud", 1.0)
        assert [point.value for point in client.get_metric_history(run_id, "LOUD")] == [2.0] * 3


def test_a_client_is_used_in_threads_and_in_forked_children(server: str) -> None:
    with behind.tracking(f"asynctrack+{server}") as client:
        run_id = client.create_run("0").info.run_id
        client.log_metric(run_id, "m", 0.0)
        problems: list[BaseException] = []

        def log(thread: int) -> None:
            try:
                for step in range(200):
                    client.log_metric(run_id, "m", thread, step=step)
                    client.log_batch(run_id, [Metric(f"b{thread}", 1.0, 7, step)])
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=log, args=[thread]) for thread in range(4)]
        for thread in threads:
            thread.start()
        child = os.fork()
        if child == 0:
            try:
                for step in range(3):
                    client.log_metric(run_id, "child", 1.0, step=step)
                    client.log_param(run_id, f"child {step}", 1)
                mlflow.flush_async_logging()
                os._exit(0)
            finally:
                os._exit(1)
        for thread in threads:
            thread.join()
        assert os.waitpid(child, 0)[1] == 0
        assert not problems
        assert len(client.get_metric_history(run_id, "m")) == 801
        assert len(client.get_metric_history(run_id, "b3")) == 200
        assert len(client.get_metric_history(run_id, "child")) == 3
        assert len(client.get_run(run_id).data.params) == 3


def test_uninstall_in_an_open_run_gives_the_methods_back(server: str) -> None:
    own = {name: getattr(mlflow.MlflowClient, name).__code__ for name in clients.SWAP.own or ("log_metric",)}
    with behind.tracking(server) as client:
        install()
        try:
            run_id = client.create_run("0").info.run_id
            for step in range(50):
                client.log_metric(run_id, "m", 1.0, step=step)
            assert mlflow.MlflowClient.log_metric.__code__ is not own["log_metric"]
        finally:
            uninstall()
        assert {name: getattr(mlflow.MlflowClient, name).__code__ for name in own} == own
        assert len(client.get_metric_history(run_id, "m")) == 50
        client.log_metric(run_id, "m", 2.0, step=50)
        client.set_terminated(run_id)
        assert len(client.get_metric_history(run_id, "m")) == 51
        install()
        try:
            client.log_metric(run_id, "m", 2.0, step=51)
            client.log_metric(run_id, "m", 2.0, step=52)
            assert len(client.get_metric_history(run_id, "m")) == 53
        finally:
            uninstall()
        assert client.get_run(run_id).info.status == "FINISHED"

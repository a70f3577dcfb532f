"""A user's programs against real MLflow servers of every kind, read back by MLflow's own client."""

from __future__ import annotations

import asyncio
import math
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from mlflow import MlflowClient

import asynctrack
from asynctrack.errors import InvalidInputError, NotFoundError
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

SERVERS = ["sqlite", "file", "postgres", "prefixed"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> MlflowServer:
    found: MlflowServer = request.getfixturevalue(f"{request.param}_server")
    return found


def train(uri: str, experiment: str) -> tuple[asynctrack.ActiveRun, asynctrack.ActiveRun]:
    """What a script logs: a run, and one nested in it."""
    asynctrack.set_tracking_uri(uri)
    asynctrack.set_experiment(experiment)
    with asynctrack.start_run(run_name="outer", tags={"team": "cv"}, description="a *note*") as outer:
        outer.log_params({"lr": 1e-3, "opt": {"name": "sgd"}, "text": "a\nb ü 日本"}, flatten=".")
        for step in range(100):
            outer.log_metric("train/loss", 1 / (step + 1), step=step, timestamp=1_700_000_000_000 + step)
        outer.log_metrics({"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "tiny": 5e-324}, step=-7)
        outer.log_metric("big step", 0.1 + 0.2, step=2**63 - 1)
        outer.set_tag("phase", "early")
        outer.set_tag("phase", "late")
        with asynctrack.start_run(run_name="inner", nested=True) as inner:
            asynctrack.log_metric("loss", 0.5, step=1)
    return outer, inner


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_what_a_script_logs_is_what_mlflows_client_reads(server: MlflowServer) -> None:
    """Params, tags, metrics with their history, special values, nesting, name, status and times."""
    outer, inner = train(server.url, experiment := support.fresh())
    client = MlflowClient(server.url)
    run = client.get_run(outer.run_id)
    assert run.data.params == {"lr": "0.001", "opt.name": "sgd", "text": "a\nb ü 日本"}
    assert {key: run.data.tags[key] for key in ("team", "phase")} == {"team": "cv", "phase": "late"}
    assert run.data.tags["mlflow.note.content"] == "a *note*"
    assert run.info.run_name == "outer"
    assert run.info.status == "FINISHED"
    assert 0 <= run.info.end_time - run.info.start_time < 600_000
    history = client.get_metric_history(outer.run_id, "train/loss")
    points = sorted((point.step, point.value, point.timestamp) for point in history)
    assert points == [(step, 1 / (step + 1), 1_700_000_000_000 + step) for step in range(100)]
    assert math.isnan(run.data.metrics["nan"])
    largest = math.inf if server.backend.endswith("mlruns") else 1.7976931348623157e308
    assert (run.data.metrics["-inf"], run.data.metrics["inf"]) == (-largest, largest)
    assert run.data.metrics["tiny"] == 5e-324
    assert run.data.metrics["big step"] == 0.1 + 0.2
    assert client.get_metric_history(outer.run_id, "nan")[0].step == -7
    nested = client.get_run(inner.run_id)
    assert nested.data.tags["mlflow.parentRunId"] == outer.run_id
    assert nested.data.metrics == {"loss": 0.5}
    assert nested.info.experiment_id == run.info.experiment_id
    assert client.get_experiment(run.info.experiment_id).name == experiment


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_run_is_taken_up_again_by_its_id(server: MlflowServer) -> None:
    """With what it has, and it is RUNNING meanwhile."""
    outer, _ = train(server.url, support.fresh())
    with asynctrack.start_run(run_id=outer.run_id, tags={"resumed": "yes"}) as run:
        assert run.run_id == outer.run_id
        assert MlflowClient(server.url).get_run(run.run_id).info.status == "RUNNING"
        run.log_metric("train/loss", 0.001, step=100, timestamp=1_700_000_000_100)
        run.log_param("epochs", 2)
    found = support.stored(server, outer.run_id)
    assert len([point for point in found.points if point[0] == "train/loss"]) == 101
    assert found.status == "FINISHED"
    assert found.params["epochs"] == "2"
    assert found.tags["resumed"] == "yes"
    assert found.tags["team"] == "cv"


@pytest.mark.parametrize("server", ["sqlite", "file"], indirect=True)
def test_the_verbs_of_the_tracking_service_work_on_a_server(server: MlflowServer) -> None:
    """Experiments and runs are searched, renamed, deleted and restored."""
    outer, _ = train(server.url, name := support.fresh())
    experiment = asynctrack.get_experiment_by_name(name)
    assert experiment is not None
    service = asynctrack.get_service(server.url)
    found = service.search_runs([experiment.experiment_id], "tags.team = 'cv' and metrics.nan != 1")
    assert [run.info.run_id for run in found] == [outer.run_id]
    service.delete_run(outer.run_id)
    assert service.search_runs([experiment.experiment_id], "tags.team = 'cv'") == []
    service.restore_run(outer.run_id)
    assert len(service.search_runs([experiment.experiment_id])) == 2
    assert len(service.get_metric_history(outer.run_id, "train/loss")) == 100
    service.delete_experiment(experiment.experiment_id)
    assert service.get_experiment(experiment.experiment_id).lifecycle_stage == "deleted"
    service.restore_experiment(experiment.experiment_id)
    with pytest.raises(NotFoundError, match="0123"):
        service.get_run("0123" * 8)


async def serve(uri: str, experiment: str) -> str:
    asynctrack.set_tracking_uri(uri)
    async with asynctrack.start_run(experiment_name=experiment) as run:
        for step in range(100):
            run.log_metric("latency", step * 0.5, step)
        await run.flush()
        assert (await run.info()).run_id == run.run_id
        return run.run_id


@pytest.mark.parametrize("loop", [asyncio.run, lambda work: trio.run(lambda: work)], ids=["asyncio", "trio"])
def test_a_task_logs_to_a_server_and_awaits_the_delivery(loop: Any, sqlite_server: MlflowServer) -> None:
    """On both event loops."""
    run_id = loop(serve(sqlite_server.url, support.fresh()))
    assert support.stored(sqlite_server, run_id).points == [("latency", step, step * 0.5) for step in range(100)]


def test_fluent_functions_log_to_the_server_named_in_the_environment(
    sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``import asynctrack as mlflow`` and ``MLFLOW_TRACKING_URI``."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name := support.fresh())
    asynctrack.log_param("lr", 0.5)
    asynctrack.log_metric("loss", 1.0, step=3)
    asynctrack.end_run()
    (run_id,) = support.runs_of(sqlite_server, name)
    assert support.stored(sqlite_server, run_id)[:3] == ("FINISHED", [("loss", 3, 1.0)], {"lr": "0.5"})


def test_https_with_an_authority_of_ones_own(
    sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in MLFLOW_TRACKING_SERVER_CERT_PATH; without it, the run is not started and the message names that."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with FaultProxy(sqlite_server.url, tls=context) as proxy:
        asynctrack.configure(close_timeout=0.2)
        with (
            pytest.raises(asynctrack.StoreError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"),
            asynctrack.start_run(tracking_uri=proxy.url),
        ):
            pass
        asynctrack.shutdown()
        asynctrack.configure(close_timeout=support.PATIENCE)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "authority.pem"))
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            took = support.log_events(run, 3000)
    support.assert_all_stored(sqlite_server, run.run_id, len(took))


def test_a_certificate_that_cannot_be_read_is_said_when_the_run_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong configuration raises, whatever on_unreachable says."""
    asynctrack.configure(close_timeout=0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere/ca.pem")
    with (
        pytest.raises((asynctrack.StoreError, InvalidInputError), match=r"/nowhere/ca\.pem"),
        asynctrack.start_run(tracking_uri="https://127.0.0.1:9"),
    ):
        pass


def test_an_http_proxy_from_the_environment_is_used(
    sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a host that only the proxy can reach; NO_PROXY says for which hosts it is not."""
    with FaultProxy(sqlite_server.url) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        uri = f"http://10.255.255.1:{sqlite_server.url.rpartition(':')[2]}"
        with asynctrack.start_run(tracking_uri=uri, experiment_name=support.fresh()) as run:
            took = support.log_events(run, 3000)
        assert all(record.path.startswith(uri) for record in proxy.requests)
        count = len(proxy.requests)
        with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=support.fresh()):
            pass
        assert len(proxy.requests) == count
    support.assert_all_stored(sqlite_server, run.run_id, len(took))

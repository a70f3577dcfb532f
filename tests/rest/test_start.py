"""Starting a run where the server is down, slow, wrong, or does not know us."""

from __future__ import annotations

import time

import pytest

import asynctrack
from asynctrack.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from tests import faults
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.rest.support import assert_all_stored, log_events, runs_of, spoken
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.mark.parametrize("silent", [False, True], ids=["is down", "accepts and stays silent"])
def test_training_goes_on_while_the_server(
    silent: bool, sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One loud warning, and the run is created with all that was logged, once, when the server is back."""
    asynctrack.configure(connect_timeout=1.0)
    experiment = support.fresh()
    with FaultProxy(sqlite_server.url) as proxy:
        if silent:
            proxy.always(faults.Silent())
        else:
            proxy.refuse()
        begun = time.monotonic()
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=experiment, strict=True) as run:
            assert time.monotonic() - begun < 10.0
            (warning,) = spoken(caplog)
            assert proxy.url in warning
            assert runs_of(sqlite_server, experiment) == []
            uid = run.run_id
            took = log_events(run, at={15_000: proxy.heal})
        (run_id,) = runs_of(sqlite_server, experiment)
        assert run.run_id == run_id != uid
        assert support.stored(sqlite_server, run_id).tags["mlflow.asynctrack.uid"] == uid
    assert_all_stored(sqlite_server, run_id)
    support.assert_quick(took)


def test_a_nested_run_finds_its_parent_when_both_were_started_without_a_server(sqlite_server: MlflowServer) -> None:
    """The parent's id is not known yet when the nested run is logged."""
    experiment = support.fresh()
    asynctrack.configure(connect_timeout=0.5)
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.refuse()
        asynctrack.set_tracking_uri(proxy.url)
        with (
            asynctrack.start_run(experiment_name=experiment) as outer,
            asynctrack.start_run(experiment_name=experiment, nested=True) as inner,
        ):
            inner.log_metric("a", 1)
            proxy.heal()
    assert sorted(runs_of(sqlite_server, experiment)) == sorted([outer.run_id, inner.run_id])
    assert support.stored(sqlite_server, inner.run_id).tags["mlflow.parentRunId"] == outer.run_id


@pytest.mark.parametrize("silent", [False, True], ids=["is down", "accepts and stays silent"])
def test_on_request_starting_raises_where_the_server(silent: bool, sqlite_server: MlflowServer) -> None:
    """After ``connect_timeout``, with a message that names the server and what is wrong with it."""
    asynctrack.configure(connect_timeout=1.0, on_unreachable="raise", close_timeout=0.5)
    with FaultProxy(sqlite_server.url) as proxy:
        if silent:
            proxy.always(faults.Silent())
        else:
            proxy.refuse()
        begun = time.monotonic()
        with (
            pytest.raises(UnavailableError, match=proxy.url),
            asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()),
        ):
            pass
        assert 0.9 < time.monotonic() - begun < 10.0
        asynctrack.shutdown()


def test_credentials_that_are_missing_or_wrong_are_said_at_once(
    auth_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming the variables, or where the wrong ones came from."""
    asynctrack.configure(close_timeout=0.5)
    with (
        pytest.raises(AuthenticationError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        asynctrack.start_run(tracking_uri=auth_server.url),
    ):
        pass
    asynctrack.shutdown()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    with (
        pytest.raises(AuthenticationError, match="from MLFLOW_TRACKING_USERNAME") as raised,
        asynctrack.start_run(tracking_uri=auth_server.url),
    ):
        pass
    assert "not the password" not in str(raised.value)
    asynctrack.shutdown()


@pytest.mark.parametrize("kind", ["sqlite", "file", "postgres"])
def test_an_experiment_that_does_not_exist_is_said_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    """Unknown, deleted, and no experiment's id at all."""
    uri = request.getfixturevalue(f"{kind}_server").url
    service = asynctrack.get_service(uri)
    deleted = str(service.create_experiment(support.fresh()))
    service.delete_experiment(deleted)
    for experiment, error in {"987654321": NotFoundError, deleted: StoreError, "nonumber": StoreError}.items():
        with (
            pytest.raises(error, match=experiment) as raised,
            asynctrack.start_run(tracking_uri=uri, experiment_id=experiment),
        ):
            pass
        assert not raised.value.retryable
    # What no experiment can be called is said before anything is asked.
    with pytest.raises(InvalidInputError), asynctrack.start_run(tracking_uri=uri, experiment_id="no number"):
        pass
    with pytest.raises(InvalidInputError), asynctrack.start_run(tracking_uri=uri, experiment_name="  "):
        pass


def test_a_server_that_does_not_know_its_own_name_is_explained(
    sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's host check answers 403 without a word about the remedy."""
    asynctrack.configure(close_timeout=0.5)
    with FaultProxy(sqlite_server.url) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with (
            pytest.raises(WrongServerError, match="--allowed-hosts"),
            asynctrack.start_run(tracking_uri="http://mlflow.internal:5000"),
        ):
            pass
        asynctrack.shutdown()


@pytest.mark.parametrize("status", [200, 404])
def test_something_that_is_no_mlflow_server_is_said_at_once(status: int) -> None:
    """A login page, or the wrong path."""
    asynctrack.configure(close_timeout=0.5)
    with FaultProxy(None) as proxy:
        proxy.always(faults.html(status))
        with pytest.raises(WrongServerError, match=proxy.url), asynctrack.start_run(tracking_uri=proxy.url):
            pass
        asynctrack.shutdown()


LOST: dict[str, Fault] = {
    "the connection broke": faults.LoseAnswer(),
    "half of it came": faults.CutResponse(200),
    "a gateway gave up": faults.unavailable(504, applied=True),
    "the server failed afterwards": faults.unavailable(500, applied=True),
    "it was garbage": faults.garbage(applied=True),
    "it was empty": faults.empty(applied=True),
    "it was an empty object": faults.Answer(200, b"{}", applied=True),
}


@pytest.mark.parametrize("why", LOST)
def test_a_run_is_created_once_although_the_answer_was_lost_as(why: str, sqlite_server: MlflowServer) -> None:
    """It is looked up by its tag before it is created again."""
    experiment = support.fresh()
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.plan(*[LOST[why]] * 2, path="runs/create")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=experiment, strict=True) as run:
            run.log_metric("a", 1.0)
        assert len(proxy.requests_to("runs/create")) == 1
    assert runs_of(sqlite_server, experiment) == [run.run_id]
    assert support.stored(sqlite_server, run.run_id).points == [("a", 0, 1.0)]


def test_an_experiment_is_created_once_although_the_answer_was_lost(sqlite_server: MlflowServer) -> None:
    """Its name says that it is there."""
    experiment = support.fresh()
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.plan(faults.LoseAnswer(), path="experiments/create")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=experiment, strict=True) as run:
            run.log_metric("a", 1.0)
    assert runs_of(sqlite_server, experiment) == [run.run_id]


def test_a_run_that_goes_on_from_an_earlier_step_while_the_server_is_away(sqlite_server: MlflowServer) -> None:
    """A server cannot delete: a tag says what is replaced, once. Params that have changed are tags, too, although
    nobody could know it at the call."""
    asynctrack.configure(connect_timeout=0.5)
    with FaultProxy(sqlite_server.url) as proxy:
        asynctrack.set_tracking_uri(proxy.url)
        with asynctrack.start_run(experiment_name=support.fresh()) as run:
            run.log_params({"lr": 0.1, "seed": 7})
            for step in range(10):
                run.log_metric("loss", step / 2, step)
        proxy.refuse()
        with asynctrack.start_run(run_id=run.run_id, from_step=6) as again:
            again.log_params({"lr": 0.2, "seed": 7, "new": 1})
            for step in range(6, 9):
                again.log_metric("loss", step / 4, step)
            proxy.heal()
        assert again.stats().rejected == 0
        history = asynctrack.get_metric_history(run.run_id, "loss", "latest")
        assert [(point.step, point.value) for point in history] == [
            (step, step / 2 if step < 6 else step / 4) for step in range(9)
        ]
    found = support.stored(sqlite_server, run.run_id)
    assert (found.status, found.params) == ("FINISHED", {"lr": "0.1", "seed": "7", "new": "1"})
    assert {key: value for key, value in found.tags.items() if key.startswith("param_changed.")} == {
        "param_changed.lr": "0.1 -> 0.2"
    }
    assert len([key for key in found.tags if key.startswith("mlflow.asynctrack.branch.")]) == 1

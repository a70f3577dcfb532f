"""MLflow's variables about requests are heard where they mean something."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asynctrack.errors import InvalidInputError, UnavailableError
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.rest.auth import credentials_for
from asynctrack.stores.rest.client import RestClient
from asynctrack.stores.rest.connections import Connections
from asynctrack.stores.rest.variables import pause_before
from tests import faults
from tests.proxy import FaultProxy


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(None) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[RestClient]:
    client = RestClient(lambda: proxy.url, credentials_for(proxy.url), InlineIO(), connect_timeout=2.0)
    yield client
    drive(client.aclose())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a call makes between its attempts."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_a_call_asks_once_unless_mlflow_s_variable_is_set(
    proxy: FaultProxy, client: RestClient, pauses: list[float]
) -> None:
    """Whoever calls is told at once, and may do something else."""
    proxy.always(faults.unavailable())
    with pytest.raises(UnavailableError):
        drive(client.call("GET", "/api/x"))
    assert (len(proxy.requests), pauses) == (1, [])


def test_and_as_often_as_it_says(
    proxy: FaultProxy, client: RestClient, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With growing pauses. A call that must not be sent twice is not, and who is in a hurry does not wait."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    proxy.plan(faults.unavailable(), faults.html(500), faults.unavailable())
    assert drive(client.call("GET", "/api/x")) == {}
    assert pauses == [0.5, 1.0, 2.0]
    assert len(proxy.requests) == 4
    proxy.always(faults.unavailable())
    with pytest.raises(UnavailableError):
        drive(client.call("GET", "/api/x"))
    assert len(proxy.requests) == 8
    client.patience = 5.0
    for again in (False, True):
        with pytest.raises(UnavailableError):
            drive(client.call("GET", "/api/x", again=again))
        client.patience = None if again else 5.0
    with pytest.raises(UnavailableError):
        drive(client.call("POST", "/api/x", body=b"{}", again=False))
    assert len(proxy.requests) == 11


@pytest.mark.anyio
async def test_on_a_loop_the_engine_asks_again_by_itself(
    proxy: FaultProxy, client: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    proxy.always(faults.unavailable())
    theirs = client.over(ThreadedIO())
    with pytest.raises(UnavailableError):
        await theirs.call("GET", "/api/x")
    assert len(proxy.requests) == 1
    await theirs.aclose()


def test_what_the_server_says_of_the_pause_is_heard_unless_a_variable_forbids_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No pause of our own is longer than two minutes, as in MLflow's client."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    assert pause_before(1, 7.0) == 7.0
    monkeypatch.setenv("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
    assert pause_before(1, 7.0) == 2.0
    assert pause_before(10**6, None) == 120.0
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "1")
    assert 2.0 <= pause_before(1, None) <= 3.0


def test_artifacts_have_a_time_limit_of_their_own(
    proxy: FaultProxy, client: RestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its variable it is that of every request."""
    proxy.always(faults.Silent())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1000")
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "0.2")

    @asynccontextmanager
    async def content():  # type: ignore[no-untyped-def]  # a stream of bytes
        yield [b"abc"]

    with pytest.raises(UnavailableError, match="no answer in time"):
        drive(client.send("PUT", "/artifact", content=content))
    with pytest.raises(UnavailableError, match="no answer in time"):
        drive(client.download("GET", "/artifact", str(tmp_path / "file")))
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.2")
    with pytest.raises(UnavailableError, match="no answer in time"):
        drive(client.download("GET", "/artifact", str(tmp_path / "file")))


def test_as_many_connections_are_kept_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int | None:
        return Connections()._transport(lambda _, limits: limits).max_keepalive_connections

    assert kept() == 32
    monkeypatch.setenv("MLFLOW_HTTP_POOL_MAXSIZE", "3")
    assert kept() == 3


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "-1"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "often"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "nan"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "-1"),
    ],
)
def test_what_is_no_number_is_said(
    variable: str, text: str, proxy: FaultProxy, client: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable's name, when it is needed."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv(variable, text)
    proxy.always(faults.unavailable())
    with pytest.raises(InvalidInputError, match=f"{variable}='{text}'"):
        drive(client.call("GET", "/api/x"))

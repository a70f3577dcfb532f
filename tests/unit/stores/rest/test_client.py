"""Requests to one server: from threads and loops, over connections that break, with and without credentials."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from asynctrack.errors import (
    AuthenticationError,
    InvalidInputError,
    RefusedError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.rest.auth import credentials_for
from asynctrack.stores.rest.client import RestClient
from tests import faults
from tests.proxy import FaultProxy
from tests.servers import free_port


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Answers everything with ``{}``."""
    with FaultProxy(None) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[RestClient]:
    client = client_of(proxy.url)
    yield client
    drive(client.aclose())


def client_of(url: str, token: str | None = None) -> RestClient:
    """A client for plain threads."""
    credentials = credentials_for(url, token=None if token is None else lambda: token)
    return RestClient(lambda: url, credentials, InlineIO(), connect_timeout=2.0)


def test_a_call_is_one_request_with_what_the_server_needs(proxy: FaultProxy, client: RestClient) -> None:
    """A length, a type, who we are; no origin, no compression."""
    assert drive(client.call("POST", "/api/x", body=b'{"a":1}')) == {}
    (request,) = proxy.requests
    assert request.json() == {"a": 1}
    assert request.header("content-type") == "application/json"
    assert request.header("content-length") == "7"
    assert request.header("user-agent").startswith("asynctrack/")
    assert not {"origin", "transfer-encoding", "authorization", "accept-encoding"} & {
        name for name, _ in request.headers
    }


def test_parameters_are_quoted_and_may_be_repeated(proxy: FaultProxy, client: RestClient) -> None:
    """Keys with slashes, spaces and ampersands."""
    drive(client.call("GET", "/api/x", params=[("key", "a/b &c=d"), ("run", "1"), ("run", "2")]))
    assert httpx.URL(proxy.requests[0].path).params.multi_items() == [("key", "a/b &c=d"), ("run", "1"), ("run", "2")]


@pytest.mark.parametrize("run", [asyncio.run, lambda work: trio.run(lambda: work)], ids=["asyncio", "trio"])
def test_it_serves_one_event_loop_after_another(run: object, proxy: FaultProxy) -> None:
    """Each with connections of its own."""
    client = client_of(proxy.url).over(ThreadedIO())

    async def twice() -> None:
        for _ in range(2):
            assert await client.call("GET", "/api/x") == {}
        await client.aclose()

    for _ in range(2):
        run(twice())  # type: ignore[operator]  # one of two functions
    assert len(proxy.requests) == 4
    assert proxy.connections == 2


def test_on_a_loop_a_request_needs_a_helper_thread_only_to_fetch_credentials(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two handovers between threads for each request would cost as much as the request itself."""
    monkeypatch.setenv("HOME", str(tmp_path))

    async def call(token: str | None) -> None:
        client = client_of(proxy.url, token).over(ThreadedIO())
        assert await client.call("GET", "/api/x") == {}
        await client.aclose()

    with monkeypatch.context() as patched:
        patched.setattr("anyio.to_thread.run_sync", lambda *_: pytest.fail("a helper thread"))
        asyncio.run(call(None))
    asyncio.run(call("t"))
    assert proxy.requests[-1].header("authorization") == "Bearer t"


def test_threads_share_its_connections(proxy: FaultProxy, client: RestClient) -> None:
    """It may be used from any of them."""
    threads = [threading.Thread(target=lambda: drive(client.call("GET", "/api/x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(proxy.requests) == 8


def test_a_connection_that_the_server_has_closed_is_not_noticed(proxy: FaultProxy, client: RestClient) -> None:
    """The request is sent once more where that does no harm, and only there."""
    drive(client.call("POST", "/api/x", body=b"{}"))
    proxy.plan(faults.Silent(0.0))
    drive(client.call("POST", "/api/x", body=b"{}"))
    assert len(proxy.requests) == 3
    proxy.plan(faults.Silent(0.0))
    with pytest.raises(UnavailableError) as raised:
        drive(client.call("POST", "/api/x", body=b"{}", again=False))
    assert raised.value.ambiguous
    assert len(proxy.requests) == 4


@pytest.mark.parametrize("run", [drive, asyncio.run, lambda work: trio.run(lambda: work)], ids=["-", "asyncio", "trio"])
def test_what_comes_behind_an_answer_answers_nothing(run: object, proxy: FaultProxy) -> None:
    """It was taken for the answer to the next request, whose events then counted as stored."""
    unasked = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    proxy.plan(faults.Answer(503, b"{}" + unasked, (("Content-Length", "2"),)), faults.Answer(503, b"{}"))
    client = client_of(proxy.url).over(InlineIO() if run is drive else ThreadedIO())

    async def ask() -> None:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="503"):
                await client.send("POST", "/api/x", content=b"{}")
        await client.send("POST", "/api/x", content=b"{}")
        await client.aclose()

    run(ask())  # type: ignore[operator]  # one of three functions
    assert len(proxy.requests) == 3
    assert proxy.connections == 2


@pytest.mark.parametrize("way", ["inline", "asyncio"])
def test_a_stream_that_meets_a_closed_connection_is_opened_and_sent_once_more(
    way: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    """All of it, where that does no harm."""
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    io = InlineIO() if way == "inline" else ThreadedIO()
    client = client_of(proxy.url).over(io)

    async def put() -> None:
        await client.call("GET", "/api/x")
        await client.send("PUT", "/first", content=partial(io.stream, str(tmp_path / "a")), again=True)
        with pytest.raises(UnavailableError):
            await client.send("PUT", "/second", content=partial(io.stream, str(tmp_path / "a")))
        await client.aclose()

    proxy.plan(faults.Silent(0.0), path="/first")
    proxy.plan(faults.Silent(0.0), path="/second")
    drive(put()) if way == "inline" else asyncio.run(put())
    assert [record.size for record in proxy.requests_to("/first") if record.status == 200] == [3_000_000]
    assert (len(proxy.requests_to("/first")), len(proxy.requests_to("/second"))) == (2, 1)


def test_a_server_that_cannot_be_reached_has_done_nothing() -> None:
    """So what was asked is not in doubt; the message names the server."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=url) as raised:
        drive(client_of(url).call("POST", "/api/x", body=b"{}"))
    assert not raised.value.ambiguous


def test_silence_ends_after_the_time_that_the_environment_gives(
    proxy: FaultProxy, client: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or sooner, when the engine has less left."""
    proxy.always(faults.Silent())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.2")
    with pytest.raises(UnavailableError, match="no answer in time"):
        drive(client.call("GET", "/api/x"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")
    client.patience = 0.2
    with pytest.raises(UnavailableError, match="no answer in time"):
        drive(client.call("GET", "/api/x"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(InvalidInputError, match="MLFLOW_HTTP_REQUEST_TIMEOUT='soon'"):
        drive(client.call("GET", "/api/x"))


@pytest.mark.parametrize("text", ["-1", "0", "nan", "-inf", "1s"])
def test_a_time_limit_that_is_none_is_said(text: str, client: RestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", text)
    with pytest.raises(InvalidInputError, match=f"MLFLOW_HTTP_REQUEST_TIMEOUT='{text}'"):
        drive(client.call("GET", "/api/x"))


@pytest.mark.parametrize("text", ["inf", "1e300", "0.5"])
def test_a_time_limit_may_be_for_ever(text: str, client: RestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what is as good as that."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", text)
    assert drive(client.call("GET", "/api/x")) == {}


def test_credentials_go_to_the_tracking_server_and_to_no_other(proxy: FaultProxy) -> None:
    """An absolute URL, which is signed for, gets none; a redirect is not followed."""
    client = client_of(proxy.url, token="abc123")
    with FaultProxy(None) as other:
        drive(client.send("GET", "/api/x"))
        drive(client.send("GET", f"{other.url}/signed?key=hunter2"))
        proxy.always(faults.redirect(f"{other.url}/elsewhere"))
        with pytest.raises(WrongServerError, match="redirected"):
            drive(client.call("GET", "/api/x"))
        drive(client.aclose())
        assert [record.header("authorization") for record in other.requests] == [""]
    assert {record.header("authorization") for record in proxy.requests} == {"Bearer abc123"}
    assert "abc123" not in repr(client)


def test_a_signed_address_is_named_without_its_signature(proxy: FaultProxy, client: RestClient) -> None:
    """It is as good as a credential."""
    proxy.always(faults.error(400, "INVALID_PARAMETER_VALUE"))
    with pytest.raises(RefusedError) as raised:
        drive(client.send("PUT", f"{proxy.url}/signed?key=hunter2", content=b"x"))
    assert "/signed" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_refusal_says_where_the_credentials_came_from(proxy: FaultProxy) -> None:
    """And does not show them."""
    client = client_of(proxy.url, token="abc123")
    proxy.always(faults.unauthorized())
    with pytest.raises(AuthenticationError, match="token function") as raised:
        drive(client.call("GET", "/api/x"))
    assert "abc123" not in str(raised.value)
    drive(client.aclose())


def test_a_forked_child_uses_no_connection_of_its_parents(proxy: FaultProxy, client: RestClient) -> None:
    """Two processes on one connection would read each other's answers."""
    drive(client.call("GET", "/api/parent"))
    if (child := os.fork()) == 0:
        try:
            drive(client.call("GET", "/api/child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    parent, forked = proxy.requests
    assert parent.connection != forked.connection


def test_a_download_stands_in_the_file_or_there_is_none(proxy: FaultProxy, client: RestClient, tmp_path: Path) -> None:
    """Streamed; an error's answer does not become the file."""
    proxy.plan(faults.Answer(200, b"x" * 3_000_000), faults.error(404, "RESOURCE_DOES_NOT_EXIST"))
    drive(client.download("GET", "/a", str(tmp_path / "a")))
    assert (tmp_path / "a").read_bytes() == b"x" * 3_000_000
    with pytest.raises(Exception, match="RESOURCE_DOES_NOT_EXIST"):
        drive(client.download("GET", "/b", str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()

"""Each fault does what it says: seen from a plain client and from the real MLflow server behind the proxy."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest
import trustme

from tests import faults
from tests.exchange import Recorded
from tests.faults import (
    Answer,
    CloseAfter,
    CutRequest,
    CutResponse,
    Delay,
    Drip,
    Fault,
    LoseAnswer,
    Mixture,
    Overload,
    Refuse,
    Silent,
)
from tests.proxy import FaultProxy
from tests.servers import MlflowServer

API = "/api/2.0/mlflow"
CREATE, SEARCH = f"{API}/experiments/create", f"{API}/experiments/get-by-name"
#: what httpx makes of a reset; the last one when it came while the body was still being written
CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
NAMES = (f"proxy-{number}" for number in itertools.count())


@pytest.fixture
def proxy(sqlite_server: MlflowServer) -> Iterator[FaultProxy]:
    with FaultProxy(sqlite_server.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, trust_env=False, timeout=10) as client:
        yield client


def create(client: httpx.Client, name: str, **more: str) -> httpx.Response:
    """A request that the server does once: whether it did is seen by the name."""
    return client.post(CREATE, json={"name": name, **more})


def exists(server: MlflowServer, name: str) -> bool:
    return bool(server.rows("select 1 from experiments where name = :name", name=name))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def test_an_unplanned_request_passes_unchanged_and_is_recorded(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    name = next(NAMES)
    answer = create(client, name)
    assert answer.status_code == 200
    assert exists(sqlite_server, name)
    assert client.get(SEARCH, params={"experiment_name": name}).json()["experiment"]["name"] == name
    first, second = proxy.wait_for(2)
    assert (first.method, first.path, first.status, first.server_status, first.fault) == (
        "POST",
        CREATE,
        200,
        200,
        None,
    )
    assert first.json() == {"name": name}
    assert first.header("Content-Type") == "application/json"
    assert first.size == len(first.body)
    assert second.path == f"{SEARCH}?experiment_name={name}"
    assert proxy.connections == 1, "the client's connection was kept alive"
    assert "content-type" not in repr(first), "headers may hold a credential"
    assert name not in repr(first)


def test_chunked_bodies_pass_and_are_recorded_without_their_framing(proxy: FaultProxy, client: httpx.Client) -> None:
    path = "/api/2.0/mlflow-artifacts/artifacts/chunked.txt"
    assert client.put(path, content=iter([b"one", b"two"])).status_code == 200
    assert client.get(path).content == b"onetwo"
    assert proxy.wait_for(2)[0].body == b"onetwo"


def test_the_target_may_be_absolute_as_through_a_configured_http_proxy(
    proxy: FaultProxy, sqlite_server: MlflowServer
) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(proxy=httpx.Proxy(proxy.url))) as client:
        assert client.get(f"{sqlite_server.url}/health").text == "OK"
    assert proxy.wait_for(1)[0].path == f"{sqlite_server.url}/health"


def test_refused_connections_come_back_after_heal_or_after_their_time(proxy: FaultProxy, client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200
    proxy.refuse()
    with pytest.raises(httpx.TransportError):
        client.get("/health")  # on the pooled connection, which was reset
    with pytest.raises(httpx.ConnectError):
        client.get("/health")
    proxy.heal()
    assert client.get("/health").status_code == 200
    proxy.plan(Refuse(0.2))
    with pytest.raises(httpx.ReadError):
        client.get("/health")

    def is_back() -> bool:
        try:
            return client.get("/health").status_code == 200
        except httpx.ConnectError:
            return False

    eventually(is_back)


@pytest.mark.parametrize("reads", [True, False])
def test_silence_lasts_until_the_client_gives_up_and_the_server_hears_nothing(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer, reads: bool
) -> None:
    name = next(NAMES)
    proxy.plan(Silent(reads=reads))
    with pytest.raises(httpx.ReadTimeout):
        client.post(CREATE, json={"name": name}, timeout=0.3)
    assert not exists(sqlite_server, name)
    assert [record.status for record in proxy.requests] == [None]


def test_a_silent_proxy_that_does_not_read_blocks_the_sender_of_a_large_body(
    proxy: FaultProxy, client: httpx.Client
) -> None:
    proxy.plan(Silent(reads=False))
    with pytest.raises(httpx.WriteTimeout):
        client.put("/api/2.0/mlflow-artifacts/artifacts/large", content=bytes(64 << 20), timeout=0.5)


def test_healing_resets_those_who_wait_in_silence(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.plan(Silent())
    ended: list[Exception] = []

    def ask() -> None:
        try:
            client.get("/health")
        except httpx.TransportError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: len(proxy.requests) == 1)
    assert not ended
    proxy.heal()
    thread.join()
    assert [type(error) for error in ended] == [httpx.ReadError]


def test_a_cut_request_is_not_done_and_loses_the_connection(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    for after in (1, 100, 250):  # inside the first line, the headers, the body
        name = next(NAMES)
        proxy.plan(CutRequest(after))
        with pytest.raises(CUT_OFF):
            create(client, name, artifact_location="/" + "x" * 300)
        assert not exists(sqlite_server, name)
        assert create(client, name).status_code == 200, "the next request finds everything in order"


def test_a_cut_upload_breaks_while_it_is_being_sent(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.plan(CutRequest(1 << 20))
    with pytest.raises(CUT_OFF):
        client.put("/api/2.0/mlflow-artifacts/artifacts/cut", content=bytes(64 << 20))
    (record,) = proxy.wait_for(1)
    assert 1 << 20 <= record.size < 2 << 20


@pytest.mark.parametrize(
    ("after", "reset", "error"),
    [
        (0, False, httpx.RemoteProtocolError),
        (0, True, httpx.ReadError),
        (30, False, httpx.RemoteProtocolError),
        (-3, False, httpx.RemoteProtocolError),
        (-3, True, httpx.ReadError),
    ],
)
def test_a_cut_response_comes_after_the_request_was_done(
    proxy: FaultProxy,
    client: httpx.Client,
    sqlite_server: MlflowServer,
    after: int,
    reset: bool,
    error: type[Exception],
) -> None:
    whole = create(client, next(NAMES))
    head = sum(len(name) + len(value) + 4 for name, value in whole.headers.raw) + len("HTTP/1.1 200 OK\r\n\r\n")
    name = next(NAMES)
    proxy.plan(CutResponse(after if after >= 0 else head + len(whole.content) + after, reset=reset))
    with pytest.raises(error):
        create(client, name)
    assert exists(sqlite_server, name)
    record = proxy.wait_for(2)[-1]
    assert (record.server_status, record.status) == (200, None)


def test_a_lost_answer_is_a_reset_after_the_request_was_done(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    name = next(NAMES)
    proxy.plan(LoseAnswer())
    with pytest.raises(httpx.ReadError):
        create(client, name)
    assert exists(sqlite_server, name)
    assert create(client, name).json()["error_code"] == "RESOURCE_ALREADY_EXISTS"


def test_a_dripping_answer_arrives_whole_and_late(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.plan(Drip(size=20, seconds=0.02))
    started = time.monotonic()
    assert client.get("/health").text == "OK"
    assert time.monotonic() - started >= 0.1


def test_a_delay_holds_the_request_or_its_answer_up(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    held, answered = next(NAMES), next(NAMES)
    proxy.plan(Delay(before=60), Delay(after=60))
    for name in (held, answered):
        with pytest.raises(httpx.ReadTimeout):
            client.post(CREATE, json={"name": name}, timeout=0.5)
    assert not exists(sqlite_server, held)
    eventually(lambda: exists(sqlite_server, answered))
    proxy.plan(Delay(before=0.1, after=0.1))
    started = time.monotonic()
    assert client.get("/health").text == "OK"
    assert time.monotonic() - started >= 0.2


def test_a_connection_closed_after_its_answer_is_found_stale(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.plan(CloseAfter())
    assert client.get("/health").headers.get("connection") != "close"
    proxy.wait_for(1)
    assert client.get("/health").text == "OK"
    assert proxy.connections == 2


def test_idle_connections_are_closed_on_demand(proxy: FaultProxy, client: httpx.Client) -> None:
    assert client.get("/health").text == "OK"
    eventually(lambda: proxy.close_idle() == 1)
    assert client.get("/health").text == "OK"
    assert proxy.connections == 2


def test_a_connection_ends_when_the_server_ends_its_own(proxy: FaultProxy, sqlite_server: MlflowServer) -> None:
    host, port = httpx.URL(proxy.url).host, httpx.URL(proxy.url).port
    with socket.create_connection((host, port or 0), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"OK"), "and uvicorn closed the connection after five idle seconds"


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        (faults.too_many(), 429, "REQUEST_LIMIT_EXCEEDED", None),
        (faults.too_many(7), 429, "REQUEST_LIMIT_EXCEEDED", "7"),
        (faults.unavailable(500), 500, "INTERNAL_ERROR", None),
        (faults.unavailable(502), 502, "BAD_GATEWAY", None),
        (faults.unavailable(503, 3), 503, "TEMPORARILY_UNAVAILABLE", "3"),
        (faults.unavailable(504), 504, "DEADLINE_EXCEEDED", None),
        (faults.error(404, "RESOURCE_DOES_NOT_EXIST"), 404, "RESOURCE_DOES_NOT_EXIST", None),
    ],
)
def test_errors_are_worded_as_the_server_words_them(
    proxy: FaultProxy,
    client: httpx.Client,
    sqlite_server: MlflowServer,
    fault: Fault,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    name = next(NAMES)
    proxy.plan(fault)
    answer = create(client, name)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.headers.get("retry-after") == retry_after
    assert not exists(sqlite_server, name)
    record = proxy.wait_for(1)[0]
    assert (record.server_status, record.status, record.json()) == (None, status, {"name": name})


def test_retry_after_can_be_a_date(proxy: FaultProxy, client: httpx.Client) -> None:
    when = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    proxy.plan(faults.too_many(when))
    sent = client.get("/health").headers["retry-after"]
    assert sent.endswith(" GMT")
    assert parsedate_to_datetime(sent) == when


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (faults.html(502), 502, "text/html"),
        (faults.too_large(), 413, "text/html"),
        (faults.unauthorized(), 401, "text/html"),
        (faults.forbidden(), 403, "text/plain"),
        (faults.garbage(), 200, "application/json"),
        (faults.empty(), 200, None),
    ],
)
def test_answers_that_are_no_json(
    proxy: FaultProxy, client: httpx.Client, fault: Fault, status: int, kind: str | None
) -> None:
    proxy.plan(fault)
    answer = create(client, next(NAMES))
    assert answer.status_code == status
    assert (answer.headers.get("content-type") or "").startswith(kind or "")
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert client.get("/health").text == "OK"
    assert proxy.connections == 1


@pytest.mark.parametrize("fault", [faults.unavailable(504, applied=True), faults.garbage(applied=True)])
def test_an_applied_answer_of_the_proxys_own_comes_after_the_request_was_done(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer, fault: Answer
) -> None:
    name = next(NAMES)
    proxy.plan(fault)
    assert create(client, name).status_code == fault.status
    assert exists(sqlite_server, name)
    assert proxy.wait_for(1)[0].server_status == 200


def test_an_early_answer_comes_before_the_body_was_read(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.plan(faults.too_large(early=True))
    try:
        answer = client.put("/api/2.0/mlflow-artifacts/artifacts/large", content=bytes(64 << 20))
    except CUT_OFF:
        pass  # a client that is still writing may meet the reset first, as with nginx
    else:
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    (record,) = proxy.wait_for(1)
    assert record.size < 64 << 20


def test_a_redirect_leads_to_a_host_that_records_what_arrives_there(proxy: FaultProxy) -> None:
    with FaultProxy(None) as elsewhere:
        proxy.plan(faults.redirect(f"{elsewhere.url}/there", 307))
        with httpx.Client(trust_env=False, auth=("user", "word"), follow_redirects=True) as client:
            assert client.post(f"{proxy.url}{CREATE}", json={"name": "x"}).json() == {}
        (record,) = elsewhere.wait_for(1)
    assert (record.method, record.path, record.json()) == ("POST", "/there", {"name": "x"})
    assert record.header("authorization") == "", "this client takes care"
    assert proxy.requests[0].header("authorization").startswith("Basic ")


def test_faults_are_given_in_their_order_and_only_to_requests_that_match(
    proxy: FaultProxy, client: httpx.Client
) -> None:
    proxy.plan(faults.unavailable(503), None, faults.too_many(), path="health")
    assert client.get("/version").status_code == 200
    assert [client.get("/health").status_code for _ in range(4)] == [503, 200, 429, 200]


def test_a_fault_for_a_body_meets_only_those_who_hold_it(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.always(faults.unavailable(500), path="experiments/create", body=b"poison")
    name = next(NAMES)
    assert create(client, f"{name}-poison").status_code == 500
    assert create(client, name).status_code == 200
    assert create(client, f"{name}-poison").status_code == 500
    proxy.heal()
    assert create(client, f"{name}-poison").status_code == 200


def test_an_overloaded_server_refuses_what_is_too_much_at_once(proxy: FaultProxy) -> None:
    proxy.always(Overload(2, faults.too_many()))
    proxy.plan(None)
    answers: list[int] = []
    with httpx.Client(base_url=proxy.url, trust_env=False) as client:

        def ask() -> None:
            answers.append(client.get("/health").status_code)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("/health").status_code == 200
    assert len(answers) == 12
    assert set(answers) <= {200, 429}
    assert all(record.server_status is None for record in proxy.requests if record.status == 429)
    eventually(lambda: proxy.in_flight == 0)  # a client may read the whole answer before the proxy has counted it
    assert 1 <= proxy.peak <= 12


@pytest.mark.parametrize("fault", [None, Drip(1, 5.0), Silent(), Silent(reads=False), Delay(before=60)])
def test_closing_resets_whoever_is_connected(sqlite_server: MlflowServer, fault: Fault | None) -> None:
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.plan(fault)
        address = (httpx.URL(proxy.url).host, httpx.URL(proxy.url).port or 0)
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: len(proxy.requests) == 1)
            proxy.close()
            with pytest.raises(ConnectionResetError):
                list(iter(lambda: connection.recv(65536), b""))  # after what was answered before


def test_a_server_may_restart_behind_the_proxy(
    proxy: FaultProxy, client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    name, url = next(NAMES), sqlite_server.url
    assert create(client, name).status_code == 200
    sqlite_server.kill()
    try:
        with pytest.raises(httpx.TransportError):
            client.get("/health")
    finally:
        sqlite_server.start()
    assert sqlite_server.url == url
    assert client.get(SEARCH, params={"experiment_name": name}).status_code == 200


def test_tls_is_spoken_with_the_given_context(sqlite_server: MlflowServer) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    with FaultProxy(sqlite_server.url, tls=context) as proxy:
        assert proxy.url.startswith("https://")
        proxy.plan(None, None, LoseAnswer())
        with httpx.Client(verify=trusting, trust_env=False) as client:
            assert client.get(f"{proxy.url}/health").text == "OK"
            assert proxy.close_idle() == 1
            assert client.get(f"{proxy.url}/health").text == "OK"
            with pytest.raises(CUT_OFF):
                client.get(f"{proxy.url}/health")
        with httpx.Client(trust_env=False) as stranger, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            stranger.get(f"{proxy.url}/health")


def test_a_mixture_draws_the_same_faults_for_the_same_seed_at_its_rates() -> None:
    rates = dict.fromkeys(faults.KINDS, 0.05)
    one, other, third = Mixture(1, rates), Mixture(1, rates), Mixture(2, rates)
    drawn = [one() for _ in range(1000)]
    assert drawn == [other() for _ in range(1000)]
    assert drawn != [third() for _ in range(1000)]
    assert 150 < drawn.count(None) < 350, "a quarter of them"
    assert repr(one) == f"Mixture(1, {rates})"
    with pytest.raises(ValueError, match="no such faults: \\['fire'\\]"):
        Mixture(1, {"fire": 0.1})
    with pytest.raises(ValueError, match="more than 1"):
        Mixture(1, {"5xx": 0.9, "429": 0.2})


def test_every_kind_of_a_mixture_ends_by_itself(proxy: FaultProxy, client: httpx.Client) -> None:
    for seed, kind in enumerate(faults.KINDS):
        proxy.always(Mixture(seed, {kind: 1.0}))
        try:
            client.get("/health", timeout=60)
        except (httpx.NetworkError, httpx.ProtocolError):
            pass  # whichever it is, it is no time-out
        proxy.heal()
        eventually(lambda: _healthy(client))


@pytest.mark.parametrize("body", [b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b"{"])
def test_a_recorded_body_is_read_strictly(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        Recorded("POST", "/", (), 1, body).json()


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").text == "OK"
    except httpx.TransportError:
        return False

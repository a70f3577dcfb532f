"""Which proxy the environment means: as MLflow's HTTP client, requests, understands it, and what curl knows besides."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import version

import httpx
import pytest
import requests.utils

from asynctrack.errors import InvalidInputError, UnavailableError, WrongServerError
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.rest.auth import credentials_for
from asynctrack.stores.rest.client import RestClient
from asynctrack.stores.rest.proxies import route_to
from tests import faults
from tests.proxy import FaultProxy
from tests.servers import free_port

Call = Callable[[str], None]


def release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


KNOWS_SOCKS = release(httpx.__version__) >= (0, 27)

P = "http://proxy.example:3128"
Q = "http://other.example:8080"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("http", "https", "all", "no"):
        for name in (f"{key}_proxy", f"{key}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


#: variables, and a server
BOTH_KNOW = [
    ({}, "http://tracking.example:5000"),
    ({"HTTP_PROXY": P}, "http://tracking.example:5000"),
    ({"HTTP_PROXY": P}, "https://tracking.example"),
    ({"HTTPS_PROXY": P}, "https://tracking.example"),
    ({"ALL_PROXY": P}, "https://tracking.example"),
    ({"all_proxy": P}, "http://tracking.example"),
    ({"http_proxy": P, "HTTP_PROXY": Q}, "http://tracking.example"),
    ({"http_proxy": "", "HTTP_PROXY": Q}, "http://tracking.example"),
    ({"http_proxy": P, "ALL_PROXY": Q}, "http://tracking.example"),
    ({"http_proxy": P, "ALL_PROXY": Q}, "https://tracking.example"),
    ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, "http://tracking.example"),
    ({"HTTP_PROXY": "proxy.example:3128"}, "http://tracking.example"),
    ({"HTTP_PROXY": "http://me:secret@proxy.example:3128"}, "http://tracking.example"),
    ({"ALL_PROXY": "socks://127.0.0.1:9", "NO_PROXY": "tracking.example"}, "http://tracking.example"),
    ({"ALL_PROXY": "socks5h://127.0.0.1:9"}, "http://tracking.example"),
    *(
        ({"ALL_PROXY": P, "NO_PROXY": listed}, server)
        for listed in (
            *("", " ", ",", "*", "example", "tracking.example", ".tracking.example", "tracking.example:5000"),
            *(
                "acking.example",
                "TRACKING.example",
                "a.b, tracking.example ,c",
                "other,,tracking.example",
                "[::1]",
                "::",
            ),
            *(
                "127.0.0.1",
                "127.0.0.0/8",
                "127.0.0.0/33",
                "10.0.0.0/8",
                "localhost",
                ".0.0.1",
                "1",
                "\N{SNOWMAN}",
                "//",
            ),
            *("http://", "]", "[", "a b", "*.example", "tracking.example/", "\t", "::1/129", "%", "@", "host:port"),
        )
        for server in (
            *("http://tracking.example", "http://tracking.example:5000", "https://a.tracking.example"),
            *("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000", "http://10.1.2.3"),
        )
    ),
]


@pytest.mark.skipif(release(version("requests")) < (2, 32), reason="an older requests has other rules")
@pytest.mark.parametrize(("environment", "server"), BOTH_KNOW)
def test_the_proxy_is_the_one_that_requests_takes(
    environment: dict[str, str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = requests.utils.get_environ_proxies(server)
    theirs = found.get(server.partition(":")[0], found.get("all"))
    ours = route_to(httpx.URL(server))
    if ours is None and theirs is not None:
        assert (environment["NO_PROXY"], server) in CURL_KNOWS
    else:
        assert (None if ours is None else ours.proxy) == theirs


#: what curl reaches without the proxy, and requests through it
CURL_KNOWS = {
    ("[::1]", "http://[::1]:5000"),
    ("::1/128", "http://[::1]:5000"),
    ("fe80::/10", "http://[fe80::1]"),
    ("*,other", "http://tracking.example"),
    ("a b tracking.example", "http://tracking.example"),
    ("127.0.0.1:5000", "http://127.0.0.1:5000"),
    ("[::1]:5000", "http://[::1]:5000"),
    ("tracking.example:80", "http://tracking.example"),
}


@pytest.mark.parametrize(("listed", "server"), sorted(CURL_KNOWS))
def test_servers_that_only_curl_reaches_directly_are_reached_directly(
    listed: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", P)
    assert route_to(httpx.URL(server)) is not None
    monkeypatch.setenv("NO_PROXY", listed)
    assert route_to(httpx.URL(server)) is None


@pytest.mark.parametrize(("listed", "server"), [("[::1]:80", "http://[::1]:5000"), ("a:80", "http://a:5000")])
def test_an_entry_for_another_port_does_not_count(listed: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", P)
    monkeypatch.setenv("NO_PROXY", listed)
    assert route_to(httpx.URL(server)) is not None


# ── requests through them


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system's settings count, too")
def test_an_environment_without_proxies_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change between two requests, and spelling does not matter; but to decode all of it each time is dear."""
    url = httpx.URL("http://tracking.example:5000")
    with monkeypatch.context() as patch:
        patch.setattr("asynctrack.stores.rest.proxies.getproxies", lambda: pytest.fail("looked through"))
        assert route_to(url) is None
    monkeypatch.setenv("Http_Proxy", P)
    route = route_to(url)
    assert route is not None
    assert route.proxy == P
    monkeypatch.delenv("Http_Proxy")
    assert route_to(url) is None


def client_of(url: str) -> RestClient:
    return RestClient(lambda: url, credentials_for(url), InlineIO(), connect_timeout=2.0)


def call_in_thread(url: str) -> None:
    client = client_of(url)
    try:
        assert drive(client.call("GET", "/api/x")) == {}
    finally:
        drive(client.aclose())


def call_on_loop(url: str) -> None:
    async def main() -> None:
        client = client_of(url).over(ThreadedIO())
        try:
            assert await client.call("GET", "/api/x") == {}
        finally:
            await client.aclose()

    asyncio.run(main())


@pytest.fixture(params=[call_in_thread, call_on_loop])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param  # type: ignore[no-any-return]  # one of two functions


def test_a_server_is_asked_through_the_proxy(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(None) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://me:se%40cret@"))
        call("http://tracking.invalid:5000")
        (request,) = proxy.requests
    assert request.path == "http://tracking.invalid:5000/api/x"
    assert request.header("proxy-authorization") == "Basic bWU6c2VAY3JldA=="


@pytest.mark.parametrize(
    "proxy", ["socks://127.0.0.1:9", "socks4://127.0.0.1:9", "quic://a", "http://", "\N{SNOWMAN}://"]
)
@pytest.mark.parametrize("exempt", ["127.0.0.1", "127.0.0.1,[::1]", "[,127.0.0.0/8", "*"])
def test_a_proxy_that_does_not_concern_the_server_does_no_harm(
    proxy: str, exempt: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", exempt)
    with FaultProxy(None) as server:
        call(server.url)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks4://127.0.0.1:9", r"the proxy socks4://127.0.0.1:9 \(ALL_PROXY\): a proxy can be http, https, socks5"),
        ("quic://a", r"the proxy quic://a \(ALL_PROXY\): a proxy can be"),
        ("http://", r"the proxy http:// \(ALL_PROXY\) cannot be used: it must be like"),
        (
            "http://me:sec/ret@127.0.0.1:9",
            r"the proxy http://127.0.0.1:9 \(ALL_PROXY\) cannot be used: it must be like",
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str, said: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InvalidInputError, match=said) as raised:
        call("http://tracking.invalid:5000")
    assert "ret" not in str(raised.value).partition("it must be")[0]


def test_a_proxy_that_is_away_is_named_without_its_password(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(
        UnavailableError, match=rf", through the proxy http://127.0.0.1:{port} \(http_proxy\)$"
    ) as raised:
        call("http://tracking.invalid:5000")
    assert "secret" not in str(raised.value)
    assert not raised.value.ambiguous


@pytest.mark.parametrize("server", ["http://tracking.invalid:5000", "https://tracking.invalid"])
def test_a_proxy_that_asks_for_credentials_is_no_server_that_fails(
    server: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tunnel, or of a request that it would pass on."""
    with FaultProxy(None) as proxy:
        proxy.always(faults.Answer(407))
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with pytest.raises(WrongServerError, match="a proxy wants to know who asks") as raised:
            call(server)
    assert raised.value.held


@pytest.fixture
def socks() -> Iterator[tuple[str, list[bytes]]]:
    """A SOCKS5 server without passwords, and the hosts that it was asked for; it connects to this machine only."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []
    opened = ExitStack()

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                stream = opened.enter_context(opened.enter_context(client).makefile("rb"))
                stream.read(stream.read(2)[1])
                client.sendall(b"\x05\x00")
                head = stream.read(5)
                host = stream.read(head[4]) if head[3] == 3 else head[4:] + stream.read(3)
                asked.append(host)
                target = "127.0.0.1", int.from_bytes(stream.read(2))
                server = opened.enter_context(socket.create_connection(target))
                client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    opened.close()


@pytest.mark.skipif(not KNOWS_SOCKS, reason="httpx 0.26 fails at SOCKS proxies on an event loop")
@pytest.mark.parametrize("kind", ["socks5", "socks5h", "socks", "SOCKS5"])
def test_a_server_is_reached_through_a_socks_proxy(
    kind: str, socks: tuple[str, list[bytes]], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = socks
    monkeypatch.setenv("ALL_PROXY", f"{kind}://{address}")
    with FaultProxy(None) as server:
        call(server.url.replace("127.0.0.1", "tracking.invalid"))
    assert asked == [b"tracking.invalid"]


@pytest.mark.skipif(not KNOWS_SOCKS, reason="httpx 0.26 fails at SOCKS proxies on an event loop")
def test_without_socksio_the_message_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InvalidInputError, match=r"\(ALL_PROXY\): a SOCKS proxy needs .*asynctrack\[socks\]"):
        call("http://tracking.invalid:5000")

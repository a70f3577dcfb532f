"""SOCKS proxies that die, answer nonsense or nothing, or in pieces: nothing of it says anything about a request."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest
import trio
import trustme

from asynctrack.errors import InvalidInputError, UnavailableError
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.rest.auth import credentials_for
from asynctrack.stores.rest.client import RestClient
from tests.proxy import FaultProxy

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in httpx.__version__.split(".")[:2]) < (0, 27),
    reason="httpx 0.26 fails at SOCKS proxies on an event loop",
)

Call = Callable[[str], None]
GREETED = b"\x05\x00"
PASSWORD = b"\x05\x02"
CONNECTED = b"\x05\x00\x00\x01" + bytes(6)
CONNECTED_6 = b"\x05\x00\x00\x04" + bytes(18)
CONNECTED_BY_NAME = b"\x05\x00\x00\x03\x03\xff\xfe\xfd" + bytes(2)
SERVER = "http://tracking.invalid:5000"
#: seconds for a connection; a test that needs them waits so long
PATIENCE = 0.5


def client_of(url: str) -> RestClient:
    seconds = float(os.environ.get("PATIENCE", 20))
    return RestClient(lambda: url, credentials_for(url), InlineIO(), connect_timeout=seconds)


def in_thread(url: str) -> None:
    client = client_of(url)
    try:
        assert drive(client.send("GET", "/api/x")).content == b"{}"
    finally:
        drive(client.aclose())


async def ask(url: str) -> None:
    client = client_of(url).over(ThreadedIO())
    try:
        assert await client.call("GET", "/api/x") == {}
    finally:
        await client.aclose()


def on_asyncio(url: str) -> None:
    asyncio.run(ask(url))


def on_trio(url: str) -> None:
    trio.run(ask, url)


@pytest.fixture(params=[in_thread, on_asyncio, on_trio])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param  # type: ignore[no-any-return]  # one of three functions


class Proxy:
    """Says ``replies``, one for each message, in pieces of ``size`` bytes; then it closes the connection, keeps silent,
    or is the way to ``server``."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.size = 100
        self.pause = 0.01
        self.silent = False
        self.server: int | None = None
        self.opened = ExitStack()
        self.closed = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(self.opened.enter_context(client),), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            for reply in self.replies:
                client.recv(1000)
                for at in range(0, len(reply), self.size):
                    client.sendall(reply[at : at + self.size])
                    if self.size < len(reply):
                        time.sleep(self.pause)
            if self.server is not None:
                server = self.opened.enter_context(socket.create_connection(("127.0.0.1", self.server)))
                threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
                _pass_on(client, server)
            elif self.silent:
                while client.recv(1000):
                    pass
                self.closed += 1
            else:
                client.shutdown(socket.SHUT_WR)
                client.recv(1000)
                client.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.opened.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = Proxy()
    monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.address}")
    yield proxy
    proxy.close()


@pytest.mark.parametrize("connected", [CONNECTED, CONNECTED_6, CONNECTED_BY_NAME])
@pytest.mark.parametrize("size", [1, 100])
def test_replies_may_come_in_pieces(connected: bytes, size: int, proxy: Proxy, call: Call) -> None:
    proxy.replies, proxy.size = [GREETED, connected], size
    with FaultProxy(None) as server:
        proxy.server = int(server.url.rpartition(":")[2])
        call(SERVER)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a server at tracking.invalid, that is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("tracking.invalid").configure_cert(context)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "ca.pem"))
    return context


@pytest.mark.parametrize("size", [1, 100])
def test_tls_begins_behind_the_last_of_them(size: int, proxy: Proxy, call: Call, tls: ssl.SSLContext) -> None:
    proxy.replies, proxy.size = [GREETED, CONNECTED], size
    with FaultProxy(None, tls=tls) as server:
        proxy.server = int(server.url.rpartition(":")[2])
        call("https://tracking.invalid")


@pytest.mark.parametrize("way", ["inline", "asyncio", "trio"])
def test_an_upload_through_a_tunnel_takes_its_time(
    way: str, proxy: Proxy, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for the answer ran from the moment when an HTTP proxy was asked for the tunnel."""
    proxy.replies = [b"HTTP/1.1 200 OK\r\n\r\n"]
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "2")

    def slowly() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(0.5)
            yield b"x"

    async def slowly_on_loop() -> AsyncIterator[bytes]:
        for _ in range(6):
            await anyio.sleep(0.5)
            yield b"x"

    @asynccontextmanager
    async def content() -> AsyncIterator[Iterator[bytes] | AsyncIterator[bytes]]:
        yield slowly() if way == "inline" else slowly_on_loop()

    async def put() -> None:
        client = client_of("https://tracking.invalid").over(InlineIO() if way == "inline" else ThreadedIO())
        assert (await client.send("PUT", "/a", content=content)).content == b"{}"
        await client.aclose()

    with FaultProxy(None, tls=tls) as server:
        proxy.server = int(server.url.rpartition(":")[2])
        drive(put()) if way == "inline" else anyio.run(put, backend=way)


@pytest.mark.parametrize("size", [1, 100])
def test_a_proxy_may_want_a_password(size: int, proxy: Proxy, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.replies, proxy.size = [PASSWORD, b"\x01\x00", CONNECTED], size
    monkeypatch.setenv("ALL_PROXY", f"socks5h://me:secret@{proxy.address}")
    with FaultProxy(None) as server:
        proxy.server = int(server.url.rpartition(":")[2])
        call(SERVER)


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([], "closed the connection before the tunnel stood|SOCKS handshake failed"),
        ([GREETED], "closed the connection before the tunnel stood|SOCKS handshake failed"),
        ([GREETED, CONNECTED[:7]], "closed the connection before the tunnel stood"),
        ([b"HTTP/1.0 400 Bad Request\r\n\r\n"], "what answers there is no SOCKS5 proxy"),
        ([b"\x04\x5b"], "what answers there is no SOCKS5 proxy"),
        ([PASSWORD], "USERNAME/PASSWORD"),
        ([b"\x05\xff"], "NO ACCEPTABLE METHODS"),
        ([b"\x05\x80"], "SOCKS handshake failed: Malformed reply"),
        ([GREETED, b"\x05\x05\x00\x01"], "could not connect: Connection refused"),
        ([GREETED, b"\x05\x05\x00\x00"], "could not connect: Connection refused"),
        ([GREETED, b"\x05\x2a\x00\x01"], "could not connect: SOCKS error 42"),
        ([GREETED, b"\x05\x00\x00\x07" + bytes(6)], "makes no sense"),
        ([GREETED, b"\x00" * 10], "what answers there is no SOCKS5 proxy"),
    ],
)
def test_a_proxy_that_fails_says_nothing_about_the_request(
    replies: list[bytes], said: str, proxy: Proxy, call: Call
) -> None:
    """Events were refused for good after six attempts."""
    proxy.replies = replies
    with pytest.raises(UnavailableError, match=rf"({said}).*, through the proxy socks5h://127") as raised:
        call(SERVER)
    assert not raised.value.ambiguous


def test_what_goes_wrong_in_the_handshake_for_another_reason_does_not_either(proxy: Proxy, call: Call) -> None:
    """A name that SOCKS has no room for, which the parser does not expect."""
    proxy.replies = [GREETED, CONNECTED]
    with pytest.raises(UnavailableError, match="SOCKS handshake failed: ") as raised:
        call(f"http://{'.'.join(['a' * 60] * 5)}:5000")
    assert not raised.value.ambiguous


@pytest.mark.parametrize("replies", [[], [GREETED], [GREETED, CONNECTED[:5]]])
def test_a_proxy_that_says_nothing_has_the_time_of_a_connection(
    replies: list[bytes], proxy: Proxy, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was waited for without an end. What was opened is closed."""
    monkeypatch.setenv("PATIENCE", str(PATIENCE))
    proxy.replies, proxy.silent = replies, True
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="no connection in time, through the proxy") as raised:
        call(SERVER)
    assert not raised.value.ambiguous
    assert PATIENCE * 0.9 < time.monotonic() - begun < 20
    del raised
    while not proxy.closed and time.monotonic() - begun < 20:
        time.sleep(0.01)
    assert proxy.closed


def test_a_byte_now_and_then_does_not_make_it_longer(proxy: Proxy, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", str(PATIENCE))
    proxy.replies = [GREETED, CONNECTED_BY_NAME[:4] + b"\xff" + bytes(257)]
    proxy.size, proxy.pause = 1, PATIENCE / 5
    with pytest.raises(UnavailableError, match="no connection in time"):
        call(SERVER)


def test_a_password_that_socks_has_no_room_for_is_named(
    proxy: Proxy, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{'s' * 256}@{proxy.address}")
    with pytest.raises(InvalidInputError, match="at most 255 bytes") as raised:
        call(SERVER)
    assert "sss" not in str(raised.value)

"""Answers that do not end, that unpack to a thousand times their size, or that come a byte at a time."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from asynctrack.errors import ServerFaultError, UnavailableError
from asynctrack.stores.io import InlineIO, ThreadedIO, drive
from asynctrack.stores.rest.auth import credentials_for
from asynctrack.stores.rest.client import RestClient
from asynctrack.stores.rest.deadline import Deadline

MIB = 1 << 20
HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n%s\r\n"


class Server:
    """Answers each connection's first request with what ``pieces`` gives, until the client has had enough."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pieces = pieces
        #: bytes that the client has taken
        self.taken = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            for piece in self._pieces():
                connection.sendall(piece)
                self.taken += len(piece)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def serving(head: bytes, *pieces: bytes, for_ever: bytes = b"", pause: float = 0.0) -> Iterator[Server]:
    def all_pieces() -> Iterator[bytes]:
        yield head
        yield from pieces
        while for_ever:
            yield for_ever
            time.sleep(pause)

    server = Server(all_pieces)
    yield server
    server.close()


def ask(way: str, url: str, *, most: int = MIB, patience: float | None = None) -> object:
    """One call, in a plain thread or on a loop."""
    client = RestClient(lambda: url, credentials_for(url), InlineIO() if way == "inline" else ThreadedIO())
    client.patience = patience

    async def call() -> object:
        try:
            return await client.call("GET", "/api/x", most=most)
        finally:
            await client.aclose()

    return drive(call()) if way == "inline" else asyncio.run(call())


both_ways = pytest.mark.parametrize("way", ["inline", "asyncio"])


@both_ways
def test_an_error_without_an_end_is_read_as_far_as_it_is_quoted(way: str) -> None:
    with serving(HEAD % (500, b""), for_ever=b"x" * 65536) as server:
        with pytest.raises(ServerFaultError, match="HTTP 500"):
            ask(way, server.url)
        assert server.taken < 16 * MIB  # what the two sockets hold, too


@both_ways
def test_an_answer_without_an_end_is_not_kept(way: str) -> None:
    with serving(HEAD % (200, b""), for_ever=b" " * 65536) as server:
        with pytest.raises(UnavailableError, match=f"{server.url}/api/x: the answer is longer than 1 MiB") as raised:
            ask(way, server.url)
        assert raised.value.ambiguous
        assert server.taken < 16 * MIB


@both_ways
@pytest.mark.parametrize("status", [200, 500])
def test_a_little_that_unpacks_to_a_lot_is_unpacked_as_far_as_it_may(way: str, status: int) -> None:
    packed = gzip.compress(bytes(512 * MIB), 1)
    with serving(HEAD % (status, b"Content-Encoding: gzip\r\n"), packed) as server:
        tracemalloc.start()
        try:
            with pytest.raises(UnavailableError):
                ask(way, server.url)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 32 * MIB


@both_ways
def test_bytes_that_unpack_to_nothing_come_to_an_end_too(way: str) -> None:
    empty = zlib.compressobj(wbits=31)
    begun = empty.compress(b"") + empty.flush(zlib.Z_SYNC_FLUSH)
    nothing = b"\0\0\0\xff\xff" * 4096  # stored blocks of no bytes
    with serving(HEAD % (200, b"Content-Encoding: gzip\r\n"), begun, for_ever=nothing) as server:
        with pytest.raises(UnavailableError, match="longer than 1 MiB"):
            ask(way, server.url)
        assert server.taken < 16 * MIB


@both_ways
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_that_somebody_has_compressed_on_its_way_is_read(way: str, encoding: str) -> None:
    said = json.dumps({"a": list(range(100_000))}).encode()
    packed = gzip.compress(said) if encoding == "gzip" else zlib.compress(said)
    head = HEAD % (200, f"Content-Encoding: {encoding}\r\n".encode())
    with serving(head, packed) as server:
        assert ask(way, server.url, most=8 * MIB) == json.loads(said)
    lacks, differs = "lacks its end", "not what its Content-Encoding says"
    with serving(head, packed[:-10]) as server, pytest.raises(UnavailableError, match=lacks):
        ask(way, server.url, most=8 * MIB)
    with serving(head, said) as server, pytest.raises(UnavailableError, match=differs):
        ask(way, server.url, most=8 * MIB)


@both_ways
def test_a_download_is_unpacked_in_flat_memory(way: str, tmp_path: Path) -> None:
    packed = gzip.compress(bytes(64 * MIB), 1)
    with serving(HEAD % (200, b"Content-Encoding: gzip\r\n"), packed) as server:
        client = RestClient(
            lambda: server.url, credentials_for(server.url), InlineIO() if way == "inline" else ThreadedIO()
        )
        work = client.download("GET", "/a", str(tmp_path / "a"))
        tracemalloc.start()
        try:
            drive(work) if way == "inline" else asyncio.run(work)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size == 64 * MIB
    assert most < 16 * MIB


@both_ways
@pytest.mark.parametrize("where", ["head", "body"])
@pytest.mark.parametrize("limit", ["environment", "patience"])
def test_a_server_that_drips_bytes_does_not_hold_a_call_for_ever(
    way: str, where: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read gets its byte in time; the answer never comes."""
    if limit == "environment":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    head = HEAD % (200, b"")
    if where == "head":
        head = head.removesuffix(b"\r\n") + b"X-Long: "
    begun = time.monotonic()
    dripping = serving(head, for_ever=b" ", pause=0.05)
    with dripping as server, pytest.raises(UnavailableError, match="no answer in time"):
        ask(way, server.url, patience=1.0 if limit == "patience" else None)
    assert time.monotonic() - begun < 20


def test_a_long_answer_may_take_longer_than_a_short_one() -> None:
    """As long as it comes at all fast."""
    deadline = Deadline(60.0, total=False)
    before = deadline.left()
    deadline.came(100 * MIB)
    assert deadline.left() > before + 1000
    total = Deadline(60.0, total=True)
    total.came(100 * MIB)
    assert total.left() <= 60


@both_ways
def test_the_requests_that_we_make_are_not_logged_and_the_programs_own_are(way: str) -> None:
    """A handler that logs a metric for each record would feed itself for ever. A token function is the program's."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, root = Handler(), logging.getLogger()
    level = root.level
    with serving(HEAD % (200, b"Content-Length: 2\r\n"), b"{}") as server:

        def token() -> str:
            httpx.get(f"{server.url}/token", trust_env=False)
            return "abc"

        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            ask(way, server.url)
            ours = [record for record in records if record.name.startswith(("http", "h11"))]
            assert ours == []
            client = RestClient(lambda: server.url, credentials_for(server.url, token=token), InlineIO())
            drive(client.call("GET", "/api/x"))
            drive(client.aclose())
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
    said = [record.getMessage() for record in records if "HTTP Request" in record.getMessage()]
    assert len(said) == 1
    assert "/token" in said[0]
    assert any(record.name == "httpcore.http11" for record in records)

"""Head and body of a request leave together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from asynctrack.stores.rest.joining import _Backend, _Stream, join_writes
from asynctrack.stores.rest.proxies import RoutedAsync

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Written:
    """A connection that notes what is written at once."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, buffer: bytes) -> None:
        self.pieces.append(buffer)

    async def read(self, max_bytes: int) -> bytes:
        self.pieces.append(b"<")
        return b"answer"


def test_a_small_body_goes_with_the_head_and_a_large_one_behind_it() -> None:
    async def write() -> list[bytes]:
        written = Written()
        stream = _Stream(written)
        for pieces in (b"head", b"body", b""), (b"head", b""), (b"head", large, b"rest", b""), (b"head",):
            for piece in pieces:
                await stream.write(piece)
            await stream.read(10)
        return written.pieces

    large = bytes(100_000)
    assert asyncio.run(write()) == [b"headbody", b"<", b"head", b"<", b"head", large, b"rest", b"<", b"head", b"<"]


@pytest.mark.parametrize("kind", ["nothing", "bytes", "stream"])
def test_a_server_gets_head_and_body_at_once(kind: str) -> None:
    got: list[bytes] = []
    gone: asyncio.Event

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            got.append(data)
            if data.endswith((b"a body", b"0\r\n\r\n")) or kind == "nothing":
                writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()
        gone.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"a body"

    async def ask() -> None:
        nonlocal gone
        gone = asyncio.Event()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = RoutedAsync(ssl.create_default_context(), httpx.Limits())
        for _ in range(2):
            content = {"nothing": None, "bytes": b"a body", "stream": body()}[kind]
            timeout = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}
            url = f"http://127.0.0.1:{port}/"
            response = await transport.handle_async_request(
                httpx.Request("POST", url, content=content, extensions={"timeout": timeout})
            )
            assert await response.aread() == b"ok"
        await transport.aclose()
        await gone.wait()
        server.close()

    asyncio.run(ask())
    assert b"".join(got).count(b"POST /") == 2
    if kind != "stream":
        assert len(got) == 2


def test_this_httpx_has_what_it_takes() -> None:
    transport: Any = join_writes(httpx.AsyncHTTPTransport())
    assert isinstance(transport._pool._network_backend, _Backend)

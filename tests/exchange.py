"""One client connection of ``FaultProxy``, and what a fault can do with the request that is on it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.http1 import Head, Piece, read_body, read_head, request_length, response_length

if TYPE_CHECKING:
    from tests.faults import Fault
    from tests.proxy import FaultProxy

#: bytes of a body that are kept; the rest is passed on, so that a large upload does not fill the memory
KEPT = 8 << 20


@dataclass
class Recorded:
    """A request that reached the proxy. Headers and body stay out of its repr: they may hold a credential."""

    method: str
    #: the target as sent, query included
    path: str
    #: in order, names in lower case
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    #: which accepted connection it came on, from 1
    connection: int
    #: what arrived of the body, without chunk lengths; at most KEPT bytes of it, ``size`` counts them all
    body: bytes = field(default=b"", repr=False)
    size: int = 0
    #: what the server answered, when it was asked and did
    server_status: int | None = None
    #: what the client was answered; None when it got no whole answer
    status: int | None = None
    #: what was done to it
    fault: Fault | None = None
    #: whether the proxy is done with it
    finished: bool = False

    def header(self, name: str) -> str:
        """The first header of that name, or ""."""
        return next((value for key, value in self.headers if key == name.lower()), "")

    def json(self) -> Any:
        """The body, as the strictest reader takes it: ValueError on NaN, Infinity and keys that come twice."""
        return json.loads(self.body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)


class Exchange:
    """The connection, its own connection to the server, and the request being handled."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.proxy, self.reader = proxy, reader
        self.server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        #: whether another request may follow, and whether it is being waited for
        self.open = self.waiting = True
        self.record: Recorded
        self._writer, self._number = writer, number
        self._head: Head
        self._body: AsyncIterator[Piece]
        self._read: list[Piece] = []

    def begin(self, head: Head) -> Recorded:
        """A new request; its body is still to be read."""
        self.record = Recorded(head.start[0], head.start[1], head.headers, self._number)
        self._head, self._body, self._read = head, read_body(self.reader, request_length(head)), []
        self.open, self.waiting = head.keeps_alive, False
        return self.record

    async def prefetch(self) -> None:
        """Read the whole body now, to decide by it; it is passed on all the same."""
        self._read = [piece async for piece in self._pieces()]

    async def drain(self) -> None:
        """Read the rest of the request, and pass nothing on."""
        async for _ in self._pieces():
            pass

    async def forward(self, limit: int | None = None) -> None:
        """Pass the request on, or its first ``limit`` bytes; ConnectionError when the server is not there."""
        if self.server is None:
            assert self.proxy.target is not None, "a proxy without a server can only answer by itself"
            self.server = await asyncio.open_connection(*self.proxy.target)
        writer = self.server[1]
        left = limit
        async for data in self._request():
            writer.write(data[:left])
            await writer.drain()
            if left is not None:
                left -= len(data[:left])
                if left == 0:
                    return

    async def response(self) -> AsyncIterator[bytes]:
        """The server's answer as it comes: the head first, then the body's parts."""
        assert self.server is not None, "forward() comes first"
        head = await read_head(self.server[0])
        if head is None:
            raise ConnectionResetError("the server left without an answer")
        self.record.server_status = int(head.start[1])
        yield head.raw
        async for piece in read_body(self.server[0], response_length(head, self.record.method)):
            yield piece.raw
        if not head.keeps_alive:
            self.open = False

    async def discard(self) -> None:
        """Read the server's answer, and pass nothing on."""
        async for _ in self.response():
            pass

    async def relay(self) -> None:
        """Pass the request on and its answer back, unchanged."""
        await self.forward()
        async for data in self.response():
            await self.send(data)
        self.answered()

    async def send(self, data: bytes) -> None:
        """To the client."""
        self._writer.write(data)
        await self._writer.drain()

    def answered(self, status: int | None = None) -> None:
        """Note that the client was sent a whole answer: the server's, or one of another status."""
        self.record.status = status or self.record.server_status

    async def idle(self, seconds: float | None, *, watch: bool) -> None:
        """Wait that long (None: for ever), but no longer than to the next ``heal()``.

        With ``watch``, only after ``drain()``, no longer than until the client leaves either.
        """
        waits = [asyncio.ensure_future(self.proxy.until_healed())]
        if watch:
            waits.append(asyncio.ensure_future(_end_of(self.reader)))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(*waits)

    def reset(self) -> None:
        """End both connections at once; the client gets a RST."""
        if not self._writer.transport.is_closing():
            # Without lingering, closing throws away what was not sent and tells the other side so.
            peer: socket.socket = self._writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        if self.server is not None:
            self.server[1].transport.abort()
        self.close()

    def close(self) -> None:
        """End both connections; the client first gets what was sent."""
        self.open = False
        self._writer.close()
        if self.server is not None:
            self.server[1].close()

    async def closed(self) -> None:
        """Return once the client's connection has ended, after ``close()``."""
        await self._writer.wait_closed()

    async def _request(self) -> AsyncIterator[bytes]:
        """Unchanged, but for the form that a client uses with a configured HTTP proxy: an absolute URL as target."""
        method, target, version = self._head.start
        if target.startswith("http://"):
            path = "/" + target.removeprefix("http://").partition("/")[2]
            old, new = (f"{method} {it} {version}\r\n".encode("latin-1") for it in (target, path))
            yield self._head.raw.replace(old, new, 1)
        else:
            yield self._head.raw
        async for piece in self._pieces():
            yield piece.raw

    async def _pieces(self) -> AsyncIterator[Piece]:
        """The body: what ``prefetch()`` read, then what is still to come."""
        for piece in self._read:
            yield piece
        self._read = []
        async for piece in self._body:
            self.record.body += piece.data[: max(0, KEPT - len(self.record.body))]
            self.record.size += len(piece.data)
            yield piece


async def next_head(exchange: Exchange) -> Head | None:
    """The next request's head; None when the client, the server, or the last fault ended the connection."""
    if not exchange.open:
        return None
    exchange.waiting = True
    if exchange.server is None:
        return await read_head(exchange.reader)
    head = asyncio.ensure_future(read_head(exchange.reader))
    gone = asyncio.ensure_future(_end_of(exchange.server[0]))
    try:
        await asyncio.wait([head, gone], return_when=asyncio.FIRST_COMPLETED)
        return head.result() if head.done() else None
    finally:
        await _cancel(head, gone)


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Return when the other side has ended the connection; nothing else is due on it now."""
    with suppress(ConnectionError):
        await reader.read(1)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(keys := dict(pairs)) != len(pairs):
        raise ValueError(f"a key comes twice: {[key for key, _ in pairs]}")
    return keys

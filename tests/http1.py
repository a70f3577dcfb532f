"""HTTP/1.1 as it is on the wire, for a proxy that must know where a message ends and otherwise change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

#: bytes read from a body at a time
PIECE = 65_536
#: how a body that ends with its connection is told from one of so many bytes
UNTIL_CLOSED = -1
CHUNKED = -2


class Head(NamedTuple):
    """A request's or a response's first line and headers."""

    #: as received, the blank line included
    raw: bytes
    #: the first line's three parts: method, target, version; or version, status, reason
    start: tuple[str, str, str]
    #: in order, names in lower case
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """The first header of that (lower-case) name, or ""."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def keeps_alive(self) -> bool:
        """Whether another message may follow on the connection."""
        return "close" not in self.get("connection").lower()


class Piece(NamedTuple):
    """Some of a body: as it is on the wire, and without the chunks' lengths."""

    raw: bytes
    data: bytes


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head; None when the connection ends before its first byte.

    Raises ConnectionError when it ends in the middle.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise ConnectionResetError("the connection ended inside a head") from None
    return parse_head(raw)


def parse_head(raw: bytes) -> Head:
    """Split a head; ValueError when it is none."""
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    start = [*first.split(" ", 2), ""]  # a status line may come without a reason
    if len(start) < 3 or "HTTP/1." not in first:
        raise ValueError(f"not HTTP/1: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, (start[0], start[1], start[2]), tuple((key.lower(), value.strip()) for key, _, value in pairs))


def request_length(head: Head) -> int:
    """The request body's length in bytes, or CHUNKED."""
    if "chunked" in head.get("transfer-encoding").lower():
        return CHUNKED
    return int(head.get("content-length") or 0)


def response_length(head: Head, method: str) -> int:
    """The length in bytes of the response to a request of that method, CHUNKED, or UNTIL_CLOSED."""
    status = int(head.start[1])
    if method == "HEAD" or status < 200 or status in (204, 304):
        return 0
    if "chunked" in head.get("transfer-encoding").lower():
        return CHUNKED
    return int(head.get("content-length") or UNTIL_CLOSED)


async def read_body(reader: asyncio.StreamReader, length: int) -> AsyncIterator[Piece]:
    """The body piece by piece; ConnectionError when the connection ends before it does."""
    if length == CHUNKED:
        async for piece in _chunks(reader):
            yield piece
        return
    while length:
        data = await reader.read(PIECE if length < 0 else min(PIECE, length))
        if not data:
            if length == UNTIL_CLOSED:
                return
            raise ConnectionResetError(f"the connection ended {length} bytes before its message")
        yield Piece(data, data)
        length -= len(data) if length > 0 else 0


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[Piece]:
    try:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            data = await reader.readexactly(size)
            yield Piece(line + data + await reader.readuntil(b"\r\n"), data)
            if not size:
                return  # no client and no server here sends trailers
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("the connection ended inside a chunk") from None

"""A request's head and its body in one packet, on an event loop.

httpcore writes them one after the other, each to the socket at once. So the server is woken for the head alone, and has
to wait for the body; and a write on a loop costs a fifth of a request. What MLflow's client uses (http.client) joins
them, too.
"""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["join_writes"]

#: bytes of a body that are not worth copying behind the head
_MUCH = 1 << 16


def join_writes(transport: httpx.AsyncHTTPTransport) -> httpx.AsyncHTTPTransport:
    """Have ``transport`` do so, where its httpx has what this needs: its pool of connections has no public name. Else
    it writes as it does."""
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if backend is not None:
        pool._network_backend = _Backend(backend)
    return transport


class _Backend:
    """httpcore's way to open a connection."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    async def connect_tcp(self, *args: Any, **options: Any) -> _Stream:
        return _Stream(await self._backend.connect_tcp(*args, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _Stream:
    """One connection. What is written first after an answer, a head, waits for what comes next: a piece of the body, or
    the empty one that ends it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._fresh = True
        self._head = b""

    async def write(self, buffer: bytes, **options: Any) -> None:
        fresh, self._fresh = self._fresh, False
        if fresh:
            self._head = bytes(buffer)
            return
        head, self._head = self._head, b""
        if head and len(buffer) > _MUCH:
            await self._stream.write(head, **options)
        elif head:
            buffer = head + buffer
        if buffer:
            await self._stream.write(buffer, **options)

    async def read(self, max_bytes: int, **options: Any) -> Any:
        if self._head:
            await self.write(b"", **options)
        self._fresh = True
        return await self._stream.read(max_bytes, **options)

    async def start_tls(self, *args: Any, **options: Any) -> _Stream:
        return _Stream(await self._stream.start_tls(*args, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

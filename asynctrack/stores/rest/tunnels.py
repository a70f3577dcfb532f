"""Through a SOCKS proxy: its handshake, in whatever pieces it comes, and in time.

httpcore takes each packet for a whole reply, waits for it without a limit, and lets through what its parser raises. But
whatever fails before the tunnel stands says nothing about the request: nothing of that has been sent.
"""

from __future__ import annotations

from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import httpx

from asynctrack.clock import monotonic

__all__ = ["Tunnelled", "TunnelledAsync"]

#: the way to sign in that has a reply of its own
_PASSWORD = 2
#: bytes of an address in a reply, by its kind; a name says its own length
_ADDRESSES = {1: 4, 4: 16}
_NAME = 3
#: how httpcore wants to see a reply, behind its code: the address in it is of no use
_NO_ADDRESS = bytes((0, 1, 0, 0, 0, 0, 0, 0))
#: the codes that it knows: 0 for success, and the reasons for a failure
_CODES = range(9)


class _Handshake:
    """What a proxy has to say before the tunnel stands. Pure, but for the clock."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else monotonic() + seconds
        self._first = True
        #: whether the next reply is one of two bytes
        self._short = True
        #: whether the tunnel stands
        self.over = False

    def left(self) -> float | None:
        """Seconds for the rest of it. Raises `httpx.ConnectTimeout` where there are none."""
        if self._until is None:
            return None
        left = self._until - monotonic()
        if left <= 0:
            raise httpx.ConnectTimeout("")
        return left

    def reply(self) -> Generator[int, bytes, bytes]:
        """The next reply, whole: yields how many bytes it lacks, and is sent some. Raises `httpx.ProxyError`."""
        if self._short:
            reply = yield from _exactly(2)
            first, self._first = self._first, False
            if first:
                _check_version(reply[0])
            # What asks for a password says next whether it is the right one.
            self._short = first and reply[1] == _PASSWORD
            return reply
        version, code, _, kind = yield from _exactly(4)
        _check_version(version)
        if code not in _CODES:
            raise httpx.ProxyError(f"the proxy could not connect: SOCKS error {code}")
        if code == 0:
            if kind not in _ADDRESSES and kind != _NAME:
                raise httpx.ProxyError(f"the proxy's answer makes no sense: address of kind {kind}")
            size = (yield from _exactly(1))[0] if kind == _NAME else _ADDRESSES[kind]
            yield from _exactly(size + 2)
            self.over = True
        return bytes((version, code)) + _NO_ADDRESS


def _exactly(size: int) -> Generator[int, bytes, bytes]:
    data = b""
    while len(data) < size:
        piece = yield size - len(data)
        if not piece:
            raise httpx.ProxyError("the proxy closed the connection before the tunnel stood")
        data += piece
    return data


def _check_version(version: int) -> None:
    if version != 5:
        raise httpx.ProxyError("what answers there is no SOCKS5 proxy")


class _Tunnel:
    """One connection: reads whole replies until the tunnel stands."""

    def __init__(self, stream: Any, handshake: _Handshake) -> None:
        self._stream = stream
        self._handshake = handshake

    def read(self, max_bytes: int, **options: Any) -> Any:
        if self._handshake.over:
            return self._stream.read(max_bytes, **options)
        reply = self._handshake.reply()
        try:
            lacks = next(reply)
            while True:
                lacks = reply.send(self._stream.read(lacks, timeout=self._handshake.left()))
        except StopIteration as whole:
            return whole.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _TunnelAsync(_Tunnel):
    async def read(self, max_bytes: int, **options: Any) -> Any:
        if self._handshake.over:
            return await self._stream.read(max_bytes, **options)
        reply = self._handshake.reply()
        try:
            lacks = next(reply)
            while True:
                lacks = reply.send(await self._stream.read(lacks, timeout=self._handshake.left()))
        except StopIteration as whole:
            return whole.value


class _Attempt:
    """One request's attempt at a tunnel of its own, if it needs one."""

    def __init__(self) -> None:
        self.handshake: _Handshake | None = None
        #: httpcore's connection to the proxy, which it does not close when the handshake fails
        self.stream: Any = None

    @property
    def failed(self) -> bool:
        return self.handshake is not None and not self.handshake.over


_attempt: ContextVar[_Attempt] = ContextVar("asynctrack_tunnel")


class _Backend:
    """httpcore's way to open a connection."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **options: Any) -> Any:
        handshake = _Handshake(options.get("timeout"))
        stream = self._backend.connect_tcp(*args, **options)
        attempt = _attempt.get()
        attempt.handshake, attempt.stream = handshake, stream
        return _Tunnel(stream, handshake)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _BackendAsync(_Backend):
    async def connect_tcp(self, *args: Any, **options: Any) -> Any:
        handshake = _Handshake(options.get("timeout"))
        stream = await self._backend.connect_tcp(*args, **options)
        attempt = _attempt.get()
        attempt.handshake, attempt.stream = handshake, stream
        return _TunnelAsync(stream, handshake)


def _said(error: Exception) -> httpx.HTTPError:
    """What has kept a tunnel from being built."""
    if isinstance(error, httpx.ProxyError):
        return error
    if isinstance(error, httpx.TimeoutException):
        return httpx.ConnectTimeout("")
    return httpx.ProxyError(f"the SOCKS handshake failed: {str(error) or repr(error)}")


class Tunnelled(httpx.BaseTransport):
    """A transport through a SOCKS proxy that raises `httpx.ConnectTimeout` or `httpx.ProxyError` for whatever happens
    before its tunnel stands."""

    def __init__(self, transport: httpx.HTTPTransport) -> None:
        self._transport = transport
        pool: Any = transport._pool
        pool._network_backend = _Backend(pool._network_backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        attempt = _Attempt()
        token = _attempt.set(attempt)
        try:
            return self._transport.handle_request(request)
        except Exception as error:
            if attempt.failed:
                raise _said(error) from None
            raise
        finally:
            _attempt.reset(token)
            if attempt.failed:
                attempt.stream.close()

    def close(self) -> None:
        self._transport.close()


class TunnelledAsync(httpx.AsyncBaseTransport):
    """The same on an event loop."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self._transport = transport
        pool: Any = transport._pool
        pool._network_backend = _BackendAsync(pool._network_backend)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        attempt = _Attempt()
        token = _attempt.set(attempt)
        try:
            return await self._transport.handle_async_request(request)
        except Exception as error:
            if attempt.failed:
                raise _said(error) from None
            raise
        finally:
            _attempt.reset(token)
            if attempt.failed:
                await attempt.stream.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()

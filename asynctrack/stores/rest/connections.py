"""Connections to servers, and one request with its answer over them. The home of httpx's transports.

httpx's clients are not used: redirects, cookies and other ways to sign in are nothing that a request of ours wants, and
they take an eighth of its time."""

from __future__ import annotations

import math
import os
import ssl
import threading
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, TypeVar

import httpx

from asynctrack.stores.io import PIECE, StoreIO, cancel_scope, loop_time, this_loop
from asynctrack.stores.rest.bodies import Sink, with_body
from asynctrack.stores.rest.deadline import Deadline
from asynctrack.stores.rest.proxies import Routed, RoutedAsync
from asynctrack.stores.rest.quiet import ours
from asynctrack.stores.rest.tls import tls_options
from asynctrack.stores.rest.variables import kept_connections

__all__ = ["Connections"]

T = TypeVar("T")

#: seconds that a connection is kept for the next request; uvicorn, below MLflow's server, closes it after 5
_KEEP_ALIVE = 3.0
#: what httpcore calls the moments when it begins to send a request, and has sent it
_SENDING, _SENT = "send_request_headers.started", "send_request_body.complete"


class Connections:
    """The connections of one process: those of plain threads, which they share, and those of one event loop.

    A forked child has none of its parent's: two processes on one connection would read each other's answers.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._verify: ssl.SSLContext | None = None
        self._blocking: Routed | None = None
        self._async: RoutedAsync | None = None
        self._loop: object = None

    async def exchange(
        self, request: httpx.Request, io: StoreIO, deadline: Deadline, sink_for: Callable[[httpx.Response], Sink]
    ) -> httpx.Response:
        """Send a request, and put its answer's body where ``sink_for`` says once it has seen the head.

        The answer that is returned is whole where its `Sink` keeps it in memory. Raises what httpx raises, and what
        the sink does.
        """
        if self._pid != os.getpid():
            self._forget()
        with ours():
            if io.blocking:
                return self._exchange_blocking(request, deadline, sink_for)
            return await self._exchange_on_loop(request, io, deadline, sink_for)

    def _exchange_blocking(
        self, request: httpx.Request, deadline: Deadline, sink_for: Callable[[httpx.Response], Sink]
    ) -> httpx.Response:
        # What the socket is told before each read shrinks: one that gets a byte now and then would wait for ever.
        request.extensions["timeout"]["read"] = deadline
        if deadline.total:
            request.extensions["timeout"]["write"] = deadline
        elif request.url.scheme == "https":  # a proxy is asked for a tunnel for no other
            request.extensions["trace"] = lambda event, _: deadline.sent() if event.endswith(_SENT) else None
        response = self._blocking_transport().handle_request(request)
        sink = sink_for(response)
        try:
            for raw in _blocking(response):
                deadline.came(len(raw))
                if not sink.take(raw):
                    break
                if deadline.left() <= 0:
                    raise httpx.ReadTimeout("")
            return with_body(response, sink.finish(), request)
        finally:
            _give_up_where_more_came(response)
            response.close()
            sink.close()

    async def _exchange_on_loop(
        self, request: httpx.Request, io: StoreIO, deadline: Deadline, sink_for: Callable[[httpx.Response], Sink]
    ) -> httpx.Response:
        with cancel_scope() as scope:

            async def on_event(event: str, info: object) -> None:
                if event.endswith(_SENT):
                    deadline.sent()
                    scope.deadline = loop_time() + deadline.left()
                elif event.endswith(_SENDING):
                    scope.deadline = math.inf  # each piece has its own time

            if deadline.total:
                scope.deadline = loop_time() + deadline.left()
            else:
                request.extensions["trace"] = on_event
            response = await self._async_transport().handle_async_request(request)
            sink = sink_for(response)
            try:
                held: list[bytes] = []
                size = 0
                async for raw in _on_loop(response):
                    deadline.came(len(raw))
                    scope.deadline = loop_time() + deadline.left()
                    if not sink.blocks:
                        if not sink.take(raw):
                            break
                        continue
                    held.append(raw)
                    size += len(raw)
                    if size >= PIECE:
                        await io.call(sink.take, b"".join(held))
                        held, size = [], 0
                if not sink.blocks:
                    return with_body(response, sink.finish(), request)
                await io.call(sink.take, b"".join(held))
                return with_body(response, await io.call(sink.finish), request)
            finally:
                _give_up_where_more_came(response)
                await response.aclose()
                sink.close()
        raise httpx.ReadTimeout("")  # the scope was cancelled

    async def aclose(self, io: StoreIO) -> None:
        """Let go of the connections that the calling loop, or thread, can close."""
        with ours():
            blocking, self._blocking = self._blocking, None
            if blocking is not None:
                blocking.close()
            transport, self._async = self._async, None
            if transport is not None and not io.blocking and self._loop == this_loop():
                await transport.aclose()

    def _transport(self, kind: Callable[[ssl.SSLContext, httpx.Limits], T]) -> T:
        if self._verify is None:
            self._verify = tls_options().verify
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=kept_connections(), keepalive_expiry=_KEEP_ALIVE
        )
        return kind(self._verify, limits)

    def _blocking_transport(self) -> Routed:
        with self._lock:
            if self._blocking is None:
                self._blocking = self._transport(Routed)
            return self._blocking

    def _async_transport(self) -> RoutedAsync:
        loop = this_loop()
        if self._async is None or self._loop != loop:
            # The connections of a loop that has ended cannot be closed from here; their sockets go with the transport.
            self._async = self._transport(RoutedAsync)
            self._loop = loop
        return self._async


def _give_up_where_more_came(response: httpx.Response) -> None:
    """Have the connection closed with its answer if bytes have come behind that.

    httpcore would take them for the answer to the next request, and has no public name for them.
    """
    http: Any = response.stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        http = getattr(http, name, None)
    if http is not None and http.trailing_data[0]:
        http.send_failed()  # so it is not kept


def _blocking(response: httpx.Response) -> Iterable[bytes]:
    """The body of an answer, as it comes."""
    assert isinstance(response.stream, httpx.SyncByteStream)
    return response.stream


def _on_loop(response: httpx.Response) -> AsyncIterable[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream

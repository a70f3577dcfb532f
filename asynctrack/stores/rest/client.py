"""HTTP to one server: who we are, how long we wait, and what its answers mean. The home of httpx.

One `RestClient` serves an event loop and, with `InlineIO`, plain threads and interpreter exit: its coroutines then
never suspend, because a blocking httpx client does the work.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Self

import httpx

from asynctrack.errors import AuthenticationError, InvalidInputError, StoreError, UnavailableError, WrongServerError
from asynctrack.stores.io import PIECE, StoreIO, this_loop
from asynctrack.stores.rest.answers import error_of, json_of
from asynctrack.stores.rest.auth import Credentials
from asynctrack.stores.rest.tls import tls_options

__all__ = ["Content", "Params", "RestClient"]

Content = bytes | Iterable[bytes] | AsyncIterable[bytes]
Params = Sequence[tuple[str, str]]

#: seconds that a connection is kept for the next request; uvicorn, below MLflow's server, closes it after 5
_KEEP_ALIVE = 3.0
#: seconds for an answer, unless MLFLOW_HTTP_REQUEST_TIMEOUT says otherwise; MLflow's own default
_REQUEST_TIMEOUT = 120.0
_JSON = {"Content-Type": "application/json"}
#: what a request on a connection meets that the server has just closed
_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


#: in a request of ours
_ours: ContextVar[bool] = ContextVar("asynctrack_request", default=False)


def _not_ours(record: logging.LogRecord) -> bool:
    return not _ours.get()


# httpx logs every request at INFO: a program that shows that level would get a line for each of our batches.
logging.getLogger("httpx").addFilter(_not_ours)


class RestClient:
    """Requests to one tracking server, from any thread.

    ``base_url`` holds no credentials; ``credentials`` are asked before each request. They go to what is below
    ``base_url`` and nowhere else, and redirects are not followed.
    """

    def __init__(
        self,
        base_url: Callable[[], str],
        credentials: Credentials,
        io: StoreIO,
        *,
        connect_timeout: float = 10.0,
        extra_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.io = io
        self._base_url = base_url
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._extra_headers = extra_headers
        #: longest wait for an answer in seconds; None: as the environment says
        self.patience: float | None = None
        self._forget()

    def __repr__(self) -> str:
        return f"<RestClient {type(self._credentials).__name__}>"

    def over(self, io: StoreIO) -> RestClient:
        """A client for the same server that waits in another way."""
        return RestClient(
            self._base_url,
            self._credentials,
            io,
            connect_timeout=self._connect_timeout,
            extra_headers=self._extra_headers,
        )

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._verify: Any = None
        self._blocking: httpx.Client | None = None
        self._async: httpx.AsyncClient | None = None
        self._loop: object = None

    # ── requests

    async def call(
        self, method: str, path: str, *, params: Params = (), body: bytes | None = None, again: bool = True
    ) -> dict[str, Any]:
        """One call of the JSON API; its answer. Raises the `StoreError` that the answer or its absence stands for.

        ``again``: sending it twice does no harm, so it is sent once more when a connection that was kept alive turns
        out to have been closed.
        """
        headers = _JSON if body is not None else {}
        try:
            response = await self.send(method, path, params=params, content=body, headers=headers)
        except UnavailableError as error:
            if not (again and isinstance(error.__cause__, _CLOSED)):
                raise
            response = await self.send(method, path, params=params, content=body, headers=headers)
        return json_of(response, _named(method, response.request.url))

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, its answer read whole. ``path`` is below the base URL, or an absolute URL, which gets none of
        our credentials. Raises as `call`."""
        async with _Mapped(method, path) as mapped:
            request = await self._request(method, path, params, content, headers)
            mapped.what = _named(method, request.url)
            if self.io.blocking:
                response = self._blocking_client().send(request)
            else:
                response = await self._async_client().send(request)
        return self._accepted(response, mapped.what)

    async def download(
        self, method: str, path: str, to: str, *, params: Params = (), headers: Mapping[str, str] | None = None
    ) -> None:
        """The answer's body into the new file ``to``, in flat memory. Raises as `call`, and OSError."""
        async with _Mapped(method, path) as mapped:
            request = await self._request(method, path, params, None, headers)
            mapped.what = _named(method, request.url)
            if self.io.blocking:
                response = self._blocking_client().send(request, stream=True)
                try:
                    _save(response, to) if response.status_code < 300 else response.read()
                finally:
                    response.close()
            else:
                response = await self._async_client().send(request, stream=True)
                try:
                    await (self._save(response, to) if response.status_code < 300 else response.aread())
                finally:
                    await response.aclose()
        self._accepted(response, mapped.what)

    async def _save(self, response: httpx.Response, to: str) -> None:
        file = await self.io.call(open, to, "xb")
        try:
            async for piece in response.aiter_bytes(PIECE):
                await self.io.call(file.write, piece)
        finally:
            file.close()

    async def aclose(self) -> None:
        """Let go of the connections that the calling loop, or thread, can close."""
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking.close()
        client, self._async = self._async, None
        if client is not None and not self.io.blocking and self._loop == this_loop():
            await client.aclose()

    # ── inside

    async def _request(
        self, method: str, path: str, params: Params, content: Content | None, headers: Mapping[str, str] | None
    ) -> httpx.Request:
        # Fetching a token, or finding out where Databricks is, may take a request of its own.
        base, credentials = await self.io.call(self._who_and_where)
        url = httpx.URL(path if "://" in path else base + path)
        # What has an address of its own is signed for, which a second way to sign in would spoil.
        sent = {"User-Agent": _user_agent(), **({} if "://" in path else credentials), **(headers or {})}
        return httpx.Request(
            method,
            url.copy_merge_params(list(params)) if params else url,
            headers=sent,
            content=content,
            extensions={"timeout": self._timeout().as_dict()},
        )

    def _who_and_where(self) -> tuple[str, dict[str, str]]:
        if self._pid != os.getpid():
            self._forget()  # the parent's sockets are the parent's
        return self._base_url(), {**self._extra_headers(), **self._credentials.headers()}

    def _timeout(self) -> httpx.Timeout:
        seconds = _request_timeout()
        if self.patience is not None:
            seconds = max(min(seconds, self.patience), 0.1)
        return httpx.Timeout(seconds, connect=min(self._connect_timeout, seconds), pool=None)

    def _accepted(self, response: httpx.Response, what: str) -> httpx.Response:
        if response.status_code < 300:
            return response
        error = error_of(response, what)
        if isinstance(error, AuthenticationError):
            error.args = (f"{error}. Credentials: {self._credentials.describe()}",)
            self._credentials.refused()
        raise error

    def _options(self) -> dict[str, Any]:
        if self._verify is None:
            self._verify = tls_options().verify
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_ALIVE)
        return {"verify": self._verify, "limits": limits, "follow_redirects": False, "trust_env": True}

    def _blocking_client(self) -> httpx.Client:
        with self._lock:
            if self._blocking is None:
                self._blocking = httpx.Client(**self._options())
            return self._blocking

    def _async_client(self) -> httpx.AsyncClient:
        loop = this_loop()
        if self._async is None or self._loop != loop:
            # The connections of a loop that has ended cannot be closed from here; their sockets go with the client.
            self._async, self._loop = httpx.AsyncClient(**self._options()), loop
        return self._async


def _save(response: httpx.Response, to: str) -> None:
    with open(to, "xb") as file:
        for piece in response.iter_bytes(PIECE):
            file.write(piece)


class _Mapped:
    """A request: silences httpx, and turns what it raises into `StoreError`.

    The request itself is left out, as its headers hold the credentials.
    """

    def __init__(self, method: str, path: str) -> None:
        #: the request, for messages; with the server, once that is known
        self.what = f"{method} {path.partition('?')[0]}"

    async def __aenter__(self) -> Self:
        self._token = _ours.set(True)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _ours.reset(self._token)
        if isinstance(error, httpx.HTTPError):
            raise _transport_error(error, self.what) from _bare(error)
        if isinstance(error, (httpx.InvalidURL, UnicodeError)):
            raise InvalidInputError(f"{self.what}: the tracking URI cannot be used: {error}") from None


def _transport_error(error: httpx.HTTPError, what: str) -> StoreError:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        said = "no connection in time"
    elif isinstance(error, httpx.TimeoutException):
        said = "no answer in time"
    if isinstance(error, httpx.UnsupportedProtocol):
        return WrongServerError(f"{what}: {said}")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return WrongServerError(
            f"{what}: {said}. If this is the right server, name the authority that signed its certificate in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH"
        )
    failure = UnavailableError(f"{what}: {said}")
    # Before there is a connection nothing can have arrived.
    failure.ambiguous = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return failure


def _bare(error: httpx.HTTPError) -> BaseException:
    """The same error without its request."""
    error._request = None  # where HTTPError keeps it; its property refuses then
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


@functools.cache
def _user_agent() -> str:
    return f"asynctrack/{importlib.metadata.version('asynctrack')}"


def _named(method: str, url: httpx.URL) -> str:
    """A request, for messages: without the query, which in a signed URL is as good as a credential."""
    return f"{method} {str(url).partition('?')[0]}"


def _request_timeout() -> float:
    text = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    try:
        return float(text) if text else _REQUEST_TIMEOUT
    except ValueError:
        raise InvalidInputError(f"MLFLOW_HTTP_REQUEST_TIMEOUT={text!r}: it must be a number of seconds") from None

"""HTTP to one server: who we are, how long we wait, and what its answers mean. The home of httpx.

One `RestClient` serves an event loop and, with `InlineIO`, plain threads and interpreter exit: its coroutines then
never suspend, because a blocking httpx client does the work.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Self

import httpx

from asynctrack.constants import VERSION
from asynctrack.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.io import StoreIO
from asynctrack.stores.rest.answers import CREDENTIALS_OF_A_PROXY, error_of, json_of
from asynctrack.stores.rest.auth import WORKSPACE_HEADER, Credentials
from asynctrack.stores.rest.bodies import MOST_READ, Collector, Saver, Sink
from asynctrack.stores.rest.connections import Connections
from asynctrack.stores.rest.deadline import Deadline
from asynctrack.stores.rest.proxies import route_to
from asynctrack.stores.rest.variables import pause_before, request_timeout, retries, transfer_timeout
from asynctrack.stores.rest.version import HEALTH_PATH, VERSION_PATH, server_version, version_numbers

__all__ = ["Content", "Params", "RestClient"]

Stream = Iterable[bytes] | AsyncIterable[bytes]
#: what a request carries: bytes, or what opens a stream of them to be read once, as `StoreIO.stream` does. It is
#: opened anew where the request is sent once more
Content = bytes | Callable[[], AbstractAsyncContextManager[Stream]]
Params = Sequence[tuple[str, str]]

_JSON = {"Content-Type": "application/json"}
#: what a request meets before there is a connection to the server
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
#: what a request on a connection meets that the server has just closed
_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class _Asked(NamedTuple):
    """One request as the caller wants it, to be sent once or, where that does no harm, twice."""

    method: str
    path: str
    params: Params = ()
    content: Content | None = None
    headers: Mapping[str, str] | None = None


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
        self._connections = Connections()

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

    @property
    def address(self) -> str:
        """Where the server is, without credentials. On Databricks this may ask databricks-sdk. Raises `StoreError`."""
        return self._base_url()

    @property
    def workspace(self) -> str:
        """The server's workspace that requests are about; "" for servers without."""
        return self._extra_headers().get(WORKSPACE_HEADER, "")

    # ── requests

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        body: bytes | None = None,
        again: bool = True,
        removes: bool = False,
        most: int = MOST_READ,
        fields: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """One call of the JSON API; its answer, at most ``most`` bytes. Raises the `StoreError` that the answer or its
        absence stands for. ``fields``: what may be in the answer, as for `json_of`.

        ``again`` as for `send`. ``removes``: the call takes something away. Then "not found" means success if it had
        to be sent twice: the first one was carried out, and its answer was lost.
        """
        asked = _Asked(method, path, params, body, _JSON if body is not None else {})
        try:
            response = await self._once(asked, most)
        except UnavailableError as error:
            if not again:
                raise
            try:
                response = await self._again(asked, most, error)
            except NotFoundError:
                if removes:
                    return {}
                raise
        return json_of(response, _named(method, response.request.url), fields)

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> httpx.Response:
        """One request, its answer read whole. ``path`` is below the base URL, or an absolute URL, which gets none of
        our credentials. Raises as `call`, and what ``content`` raises.

        ``again``: sending it twice does no harm, so it is sent once more when a connection that was kept alive turns
        out to have been closed.
        """
        asked = _Asked(method, path, params, content, headers)
        try:
            return await self._once(asked, MOST_READ)
        except UnavailableError as error:
            if not (again and isinstance(error.__cause__, _CLOSED)):
                raise
        return await self._once(asked, MOST_READ)

    async def download(
        self, method: str, path: str, to: str, *, params: Params = (), headers: Mapping[str, str] | None = None
    ) -> None:
        """The answer's body into the new file ``to``, in flat memory. Raises as `call`, and OSError."""
        await self._once(_Asked(method, path, params, None, headers), MOST_READ, to)

    async def aclose(self) -> None:
        """Let go of the connections that the calling loop, or thread, can close."""
        await self._connections.aclose(self.io)

    # ── inside

    async def _again(self, asked: _Asked, most: int, error: UnavailableError) -> httpx.Response:
        """The answer to a request that has failed with ``error`` and may be sent again: at once, if its connection had
        been closed meanwhile; and in a call that waits in a thread as often as MLflow's variables say. The engine asks
        again by itself, and who is in a hurry does not."""
        if isinstance(error.__cause__, _CLOSED):
            try:
                return await self._once(asked, most)
            except UnavailableError as later:
                error = later
        for attempt in range(1, 1 + (retries() if self.io.blocking and self.patience is None else 0)):
            time.sleep(pause_before(attempt, error.retry_after))  # noqa: ASYNC251  # with blocking I/O there is no loop
            try:
                return await self._once(asked, most)
            except UnavailableError as later:
                error = later
        raise error

    async def _once(self, asked: _Asked, most: int, to: str | None = None) -> httpx.Response:
        """Send it once; a body of at most ``most`` bytes in memory, or any into the file ``to``."""
        async with _Mapped(asked.method, asked.path) as mapped, _opened(asked.content) as content:
            request = await self._request(asked, content, self._seconds(asked, to))
            mapped.what = _named(asked.method, request.url)
            mapped.url = request.url

            def sink_for(response: httpx.Response) -> Sink:
                if to is not None and response.is_success:  # what an error answers does not become the file
                    return Saver(response, to, mapped.what)
                return Collector(response, most, mapped.what)

            deadline = Deadline(self._seconds(asked, to), total=self.patience is not None)
            response = await self._connections.exchange(request, self.io, deadline, sink_for)
        try:
            return self._accepted(response, mapped.what)
        except WrongServerError as error:
            if (
                response.status_code not in (404, 405)
                or asked.path in (HEALTH_PATH, VERSION_PATH)
                or "://" in asked.path
            ):
                raise
            raise await self._lacking(error, mapped.what) from None

    async def _request(
        self, asked: _Asked, content: bytes | Iterable[bytes] | AsyncIterable[bytes] | None, seconds: float
    ) -> httpx.Request:
        # Fetching a token, or finding out where Databricks is, may take a request of its own.
        blocks = self._credentials.blocks()
        base, credentials = await self.io.call(self._who_and_where) if blocks else self._who_and_where()
        absolute = "://" in asked.path
        url = httpx.URL(asked.path) if absolute else _url(base + asked.path)
        # What has an address of its own is signed for, which a second way to sign in would spoil.
        headers = {"User-Agent": f"asynctrack/{VERSION}", **({} if absolute else credentials), **(asked.headers or {})}
        connect = min(self._connect_timeout, seconds)
        return httpx.Request(
            asked.method,
            url.copy_merge_params(list(asked.params)) if asked.params else url,
            headers=headers,
            content=content,
            extensions={"timeout": {"connect": connect, "read": seconds, "write": seconds, "pool": None}},
        )

    def _who_and_where(self) -> tuple[str, dict[str, str]]:
        return self._base_url(), {**self._extra_headers(), **self._credentials.headers()}

    def _seconds(self, asked: _Asked, to: str | None) -> float:
        """For each wait: to be connected, to get rid of a piece, to get the next. When time is running out
        (``patience``), for the whole request."""
        seconds = transfer_timeout() if to is not None or callable(asked.content) else request_timeout()
        return seconds if self.patience is None else max(min(seconds, self.patience), 0.1)

    async def _lacking(self, error: WrongServerError, what: str) -> StoreError:
        """What is wrong where an address is not known: the server, or its age."""
        try:
            response = await self.send("GET", HEALTH_PATH, again=True)
            if response.content.strip() != b"OK":
                return error
            version = await server_version(self)
        except StoreError:
            return error
        shown = f"MLflow {version}" if version else "an MLflow that does not tell its version, as none before 2.1 does"
        recent = (version_numbers(version) or (0, 0)) >= (1, 30)
        why = (
            "A newer MLflow has it" if recent else "It is older than MLflow 1.30, the first that asynctrack works with"
        )
        return WrongServerError(
            f"{what}: this server, {shown}, has no such endpoint. {why}, or that part of it is switched off"
        )

    def _accepted(self, response: httpx.Response, what: str) -> httpx.Response:
        if response.status_code < 300:
            return response
        error = error_of(response, what)
        if isinstance(error, AuthenticationError):
            error.args = (f"{error}. Credentials: {self._credentials.describe()}",)
            self._credentials.refused()
        raise error


@lru_cache(64)
def _url(text: str) -> httpx.URL:
    """Of the server: to take the same one apart again and again takes a tenth of a request's time."""
    return httpx.URL(text)


@asynccontextmanager
async def _opened(content: Content | None) -> AsyncIterator[bytes | Stream | None]:
    if content is None or isinstance(content, bytes):
        yield content
    else:
        async with content() as stream:
            yield stream


class _Mapped:
    """A request: turns what httpx raises into `StoreError`.

    The request itself is left out, as its headers hold the credentials.
    """

    def __init__(self, method: str, path: str) -> None:
        #: the request, for messages; with the server, once that is known
        self.what = f"{method} {path.partition('?')[0]}"
        self.url: httpx.URL | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, httpx.HTTPError):
            route = None if self.url is None else route_to(self.url)
            through = "" if route is None else f", through {route.shown}"
            raise _transport_error(error, self.what, through) from _bare(error)
        if isinstance(error, (httpx.InvalidURL, UnicodeError)):
            raise InvalidInputError(f"{self.what}: the tracking URI cannot be used: {error}") from None


def _transport_error(error: httpx.HTTPError, what: str, through: str) -> StoreError:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.ProxyError) and said.startswith("407"):
        return WrongServerError(f"{what}: {said}{through}: {CREDENTIALS_OF_A_PROXY}")
    if isinstance(error, httpx.ConnectTimeout):
        said = "no connection in time"
    elif isinstance(error, httpx.TimeoutException):
        said = "no answer in time"
    if isinstance(error, httpx.UnsupportedProtocol):
        return WrongServerError(f"{what}: {said}{through}")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return WrongServerError(
            f"{what}: {said}{through}. If this is the right server, name the authority that signed its certificate in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH"
        )
    failure = UnavailableError(f"{what}: {said}{through}")
    # Before there is a connection nothing can have arrived.
    failure.ambiguous = not isinstance(error, _NOT_CONNECTED)
    return failure


def _bare(error: httpx.HTTPError) -> BaseException:
    """The same error without its request."""
    error._request = None  # where HTTPError keeps it; its property refuses then
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _named(method: str, url: httpx.URL) -> str:
    """A request, for messages: without the query, which in a signed URL is as good as a credential."""
    return f"{method} {str(url).partition('?')[0]}"

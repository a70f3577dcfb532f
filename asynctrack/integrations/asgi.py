"""`MetricsMiddleware`: what an ASGI application does, as metrics of a run. For FastAPI, Starlette, any other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from asynctrack.clock import monotonic
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.integrations.aggregator import Aggregator
from asynctrack.runs.waiting import wait_on_loop
from asynctrack.stores.keys import clean_key
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.runs.faces import RunFace

__all__ = ["MetricsMiddleware"]

logger = logging.getLogger("asynctrack")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: different routes, methods and kinds of answer; whatever comes beyond counts as "other"
_MOST_NAMES = 500
_OTHER = "http/other", None
_ALL = "http/all"


class MetricsMiddleware:
    """Counts the requests of an ASGI application, and how long they take:

        app.add_middleware(MetricsMiddleware)                  # FastAPI, Starlette
        app = MetricsMiddleware(app)                           # any other

    Each window of ``every`` seconds logs, for all requests (``http/all``) and
    by method, route and status class (``http/GET/items/item_id/2xx``):
    ``…/count``, ``…/rate`` (per second), ``…/mean``, ``…/p50``, ``…/p90``,
    ``…/p99`` and ``…/max`` (ms, until the last byte of the answer is handed
    on). ``http/open`` is how many requests are being answered at a window's
    end. A route is the template, not the path; requests that no route answers
    are ``unmatched``.

    ``run``: by default the one that is open when the application has started,
    in its lifespan say. ``workers``: "merged" or "each", where several
    processes log to one run; see `Aggregator`, which ``aggregator`` gives from
    outside. ``every_request=True`` also logs a point ``http/latency_ms`` for
    each request. Where no run is open, one warning says so, and nothing is
    counted.

    The application never waits, and no error of this class reaches it.
    """

    def __init__(
        self,
        app: App,
        run: RunFace | None = None,
        every: float = 10.0,
        *,
        workers: Literal["each", "merged"] | None = None,
        aggregator: Aggregator | None = None,
        every_request: bool = False,
    ) -> None:
        """Raises what `Aggregator` raises."""
        if not callable(app):
            raise InvalidInputError(f"app={shortened(app)}: an ASGI application can be called")
        self._app = app
        self._is_ours = aggregator is None
        self._aggregator = Aggregator(run, every, workers=workers) if aggregator is None else aggregator
        self._every_request = every_request
        #: what a request is called, by method, route (its identity; it is kept so that this stays its own) and status
        #: class
        self._names: dict[tuple[str, int, int], tuple[str, Any]] = {}
        self._open = 0
        self._told: set[str] = set()
        #: None: not tried yet
        self._counts: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if self._counts is None:
                self._start()
            if self._counts:
                await self._request(scope, receive, send)
                return
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500
        begun = monotonic()
        ended = 0.0

        async def observed(message: Message) -> None:
            nonlocal status, ended
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            await send(message)
            if kind == "http.response.body" and not message.get("more_body", False):
                ended = monotonic()

        self._open += 1
        try:
            await self._app(scope, receive, observed)
        finally:
            self._open -= 1
            self._observe(scope, status, ((ended or monotonic()) - begun) * 1000)

    def _observe(self, scope: Scope, status: int, latency: float) -> None:
        """Take in a request that took ``latency`` ms."""
        try:
            route = scope.get("route") or scope.get("endpoint")
            key = (scope["method"], id(route), status // 100)
            named = self._names.get(key) or self._name(scope, key, route)
            self._aggregator.observe(named[0], latency, _ALL)
            if self._every_request and self._aggregator.run is not None:
                self._aggregator.run.log_metric("http/latency_ms", latency)
        except Exception as error:
            self._tell("a request was not counted", error)

    def _name(self, scope: Scope, key: tuple[str, int, int], route: Any) -> tuple[str, Any]:
        if len(self._names) >= _MOST_NAMES:
            return _OTHER
        method, _, kind = key
        path = _template(scope, route)
        parts = [part.strip("{}").partition(":")[0] for part in path.split("/") if part]
        name = clean_key("/".join(["http", method, *parts, f"{kind}xx"]))
        self._names[key] = name, route
        return name, route

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._is_ours:
                self._aggregator.close()  # while the run is open that the application's lifespan ends
                self._counts = False
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._start()
            elif message["type"] == "lifespan.shutdown.complete" and self._is_ours:
                await self._deliver()
            await send(message)

        await self._app(scope, received, sent)

    async def _deliver(self) -> None:
        """Wait for the last window, ``term_timeout`` seconds at most. A server that was ended by a signal raises it
        again after this, and then nothing of the interpreter's own end takes place."""
        run = self._aggregator.run
        if run is None:
            return
        try:
            engine = run._state.engine
            await wait_on_loop(engine.flush(run._state.number), engine.settings.term_timeout)
        except Exception as error:
            self._tell("the last window may not be delivered yet", error)

    def _start(self) -> None:
        if self._counts:
            return
        try:
            self._aggregator.gauge("http/open", lambda: self._open)
            self._counts = True
        except Exception as error:
            self._counts = False
            self._tell("requests are not counted", error)

    def _tell(self, what: str, error: Exception) -> None:
        if what not in self._told:
            self._told.add(what)
            kind = "" if isinstance(error, AsynctrackError) else f" ({type(error).__name__})"
            logger.warning("asynctrack: %s: %s%s", what, error, kind)


def _template(scope: Scope, route: Any) -> str:
    """The path of a route as its author wrote it: ``/items/{item_id}``."""
    if route is None:
        return "unmatched"
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if path is None:  # an endpoint, as older Starlettes leave it: look among the application's routes
        path = _path_of(getattr(scope.get("app"), "routes", ()), route, "")
        return path or getattr(route, "__name__", None) or "unmatched"
    root, outside = scope.get("root_path", ""), scope.get("app_root_path", "")
    mounted = root[len(outside) :] if root.startswith(outside) else ""
    return f"{mounted}{path}"


def _path_of(routes: Any, endpoint: Any, above: str) -> str | None:
    for route in routes or ():
        path = above + getattr(route, "path", "")
        if getattr(route, "endpoint", None) is endpoint:
            return path
        found = _path_of(getattr(route, "routes", None), endpoint, path)
        if found is not None:
            return found
    return None

"""The server of the page: it answers GET and shows; it changes notes and tags only where the user has said so."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import math
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asynctrack.clock import monotonic
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError
from asynctrack.ui import files
from asynctrack.ui.board import Board
from asynctrack.ui.charts import Asked
from asynctrack.ui.groups import SPREADS
from asynctrack.ui.guard import Guard
from asynctrack.ui.single import change_tag, described_in_full
from asynctrack.ui.threads import in_thread

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp

    from asynctrack.entities import RunInfo
    from asynctrack.stores.base import AbstractStore

__all__ = ["Server", "page_app"]

T = TypeVar("T")
logger = logging.getLogger("asynctrack")

_STATIC = os.path.join(os.path.dirname(__file__), "static")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
#: seconds between two looks for the page; as a part of how long a look takes, where that is more
_EVERY, _PART = 0.12, 4
#: seconds after which a page that there is no news for hears that the server is there
_QUIET = 3.0
#: bytes of a request that changes a tag
_MOST_BODY = 64 << 10
#: rows of a CSV file that are sent at once
_ROWS = 5000


def page_app(
    board: Board,
    token: str,
    allowed_hosts: Iterable[str] = (),
    stopping: asyncio.Event | None = None,
    *,
    edit: bool = False,
) -> ASGIApp:
    """The page as an ASGI application. ``edit``: notes and tags may be changed. ``stopping``: when it is set, streams
    end."""
    pages = _Pages(board, stopping or asyncio.Event(), edit=edit)
    routes = [
        Route("/", pages.front),
        *(Route(f"/static/{name}", _file(name)) for name in _files()),
        Route("/api/runs", _safe(pages.runs)),
        Route("/api/keys", _safe(pages.keys)),
        Route("/api/charts", _safe(pages.charts)),
        Route("/api/step", _safe(pages.step)),
        Route("/api/csv", _safe(pages.csv)),
        Route("/api/events", _safe(pages.events)),
        Route("/api/run", _safe(pages.run)),
        Route("/api/files", _safe(pages.files)),
        Route("/api/file", _safe(pages.file)),
        Route("/api/image", _safe(pages.image)),
    ]
    if edit:
        routes.append(Route("/api/tag", _safe(pages.tag), methods=["POST"]))
    return Guard(Starlette(routes=routes), token, allowed_hosts, edit=edit)


def _files() -> Iterator[str]:
    for folder, _, names in os.walk(_STATIC):
        for name in sorted(names):
            if os.path.splitext(name)[1] in _KINDS:
                yield os.path.relpath(os.path.join(folder, name), _STATIC)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    with open(os.path.join(_STATIC, name), "rb") as file:
        data = file.read()
    kind = _KINDS[os.path.splitext(name)[1]]

    async def answer(_: Request) -> Response:
        return Response(data, media_type=kind)

    return answer


Answer = Callable[[Request], Awaitable[Response]]


def _safe(answer: Answer) -> Answer:
    """Errors in words: what a store says may be shown, the lines of a program not."""

    async def guarded(request: Request) -> Response:
        try:
            return await answer(request)
        except NotFoundError as error:
            return JSONResponse({"error": str(error)}, 404)
        except InvalidInputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except AsynctrackError as error:
            return JSONResponse({"error": str(error)}, 503)
        except Exception:
            logger.exception("asynctrack view: %s failed", request.url.path)
            return JSONResponse({"error": "this is a mistake in asynctrack; its terminal says more"}, 500)

    return guarded


class _Pages:
    """What the page asks for."""

    def __init__(self, board: Board, stopping: asyncio.Event, *, edit: bool) -> None:
        self._edit = edit
        self._board = board
        self._stopping = stopping
        self._index = _file("index.html")

    async def front(self, request: Request) -> Response:
        self._board.begin()  # while the browser loads the rest of the page
        return await self._index(request)

    async def runs(self, request: Request) -> Response:
        columns = []
        for text in request.query_params.getlist("column"):
            key, _, part = text.rpartition(":")
            if part not in ("last", "min", "max") or not key:
                raise InvalidInputError(f"column={text!r}: expected KEY:last, KEY:min or KEY:max")
            columns.append((key, part))
        filter_string = request.query_params.get("filter", "")
        found = await in_thread(lambda: self._board.runs(columns, filter_string))
        return _json({**found, "editable": self._edit})

    async def keys(self, request: Request) -> Response:
        ids = _ids(request)
        return _json({"keys": await in_thread(lambda: self._board.keys(ids))})

    async def charts(self, request: Request) -> Response:
        keys, ids, asked = request.query_params.getlist("key"), _ids(request), _asked(request)
        data = await in_thread(lambda: self._board.charts(keys, ids, asked))
        return Response(data, media_type="application/octet-stream")

    async def step(self, request: Request) -> Response:
        """What a run logged at a step: ``step``, or that of the point of ``key`` nearest to ``at``."""
        query = request.query_params
        run, key, x = query.get("run", ""), query.get("key", ""), query.get("x", "step")
        step, at = _number(request, "step"), _number(request, "at")
        half, value = _number(request, "half") or 0.0, _number(request, "value")
        if step is None and (at is None or not key):
            raise InvalidInputError("step: which one? Or the point of which key, at which x?")

        def found() -> Any:
            number = self._board.step_at(run, key, x, at, half, value) if step is None and at is not None else step
            return self._board.at_step(run, int(number or 0))

        return _json(await in_thread(found))

    async def run(self, request: Request) -> Response:
        text = request.query_params.get("run", "")
        return _json(await in_thread(lambda: described_in_full(self._board.store, self._board.run(text))))

    async def files(self, request: Request) -> Response:
        found = await self._of_a_file(request, files.listed)
        return _json({"files": found})

    async def file(self, request: Request) -> Response:
        return _json(await self._of_a_file(request, files.shown))

    async def image(self, request: Request) -> Response:
        kind, data = await self._of_a_file(request, files.image_of)
        # Opened by itself it is nothing but a picture, either.
        return Response(data, media_type=kind, headers={"content-security-policy": "default-src 'none'; sandbox"})

    async def _of_a_file(self, request: Request, what: Callable[[AbstractStore, RunInfo, str], T]) -> T:
        text, path = request.query_params.get("run", ""), request.query_params.get("path", "")
        return await in_thread(lambda: what(self._board.store, self._board.run(text).run.info, path))

    async def tag(self, request: Request) -> Response:
        """Change a tag: JSON with ``run``, ``key``, and ``value``, null to delete it."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BODY:
                raise InvalidInputError(f"a request to change a tag has {_MOST_BODY} bytes at most")
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or not {"run", "key", "value"} <= asked.keys():
            raise InvalidInputError("expected JSON with run, key and value")

        def change() -> None:
            run_id = self._board.run(str(asked["run"])).run.info.run_id
            change_tag(self._board.store, run_id, asked["key"], asked["value"])
            self._board.refresh()

        await in_thread(change)
        return _json({})

    async def csv(self, request: Request) -> Response:
        key, ids = request.query_params.get("key", ""), _ids(request)
        rows = _csv(self._board, key, ids)
        first = await in_thread(lambda: next(rows))  # what fails, fails before the answer begins

        async def parts() -> AsyncIterator[bytes]:
            part = first
            while part:
                yield part
                part = await in_thread(lambda: next(rows, b""))

        name = re.sub(r"[^A-Za-z0-9._-]+", "_", key)[:80] or "metric"
        return StreamingResponse(
            parts(), media_type="text/csv", headers={"content-disposition": f'attachment; filename="{name}.csv"'}
        )

    async def events(self, request: Request) -> Response:
        since = request.headers.get("last-event-id") or request.query_params.get("since", "0")
        if not since.isdecimal():
            raise InvalidInputError(f"since={since!r}: expected the version of an earlier event")
        return StreamingResponse(self._news(_ids(request), int(since)), media_type="text/event-stream")

    async def _news(self, ids: list[str], since: int) -> AsyncIterator[bytes]:
        before: Any = None
        sent_at = -math.inf
        while not self._stopping.is_set():
            begun = monotonic()
            version = since
            news = await in_thread(lambda since=version: self._board.look(ids, since))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            took = monotonic() - begun
            if sent_at == -math.inf:
                news = news._replace(behind=0.0)  # this page has shown nothing yet that could be old
            since = news.version
            state = news._replace(version=0, keys=[], behind=0.0)
            if news.keys or state != before or monotonic() > sent_at + _QUIET:
                before, sent_at = state, monotonic()
                yield f"id: {since}\ndata: {json.dumps(news._asdict())}\n\n".encode()
            try:
                await asyncio.wait_for(self._stopping.wait(), max(_EVERY, _PART * took))
            except TimeoutError:
                pass  # nobody stops the server: look again


def _json(data: Any) -> Response:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


def _ids(request: Request) -> list[str]:
    """Ids, or the beginnings of ids, with dots between them."""
    return [text for text in request.query_params.get("runs", "").split(".") if text]


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"{name}={text!r}: expected a number")
    return number


def _asked(request: Request) -> Asked:
    query = request.query_params
    smoothing = _number(request, "smooth") or 0.0
    if not 0 <= smoothing < 1:
        raise InvalidInputError(f"smooth={smoothing}: expected a number from 0 to below 1")
    group, besides = (
        tuple(each for each in query.getlist(name) if each) if name in query else None for name in ("group", "besides")
    )
    spread = query.get("spread", "std")
    if spread not in SPREADS:
        raise InvalidInputError(f"spread={spread!r}: expected one of {', '.join(SPREADS)}")
    bottom, top = _number(request, "y_from"), _number(request, "y_to")
    if (bottom is None) is not (top is None) or (bottom is not None and top is not None and not bottom < top):
        raise InvalidInputError("y_from and y_to: expected two numbers, the smaller one first")
    return Asked(
        query.get("x", "step"),
        _number(request, "from"),
        _number(request, "to"),
        int(min(max(_number(request, "places") or 500, 2), 4000)),
        smoothing,
        query.get("log_x") == "1",
        query.get("log_y") == "1",
        group,
        besides,
        spread,
        query.get("outliers") == "1",
        None if bottom is None or top is None else (bottom, top),
    )


def _csv(board: Board, key: str, ids: list[str]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["run_id", "run_name", "key", "step", "time_ms", "value"])

    def taken() -> bytes:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text.encode("utf-8", "replace")

    for run, columns in board.rows(key, ids):
        start = [run.info.run_id, _harmless(run.info.run_name or ""), _harmless(key)]
        for index, row in enumerate(columns.rows(), 1):
            writer.writerow([*start, *row])
            if index % _ROWS == 0:
                yield taken()
    yield taken()


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# ── serving


class Server(uvicorn.Server):
    """Serves a board until Ctrl-C, which ends open streams at once."""

    def __init__(self, board: Board, token: str, allowed_hosts: Iterable[str] = (), *, edit: bool = False) -> None:
        self._stopping = asyncio.Event()
        app = page_app(board, token, allowed_hosts, self._stopping, edit=edit)
        super().__init__(
            # h11 with room for an address that names ten thousand runs
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", http="h11",
                           h11_max_incomplete_event_size=1 << 20, timeout_graceful_shutdown=2, server_header=False)
        )  # fmt: skip

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        super().handle_exit(sig, frame)
        self.stop()

    def stop(self) -> None:
        """End, from the thread that serves."""
        self.should_exit = True
        self._stopping.set()

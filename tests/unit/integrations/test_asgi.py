"""What an application does, as metrics: through real frameworks, and a real server with several workers."""

from __future__ import annotations

import logging
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.integrations.asgi import MetricsMiddleware
from tests.mlruns import only_run


def total(tmp_path: Path, key: str) -> float:
    return math.fsum(value for _, value, _ in only_run(tmp_path / "mlruns").metrics.get(key, ()))


def ask(app: Any, *asked: tuple[str, str]) -> list[int]:
    """Requests as a server sends them, within the application's lifespan; the statuses."""

    async def main() -> list[int]:
        told: list[str] = []
        startup, stop = anyio.Event(), anyio.Event()

        async def receive() -> dict[str, str]:
            if not told:
                told.append("startup")
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                startup.set()

        async with anyio.create_task_group() as group:
            group.start_soon(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
            await startup.wait()
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                statuses = [(await client.request(method, path)).status_code for method, path in asked]
            stop.set()
        return statuses

    return anyio.run(main)


@asynccontextmanager
async def in_a_run(_: Any) -> AsyncIterator[None]:
    async with asynctrack.start_run():
        yield


def fastapi_app(**arguments: Any) -> Any:
    app = FastAPI(lifespan=in_a_run)

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        if item_id == 7:
            raise HTTPException(410)
        if item_id == 8:
            raise KeyError("mine")
        return item_id

    app.add_middleware(MetricsMiddleware, **arguments)
    return app


def test_by_route_and_status(tmp_path: Path) -> None:
    asked = [("GET", "/items/1"), ("GET", "/items/2"), ("GET", "/items/7"), ("GET", "/items/8"), ("GET", "/none")]
    assert ask(fastapi_app(every=3600), *asked, ("POST", "/items/1")) == [200, 200, 410, 500, 404, 405]
    stored = only_run(tmp_path / "mlruns")
    counts = {key.removesuffix("/count"): total(tmp_path, key) for key in stored.metrics if key.endswith("/count")}
    assert counts == {
        "http/all": 6,
        "http/GET/items/item_id/2xx": 2,
        "http/GET/items/item_id/4xx": 1,
        "http/GET/items/item_id/5xx": 1,
        "http/GET/unmatched/4xx": 1,
        "http/POST/items/item_id/4xx": 1,
    }
    for kind in ("mean", "p50", "p90", "p99", "max"):
        [(_, latency, _)] = stored.metrics[f"http/all/{kind}"]
        assert 0 < latency < 60_000
    assert total(tmp_path, "http/open") == 0
    assert "http/latency_ms" not in stored.metrics
    assert stored.status == "FINISHED"


def test_a_point_for_each_request_on_demand(tmp_path: Path) -> None:
    ask(fastapi_app(every=3600, every_request=True), *[("GET", "/items/1")] * 5)
    assert len(only_run(tmp_path / "mlruns").metrics["http/latency_ms"]) == 5


def test_starlette_mounted_and_streaming(tmp_path: Path) -> None:
    async def text(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    async def stream(_: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            await anyio.sleep(0.05)
            yield "b"

        return StreamingResponse(parts())

    routes = [Route("/", text), Mount("/api", routes=[Route("/stream/{name:path}", stream)])]
    app = MetricsMiddleware(Starlette(routes=routes, lifespan=in_a_run), every=3600)
    assert ask(app, ("GET", "/"), ("GET", "/api/stream/a/b")) == [200, 200]
    stored = only_run(tmp_path / "mlruns").metrics
    assert "http/GET/2xx/count" in stored
    [(_, latency, _)] = stored["http/GET/api/stream/name/2xx/max"]
    assert latency >= 50


def test_without_a_run_the_application_answers_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def text(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = MetricsMiddleware(Starlette(routes=[Route("/", text)]))
    assert ask(app, ("GET", "/"), ("GET", "/")) == [200, 200]
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([message for message in told if "requests are not counted: an Aggregator needs a run" in message]) == 1
    with pytest.raises(InvalidInputError, match="can be called"):
        MetricsMiddleware("app")  # type: ignore[arg-type]


def test_the_last_window_is_delivered_before_the_server_is_told_that_all_is_over(tmp_path: Path) -> None:
    """Also to a run that the application's lifespan does not end: a signal that the server raises again ends the
    process then and there."""
    asynctrack.configure(flush_interval=60)
    run = asynctrack.start_run()
    seen: list[float] = []
    application = MetricsMiddleware(Starlette(), run, every=3600)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                seen.append(total(tmp_path, "http/all/count"))
            await send(message)

        await application(scope, receive, sent if scope["type"] == "lifespan" else send)

    ask(watched, ("GET", "/none"), ("GET", "/none"))
    assert seen == [2.0]
    run.terminate()


def test_names_do_not_grow_without_limit(tmp_path: Path) -> None:
    """Methods are whatever a client sends."""
    asked = [(f"M{number}", "/") for number in range(520)]
    ask(MetricsMiddleware(Starlette(lifespan=in_a_run), every=3600), *asked)
    metrics = only_run(tmp_path / "mlruns").metrics
    assert total(tmp_path, "http/all/count") == 520
    assert total(tmp_path, "http/other/count") == 20
    assert len([key for key in metrics if key.endswith("/count")]) == 502


_SERVICE = """
import contextlib, os, asynctrack
from asynctrack.integrations.asgi import MetricsMiddleware
from fastapi import FastAPI

@contextlib.asynccontextmanager
async def lifespan(app):
    async with asynctrack.attach(os.environ["RUN"]):
        yield

app = FastAPI(lifespan=lifespan)

@app.get("/items/{item_id}")
async def item(item_id: int) -> int:
    return os.getpid()

app.add_middleware(MetricsMiddleware, run=asynctrack.attach(os.environ["RUN"]), every=0.5, workers="merged")
"""


def test_two_workers_of_uvicorn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run, exact counts, after SIGTERM, which uvicorn raises again so that nothing registered at exit is called."""
    service = asynctrack.get_service()
    monkeypatch.setenv("RUN", service.create_run(service.create_experiment("shared")).info.run_id)
    (tmp_path / "service.py").write_text(_SERVICE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--workers", "2", "--log-level"]
    server = subprocess.Popen([*command, "warning"], cwd=tmp_path)
    try:
        answered = 0
        pids: set[int] = set()
        deadline = time.monotonic() + 120
        while answered < 300 or len(pids) < 2:
            assert time.monotonic() < deadline
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                    for number in range(10):
                        pids.add(client.get(f"/items/{number}").json())
                        answered += 1
            except httpx.TransportError:
                assert not answered
                time.sleep(0.05)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)
    assert total(tmp_path, "http/all/count") == total(tmp_path, "http/GET/items/item_id/2xx/count") == answered
    assert not list((tmp_path / ".asynctrack").glob("workers-*"))

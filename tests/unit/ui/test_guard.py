"""Who gets an answer: the browser that was given the token, under a name of ours, for a GET."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asynctrack.ui.guard import Guard, host_of

TOKEN = "q3-Secret_token"


async def _secret(_: Request) -> Response:
    return PlainTextResponse("the runs")


APP = Guard(Starlette(routes=[Route("/", _secret), Route("/api/runs", _secret)]), TOKEN, ["Proxy.example:8443"])


def ask(*requests: tuple[str, str, dict[str, str]]) -> list[httpx.Response]:
    """The answers to some requests of one browser: method, path and headers."""

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=APP)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7007") as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(asked())


def cookie() -> str:
    [answer] = ask(("GET", f"/?token={TOKEN}", {}))
    return answer.headers["set-cookie"].partition(";")[0]


def test_without_the_token_nothing_is_shown() -> None:
    for path in ("/", "/api/runs", "/?token=", "/?token=wrong", f"/?token={TOKEN[:-1]}", f"/?token={TOKEN}x"):
        [answer] = ask(("GET", path, {}))
        assert answer.status_code == 403
        assert "runs" not in answer.text.replace("`asynctrack view`", "")
        assert "set-cookie" not in answer.headers


def test_the_token_is_exchanged_for_a_cookie_that_only_this_server_reads() -> None:
    first, second = ask(("GET", f"/?token={TOKEN}&k=loss&x=%3Cb%3E", {}), ("GET", "/api/runs", {}))
    assert first.status_code == 200
    assert TOKEN not in first.text
    assert 'rel="icon"' in first.text  # else a browser asks for /favicon.ico, which is not there
    assert "./?k=loss&amp;x=%3Cb%3E" in first.text
    assert first.headers["set-cookie"].endswith("; HttpOnly; SameSite=Strict")
    assert TOKEN not in first.headers["set-cookie"]
    assert second.text == "the runs"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7007", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", "", "127.0.0.2"],
)
def test_a_host_name_that_is_not_ours_gets_nothing_even_with_the_cookie(host: str) -> None:
    for path in ("/", f"/?token={TOKEN}"):
        [answer] = ask(("GET", path, {"host": host, "cookie": cookie()}))
        assert answer.status_code == 403
        assert "--allowed-host" in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:7007", "[::1]:7007", "proxy.example", "proxy.example:1"]
)
def test_a_host_name_of_ours_is_answered_with_any_port(host: str) -> None:
    [answer] = ask(("GET", "/api/runs", {"host": host, "cookie": cookie()}))
    assert answer.text == "the runs"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_get_is_answered(method: str) -> None:
    [answer] = ask((method, "/api/runs", {"cookie": cookie()}))
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "text", ["asynctrack=1", "asynctrack-000000000000=x", ";;;=", "a=\x7f; b", f"token={TOKEN}", "x" * 5000]
)
def test_a_cookie_that_is_not_ours_lets_nobody_in(text: str) -> None:
    [answer] = ask(("GET", "/api/runs", {"cookie": text}))
    assert answer.status_code == 403


def test_a_cookie_of_another_viewer_or_with_another_value_lets_nobody_in() -> None:
    name, _, value = cookie().partition("=")
    for text in (f"{name}=", f"{name}={value[:-1]}", f"{name}={value}0", f"{name}x={value}"):
        [answer] = ask(("GET", "/api/runs", {"cookie": text}))
        assert answer.status_code == 403
    [answer] = ask(("GET", "/api/runs", {"cookie": f"other=1; {name}={value}; =; third"}))
    assert answer.text == "the runs"


def test_each_answer_forbids_the_browser_what_the_page_does_not_need() -> None:
    answers = ask(
        ("GET", "/", {}),
        ("GET", f"/?token={TOKEN}", {}),
        ("GET", "/", {"cookie": cookie()}),
        ("GET", "/", {"host": "evil.example"}),
        ("POST", "/", {}),
        ("GET", "/none", {"cookie": cookie()}),
    )
    assert [answer.status_code for answer in answers] == [403, 200, 200, 403, 405, 404]
    for answer in answers:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("header", "name"),
    [("LocalHost:80", "localhost"), ("[::1]:7007", "[::1]"), ("[::1]", "[::1]"), ("a.b.:1", "a.b"), ("", "")],
)
def test_a_host_is_its_name(header: str, name: str) -> None:
    assert host_of(header) == name


def test_two_host_headers_are_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    headers = [(b"host", b"127.0.0.1"), (b"host", b"evil.example"), (b"cookie", cookie().encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    asyncio.run(APP(scope, receive, send))
    assert sent[0]["status"] == 403

"""Notes and tags: changed by the page alone, where the user has said so, and by nobody otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.stores.io import drive
from asynctrack.ui.board import Board
from asynctrack.ui.server import page_app
from asynctrack.ui.single import NOTE
from tests.unit.ui.conftest import TOKEN, Get

HOST = "http://localhost:7007"
FROM_PAGE = {"origin": HOST, "sec-fetch-site": "same-origin", "content-type": "application/json"}
Post = Callable[..., httpx.Response]


@pytest.fixture
def run() -> str:
    with asynctrack.start_run(tags={"team": "vision"}) as run:
        run.log_metric("loss", 1.0, 0)
        run.log_metric("loss", float("nan"), 1)
    asynctrack.shutdown()
    return run.run_id


@pytest.fixture
def post(board: Board) -> Post:
    """Post to the server of the board, by default as its page does."""

    def post(
        body: Any, headers: dict[str, str] | None = None, *, edit: bool = True, known: bool = True
    ) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=page_app(board, TOKEN, edit=edit))
            async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
                if known:
                    await client.get("/", params={"token": TOKEN})
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                return await client.post("/api/tag", content=content, headers=FROM_PAGE if headers is None else headers)

        return asyncio.run(asked())

    return post


def tags(run: str) -> dict[str, str]:
    return drive(store_for().get_run(run)).data.tags


def test_a_note_and_tags_are_set_and_deleted(post: Post, get: Get, run: str) -> None:
    assert post({"run": run[:8], "key": NOTE, "value": "# <b>good</b>"}).status_code == 200
    assert post({"run": run, "key": "team", "value": None}).status_code == 200
    assert post({"run": run, "key": "stage", "value": "ä"}).status_code == 200
    assert {key: value for key, value in tags(run).items() if key in (NOTE, "team", "stage")} == {
        NOTE: "# <b>good</b>",
        "stage": "ä",
    }
    said = get("/api/run", run=run).json
    assert said["tags"][NOTE] == "# <b>good</b>"
    assert said["metrics"] == [["loss", "nan", 1.0, 0, 1.0, 0]]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"nonsense", {"run": "x"}, {"run": "none", "key": "a", "value": "b"},
        {"run": "RUN", "key": "mlflow.user", "value": "root"}, {"run": "RUN", "key": "asynctrack.x", "value": "b"},
        {"run": "RUN", "key": "../x", "value": "b"}, {"run": "RUN", "key": 5, "value": "b"},
        {"run": "RUN", "key": "a", "value": 5}, {"run": "RUN", "key": "none", "value": None}, b"x" * 70_000,
    ],
)  # fmt: skip
def test_what_makes_no_sense_changes_nothing(post: Post, run: str, body: Any) -> None:
    before = tags(run)
    if isinstance(body, dict) and body["run"] == "RUN":
        body = {**body, "run": run}
    answer = post(body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]
    assert tags(run) == before


def test_without_edit_nobody_can_change_anything(post: Post, get: Get, run: str) -> None:
    assert post({"run": run, "key": "a", "value": "b"}, edit=False).status_code == 405
    assert "a" not in tags(run)
    assert get("/api/runs").json["editable"] is False


@pytest.mark.parametrize(
    "headers",
    [
        {**FROM_PAGE, "sec-fetch-site": "same-site"},  # another port of this machine, which gets the cookie, too
        {**FROM_PAGE, "sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {**FROM_PAGE, "sec-fetch-site": "none"},
        {**FROM_PAGE, "content-type": "text/plain"},  # what a form can send
        {**FROM_PAGE, "content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json"},
        {"content-type": "application/json", "origin": "null"},
        {"content-type": "application/json", "origin": "http://localhost:8888"},
        {"content-type": "application/json", "origin": "http://localhost"},
        {"content-type": "application/json", "origin": "http://localhost:7007.evil.example"},
    ],
)
def test_another_page_cannot_change_anything_even_with_the_cookie(
    post: Post, run: str, headers: dict[str, str]
) -> None:
    assert post({"run": run, "key": "a", "value": "b"}, headers).status_code == 403
    assert "a" not in tags(run)


def test_an_old_browser_that_sends_its_origin_only_is_believed(post: Post, run: str) -> None:
    headers = {"content-type": "application/json", "origin": HOST}
    assert post({"run": run, "key": "a", "value": "b"}, headers).status_code == 200
    assert tags(run)["a"] == "b"


def test_who_has_no_cookie_or_another_host_changes_nothing(post: Post, run: str) -> None:
    assert post({"run": run, "key": "a", "value": "b"}, known=False).status_code == 403
    assert post({"run": run, "key": "a", "value": "b"}, {**FROM_PAGE, "host": "evil.example"}).status_code == 403
    assert "a" not in tags(run)

"""What the tests of the page share: runs to look at, and a browser's questions without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from asynctrack.current import store_for
from asynctrack.ui.board import Board
from asynctrack.ui.server import page_app
from tests.unit.ui.viewing import two_runs

TOKEN = "token-of-a-test"


def unpacked(data: bytes) -> dict[str, Any]:
    """An answer of charts as the page reads it: arrays where it says where they are."""
    size = int.from_bytes(data[:4], "little")
    header: dict[str, Any] = json.loads(data[4 : 4 + size])
    body = data[4 + size :]
    for chart in header["charts"]:
        places, kind = chart["places"], f"<{chart['kind']}"
        chart["x"] = np.frombuffer(body, "<f8", places, chart["x"])
        for line in chart["lines"]:
            for name in ("at", "rawat", "band"):
                if name in line:
                    line[name] = [np.frombuffer(body, kind, places, at) for at in line[name]]
            if "counts" in line:
                line["counts"] = np.frombuffer(body, "<f4", places, line["counts"])
            if "marks" in line:
                line["marks"] = np.frombuffer(body, "u1", places, line["marks"])
    return header


class Answer(NamedTuple):
    """What the server has said."""

    response: httpx.Response

    @property
    def json(self) -> Any:
        assert self.response.status_code == 200, self.response.text
        return self.response.json()

    @property
    def charts(self) -> list[Any]:
        assert self.response.status_code == 200, self.response.text
        return unpacked(self.response.content)["charts"]  # type: ignore[no-any-return]


Get = Callable[..., Answer]


@pytest.fixture
def board() -> Board:
    """A board over the store of new runs."""
    return Board(store_for())


@pytest.fixture
def get(board: Board) -> Get:
    """Ask the server of the board as a browser that has the cookie."""

    def get(path: str, /, **query: Any) -> Answer:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=page_app(board, TOKEN))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7007") as client:
                await client.get("/", params={"token": TOKEN})
                return await client.get(path, params=query)

        return Answer(asyncio.run(asked()))

    return get


@pytest.fixture
def runs() -> list[str]:
    """The ids of the runs of `two_runs`."""
    return two_runs()

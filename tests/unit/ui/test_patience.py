"""A store that does not answer keeps back nothing of what spools hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import UnavailableError
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.columns import Increment
from asynctrack.stores.io import drive
from asynctrack.ui import patience
from asynctrack.ui.board import Board
from asynctrack.ui.patience import patient
from tests.unit.ui.viewing import WAIT


class Hanging:
    """A store that answers when it is let."""

    uri = "http://127.0.0.1:9"

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[Any] = []

    async def read_columns(self, run_id: str, keys: Any = None, *, after: Any = None) -> Increment:
        self.asked.append((run_id, keys, after))
        assert self.go_on.wait(WAIT)
        if run_id == "gone":
            raise UnavailableError("it has gone")
        return Increment({}, {"read": len(self.asked)})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setattr(patience, "_WAIT", 0.01)
    store = Hanging()
    yield store
    store.go_on.set()


def until_answered(store: Any) -> None:
    for question in store._late:
        assert question.answered.wait(WAIT)


def test_an_answer_that_comes_late_is_for_who_asks_again(store: Hanging) -> None:
    asked = patient(cast("AbstractStore", store))
    for _ in range(3):
        with pytest.raises(UnavailableError, match=r":9 has not answered for 0 s"):
            drive(asked.read_columns("run", ["loss"], after={"read": 0}))
    with pytest.raises(UnavailableError, match="has not answered"):
        drive(asked.read_columns("other"))
    assert store.asked == [("run", ["loss"], {"read": 0})], "nobody asks a store that hangs"
    store.go_on.set()
    until_answered(asked)
    patience_of_others, patience._WAIT = patience._WAIT, WAIT
    try:
        assert drive(asked.read_columns("other")) == Increment({}, {"read": 2})
        late = drive(asked.read_columns("run", ["loss"], after={"read": 0}))
        assert late == Increment({}, {"read": 1}, late=True)
        assert drive(asked.read_columns("run", ["loss"], after={"read": 0})) == Increment({}, {"read": 3})
    finally:
        patience._WAIT = patience_of_others


def test_what_a_late_answer_raises_is_raised_where_it_is_asked_for_again(store: Hanging) -> None:
    asked = patient(cast("AbstractStore", store))
    with pytest.raises(UnavailableError, match="has not answered"):
        drive(asked.read_columns("gone"))
    store.go_on.set()
    until_answered(asked)
    with pytest.raises(UnavailableError, match="it has gone"):
        drive(asked.read_columns("gone"))


def test_what_spools_hold_is_shown_although_the_store_hangs(monkeypatch: pytest.MonkeyPatch, store: Hanging) -> None:
    asynctrack.set_tracking_uri(store.uri)
    asynctrack.configure(mode="offline")
    run = asynctrack.start_run(run_name="here")
    run.log_metric("loss", 1.0, 0)
    real = store_for()

    async def hangs(*_: Any, **__: Any) -> Any:
        assert store.go_on.wait(WAIT)
        raise UnavailableError("too late")

    for verb in ("get_run", "read_columns", "search_runs", "search_experiments", "get_experiment_by_name"):
        monkeypatch.setattr(real, verb, hangs)
    board = Board(real)
    said = board.runs()
    assert [each["name"] for each in said["runs"]] == ["here"]
    assert "has not answered" in said["trouble"]
    assert len(board.points([run.run_id], ["loss"])[run.run_id]["loss"].values) == 1
    run.log_metric("loss", 2.0, 1)
    news = board.look([run.run_id], 0)
    assert news.keys == ["loss"]
    assert "has not answered" in str(news.trouble)
    assert board.points([run.run_id], ["loss"])[run.run_id]["loss"].values.tolist() == [1.0, 2.0]

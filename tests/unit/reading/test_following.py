"""A run is shown with what is not delivered yet: each point once, at each look."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from asynctrack.reading.follower import Follower
from asynctrack.reading.looking import Look, look
from asynctrack.reading.naming import resolve
from asynctrack.reading.runs import FoundRuns, find_runs
from asynctrack.stores.io import drive


def seen(run_id: str, **arguments: Any) -> Look:
    return drive(look(store_for(), run_id, **arguments))


def steps(found: Look, key: str = "loss") -> list[int]:
    return list(found[key].columns.steps)


def runs(**arguments: Any) -> FoundRuns:
    return drive(find_runs(store_for(), **arguments))


@pytest.fixture
def offline() -> None:
    asynctrack.configure(mode="offline")


def test_a_run_that_only_a_spool_knows_is_shown(offline: None) -> None:
    run = asynctrack.start_run(run_name="here", tags={"tag": "of its start"})
    run.log_params({"lr": 0.1})
    for step in range(10):
        run.log_metric("loss", step * 0.5, step)
    found = seen(run.run_id)
    assert steps(found) == list(range(10))
    assert (found["loss"].stored, found["loss"].waiting) == (0, 10)
    assert found.run.info.run_name == "here"
    assert found.run.info.status == "RUNNING"
    assert found.run.data.params == {"lr": "0.1"}
    assert found.run.data.metrics == {"loss": 4.5}
    assert found.run.data.tags["tag"] == "of its start"
    assert not found.ended


def test_what_is_delivered_is_shown_once_and_is_marked(offline: None) -> None:
    run = asynctrack.start_run()
    run.log_metric("loss", math.nan, 0)
    run.log_metric("loss", math.inf, 1)
    run.terminate()
    asynctrack.shutdown()
    asynctrack.sync()
    found = seen(run.run_id)
    assert steps(found) == [0, 1]
    assert found["loss"].stored == 2
    assert found.ended


def test_each_look_takes_in_what_is_new(offline: None) -> None:
    run = asynctrack.start_run()
    follower = Follower(store_for(), run.run_id)
    run.log_metric("loss", 1.0, 0)
    assert drive(follower.look()) == {"loss"}
    assert drive(follower.look()) == set()
    before = follower.series["loss"]
    run.log_metric("loss", 2.0, 1)
    run.log_metric("accuracy", 0.5, 1)
    assert drive(follower.look()) == {"loss", "accuracy"}
    assert list(follower.series) == ["accuracy", "loss"]
    assert list(follower.series["loss"].columns.values) == [1.0, 2.0]
    assert list(before.columns.values) == [1.0], "what an earlier look has given out stays as it was"


def test_what_waits_for_long_is_kept_in_few_pieces_and_then_delivered_once(offline: None) -> None:
    """A store may be away for hours, with several looks a second."""
    run = asynctrack.start_run()
    follower = Follower(store_for(), run.run_id)
    logged = []
    for at in range(300):
        step = at if at % 50 else at // 2  # it goes back, too
        run.log_metric("loss", float(at), step)
        logged.append((step, float(at)))
        assert drive(follower.look()) == {"loss"}
    held = follower._held()
    assert held is not None
    [(_, stretches)] = held.stretches()
    assert len(stretches) < 12
    assert [number for each in stretches for number in each.numbers] == sorted(
        number for each in stretches for number in each.numbers
    )

    def shown() -> list[tuple[int, float]]:
        columns = follower.series["loss"].columns
        return list(zip(columns.steps, columns.values, strict=True))

    assert shown() == logged
    assert follower.series["loss"].waiting == 300
    run.terminate()
    asynctrack.shutdown()
    asynctrack.sync()
    follower._describe_again_at = follower._ask_again_at = 0.0
    drive(follower.look())
    assert sorted(shown()) == sorted(logged)
    assert follower.series["loss"].waiting == 0


def test_a_follower_says_when_the_run_has_ended_although_nothing_is_delivered(offline: None) -> None:
    run = asynctrack.start_run()
    follower = Follower(store_for(), run.run_id)
    drive(follower.look())
    before = follower.ended
    run.log_metric("loss", 1.0, 0)
    run.terminate("FAILED")
    drive(follower.look())
    assert (before, follower.ended) == (False, True)
    assert follower.run is not None
    assert follower.run.info.status == "FAILED"
    assert steps(Look(follower.series)) == [0]


def test_only_the_keys_and_steps_that_are_asked_for_are_shown(offline: None) -> None:
    run = asynctrack.start_run()
    for step in range(10):
        run.log_metrics({"loss": step, "accuracy": step}, step)
    found = seen(run.run_id, keys=["loss"], min_step=3, max_step=5)
    assert list(found) == ["loss"]
    assert steps(found) == [3, 4, 5]


def test_without_live_only_the_store_is_asked(offline: None) -> None:
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0)
    with pytest.raises(NotFoundError):
        seen(run.run_id, live=False)


def test_a_run_that_nobody_knows_is_not_found(offline: None) -> None:
    with pytest.raises(NotFoundError):
        seen("0" * 32)


def test_a_run_that_goes_on_from_an_earlier_step_shows_the_latest_branch() -> None:
    with asynctrack.start_run() as run:
        for step in range(6):
            run.log_metric("loss", step, step)
    asynctrack.configure(mode="offline")
    again = asynctrack.start_run(run_id=run.run_id, from_step=3)
    again.log_metric("loss", 30.0, 3)
    found = seen(run.run_id)
    assert list(found["loss"].columns.values) == [0.0, 1.0, 2.0, 30.0]
    assert found["loss"].stored == 3
    assert found.run.info.status == "RUNNING"


def test_a_run_that_is_logged_to_from_two_programs_is_one(offline: None, tmp_path: Path) -> None:
    run = asynctrack.start_run()
    run.log_metric("loss", 0.0, 0)
    asynctrack.shutdown()
    again = asynctrack.start_run(run_id=run.run_id)
    again.log_metric("loss", 1.0, 1)
    assert steps(seen(run.run_id)) == [0, 1]
    (found,) = runs()
    assert (found.run.info.run_id, found.waiting, found.alive, found.stored) == (run.run_id, 2, True, False)


def test_a_store_that_does_not_answer_leaves_what_spools_hold(monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    run = asynctrack.start_run(run_name="here")
    run.log_metric("loss", 1.0)
    store = store_for()

    async def down(*_: object, **__: object) -> None:
        raise UnavailableError("it is down")

    for verb in ("get_run", "read_columns", "search_runs", "search_experiments", "get_experiment_by_name"):
        monkeypatch.setattr(store, verb, down)
    found = seen(run.run_id)
    assert isinstance(found.trouble, UnavailableError)
    assert steps(found) == [0]
    listed = runs()
    assert isinstance(listed.trouble, UnavailableError)
    assert [entry.run.info.run_name for entry in listed] == ["here"]
    assert drive(resolve(store, run.run_id)).waiting == 1
    assert drive(resolve(store, "here")).waiting == 1
    with pytest.raises(StoreError, match="it is down"):
        seen("0" * 32)


def test_what_was_delivered_while_the_store_did_not_answer_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cursor says that the store has it, and the store cannot show it."""
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0, 0)
    store = store_for()
    follower = Follower(store, run.run_id)

    async def down(*_: object, **__: object) -> None:
        raise UnavailableError("it is down")

    with monkeypatch.context() as patch:
        for verb in ("get_run", "read_columns"):
            patch.setattr(store, verb, down)
        drive(follower.look())
        shown = follower.series["loss"].columns
        assert list(shown.steps) == [0]
        run.log_metric("loss", 2.0, 1)
        drive(follower.look())
        run.flush()
        drive(follower.look())
        assert list(follower.series["loss"].columns.steps) == [0, 1]
        trouble = follower.trouble
    monkeypatch.setattr(follower, "_ask_again_at", 0.0)
    drive(follower.look())
    assert isinstance(trouble, UnavailableError)
    assert follower.trouble is None
    assert list(follower.series["loss"].columns.steps) == [0, 1]
    assert follower.series["loss"].stored == 2


def test_the_runs_of_spools_and_store_are_listed_each_once_the_living_first() -> None:
    with asynctrack.start_run(run_name="old") as old:
        old.log_metric("loss", 3.0)
    open_run = asynctrack.start_run(run_name="open")
    open_run.flush()
    with asynctrack.start_run(run_name="new", nested=True) as new:
        new.log_metric("loss", 1.0)
    found = runs()
    assert [entry.run.info.run_name for entry in found] == ["open", "new", "old"]
    assert [entry.alive for entry in found] == [True, False, False]
    assert [entry.stored for entry in found] == [True, True, True]
    assert [entry.run.info.run_name for entry in runs(order_by=["metrics.loss"])] == ["new", "old", "open"]
    assert [entry.run.info.run_name for entry in runs(filter_string="metrics.loss > 2")] == ["old"]
    assert len(runs(limit=2)) == 2
    with pytest.raises(NotFoundError, match="'no such'"):
        runs(experiments=["no such"])
    with pytest.raises(InvalidInputError):
        runs(limit=0)


def test_a_filter_sees_what_is_not_delivered_yet(offline: None) -> None:
    run = asynctrack.start_run(experiment_name="to be made")
    run.log_metric("loss", 0.1)
    run.log_params({"lr": 1})
    assert len(runs(filter_string="metrics.loss < 1 AND params.lr = '1'")) == 1
    assert not runs(filter_string="metrics.loss > 1")
    assert len(runs(experiments=["to be made"])) == 1
    assert not runs(experiments=["0"])


def test_a_run_is_found_by_what_a_person_types(offline: None) -> None:
    first = asynctrack.start_run(run_name="first")
    second = asynctrack.start_run(run_name="second", nested=True)
    store = store_for()
    for text, wanted in {
        "first": first, "second": second, first.run_id: first, second.run_id[:8]: second, "@live": second,
    }.items():  # fmt: skip
        assert drive(resolve(store, text)).run.info.run_id == wanted.run_id, text
    latest, before = (drive(resolve(store, text)).run.info.run_id for text in ("@", "@1"))
    assert {latest, before} == {first.run_id, second.run_id}
    with pytest.raises(NotFoundError, match="near it: 'first'"):
        drive(resolve(store, "frist"))
    with pytest.raises(NotFoundError, match="are 2 runs"):
        drive(resolve(store, "@2"))
    asynctrack.start_run(run_name="first", nested=True)
    with pytest.raises(InvalidInputError, match=first.run_id):
        drive(resolve(store, "first"))
    for text in ("it's", "'\"", "@x", "x" * 300, "abc", "\x1b[31m"):
        with pytest.raises(NotFoundError):
            drive(resolve(store, text))
    with pytest.raises(InvalidInputError):
        drive(resolve(store, " "))

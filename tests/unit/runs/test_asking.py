"""A run that is not there, or that the store knows to be another, is said at the call; a store that is away is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.engine.engine import Engine
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from asynctrack.runs import active, asking
from asynctrack.stores.file import FileStore
from asynctrack.testing import MemoryStore
from asynctrack.tracking import MlflowClient, MLflowService, get_async_service
from tests.mlruns import only_run

MISSING = "f" * 32


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    asynctrack.set_tracking_uri(tmp_path / "store")
    yield str(tmp_path / "store")
    assert active.states_of_process() == []


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def deleted(client: MlflowClient) -> str:
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    return run_id


@pytest.fixture
def _away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store can be reached by nobody but the engine."""

    async def nobody(*_: object) -> None:
        raise UnavailableError("away")

    monkeypatch.setattr(FileStore, "get_run", nobody)
    monkeypatch.setattr(FileStore, "get_run_info", nobody)
    monkeypatch.setattr(FileStore, "get_experiment_by_name", nobody)


def wrong_starts(deleted: str) -> list[tuple[dict[str, Any], type[Exception]]]:
    return [
        ({"run_id": MISSING}, NotFoundError),
        ({"run_id": deleted}, RefusedError),
        ({"experiment_id": "999"}, NotFoundError),
        ({"parent_run_id": "hello"}, NotFoundError),
        ({"parent_run_id": deleted}, RefusedError),
    ]


def test_a_run_that_cannot_be_started_is_said_at_the_call(deleted: str, uri: str) -> None:
    """Not when its block is entered, or in the background. Nothing is left: no run, and none is active."""
    before = sorted(Path(uri).rglob("meta.yaml"))
    for arguments, error in wrong_starts(deleted):
        with pytest.raises(error, match=next(iter(arguments.values()))):
            asynctrack.start_run(**arguments)
        assert asynctrack.active_run() is None
        assert active.states_of_process() == []
    assert sorted(Path(uri).rglob("meta.yaml")) == before


def test_what_was_said_at_the_call_is_not_reported_once_more(
    deleted: str, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a run that the store has refused to create is no event that somebody has lost."""
    for arguments, error in wrong_starts(deleted):
        with pytest.raises(error):
            asynctrack.start_run(**arguments)
        with pytest.raises(error), asynctrack.start_run(**arguments):
            pass
    asynctrack.shutdown()
    assert caplog.records == []
    assert [path for path in Path(".asynctrack").iterdir() if path.is_dir()] == []


@pytest.mark.anyio
async def test_on_a_loop_a_run_without_a_block_is_told_of_in_the_log(
    deleted: str, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as the store has answered, though nothing is logged; entering a block raises it instead."""
    for run_id in (MISSING, deleted):
        run = asynctrack.start_run(run_id)
        with anyio.fail_after(60):
            while not caplog.records:  # noqa: ASYNC110  # another thread writes it
                await anyio.sleep(0.01)
        [record] = caplog.records
        assert record.levelname == "ERROR"
        assert run_id in record.getMessage()
        assert "nothing that is logged to it will be stored" in record.getMessage()
        run._state.log_end("", 0, 1.0)
        active.close(run._state)
        caplog.clear()


async def _enter(run: asynctrack.ActiveRun, *, blocking: bool) -> None:
    if blocking:
        with run:
            pass
    else:
        async with run:
            pass


@pytest.mark.anyio
async def test_on_a_loop_the_block_says_it(deleted: str, uri: str) -> None:
    """`start_run` itself must not hold up the other tasks."""
    for arguments, error in wrong_starts(deleted):
        for blocking in (False, True):
            run = asynctrack.start_run(**arguments)
            with pytest.raises(error, match=next(iter(arguments.values()))):
                await _enter(run, blocking=blocking)
            assert asynctrack.active_run() is None


def test_logging_to_a_run_by_its_id_says_at_once_that_it_is_not_there(client: MlflowClient, deleted: str) -> None:
    """By the client, a service and the functions with ``run_id=``. Nothing is begun for it."""
    service = MLflowService.at(client.tracking_uri)
    for run_id, error in ((MISSING, NotFoundError), (deleted, RefusedError)):
        calls: list[Callable[[str], object]] = [
            lambda run_id: client.log_metric(run_id, "a", 1.0),
            lambda run_id: client.set_tag(run_id, "a", 1),
            lambda run_id: service.log_param(run_id, "a", 1),
            lambda run_id: asynctrack.log_metric("a", 1.0, run_id=run_id),
        ]
        for log in calls:
            with pytest.raises(error, match=run_id):
                log(run_id)
            assert active.states_of_process() == []


def test_a_store_object_is_asked_too() -> None:
    service = MLflowService(MemoryStore())
    with pytest.raises(NotFoundError, match=MISSING):
        service.log_metric(MISSING, "a", 1.0)


def test_it_is_asked_once_and_not_at_all_for_a_run_made_here(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop of log calls costs one question."""
    asked = []
    get_run = FileStore.get_run

    async def noted(store: FileStore, run_id: str) -> Any:
        asked.append(run_id)
        return await get_run(store, run_id)

    run_id = client.create_run("0").info.run_id
    monkeypatch.setattr(FileStore, "get_run", noted)
    client.log_metric(run_id, "a", 1.0)
    assert asked == []
    client.set_terminated(run_id)
    for step in range(3):
        client.log_metric(run_id, "a", 1.0, step=step)
        asynctrack.log_metric("a", 1.0, run_id=run_id)
    assert len(asked) == 1
    client.set_terminated(run_id)


@pytest.mark.anyio
async def test_no_log_call_on_a_loop_asks(deleted: str, uri: str) -> None:
    async with get_async_service(uri) as service:
        service.log_metric(deleted, "a", 1.0)
        MlflowClient().log_metric(deleted, "b", 1.0)
        (state,) = active.states_of_process()
        active.detach(state)


@pytest.mark.usefixtures("_away")
def test_a_store_that_is_away_keeps_no_program(client: MlflowClient, uri: str) -> None:
    """Whatever it would have been asked is not known, and the run goes on."""
    with asynctrack.start_run(parent_run_id=MISSING) as run:
        assert run.run_id != MISSING
        asynctrack.log_metric("a", 1.0)
    client.log_metric(run.run_id, "b", 1.0)
    with asynctrack.start_run(run_id=run.run_id):
        asynctrack.log_metric("c", 1.0)
    client.set_terminated(run.run_id)
    found = only_run(Path(uri))
    assert sorted(found.metrics) == ["a", "b", "c"]
    assert found.tags[PARENT_RUN_TAG] == MISSING


def test_a_parent_that_this_process_has_open_is_not_asked_for(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may not even know it yet."""
    with asynctrack.start_run() as outer:
        monkeypatch.setattr(asking, "_known", None)
        with asynctrack.start_run(parent_run_id=outer.run_id, nested=True):
            pass


def test_a_run_whose_start_still_waits_in_a_spool_is_logged_to(client: MlflowClient, uri: str) -> None:
    """The store does not know it, but will: its program was offline, or killed."""
    asynctrack.configure(mode="offline")
    with asynctrack.start_run() as run:
        uid = run.run_id
    asynctrack.shutdown()
    asynctrack.configure(mode=None, close_timeout=0.1)
    client.log_metric(uid, "a", 1.0)
    for state in active.states_of_process():
        active.detach(state)


def test_offline_nothing_is_asked(uri: str) -> None:
    asynctrack.configure(mode="offline")
    with asynctrack.start_run(run_id=MISSING):
        asynctrack.log_metric("a", 1.0)
    assert not os.path.exists(uri)


# ── params


def test_another_value_of_a_stored_param_is_refused_at_the_call(uri: str) -> None:
    """As MLflow does. The same value, also of a param whose value MLflow has cut, is not another."""
    long = "x" * 7000
    with asynctrack.start_run() as run:
        run.log_params({"lr": 1, "long": long, "empty": "", "text": "a\nb\r\n"})
    with asynctrack.start_run(run_id=run.run_id) as again:
        for params in ({"lr": 2}, {"new": 1, "lr": 2}, {"empty": "1"}, {"long": "y" * 7000}):
            with pytest.raises(InvalidInputError, match=r"is .* already"):
                again.log_params(params)
        again.log_params({"lr": 1, "long": long, "empty": "", "text": "a\nb\r\n", "other": 3})
    client = MlflowClient()
    with pytest.raises(InvalidInputError, match="'other' is '3' already"):
        client.log_param(run.run_id, "other", 4)
    assert only_run(Path(uri)).params["lr"] == "1"
    client.set_terminated(run.run_id)


@pytest.mark.anyio
async def test_in_an_async_block_too(uri: str) -> None:
    run_id = await anyio.to_thread.run_sync(_logged_run)
    async with asynctrack.start_run(run_id=run_id) as again:
        with pytest.raises(InvalidInputError, match="'lr' is '1' already"):
            again.log_param("lr", 2)


def _logged_run() -> str:
    with asynctrack.start_run() as run:
        run.log_param("lr", 1)
    return run.run_id


# ── what waits for nothing


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the engine is asked to say."""
    found: list[object] = []
    ask = Engine._ask

    def noted(engine: Engine, request: Any) -> None:
        found.append(request)
        ask(engine, request)

    monkeypatch.setattr(Engine, "_ask", noted)
    return found


def test_with_wait_false_nothing_is_asked_and_nothing_waited_for(
    uri: str, requests: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at the start nor at the end of the block; all is delivered all the same."""
    for number in range(3):
        with asynctrack.start_run(run_name=str(number), wait=False):
            asynctrack.log_metric("a", number)
    assert asynctrack.active_run() is None
    assert requests == []
    asynctrack.shutdown()
    runs = MlflowClient().search_runs(["0"])
    assert sorted(run.data.metrics["a"] for run in runs) == [0.0, 1.0, 2.0]
    assert {run.info.status for run in runs} == {"FINISHED"}
    with asynctrack.start_run(run_id=MISSING, wait=False):
        asynctrack.log_metric("a", 1.0)
    asynctrack.shutdown()
    assert MISSING in caplog.text


@pytest.mark.anyio
async def test_nor_in_an_async_block(uri: str, requests: list[object]) -> None:
    async with asynctrack.start_run(wait=False) as run:
        run.log_metric("a", 1)
    assert requests == []
    with asynctrack.start_run():
        pass
    assert len(requests) == 2


def test_what_waits_for_nothing_cannot_be_strict() -> None:
    with pytest.raises(InvalidInputError, match="wait=False"):
        asynctrack.start_run(strict=True, wait=False)


# ── the experiment in the environment


def test_an_experiment_s_id_and_name_that_contradict_each_other_are_refused(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both come from the environment, neither wins in silence."""
    one, other = client.create_experiment("one"), client.create_experiment("other")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "one")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    with pytest.raises(InvalidInputError, match=f"'one'.*{one}.*MLFLOW_EXPERIMENT_ID is {other}"):
        asynctrack.start_run()
    with asynctrack.start_run(experiment_id=one) as run:
        assert run.info.experiment_id == one
    with asynctrack.start_run(experiment_name="one") as run:
        assert run.info.experiment_id == one
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", one)
    with asynctrack.start_run() as run:
        assert run.info.experiment_id == one
    asynctrack.set_experiment("other")
    assert "MLFLOW_EXPERIMENT_NAME" not in os.environ
    assert os.environ["MLFLOW_EXPERIMENT_ID"] == other

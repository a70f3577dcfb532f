"""Logging to a run that somebody else begins and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, RunEndedError
from asynctrack.runs import active
from asynctrack.runs.active import states_of_process
from asynctrack.runs.state import RunState
from tests.fault.programs import spools
from tests.mlruns import only_run


@pytest.fixture
def run_id() -> str:
    """A run that is RUNNING and not open in this process."""
    service = asynctrack.get_service()
    return service.create_run(service.create_experiment("shared")).info.run_id


def steps(tmp_path: Path, key: str = "loss") -> list[int]:
    return [step for *_, step in only_run(tmp_path / "mlruns").metrics[key]]


def test_a_block_delivers_and_never_ends_the_run(run_id: str, tmp_path: Path) -> None:
    with asynctrack.attach(run_id) as run:
        assert run.run_id == run_id
        run.log_metric("loss", 0.5, 1)
    assert steps(tmp_path) == [1]
    assert only_run(tmp_path / "mlruns").status == "RUNNING"
    with pytest.raises(RunEndedError):
        run.log_metric("loss", 0.5, 2)
    run.detach()  # a second time, it does nothing
    assert not [state for state in states_of_process() if state.run_id == run_id]


def test_a_block_whose_code_fails_does_not_end_it_either(run_id: str, tmp_path: Path) -> None:
    def fails() -> None:
        with asynctrack.attach(run_id) as run:
            run.log_metric("loss", 0.5, 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()
    assert steps(tmp_path) == [1]
    assert only_run(tmp_path / "mlruns").status == "RUNNING"


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_leaving_takes_the_spool_along(
    run_id: str, tmp_path: Path, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of uvicorn is killed by its own SIGTERM a moment later, with nothing that is called at exit."""
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 0.0)
    asynctrack.configure(flush_interval=60)

    async def main() -> None:
        async with asynctrack.attach(run_id) as run:
            run.log_metric("loss", 0.5, 1)
        assert spools(tmp_path) == []

    if backend is None:
        with asynctrack.attach(run_id) as run:
            run.log_metric("loss", 0.5, 1)
        assert spools(tmp_path) == []
    else:
        anyio.run(main, backend=backend)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_task(run_id: str, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with asynctrack.attach(run_id) as run:
            run.log_metric("loss", 0.5, 1)
            await run.flush()
            assert steps(tmp_path) == [1]
            run.log_metric("loss", 0.5, 2)
        with pytest.raises(NotFoundError):
            async with asynctrack.attach("f" * 32):
                pass

    anyio.run(main, backend=backend)
    assert steps(tmp_path) == [1, 2]
    assert only_run(tmp_path / "mlruns").status == "RUNNING"


def test_several_at_once_are_one_attachment(run_id: str, tmp_path: Path) -> None:
    """The one that leaves does not take it from the others."""
    first, second = asynctrack.attach(run_id), asynctrack.attach(run_id)
    assert first == second
    first.log_metric("loss", 0.5, 1)
    first.detach()
    second.log_metric("loss", 0.5, 2)
    second.detach()
    assert steps(tmp_path) == [1, 2]
    with pytest.raises(RunEndedError):
        second.log_metric("loss", 0.5, 3)


@pytest.mark.parametrize("how", ["attach", "run_id="])
def test_while_the_last_of_the_others_leaves(
    how: str, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just when their open run was found, and before anybody knows that it is wanted on."""
    others = asynctrack.attach(run_id)
    others.log_metric("loss", 0.5, 1)
    find = active._attached_state

    def found(*args: Any, **kwargs: Any) -> RunState:
        state = find(*args, **kwargs)
        others.detach()
        return state

    monkeypatch.setattr(active, "_attached_state", found)
    if how == "attach":
        with asynctrack.attach(run_id) as run:
            run.log_metric("loss", 0.5, 2)
    else:
        asynctrack.log_metric("loss", 0.5, 2, run_id=run_id)
        asynctrack.flush_async_logging()
    assert steps(tmp_path) == [1, 2]


def test_beside_whoever_logs_by_its_id(run_id: str, tmp_path: Path) -> None:
    asynctrack.log_metric("loss", 0.5, 1, run_id=run_id)
    with asynctrack.attach(run_id) as run:
        run.log_metric("loss", 0.5, 2)
    asynctrack.log_metric("loss", 0.5, 3, run_id=run_id)
    asynctrack.flush_async_logging()
    assert steps(tmp_path) == [1, 2, 3]


def test_to_a_run_that_is_open_here(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        with asynctrack.attach(run.run_id) as attached:
            attached.log_metric("loss", 0.5, 1)
        run.log_metric("loss", 0.5, 2)
    assert steps(tmp_path) == [1, 2]
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


def test_a_run_that_is_not_there_is_an_error_at_the_call(run_id: str) -> None:
    with pytest.raises(NotFoundError, match="f" * 32):
        asynctrack.attach("f" * 32)
    asynctrack.get_service().delete_run(run_id)
    with pytest.raises(RefusedError, match=run_id):
        asynctrack.attach(run_id)


def test_the_environment_names_the_run(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `attach`, and for functions that would start a run of their own, where none is active."""
    with pytest.raises(InvalidInputError, match="ASYNCTRACK_ATTACH"):
        asynctrack.attach()
    monkeypatch.setenv("ASYNCTRACK_ATTACH", run_id)
    with asynctrack.attach() as run:
        assert run.run_id == run_id
    asynctrack.log_metric("loss", 0.5, 1)
    asynctrack.flush_async_logging()
    assert steps(tmp_path) == [1]
    assert asynctrack.active_run() is None
    with asynctrack.start_run() as own:
        asynctrack.log_metric("loss", 0.5, 2)
        assert own.run_id != run_id
    assert asynctrack.get_run(own.run_id).data.metrics == {"loss": 0.5}


def test_a_run_that_an_awaited_service_could_not_ask_for_is_asked_for_by_a_call_that_can_wait() -> None:
    unknown = "f" * 32
    asynctrack.create_experiment("other")  # the store is there

    async def log() -> None:
        async with asynctrack.get_async_service() as service:
            service.log_metric(unknown, "loss", 0.5)

    anyio.run(log)
    with pytest.raises(NotFoundError, match=unknown):
        asynctrack.log_metric("loss", 0.5, run_id=unknown)

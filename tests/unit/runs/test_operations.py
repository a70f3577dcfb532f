"""``synchronous=False`` gives something to wait on, as in MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.entities import Param
from asynctrack.errors import DeliveryError, FlushTimeoutError, RefusedError, UnavailableError
from asynctrack.runs import active
from asynctrack.runs.operations import RunOperations
from asynctrack.testing import FaultyStore, MemoryStore
from asynctrack.tracking import MlflowClient, MLflowService
from tests.mlruns import only_run

FLUENT: dict[str, Callable[[Any], Any]] = {
    "log_metric": lambda how: asynctrack.log_metric("m", 1.0, synchronous=how),
    "log_metrics": lambda how: asynctrack.log_metrics({"m": 1.0}, synchronous=how),
    "log_param": lambda how: asynctrack.log_param("p", 0, synchronous=how),
    "log_params": lambda how: asynctrack.log_params({"p": 0}, synchronous=how),
    "set_tag": lambda how: asynctrack.set_tag("t", 1, synchronous=how),
    "set_tags": lambda how: asynctrack.set_tags({"t": 1}, synchronous=how),
}


@pytest.fixture(autouse=True)
def _nothing_is_delivered_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "1000")
    asynctrack.set_tracking_uri(tmp_path / "store")


def stored(tmp_path: Path) -> int:
    run = only_run(tmp_path / "store")
    return len(run.metrics) + len(run.params) + len([key for key in run.tags if key == "t"])


@pytest.mark.parametrize("name", FLUENT)
def test_each_log_function_returns_it(name: str, tmp_path: Path) -> None:
    """And nothing, or the value, where it is not asked for."""
    with asynctrack.start_run():
        assert FLUENT[name](None) == (0 if name == "log_param" else None)
        operations = FLUENT[name](False)
        assert isinstance(operations, RunOperations)
        operations.wait()
        assert operations.done
        assert stored(tmp_path) == 1


def test_so_do_those_of_the_client(tmp_path: Path) -> None:
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    logged = [
        client.log_metric(run_id, "m", 1.0, synchronous=False),
        client.log_param(run_id, "p", 1, synchronous=False),
        client.set_tag(run_id, "t", 1, synchronous=False),
        client.log_batch(run_id, params=[Param("q", "1")], synchronous=False),
    ]
    operations = [found for found in logged if isinstance(found, RunOperations)]
    assert len(operations) == 4
    assert "on their way" in repr(operations[0])
    operations[-1].wait()
    assert stored(tmp_path) == 4
    assert client.log_metric(run_id, "m", 1.0) is None
    assert client.log_param(run_id, "p", 1) == 1


@pytest.mark.anyio
async def test_it_can_be_awaited(tmp_path: Path) -> None:
    async with asynctrack.start_run():
        operations = asynctrack.log_metric("m", 1.0, synchronous=False)
        assert operations is not None
        await operations
        assert stored(tmp_path) == 1


def test_waiting_raises_what_flush_raises() -> None:
    """For an event that the store refuses, and after a time-out."""
    store = FaultyStore(MemoryStore())
    service = MLflowService(store)
    run_id = service.create_run(service.create_experiment("e")).info.run_id
    log = active.attached_run(run_id, store=store)
    store.fail("log_batch", RefusedError("no such thing"), times=100)
    log.log_metric("m", 1.0)
    with pytest.raises(DeliveryError, match="no such thing"):
        RunOperations(log).wait()
    store.fail("log_batch", UnavailableError("away"), times=100)
    log.log_metric("m", 2.0)
    with pytest.raises(FlushTimeoutError):
        RunOperations(log).wait(timeout=0.01)
    store._plan.clear()

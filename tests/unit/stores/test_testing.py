"""The test helpers themselves: FaultyStore fails when it is told to, before or after the work."""

from __future__ import annotations

import pytest

from asynctrack.errors import UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.testing import FaultyStore, MemoryStore

UID = "0" * 32


def test_a_planned_failure_comes_in_the_planned_call() -> None:
    """The n-th from now, as many as asked; nothing is stored by it."""
    inner = MemoryStore()
    store = FaultyStore(inner)
    drive(store.create_run(RunSpec(uid=UID)))
    store.fail("log_batch", UnavailableError("down"), nth=2, times=2)
    outcomes = []
    for i in range(4):
        try:
            drive(store.log_batch(UID, Batch(params=[(str(i), "1")])))
            outcomes.append("stored")
        except UnavailableError:
            outcomes.append("down")
    assert outcomes == ["stored", "down", "down", "stored"]
    assert set(drive(inner.get_run(UID)).data.params) == {"0", "3"}
    assert store.calls["log_batch"] == 4


def test_a_lost_answer_is_an_applied_failure() -> None:
    """The work is done, the caller does not know."""
    inner = MemoryStore()
    store = FaultyStore(inner)
    store.fail("create_run", UnavailableError("lost"), applied=True)
    with pytest.raises(UnavailableError):
        drive(store.create_run(RunSpec(uid=UID)))
    assert drive(inner.get_run(UID)).info.run_id == UID


def test_the_io_is_the_inner_stores(tmp_path: str) -> None:
    """The engine exchanges it at interpreter exit, through the wrapper too."""
    inner = FileStore(tmp_path)
    store = FaultyStore(inner)
    store.io = InlineIO()
    assert isinstance(inner.io, InlineIO)
    assert store.io is inner.io


def test_the_twin_for_another_caller_shares_plan_and_counts(tmp_path: str) -> None:
    """The service and the engine each have one; a failure that is planned comes once, to whoever calls first."""
    store = FaultyStore(FileStore(tmp_path))
    twin = store.over(InlineIO())
    store.fail("search_runs", UnavailableError("down"))
    with pytest.raises(UnavailableError):
        drive(twin.search_runs(["0"]))
    assert drive(store.over(InlineIO()).search_runs(["0"])).items == []
    assert store.calls["search_runs"] == 2

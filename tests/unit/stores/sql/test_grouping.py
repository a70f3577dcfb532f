"""Batches of several runs share a transaction, and nothing else."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.errors import NotFoundError, StoreError, UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.sql.batches import write_batch
from asynctrack.stores.sql.grouping import BatchGroups
from asynctrack.stores.sql.sqlite import SqliteDatabase
from asynctrack.stores.sql.store import SqlStore


class Counted(SqliteDatabase):
    """Counts the transactions that write, and lets the first of them wait for a signal."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.transactions = 0
        self.go_on = threading.Event()
        self.begun = threading.Event()
        self.failure: Exception | None = None

    def write(self, wait: float, *, create: bool = False) -> Any:
        if not create:
            self.transactions += 1
            self.begun.set()
            assert self.go_on.wait(30)
            if self.failure is not None:
                raise self.failure
        return super().write(wait, create=create)


@pytest.fixture
def database(memory_path: Path) -> Iterator[Counted]:
    database = Counted(str(memory_path / "x.db"))
    yield database
    database.close()


def new_runs(database: SqliteDatabase, count: int) -> list[str]:
    store = SqlStore(database, InlineIO())
    return [drive(store.create_run(RunSpec(uuid.uuid4().hex, start_time=1))).run_id for _ in range(count)]


def log_at_once(groups: BatchGroups, database: Counted, run_ids: list[str]) -> dict[str, Any]:
    """Log one batch a run: while the first is being written, all others wait."""
    found: dict[str, Any] = {}

    def log(run_id: str) -> None:
        try:
            found[run_id] = groups.log_batch(run_id, Batch({"m": [(1, 1, 1.0)], "a//b": [(1, 1, 1.0)]}), 30.0)
        except StoreError as error:
            found[run_id] = error

    threads = [threading.Thread(target=log, args=(run_id,)) for run_id in run_ids]
    threads[0].start()
    assert database.begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(groups._waiting) < len(run_ids) - 1:
        threading.Event().wait(0.001)
    database.go_on.set()
    for thread in threads:
        thread.join()
    return found


def test_who_waits_is_written_together(database: Counted) -> None:
    runs = new_runs(database, 9)
    found = log_at_once(BatchGroups(database), database, runs)
    assert database.transactions == 2
    assert [[refusal.key for refusal in found[run_id]] for run_id in runs] == [["a//b"]] * 9
    store = SqlStore(database, InlineIO())
    assert [drive(store.get_run(run_id)).data.metrics for run_id in runs] == [{"m": 1.0}] * 9


def test_those_that_were_written_together_are_waited_for(database: Counted) -> None:
    """The first of them would be alone in its transaction."""
    runs = new_runs(database, 3)
    database.go_on.set()
    groups = BatchGroups(database)
    groups._together, groups._took = 3, 400.0  # as after a transaction that took that long
    threads = [
        threading.Thread(target=groups.log_batch, args=(run_id, Batch({"m": [(1, 1, 1.0)]}), 30.0)) for run_id in runs
    ]
    for number, thread in enumerate(threads):
        assert database.transactions == 0
        thread.start()
        while number < 2 and len(groups._waiting) <= number:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert database.transactions == 1


def test_who_does_not_come_again_is_not_waited_for_long(database: Counted) -> None:
    """And from then on not at all."""
    (run_id,) = new_runs(database, 1)
    database.go_on.set()
    groups = BatchGroups(database)
    groups._together, groups._took = 64, 0.001
    assert groups.log_batch(run_id, Batch({"m": [(1, 1, 1.0)]}), 30.0) == []
    assert groups._together == 1


def test_a_run_that_is_not_there_hinders_no_other(database: Counted) -> None:
    runs = new_runs(database, 3)
    found = log_at_once(BatchGroups(database), database, [runs[0], "f" * 32, runs[1], runs[2]])
    assert isinstance(found.pop("f" * 32), NotFoundError)
    assert all(isinstance(refused, list) for refused in found.values())
    assert database.transactions == 2


def test_a_batch_that_the_database_does_not_take_hinders_no_other(
    database: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written one by one then."""
    runs = new_runs(database, 4)

    def failing(session: Any, run_id: str, batch: Batch) -> list[Any]:
        if run_id == runs[2]:
            session.execute("INSERT INTO metrics (key) VALUES (NULL)")
        return write_batch(session, run_id, batch)

    monkeypatch.setattr("asynctrack.stores.sql.grouping.write_batch", failing)
    found = log_at_once(BatchGroups(database), database, runs)
    assert isinstance(error := found.pop(runs[2]), StoreError)
    assert error.splittable
    assert all(isinstance(refused, list) for refused in found.values())


def test_a_database_that_is_away_fails_all_that_wait_at_once(database: Counted) -> None:
    """Each with an exception of its own."""
    runs = new_runs(database, 5)
    database.failure = UnavailableError("away")
    found = log_at_once(BatchGroups(database), database, runs)
    assert {type(error) for error in found.values()} == {UnavailableError}
    assert len({id(error) for error in found.values()}) == 5
    assert database.transactions <= 2


def test_what_was_given_up_is_not_written_later(database: Counted) -> None:
    """Its caller brings it again, maybe behind a later value."""
    first, run_id = new_runs(database, 2)
    groups = BatchGroups(database)
    leader = threading.Thread(target=groups.log_batch, args=(first, Batch(tags=[("t", "first")]), 30.0))
    leader.start()
    assert database.begun.wait(30)
    with pytest.raises(UnavailableError):
        groups.log_batch(run_id, Batch(tags=[("t", "old")]), 0.01)
    database.go_on.set()
    leader.join()
    assert groups.log_batch(run_id, Batch(tags=[("u", "new")]), 30.0) == []
    tags = drive(SqlStore(database, InlineIO()).get_run(run_id)).data.tags
    assert "t" not in tags
    assert tags["u"] == "new"
    assert database.transactions == 2


def test_who_is_dealt_with_does_not_wait_for_those_behind(database: Counted) -> None:
    """However many come, and however long their transactions take, none is kept from its answer."""
    runs = new_runs(database, 4)
    groups = BatchGroups(database)
    answered = threading.Event()

    def log(run_id: str) -> None:
        groups.log_batch(run_id, Batch({"m": [(1, 1, 1.0)]}), 30.0)
        answered.set()

    leader = threading.Thread(target=groups.log_batch, args=(runs[0], Batch(tags=[("t", "1")]), 30.0))
    leader.start()
    assert database.begun.wait(30)
    behind = threading.Thread(target=log, args=(runs[1],))
    behind.start()
    while not groups._waiting:
        threading.Event().wait(0.001)
    job = groups._waiting[0]
    job.settle([])  # as the leader does when it has written it, while it goes on with others
    assert answered.wait(30)
    groups._waiting.clear()
    database.go_on.set()
    leader.join()
    behind.join()

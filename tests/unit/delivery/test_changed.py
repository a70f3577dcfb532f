"""Params that have changed in a run that goes on from an earlier step, where only the store knows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from asynctrack.delivery.changed import tell_changed_params
from asynctrack.delivery.lane import Lane
from asynctrack.errors import RefusedError, UnavailableError
from asynctrack.stores.base import Batch, Limits, Refusal, RunSpec
from asynctrack.stores.branches import Branch
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore

UID, RUN = "ab" * 16, "cd" * 16


class Store(MemoryStore):
    """Takes so many tags at once, and fails as it is told."""

    limits = Limits(metrics=10, params=10, tags=2, entities=10)
    error: Exception | None = None

    async def log_batch(self, run_id: str, batch: Batch, bookmark: object = None) -> list[Refusal]:
        assert len(batch.tags) <= 2
        if self.error is not None and batch.tags:
            raise self.error
        return await super().log_batch(run_id, batch, bookmark)


@pytest.fixture
def store() -> Store:
    found = Store()
    drive(found.create_run(RunSpec(RUN)))
    drive(found.log_batch(RUN, Batch(params=[(f"p{number}", "old") for number in range(5)])))
    return found


def tell(store: Store, refusals: list[Refusal], tags: Mapping[str, str] = Branch.begun(UID, 5, 1).tag) -> list[str]:
    """The keys of what stays refused."""
    lane = Lane(1, RunSpec(UID, run_id=RUN, tags=dict(tags)), attached=False)
    return [refusal.key for refusal in drive(tell_changed_params(store, lane, RUN, refusals))]


def changed(count: int = 5) -> list[Refusal]:
    return [Refusal("param", f"p{number}", "new", "it is old already") for number in range(count)]


def test_they_are_tags_however_many_there_are(store: Store) -> None:
    """What was refused for other reasons stays refused."""
    others = [
        Refusal("param", "other", "x", "too long"),
        Refusal("param", "p0", "old", "?"),
        Refusal("tag", "p1", "", ""),
    ]
    for _ in range(2):
        assert tell(store, [*changed(), *others]) == ["other", "p1"]
        told = drive(store.get_run(RUN)).data.tags
        assert {key: value for key, value in told.items() if key.startswith("param_changed.")} == {
            f"param_changed.p{number}": "old -> new" for number in range(5)
        }


def test_a_run_that_replaces_nothing_has_them_refused(store: Store) -> None:
    assert len(tell(store, changed(), {})) == 5


def test_where_the_store_refuses_the_tags_the_params_stay_refused(store: Store) -> None:
    store.error = RefusedError("no tags here")
    assert len(tell(store, changed())) == 5


def test_a_store_that_is_away_is_asked_again(store: Store) -> None:
    store.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        tell(store, changed())

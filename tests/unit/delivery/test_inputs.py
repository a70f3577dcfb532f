"""What a run uses and has made goes by calls of its own, which not every server takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from asynctrack.delivery.isolation import Isolation
from asynctrack.entities import DatasetInput, LoggedModelInput, LoggedModelOutput
from asynctrack.errors import NotFoundError, StoreError, WrongServerError
from asynctrack.journal.inputs import dataset_entry, output_entry
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore
from tests.journals import uid


class Without(MemoryStore):
    """A server that does not take them."""

    def __init__(self, error: StoreError) -> None:
        super().__init__()
        self._error = error

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        raise self._error

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        raise self._error


ERRORS = [NotFoundError("there is no such model"), WrongServerError("404: there is no such call")]


@pytest.mark.parametrize("error", ERRORS)
def test_where_a_server_does_not_take_them_they_alone_are_refused(error: StoreError) -> None:
    store = Without(error)
    drive(store.create_run(RunSpec(uid(1))))
    dataset = dataset_entry({"name": "d", "digest": "1", "source_type": "local", "source": "x"}, {})
    batch = Batch({"loss": [(1, step, 0.5) for step in range(10)]}, [("lr", "0.1")], [("team", "cv")])
    batch.inputs.extend([dataset, output_entry("m-1", 3)])
    isolation = Isolation(batch, store.limits)
    assert drive(isolation.turn(store, uid(1), None))
    assert {(refusal.kind, refusal.key) for refusal in isolation.refusals} == {
        ("input", dataset[0]),
        ("input", "output:m-1"),
    }
    data = drive(store.get_run(uid(1))).data
    assert (data.metrics, data.params["lr"], data.tags["team"]) == ({"loss": 0.5}, "0.1", "cv")


@pytest.mark.parametrize("error", ERRORS)
def test_a_run_that_is_not_there_is_still_said_to_be_missing(error: StoreError) -> None:
    batch = Batch({}, [], [])
    batch.inputs.append(output_entry("m-1", 3))
    with pytest.raises(NotFoundError, match=uid(1)):
        drive(Isolation(batch, MemoryStore().limits).turn(Without(error), uid(1), None))


def test_a_server_that_comes_back_while_it_is_looked_for_is_given_them_again() -> None:
    """What answered before, in its place, did not know the call."""

    class Back(Without):
        calls = 0

        async def log_inputs(
            self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
        ) -> None:
            self.calls += 1
            if self.calls == 1:
                raise self._error

    store = Back(WrongServerError("404: there is no such call"))
    drive(store.create_run(RunSpec(uid(1))))
    batch = Batch({}, [], [])
    batch.inputs.append(dataset_entry({"name": "d", "digest": "1", "source_type": "local", "source": "x"}, {}))
    isolation = Isolation(batch, store.limits)
    assert drive(isolation.turn(store, uid(1), None))
    assert (isolation.refusals, store.calls) == ([], 2)

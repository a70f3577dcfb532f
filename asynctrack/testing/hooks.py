"""The attributes of the contract that a store's test class may override, and helpers for the tests."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, TypeVar

from asynctrack.delivery.work import split
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, Refusal, RunSpec
from asynctrack.stores.io import drive

__all__ = ["NEVER", "ContractHooks"]

T = TypeVar("T")

#: the errors a store may raise for a request that can never succeed: before it is sent, or from the server's answer
NEVER = (InvalidInputError, NotFoundError, RefusedError)


class ContractHooks:
    """Attributes to override, and helpers.

    Each test works in experiments with unique names, so that tests can share a
    server.
    """

    #: False if ±Inf come back as ± the largest double, as in SQL databases
    keeps_infinities: bool = True
    #: False if a point sent again without a bookmark is stored twice, as by MLflow servers over files and Databricks
    merges_identical_points: bool = True
    #: False if a run must name its experiment, as on Databricks outside notebooks
    has_default_experiment: bool = True
    #: an artifact location that the store accepts unchanged; None if the store always picks the location
    artifact_location: str | None = "s3://bucket/x"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine of the store. Override it if the store needs an
        event loop."""
        return drive(work)

    def experiment_name(self, name: str) -> str:
        """A name that no other test uses, the same each time in one test.
        Override it if names must have a form."""
        return f"{self._unique} {name}"

    @cached_property
    def _unique(self) -> str:  # pytest creates an object of the class for each test
        return uuid.uuid4().hex[:12]

    def experiment(self, store: AbstractStore, name: str = "own") -> str:
        """The id of this test's experiment ``name``, created on first use."""
        full = self.experiment_name(name)
        found = self.run(store.get_experiment_by_name(full))
        return self.run(store.create_experiment(full)) if found is None else found.experiment_id

    def spec(self, store: AbstractStore, **given: Any) -> RunSpec:
        """A spec for a new run; by default in this test's own experiment."""
        if not {"run_id", "experiment_id", "experiment_name"} & given.keys():
            given["experiment_id"] = self.experiment(store)
        return RunSpec(uid=uuid.uuid4().hex, **{"user_id": "ann", "start_time": 1_700_000_000_000, **given})

    def new_run(self, store: AbstractStore, **given: Any) -> str:
        """Create a run and return its id."""
        return self.run(store.create_run(self.spec(store, **given))).run_id

    def deliver(self, store: AbstractStore, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        """Deliver a batch as the engine does, and return what was refused.

        The batch is split to fit the store's limits. A piece is halved if the
        store refuses it without saying which event is the cause.
        """
        refused: list[Refusal] = []
        for piece in split(batch, store.limits):
            try:
                refused += self.run(store.log_batch(run_id, piece, bookmark))
            except StoreError as error:
                if error.retryable and not error.suspicious:
                    raise
                if error.suspicious:
                    self.run(store.probe(run_id))  # raises if the store fails at everything, not only at this batch
                if len(piece) > 1 and (error.splittable or error.suspicious):
                    for half in piece.halves():
                        refused += self.deliver(store, run_id, half, bookmark)
                else:
                    refused += [Refusal(*item, reason=str(error)) for item in piece.items()]
        return refused

    def raised(self, kind: type[Exception] | tuple[type[Exception], ...], work: Coroutine[Any, Any, Any]) -> str:
        """The message of the error that ``work`` must raise, of class
        ``kind``."""
        try:
            result = self.run(work)
        except kind as error:
            return str(error)
        raise AssertionError(f"{work!r} returned {result!r} instead of raising {kind}")

"""What a store's test class may adjust, and the helpers that the contract's tests are written with."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, TypeVar

from asynctrack.engine.batcher import split
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, Refusal, RunSpec
from asynctrack.stores.io import drive

__all__ = ["NEVER", "ContractHooks"]

T = TypeVar("T")

#: what a store may raise for what can never be: a request that is not sent, or a server's answer to it
NEVER = (InvalidInputError, NotFoundError, RefusedError)


class ContractHooks:
    """Attributes to override, each with why stores differ there, and helpers.

    The tests keep apart by experiments with unique names, so that they can share a server.
    """

    #: False where ±Inf come back as ± the largest double: columns of SQL databases
    keeps_infinities: bool = True
    #: False where a point sent again without a bookmark is stored again: MLflow servers over files, and Databricks
    merges_identical_points: bool = True
    #: False where a run must name its experiment: Databricks outside notebooks
    has_default_experiment: bool = True
    #: a location for artifacts that the store accepts as it is; None where it keeps them in a place of its own
    artifact_location: str | None = "s3://bucket/x"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine of the store to its end. Override it where the store needs an event loop."""
        return drive(work)

    def experiment_name(self, name: str) -> str:
        """A name no other test uses, the same each time in one test. Override it where names have a form."""
        return f"{self._unique} {name}"

    @cached_property
    def _unique(self) -> str:  # pytest makes an object of the class for each test
        return uuid.uuid4().hex[:12]

    def experiment(self, store: AbstractStore, name: str = "own") -> str:
        """The id of an experiment of this test's, created on first use."""
        full = self.experiment_name(name)
        found = self.run(store.get_experiment_by_name(full))
        return self.run(store.create_experiment(full)) if found is None else found.experiment_id

    def spec(self, store: AbstractStore, **given: Any) -> RunSpec:
        """All that is needed to create a run, in this test's experiment unless it is said."""
        if not {"run_id", "experiment_id", "experiment_name"} & given.keys():
            given["experiment_id"] = self.experiment(store)
        return RunSpec(uid=uuid.uuid4().hex, **{"user_id": "ann", "start_time": 1_700_000_000_000, **given})

    def new_run(self, store: AbstractStore, **given: Any) -> str:
        """A new run's id."""
        return self.run(store.create_run(self.spec(store, **given))).run_id

    def deliver(self, store: AbstractStore, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        """What the engine does with a batch: pieces within the store's limits, halved where the store refuses one, or
        fails at it, without saying whose fault it is; what was refused."""
        refused: list[Refusal] = []
        for piece in split(batch, store.limits):
            try:
                refused += self.run(store.log_batch(run_id, piece, bookmark))
            except StoreError as error:
                if error.retryable and not error.suspicious:
                    raise
                if error.suspicious:
                    self.run(store.probe(run_id))  # it fails at this batch, and not at everything
                if len(piece) > 1 and (error.splittable or error.suspicious):
                    for half in piece.halves():
                        refused += self.deliver(store, run_id, half, bookmark)
                else:
                    refused += [Refusal(*item, reason=str(error)) for item in piece.items()]
        return refused

    def raised(self, kind: type[Exception] | tuple[type[Exception], ...], work: Coroutine[Any, Any, Any]) -> str:
        """The message of the error of class ``kind`` that ``work`` must raise."""
        try:
            result = self.run(work)
        except kind as error:
            return str(error)
        raise AssertionError(f"{work!r} returned {result!r} instead of raising {kind}")

"""What every store does that keeps the datasets and models of a run."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from asynctrack.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
from asynctrack.errors import NotFoundError, RefusedError
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.inputs import KeepsInputs
from asynctrack.stores.io import drive

__all__ = ["check_inputs", "used"]


def used(name: str, digest: str = "d1", context: str = "train", **about: Any) -> DatasetInput:
    """A dataset, and what for."""
    return DatasetInput(
        Dataset(name, digest, "local", '{"path": "é"}', **about), [InputTag("mlflow.data.context", context)]
    )


def check_inputs(store: AbstractStore) -> None:
    """They are read as they were logged, once each, and stay as the first has them."""
    assert isinstance(store, KeepsInputs)
    marker = uuid.uuid4().hex
    one, other = (
        drive(store.create_run(RunSpec(uuid.uuid4().hex, experiment_name=marker, start_time=1))).run_id
        for _ in range(2)
    )
    sets = [used("ü/b", schema="{}", profile="{}"), used("a", "d2", "eval"), used("a", "d1")]
    for _ in range(2):
        drive(store.log_inputs(one, sets, [LoggedModelInput("m-1")]))
        drive(store.log_outputs(one, [LoggedModelOutput("m-3", 0), LoggedModelOutput("m-2", 7)]))
    drive(store.log_inputs(other, [used("a", "d2", "test", profile="another"), used("a", "d2", "again")]))
    drive(store.log_inputs(one, [used("a", "d2", "test")]))
    drive(store.log_inputs(other))
    run, second = drive(store.get_run(one)), drive(store.get_run(other))
    assert run.inputs is not None
    assert run.outputs is not None
    assert second.inputs is not None
    assert sorted(map(repr, run.inputs.dataset_inputs)) == sorted(map(repr, sets))
    assert run.inputs.model_inputs == [LoggedModelInput("m-1")]
    assert sorted((model.model_id, model.step) for model in run.outputs.model_outputs) == [("m-2", 7), ("m-3", 0)]
    assert second.inputs.dataset_inputs == [used("a", "d2", "test")]
    with pytest.raises(RefusedError, match="501 characters"):
        drive(store.log_inputs(one, [used("n" * 501)]))
    with pytest.raises(NotFoundError):
        drive(store.log_inputs("f" * 32, sets))
    drive(store.delete_run(other))
    with pytest.raises(RefusedError):
        drive(store.log_inputs(other, sets))
    assert drive(store.get_run(other)).inputs == second.inputs

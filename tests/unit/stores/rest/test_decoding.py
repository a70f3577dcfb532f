"""Entities from a server's JSON, which leaves out what is empty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from asynctrack.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
from asynctrack.errors import UnavailableError
from asynctrack.stores.rest.decoding import experiment_of, metric_of, run_info_of, run_of


def test_a_run_with_everything() -> None:
    """As MLflow 3 sends it."""
    run = run_of(
        {
            "info": {
                "run_id": "ab",
                "run_uuid": "ab",
                "experiment_id": "7",
                "run_name": "n",
                "user_id": "u",
                "status": "FINISHED",
                "start_time": 1,
                "end_time": 2,
                "artifact_uri": "mlflow-artifacts:/7/ab/artifacts",
                "lifecycle_stage": "deleted",
            },
            "data": {
                "metrics": [
                    {"key": "m", "value": "NaN", "timestamp": 1, "step": 3},
                    {"key": "i", "value": "-Infinity"},
                ],
                "params": [{"key": "p", "value": "1"}, {"key": "empty"}],
                "tags": [{"key": "t", "value": "x"}],
            },
            "inputs": {
                "dataset_inputs": [
                    {"tags": [{"key": "k", "value": "train"}], "dataset": {"name": "d", "digest": "12", "source": "{}"}}
                ],
                "model_inputs": [{"model_id": "m-1"}],
            },
            "outputs": {"model_outputs": [{"model_id": "m-2", "step": 3}, {"model_id": "m-3"}]},
        }
    )
    assert run.inputs is not None
    assert run.outputs is not None
    assert run.inputs.dataset_inputs == [DatasetInput(Dataset("d", "12", "", "{}"), [InputTag("k", "train")])]
    assert run.inputs.model_inputs == [LoggedModelInput("m-1")]
    assert run.outputs.model_outputs == [LoggedModelOutput("m-2", 3), LoggedModelOutput("m-3", 0)]
    assert (run.info.run_id, run.info.experiment_id, run.info.status, run.info.end_time) == ("ab", "7", "FINISHED", 2)
    assert run.info.lifecycle_stage == "deleted"
    assert math.isnan(run.data.metrics["m"])
    assert run.data.metrics["i"] == -math.inf
    assert {key: (point.step, point.timestamp) for key, point in run.data.latest.items()} == {"m": (3, 1), "i": (0, 0)}
    assert run.data.params == {"p": "1", "empty": ""}
    assert run.data.tags == {"t": "x"}


def test_a_run_with_nothing() -> None:
    """proto2's JSON has no empty lists and no unset fields."""
    run = run_of({"info": {"run_uuid": "old", "experiment_id": 0, "status": 4, "start_time": "12"}})
    assert (run.info.run_id, run.info.experiment_id, run.info.status) == ("old", "0", "FAILED")
    assert (run.info.start_time, run.info.end_time, run.info.run_name) == (12, None, None)
    assert (run.data.metrics, run.data.params, run.data.tags) == ({}, {}, {})
    assert run_info_of({"run_id": "a", "status": "SCHEDULED"}).status == "SCHEDULED"


@pytest.mark.parametrize("decode", [run_of, run_info_of, experiment_of])
@pytest.mark.parametrize(
    "answer", [{}, {"run_id": ""}, {"info": {"run_uuid": ""}}, {"experiment_id": ""}, {"run_id": ["a"]}]
)
def test_a_run_and_an_experiment_have_an_id(
    decode: Callable[[Mapping[str, Any]], object], answer: Mapping[str, Any]
) -> None:
    """What has none was not given by a tracking server."""
    with pytest.raises(UnavailableError) as raised:
        decode(answer)
    assert raised.value.ambiguous


def test_an_experiment() -> None:
    """Times may be missing."""
    found = experiment_of(
        {"experiment_id": "3", "name": "e", "tags": [{"key": "a", "value": "b"}], "creation_time": "5"}
    )
    assert (found.experiment_id, found.name, found.tags, found.creation_time) == ("3", "e", {"a": "b"}, 5)
    assert (found.lifecycle_stage, found.last_update_time) == ("active", None)


def test_a_point_without_value_step_or_time_has_zeros() -> None:
    """Zero is what is left out."""
    point = metric_of({"key": "m"})
    assert (point.key, point.value, point.timestamp, point.step) == ("m", 0.0, 0, 0)
    assert metric_of({"key": "m", "value": "Infinity", "timestamp": "7", "step": -3}).value == math.inf


@pytest.mark.parametrize("run_id", [12345, {"a": 1}, ["a"], True, "\ud800"])
def test_what_names_a_run_by_anything_but_text_is_no_mlflow_server(run_id: object) -> None:
    """A number was taken for the id of a run that its events then went to, and an object made `terminate` fail."""
    with pytest.raises(UnavailableError, match="not what MLflow's servers say"):
        run_info_of({"run_id": run_id})

"""Entities from a server's JSON. Pure. The wire leaves empty fields out: what may
be empty is not indexed without a default.

What has another shape than MLflow's servers give it raises `UnavailableError`: something else has answered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from asynctrack.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    FileInfo,
    InputTag,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)
from asynctrack.errors import UnavailableError

__all__ = ["each", "experiment_of", "file_info_of", "metric_of", "run_info_of", "run_of"]

T = TypeVar("T")
Answer = Mapping[str, Any]

#: the numbers that an enum's field may hold on the wire instead of the name
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


def _or_unavailable(decode: Callable[[Answer], T]) -> Callable[[Answer], T]:
    @functools.wraps(decode)
    def decoded(answer: Answer) -> T:
        try:
            return decode(answer)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise _nonsense(repr(error)) from None

    return decoded


def _nonsense(problem: str) -> UnavailableError:
    failure = UnavailableError(f"the server's answer is not what MLflow's servers say ({problem})")
    failure.ambiguous = True
    return failure


def each(answer: Answer, name: str, decode: Callable[[Answer], T]) -> list[T]:
    """What ``decode`` makes of each item of the list ``name``; nothing where there is no such list."""
    items = answer.get(name)
    if items is not None and not isinstance(items, list):
        raise _nonsense(f"{name} is no list")
    try:
        return [decode(item) for item in items or ()]
    except (AttributeError, TypeError) as error:
        raise _nonsense(repr(error)) from None


@_or_unavailable
def experiment_of(answer: Answer) -> Experiment:
    """An experiment."""
    return Experiment(
        experiment_id=_identity(answer.get("experiment_id")),
        name=answer.get("name", ""),
        artifact_location=answer.get("artifact_location", ""),
        lifecycle_stage=answer.get("lifecycle_stage", LifecycleStage.ACTIVE),
        tags=_mapping(answer.get("tags", ())),
        creation_time=_integer(answer.get("creation_time")),
        last_update_time=_integer(answer.get("last_update_time")),
    )


@_or_unavailable
def run_of(answer: Answer) -> Run:
    """A run with its latest metrics, params and tags."""
    data, inputs, outputs = (answer.get(name, {}) for name in ("data", "inputs", "outputs"))
    return Run(
        run_info_of(answer.get("info", {})),
        RunData.of(
            map(metric_of, data.get("metrics", ())),
            _mapping(data.get("params", ())),
            _mapping(data.get("tags", ())),
        ),
        RunInputs(each(inputs, "dataset_inputs", _dataset_input), each(inputs, "model_inputs", _model_input)),
        RunOutputs(each(outputs, "model_outputs", _model_output)),
    )


def _dataset_input(answer: Answer) -> DatasetInput:
    dataset = answer.get("dataset", {})
    return DatasetInput(
        Dataset(
            dataset.get("name", ""),
            dataset.get("digest", ""),
            dataset.get("source_type", ""),
            dataset.get("source", ""),
            dataset.get("schema"),
            dataset.get("profile"),
        ),
        [InputTag(key, value) for key, value in _mapping(answer.get("tags", ())).items()],
    )


def _model_input(answer: Answer) -> LoggedModelInput:
    return LoggedModelInput(answer.get("model_id", ""))


def _model_output(answer: Answer) -> LoggedModelOutput:
    return LoggedModelOutput(answer.get("model_id", ""), _integer(answer.get("step")) or 0)


@_or_unavailable
def run_info_of(answer: Answer) -> RunInfo:
    """What identifies a run."""
    status: Any = answer.get("status", "RUNNING")
    return RunInfo(
        run_id=_run_id(answer.get("run_id") or answer.get("run_uuid")),
        experiment_id=str(answer.get("experiment_id", "")),
        user_id=answer.get("user_id", ""),
        status=_STATUS.get(status, status),
        start_time=_integer(answer.get("start_time")) or 0,
        end_time=_integer(answer.get("end_time")),
        run_name=answer.get("run_name"),
        lifecycle_stage=answer.get("lifecycle_stage", LifecycleStage.ACTIVE),
        artifact_uri=answer.get("artifact_uri"),
    )


@_or_unavailable
def file_info_of(answer: Answer) -> FileInfo:
    """An entry of a listing; its path as the server has it, which may be anything."""
    is_dir = bool(answer.get("is_dir"))
    # An empty file's size is left out of the answer, as every zero is.
    return FileInfo(answer.get("path", ""), is_dir, None if is_dir else int(answer.get("file_size", 0)))


@_or_unavailable
def metric_of(answer: Answer) -> Metric:
    """One point; NaN and ±Infinity come as strings."""
    return Metric(
        key=answer["key"],  # never empty: without one it is no metric
        value=float(answer.get("value", 0.0)),
        timestamp=_integer(answer.get("timestamp")) or 0,
        step=_integer(answer.get("step")) or 0,
    )


def _mapping(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {entry.get("key", ""): entry.get("value", "") for entry in entries}


def _identity(value: Any) -> str:
    """What is never empty. Raises ValueError."""
    if not isinstance(value, (str, int)) or value == "":
        raise ValueError(f"{value!r} for an id")
    return str(value)


def _run_id(value: Any) -> str:
    """Text that is never empty, and can be stored. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} for a run's id")
    value.encode()  # raises for half of a surrogate pair
    return value


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)

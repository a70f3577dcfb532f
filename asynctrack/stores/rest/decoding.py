"""Entities from a server's JSON. Pure. The wire leaves empty fields out: nothing is indexed without a default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asynctrack.entities import Experiment, LifecycleStage, Metric, Run, RunData, RunInfo

__all__ = ["experiment_of", "metric_of", "run_info_of", "run_of"]

#: the numbers that an enum's field may hold on the wire instead of the name
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


def experiment_of(answer: Mapping[str, Any]) -> Experiment:
    """An experiment."""
    return Experiment(
        experiment_id=str(answer.get("experiment_id", "")),
        name=answer.get("name", ""),
        artifact_location=answer.get("artifact_location", ""),
        lifecycle_stage=answer.get("lifecycle_stage", LifecycleStage.ACTIVE),
        tags=_mapping(answer.get("tags", ())),
        creation_time=_integer(answer.get("creation_time")),
        last_update_time=_integer(answer.get("last_update_time")),
    )


def run_of(answer: Mapping[str, Any]) -> Run:
    """A run with its latest metrics, params and tags."""
    data = answer.get("data", {})
    return Run(
        info=run_info_of(answer.get("info", {})),
        data=RunData(
            metrics={metric["key"]: float(metric.get("value", 0.0)) for metric in data.get("metrics", ())},
            params=_mapping(data.get("params", ())),
            tags=_mapping(data.get("tags", ())),
        ),
    )


def run_info_of(answer: Mapping[str, Any]) -> RunInfo:
    """What identifies a run."""
    status = answer.get("status", "RUNNING")
    return RunInfo(
        run_id=answer.get("run_id") or answer.get("run_uuid", ""),
        experiment_id=str(answer.get("experiment_id", "")),
        user_id=answer.get("user_id", ""),
        status=_STATUS.get(status, status),
        start_time=_integer(answer.get("start_time")) or 0,
        end_time=_integer(answer.get("end_time")),
        run_name=answer.get("run_name"),
        lifecycle_stage=answer.get("lifecycle_stage", LifecycleStage.ACTIVE),
        artifact_uri=answer.get("artifact_uri"),
    )


def metric_of(answer: Mapping[str, Any]) -> Metric:
    """One point; NaN and ±Infinity come as strings."""
    return Metric(
        key=answer.get("key", ""),
        value=float(answer.get("value", 0.0)),
        timestamp=_integer(answer.get("timestamp")) or 0,
        step=_integer(answer.get("step")) or 0,
    )


def _mapping(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {entry.get("key", ""): entry.get("value", "") for entry in entries}


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)

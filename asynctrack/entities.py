"""What a tracking store holds, under MLflow's names: immutable values that every store reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asynctrack.constants import LifecycleStage, RunStatus, SourceType, ViewType

__all__ = [
    "Experiment",
    "FileInfo",
    "LifecycleStage",
    "Metric",
    "Param",
    "Run",
    "RunData",
    "RunInfo",
    "RunStatus",
    "RunTag",
    "SourceType",
    "ViewType",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One point: ``timestamp`` in ms since the epoch, ``step`` any 64-bit integer, ``value`` maybe NaN or ±Inf."""

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a run; its value never changes."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunTag:
    """One tag of a run; a later one overwrites."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What identifies a run. ``status`` is a `RunStatus` name; times are ms since the epoch."""

    run_id: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None = None
    run_name: str | None = None
    lifecycle_stage: str = LifecycleStage.ACTIVE
    artifact_uri: str | None = None

    @property
    def run_uuid(self) -> str:
        """The run's id under its name before MLflow 1.0."""
        return self.run_id


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run has logged: each metric's latest value (largest step, then timestamp, then value), params, tags."""

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def to_dictionary(self) -> dict[str, Any]:
        """Metrics, params and tags as plain dictionaries."""
        return {"metrics": dict(self.metrics), "params": dict(self.params), "tags": dict(self.tags)}


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the store holds it."""

    info: RunInfo
    data: RunData

    def to_dictionary(self) -> dict[str, Any]:
        """Info and data as plain dictionaries."""
        info = {name: getattr(self.info, name) for name in RunInfo.__dataclass_fields__}
        return {"info": info, "data": self.data.to_dictionary()}


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs. Times are ms since the epoch; None where the store does not know."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str = LifecycleStage.ACTIVE
    tags: dict[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of an artifact listing; ``file_size`` in bytes, None for a folder."""

    path: str
    is_dir: bool
    file_size: int | None = None

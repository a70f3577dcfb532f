"""What a tracking store holds, under MLflow's names: immutable values that every store reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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


class _Named:
    """An enumeration whose members are MLflow's integers, with the names MLflow's servers send."""

    @classmethod
    def _members(cls) -> dict[str, int]:
        return {name: number for name, number in vars(cls).items() if name.isupper() and isinstance(number, int)}

    @classmethod
    def from_string(cls, name: str) -> int:
        """The number of ``name``; raises ValueError naming the legal names."""
        members = cls._members()
        if name not in members:
            raise ValueError(f"{name!r} is not a {cls.__name__}; it must be one of {', '.join(members)}")
        return members[name]

    @classmethod
    def to_string(cls, number: int) -> str:
        """The name of ``number``; raises ValueError naming the legal names."""
        for name, member in cls._members().items():
            if member == number:
                return name
        raise ValueError(f"{number!r} is not a {cls.__name__}; it must be one of {cls._members()}")


class RunStatus(_Named):
    """Where a run is in its life."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5

    @classmethod
    def is_terminated(cls, status: int) -> bool:
        """Whether a run of this status (a number) has ended."""
        return status in (cls.FINISHED, cls.FAILED, cls.KILLED)


class SourceType(_Named):
    """What kind of program wrote a run."""

    NOTEBOOK = 1
    JOB = 2
    PROJECT = 3
    LOCAL = 4
    UNKNOWN = 5


class ViewType(_Named):
    """Which runs or experiments a search shows."""

    ACTIVE_ONLY = 1
    DELETED_ONLY = 2
    ALL = 3


class LifecycleStage:
    """Whether a run or an experiment has been deleted."""

    ACTIVE = "active"
    DELETED = "deleted"

    @classmethod
    def matches(cls, view_type: int, stage: str) -> bool:
        """Whether a search for ``view_type`` shows an entity of this stage."""
        if view_type == ViewType.ALL:
            return True
        return (stage == cls.DELETED) == (view_type == ViewType.DELETED_ONLY)


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

"""What a tracking store holds, under MLflow's names: immutable values that every store reads and writes.

Each has MLflow's attributes of today, the names of the service of 2018 where they differ (``run_uuid``, ``name``),
and `to_dictionary`. Times are ms since the epoch. ``dict(entity)`` gives (attribute, value) pairs, as MLflow's do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from asynctrack.constants import LifecycleStage, RunStatus, SourceType, ViewType

__all__ = [
    "Experiment",
    "FileInfo",
    "LifecycleStage",
    "Metric",
    "PagedList",
    "Param",
    "Run",
    "RunData",
    "RunInfo",
    "RunStatus",
    "RunTag",
    "SourceType",
    "ViewType",
]

T = TypeVar("T")


class _Entity:
    """What all of them can."""

    __slots__ = ()

    def to_dictionary(self) -> dict[str, Any]:
        """The attributes by name, entities within as dictionaries too: plain values, ready for JSON or YAML."""
        return {name: _plain(value) for name, value in self}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for item in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            if item.compare:
                yield item.name, getattr(self, item.name)


def _plain(value: Any) -> Any:
    if isinstance(value, _Entity):
        return value.to_dictionary()
    return dict(value) if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class Metric(_Entity):
    """One point: ``timestamp`` in ms since the epoch, ``step`` any 64-bit integer, ``value`` maybe NaN or ±Inf."""

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Param(_Entity):
    """One parameter of a run; its value never changes."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunTag(_Entity):
    """One tag of a run; a later one overwrites."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunInfo(_Entity):
    """What identifies a run. ``status`` is a `RunStatus` name; times are ms since the epoch.

    What the service of 2018 kept here as ``source_*`` and ``entry_point_name`` are tags today (`RunData.tags`).
    """

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

    @property
    def name(self) -> str | None:
        """The run's name under its name before MLflow 1.0."""
        return self.run_name


@dataclass(frozen=True, slots=True)
class RunData(_Entity):
    """What a run has logged: each metric's latest value (largest step, then timestamp, then value), params, tags.

    Dictionaries, as in MLflow since 1.0. Who iterates over lists of entities, as before, takes
    ``latest.values()``, and ``[Param(key, value) for key, value in data.params.items()]``.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    #: the points whose values ``metrics`` holds, with step and time; of stores that tell them
    latest: dict[str, Metric] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, points: Iterable[Metric], params: dict[str, str], tags: dict[str, str]) -> RunData:
        """The data of a run whose latest points are ``points``, one a metric."""
        latest = {point.key: point for point in points}
        return cls({key: point.value for key, point in latest.items()}, params, tags, latest)


@dataclass(frozen=True, slots=True)
class Run(_Entity):
    """A run as the store holds it."""

    info: RunInfo
    data: RunData = field(default_factory=RunData)


@dataclass(frozen=True, slots=True)
class Experiment(_Entity):
    """A named group of runs. Times are ms since the epoch; None where the store does not know."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str = LifecycleStage.ACTIVE
    tags: dict[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


@dataclass(frozen=True, slots=True)
class FileInfo(_Entity):
    """One entry of an artifact listing: ``path`` relative to the run's artifacts, ``file_size`` in bytes, None for a
    folder."""

    path: str
    is_dir: bool
    file_size: int | None = None


class PagedList(list[T]):
    """One page of a search; ``token`` asks for the next one, None at the end."""

    def __init__(self, items: Iterable[T] = (), token: str | None = None) -> None:
        super().__init__(items)
        self.token = token

    def to_list(self) -> list[T]:
        """The page as a plain list."""
        return list(self)

"""The entities that a tracking store holds, under MLflow's names and with MLflow's constructors. All are immutable.

Each has the attributes of MLflow's entity, also those of MLflow before 1.0 (``run_uuid``, ``name``), `to_dictionary`
and `from_dictionary`. Times are ms since the epoch. Iterating gives (attribute, value) pairs, so ``dict(entity)`` works
as in MLflow.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asynctrack.constants import LifecycleStage, RunStatus, SourceType, ViewType
from asynctrack.errors import InvalidInputError
from asynctrack.frozen import Frozen, each, frozen
from asynctrack.markup import run_markup, runs_markup

__all__ = [
    "Dataset",
    "DatasetInput",
    "Experiment",
    "ExperimentTag",
    "FileInfo",
    "InputTag",
    "LifecycleStage",
    "LoggedModelInput",
    "LoggedModelOutput",
    "Metric",
    "PagedList",
    "Param",
    "Run",
    "RunData",
    "RunInfo",
    "RunInputs",
    "RunOutputs",
    "RunStatus",
    "RunTag",
    "SourceType",
    "ViewType",
]

T = TypeVar("T")


class _Entity(Frozen):
    """The methods of all entities."""

    __slots__ = ()

    @classmethod
    def from_dictionary(cls, the_dict: Mapping[str, Any]) -> Self:
        """The entity that `to_dictionary` has made this of. Names that it does not have are left out."""
        known = cls.__match_args__
        return cls(**{name: value for name, value in the_dict.items() if name in known})

    def to_dictionary(self) -> dict[str, Any]:
        """The attributes by name, ready for JSON or YAML: nested entities are dictionaries too."""
        return {name: _plain(value) for name, value in self}


def _plain(value: Any) -> Any:
    if isinstance(value, _Entity):
        return value.to_dictionary()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


@frozen
class Metric(_Entity):
    """One point of a metric. ``timestamp``: ms since the epoch. ``step``: a
    signed 64-bit integer. ``value`` may be NaN or ±Inf.

    ``model_id``, ``dataset_name`` and ``dataset_digest`` say what the point
    was measured on, ``run_id`` the run; None if the store does not tell.
    Raises InvalidInputError for a dataset's name without its digest.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None

    def __post_init__(self) -> None:
        if (self.dataset_name is None) != (self.dataset_digest is None):
            raise InvalidInputError(
                f"metric {self.key!r}: dataset_name={self.dataset_name!r} and dataset_digest={self.dataset_digest!r} "
                "go together; give both, or neither"
            )


@frozen
class Param(_Entity):
    """One param of a run. Its value never changes."""

    key: str
    value: str


@frozen
class RunTag(_Entity):
    """One tag of a run. A later value overwrites it."""

    key: str
    value: str


@frozen
class ExperimentTag(_Entity):
    """One tag of an experiment. A later value overwrites it."""

    key: str
    value: str


@frozen
class InputTag(_Entity):
    """One tag of a dataset that a run has used, like its context ("train")."""

    key: str
    value: str


@frozen
class Dataset(_Entity):
    """A dataset that MLflow has logged: ``source`` and ``source_type`` say
    where it is from, ``digest`` what is in it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@frozen
class DatasetInput(_Entity):
    """A dataset, and what a run used it for."""

    dataset: Dataset
    tags: list[InputTag] = each(default_factory=list)

    def to_dictionary(self) -> dict[str, Any]:
        """The dataset's dictionary, and the tags by key, ready for JSON or YAML."""
        return {"dataset": self.dataset.to_dictionary(), "tags": {tag.key: tag.value for tag in self.tags}}


@frozen
class LoggedModelInput(_Entity):
    """A model that a run has used."""

    model_id: str


@frozen
class LoggedModelOutput(_Entity):
    """A model that a run has logged, at ``step``."""

    model_id: str
    step: int


@frozen
class RunInputs(_Entity):
    """The datasets and models that a run has used."""

    dataset_inputs: list[DatasetInput] = each(default_factory=list)
    model_inputs: list[LoggedModelInput] = each(default_factory=list)


@frozen
class RunOutputs(_Entity):
    """The models that a run has logged."""

    model_outputs: list[LoggedModelOutput] = each(default_factory=list)


@frozen
class RunInfo(_Entity):
    """A run without its data. ``status`` is a `RunStatus` name; times are ms
    since the epoch.

    ``source_*`` and ``entry_point_name``, which MLflow before 1.0 kept here,
    are tags (`RunData.tags`).
    """

    run_id: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None = None
    lifecycle_stage: str = LifecycleStage.ACTIVE
    artifact_uri: str | None = None
    run_name: str | None = None

    @property
    def run_uuid(self) -> str:
        """``run_id``, as MLflow before 1.0 called it."""
        return self.run_id

    @property
    def name(self) -> str | None:
        """``run_name``, as MLflow before 1.0 called it."""
        return self.run_name


@frozen
class RunData(_Entity):
    """What a run has logged: the latest value of each metric, the params and
    the tags, as dictionaries. Made of dictionaries, or, as in MLflow, of lists
    of `Metric`, `Param` and `RunTag`.

    The latest value is that of the largest step; among equal steps, of the
    largest timestamp, then the largest value. MLflow before 1.0 had lists of
    entities: ``latest.values()`` and ``[Param(key, value) for key, value in
    data.params.items()]`` give them.
    """

    metrics: dict[str, float] = each(default_factory=dict)
    params: dict[str, str] = each(default_factory=dict)
    tags: dict[str, str] = each(default_factory=dict)
    #: the points whose values are in ``metrics``; empty if the store does not tell their steps and timestamps
    latest: dict[str, Metric] = each(default_factory=dict, compare=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            metrics: Mapping[str, float] | Iterable[Metric] | None = None,
            params: Mapping[str, str] | Iterable[Param] | None = None,
            tags: Mapping[str, str] | Iterable[RunTag] | None = None,
            latest: dict[str, Metric] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        points: Any = self.metrics
        if points is not None and not isinstance(points, Mapping):
            points = list(points)
        for name in ("metrics", "params", "tags"):
            object.__setattr__(self, name, _by_key(name, points if name == "metrics" else getattr(self, name)))
        if isinstance(points, list):
            object.__setattr__(self, "latest", {point.key: point for point in points})

    @classmethod
    def of(cls, points: Iterable[Metric], params: dict[str, str], tags: dict[str, str]) -> RunData:
        """The data of a run. ``points``: the latest point of each metric."""
        latest = {point.key: point for point in points}
        return cls({key: point.value for key, point in latest.items()}, params, tags, latest)


def _by_key(name: str, entries: Any) -> dict[str, Any]:
    """A dictionary, from one or from a list of entities with ``key`` and ``value``."""
    if entries is None:
        return {}
    if isinstance(entries, dict):
        return entries
    if isinstance(entries, Mapping):
        return dict(entries)
    try:
        return {entry.key: entry.value for entry in entries}
    except (AttributeError, TypeError):
        raise InvalidInputError(f"{name}: expected a dictionary, or a list of entities with key and value") from None


class _RunLike(ABCMeta):
    """An open run, `asynctrack.ActiveRun`, is a `Run` too; its class cannot be a subclass, because importing this
    module is too dear for `import asynctrack`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or cls.__subclasscheck__(type(instance))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return super().__subclasscheck__(subclass) or getattr(subclass, "stands_for", None) == cls.__name__


@frozen
class Run(_Entity, metaclass=_RunLike):
    """A run as the store holds it. Made as in MLflow, of ``run_info``,
    ``run_data``, ``run_inputs`` and ``run_outputs``.

    ``inputs`` and ``outputs`` are None if the store was not asked for them.
    """

    info: RunInfo
    data: RunData
    inputs: RunInputs | None
    outputs: RunOutputs | None

    def __init__(
        self,
        run_info: RunInfo | None,
        run_data: RunData | None = None,
        run_inputs: RunInputs | None = None,
        run_outputs: RunOutputs | None = None,
    ) -> None:
        """Raises InvalidInputError without a ``run_info``."""
        if run_info is None:
            raise InvalidInputError("run_info cannot be None")
        values = (run_info, RunData() if run_data is None else run_data, run_inputs, run_outputs)
        for name, value in zip(("info", "data", "inputs", "outputs"), values, strict=True):
            object.__setattr__(self, name, value)

    def to_dictionary(self) -> dict[str, Any]:
        """Info and data, and inputs and outputs if there are any, ready for JSON or YAML."""
        return {name: _plain(value) for name, value in self if value is not None}

    @classmethod
    def from_dictionary(cls, the_dict: Mapping[str, Any]) -> Self:
        """The run that `to_dictionary` has made this of, without inputs and outputs, as in MLflow."""
        return cls(RunInfo.from_dictionary(the_dict["info"]), RunData.from_dictionary(the_dict["data"]))

    def _repr_html_(self) -> str:
        return run_markup(self)


@frozen
class Experiment(_Entity):
    """A named group of runs. Times are ms since the epoch, None if the store
    does not know them. ``tags``: a dictionary, or a list of `ExperimentTag`."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str = LifecycleStage.ACTIVE
    tags: dict[str, str] = each(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", _by_key("tags", self.tags))


@frozen
class FileInfo(_Entity):
    """One file or folder in a list of artifacts. ``path`` is relative to the
    run's artifact root. ``file_size`` is in bytes, None for a folder."""

    path: str
    is_dir: bool
    file_size: int | None = None


class PagedList(list[T]):
    """One page of a search. ``token`` is the ``page_token`` of the next page,
    None on the last page."""

    def __init__(self, items: Iterable[T] = (), token: str | None = None) -> None:
        super().__init__(items)
        self.token = token

    def to_list(self) -> list[T]:
        """The page as a plain list."""
        return list(self)

    def _repr_html_(self) -> str | None:
        """A table of runs, in notebooks; nothing of its own for a page of anything else."""
        runs = [each for each in self if isinstance(each, Run)]
        return runs_markup(runs) if runs else None

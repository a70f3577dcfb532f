"""Our version; and MLflow's enumerations, as plain integers and names: MLflow's servers and files use both."""

from __future__ import annotations

from typing import ClassVar

from asynctrack.values import shortened

__all__ = [
    "LONGEST_VALUE",
    "MEMBER_TAG",
    "PARAM_CHANGED",
    "PARENT_RUN_TAG",
    "UID_TAG",
    "UID_TAGS",
    "VERSION",
    "LifecycleStage",
    "RunStatus",
    "SourceType",
    "ViewType",
]

#: of asynctrack; `pyproject.toml` reads it here. Where the package is in a zip file, frozen, or a bare folder of
#: sources, there is no metadata to ask
VERSION = "0.1.0"

#: the tag that holds the id of a nested run's parent
PARENT_RUN_TAG = "mlflow.parentRunId"
#: holds a run's `RunSpec.uid` on a server that gives it an id of its own; MLflow's UI hides tags of this prefix
UID_TAG = "mlflow.asynctrack.uid"
#: where the uid of a run may be found: asynctrack 0.1 used the second, and a spool may be of that version
UID_TAGS = (UID_TAG, "asynctrack.uid")
#: with a member's name behind it: how a process stands that shares the run with others (`asynctrack.delivery.members`)
MEMBER_TAG = "mlflow.asynctrack.rank."
#: before a param's key: a tag that says how it has changed since a run was taken up again
PARAM_CHANGED = "param_changed."
#: most characters of a param's and a tag's value; MLflow cuts the rest off
LONGEST_VALUE = {"param": 6000, "tag": 8000}


class _Named:
    """An enumeration. Its members are MLflow's integers; their names are those that MLflow's servers send."""

    _numbers: ClassVar[dict[str, int]]
    _names: ClassVar[dict[int, str]]

    def __init_subclass__(cls) -> None:
        cls._numbers = {name: number for name, number in vars(cls).items() if name.isupper()}
        cls._names = {number: name for name, number in cls._numbers.items()}

    @classmethod
    def from_string(cls, name: str) -> int:
        """The number of ``name``. Raises ValueError, with the legal names."""
        if not isinstance(name, str) or name not in cls._numbers:
            raise ValueError(f"{shortened(name)} is not a {cls.__name__}; it must be one of {', '.join(cls._numbers)}")
        return cls._numbers[name]

    @classmethod
    def to_string(cls, number: int) -> str:
        """The name of ``number``. Raises ValueError, with the legal numbers."""
        if type(number) is not int or number not in cls._names:
            legal = ", ".join(f"{number} ({name})" for number, name in cls._names.items())
            raise ValueError(f"{shortened(number)} is not a {cls.__name__}; it must be one of {legal}")
        return cls._names[number]

    @classmethod
    def name_of(cls, value: str | int) -> str:
        """The name of a member, given by name or, as in MLflow before 1.0, by number. Raises ValueError."""
        return cls.to_string(cls.from_string(value) if isinstance(value, str) else value)


class RunStatus(_Named):
    """The status of a run."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5

    @classmethod
    def is_terminated(cls, status: str | int) -> bool:
        """Whether a run of this status (a name or a number) has ended. Raises
        ValueError."""
        return cls.name_of(status) in ("FINISHED", "FAILED", "KILLED")

    @classmethod
    def all_status(cls) -> list[int]:
        """The numbers of all statuses."""
        return list(cls._names)


class SourceType(_Named):
    """The kind of program that wrote a run. A run has its name in the tag
    ``mlflow.source.type``."""

    NOTEBOOK = 1
    JOB = 2
    PROJECT = 3
    LOCAL = 4
    UNKNOWN = 5


class ViewType(_Named):
    """Which runs or experiments a search finds."""

    ACTIVE_ONLY = 1
    DELETED_ONLY = 2
    ALL = 3

    @classmethod
    def from_string(cls, name: str) -> int:
        """The number of ``"active_only"``, ``"deleted_only"`` or ``"all"``, in
        any case. Raises ValueError."""
        return super().from_string(name.upper() if isinstance(name, str) else name)

    @classmethod
    def to_string(cls, number: int) -> str:
        """The name, in lower case as in MLflow. Raises ValueError."""
        return super().to_string(number).lower()


class LifecycleStage:
    """Whether a run or an experiment has been deleted."""

    ACTIVE = "active"
    DELETED = "deleted"

    @classmethod
    def is_valid(cls, lifecycle_stage: object) -> bool:
        """Whether there is such a stage."""
        return lifecycle_stage in (cls.ACTIVE, cls.DELETED)

    @classmethod
    def view_type_to_stages(cls, view_type: int = ViewType.ALL) -> list[str]:
        """The stages that a search with ``view_type`` finds."""
        return [stage for stage in (cls.ACTIVE, cls.DELETED) if cls.matches_view_type(view_type, stage)]

    @classmethod
    def matches_view_type(cls, view_type: int, lifecycle_stage: str) -> bool:
        """Whether a search with ``view_type`` finds an entity of this stage."""
        if view_type == ViewType.ALL:
            return True
        return (lifecycle_stage == cls.DELETED) == (view_type == ViewType.DELETED_ONLY)

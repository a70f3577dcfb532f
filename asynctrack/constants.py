"""MLflow's enumerations: plain integers and names, as its servers and files hold them."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["PARENT_RUN_TAG", "LifecycleStage", "RunStatus", "SourceType", "ViewType"]

#: the tag by which MLflow knows the run that a run is nested in
PARENT_RUN_TAG = "mlflow.parentRunId"


class _Named:
    """An enumeration whose members are MLflow's integers, with the names MLflow's servers send."""

    _numbers: ClassVar[dict[str, int]]
    _names: ClassVar[dict[int, str]]

    def __init_subclass__(cls) -> None:
        cls._numbers = {name: number for name, number in vars(cls).items() if name.isupper()}
        cls._names = {number: name for name, number in cls._numbers.items()}

    @classmethod
    def from_string(cls, name: str) -> int:
        """The number of ``name``; raises ValueError naming the legal names."""
        if not isinstance(name, str) or name not in cls._numbers:
            raise ValueError(f"{name!r} is not a {cls.__name__}; it must be one of {', '.join(cls._numbers)}")
        return cls._numbers[name]

    @classmethod
    def to_string(cls, number: int) -> str:
        """The name of ``number``; raises ValueError naming the legal numbers."""
        if type(number) is not int or number not in cls._names:
            legal = ", ".join(f"{number} ({name})" for number, name in cls._names.items())
            raise ValueError(f"{number!r} is not a {cls.__name__}; it must be one of {legal}")
        return cls._names[number]

    @classmethod
    def name_of(cls, value: str | int) -> str:
        """The name of what is given by its name or, as before MLflow 1.0, its number. Raises ValueError."""
        return cls.to_string(cls.from_string(value) if isinstance(value, str) else value)


class RunStatus(_Named):
    """Where a run is in its life."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5

    @classmethod
    def is_terminated(cls, status: str | int) -> bool:
        """Whether a run of this status (a name, as `RunInfo.status` is, or a number) has ended."""
        return cls.name_of(status) in ("FINISHED", "FAILED", "KILLED")

    @classmethod
    def all_status(cls) -> list[int]:
        """Every status."""
        return list(cls._names)


class SourceType(_Named):
    """What kind of program wrote a run; in a run it is the tag ``mlflow.source.type``, which holds the name."""

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

"""MLflow's enumerations: plain integers and names, as its servers and files hold them."""

from __future__ import annotations

__all__ = ["LifecycleStage", "RunStatus", "SourceType", "ViewType"]


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

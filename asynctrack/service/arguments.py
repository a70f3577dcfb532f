"""What a verb's arguments become. Pure; every refusal is an InvalidInputError that says what is wrong and allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.constants import RunStatus, SourceType, ViewType
from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened, to_float, to_step, to_text, to_timestamp

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, RunTag

__all__ = [
    "checked_name",
    "experiment_id_of",
    "experiment_ids_of",
    "integer_id",
    "location_of",
    "moment_of",
    "not_yet",
    "once",
    "points_of",
    "refuse_run_id",
    "run_id_of",
    "source_tags",
    "status_of",
    "tags_of",
    "terminal_status",
    "view_of",
]

#: what every store's ids are made of; whatever else it is, it could lead somewhere
_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MAX_MOMENT = (1 << 63) - 1


def _id(kind: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInputError(f"{kind} {shortened(value)} is {type(value).__name__}; it must be a string or an int")
    text = str(value)
    if not _ID.fullmatch(text):
        raise InvalidInputError(f"{kind} {shortened(text)} is none: ids are letters, digits, '_' and '-'")
    return text


def run_id_of(value: object) -> str:
    """A run's id, given as a string or an integer."""
    return _id("run id", value)


def experiment_id_of(value: object) -> str:
    """An experiment's id, given as a string or, as before MLflow 1.0, an integer."""
    return _id("experiment id", value)


def experiment_ids_of(values: Sequence[str | int] | str | int) -> list[str]:
    """The ids to search in; one alone stands for itself."""
    if isinstance(values, str | int):
        return [experiment_id_of(values)]
    return [experiment_id_of(value) for value in values]


def integer_id(experiment_id: str, name: str) -> int:
    """An experiment's id as the service of 2018 gives it."""
    try:
        return int(experiment_id)
    except ValueError:
        raise InvalidInputError(
            f"experiment {shortened(name)} was created, but its id {experiment_id!r} is not an integer; "
            "MlflowClient.create_experiment gives ids of any kind, and get_experiment_by_name finds this one"
        ) from None


def checked_name(name: object) -> str:
    """An experiment's name."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError(
            f"an experiment's name cannot be {shortened(name)}; it must be a string with at least one visible character"
        )
    return name


def location_of(location: str | os.PathLike[str] | None) -> str | None:
    """An artifact location: a URI as it is, a relative path from here, wherever it will be read."""
    if location is None:
        return None
    text = os.fspath(location)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInputError(f"artifact location {shortened(location)} is neither a path nor a URI")
    return text if re.match(r"[a-zA-Z][a-zA-Z0-9+.\-]+:", text) else os.path.abspath(os.path.expanduser(text))


def moment_of(name: str, value: object, default: int) -> int:
    """A time in ms since the epoch."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_MOMENT:
        raise InvalidInputError(
            f"{name}={shortened(value)} is not an integer of milliseconds since the epoch; time.time_ns() // 1_000_000 "
            "is now"
        )
    return value


def status_of(status: str | int) -> str:
    """The name of a run's status, given by name or number."""
    try:
        return RunStatus.name_of(status)
    except ValueError as error:
        raise InvalidInputError(f"status {error}") from None


def terminal_status(status: str | int | None) -> str:
    """The name of a status that a run can end with, FINISHED when none is given."""
    name = "FINISHED" if status is None else status_of(status)
    if not RunStatus.is_terminated(name):
        raise InvalidInputError(f"status {name!r} does not end a run; use FINISHED, FAILED or KILLED")
    return name


def view_of(view_type: object) -> int:
    """Which runs or experiments to show: a `ViewType`."""
    try:
        return ViewType.from_string(ViewType.to_string(view_type))  # type: ignore[arg-type]  # the check itself
    except ValueError as error:
        raise InvalidInputError(f"view type {error}") from None


def tags_of(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags as texts."""
    if not isinstance(tags, Mapping | None):
        raise InvalidInputError(f"tags are a dictionary of names and values, not {shortened(tags)}")
    return {key: to_text("tag", key, value) for key, value in (tags or {}).items()}


def source_tags(
    source_type: str | int | None, source_name: str | None, entry_point_name: str | None, source_version: str | None
) -> dict[str, str]:
    """What the service of 2018 kept in fields of their own, under the names MLflow gives it today."""
    if source_type is not None:
        try:
            source_type = SourceType.name_of(source_type)
        except ValueError as error:
            raise InvalidInputError(f"source_type {error}") from None
    given = {
        "mlflow.source.type": source_type,
        "mlflow.source.name": source_name,
        "mlflow.project.entryPoint": entry_point_name,
        "mlflow.source.git.commit": source_version,
    }
    return {key: str(value) for key, value in given.items() if value is not None}


def once(kind: str, items: Iterable[Param] | Iterable[RunTag], *, last_wins: bool = False) -> dict[str, str]:
    """Entities as a dictionary. Raises for two params of one key with different values, of which one would be lost."""
    found: dict[str, str] = {}
    for item in items:
        try:
            key, text = item.key, to_text(kind, item.key, item.value)
        except AttributeError:
            raise InvalidInputError(f"{shortened(item)} is not a {kind}; see asynctrack.entities") from None
        if not last_wins and found.setdefault(key, text) != text:
            raise InvalidInputError(f"{kind} {shortened(key)} stands for {shortened(found[key])} and {shortened(text)}")
        found[key] = text
    return found


def points_of(metrics: Iterable[Metric]) -> list[tuple[str, float, int, int]]:
    """Key, value, step and timestamp (ms) of each metric, checked."""
    found = []
    for item in metrics:
        try:
            key, value, step, timestamp = item.key, item.value, item.step, item.timestamp
        except AttributeError:
            raise InvalidInputError(f"{shortened(item)} is not a metric; see asynctrack.entities") from None
        found.append((key, to_float(key, value), to_step(key, step), to_timestamp(key, timestamp)))
    return found


def refuse_run_id(artifact_uri: str) -> str:
    """``artifact_uri``, unless it is what later versions of this verb take."""
    if not isinstance(artifact_uri, str) or not artifact_uri:
        raise InvalidInputError(f"artifact_uri={shortened(artifact_uri)} is not a URI or a path")
    if _RUN_ID.fullmatch(artifact_uri):
        raise InvalidInputError(
            f"artifact_uri={artifact_uri!r} is a run's id; this verb takes the run's artifact URI, "
            "get_run(run_id).info.artifact_uri, and the one of MlflowClient takes the id"
        )
    return artifact_uri


def not_yet(**arguments: Any) -> None:
    """Raise for arguments of MLflow's that mean something we do not do."""
    for name, value in arguments.items():
        if value is not None:
            raise InvalidInputError(f"{name}= is not available in this version of asynctrack; leave it out")

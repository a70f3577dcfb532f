"""Checks and converts the arguments of public calls, before any state changes.

All public functions use these, so that a rule stands in one place. Pure functions. A bad argument raises
InvalidInputError, which names the argument and says what is allowed. The results are plain built-in types (str, int,
None), because nothing else may get into a journal.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asynctrack.constants import LONGEST_VALUE, RunStatus, SourceType, ViewType
from asynctrack.errors import InvalidInputError
from asynctrack.platforms import absolute, check_file_name, check_folder_name
from asynctrack.settings import switch
from asynctrack.values import as_text, shortened, shown, to_float, to_step, to_text, to_timestamp

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, RunTag

T = TypeVar("T")

__all__ = [
    "checked_name",
    "experiment_id_of",
    "experiment_ids_of",
    "flag_of",
    "given",
    "integer_id",
    "location_of",
    "moment_of",
    "most_of",
    "not_yet",
    "once",
    "optional_text",
    "path_of",
    "plain_text",
    "points_of",
    "refuse_contradiction",
    "refuse_long_value",
    "refuse_run_id",
    "run_id_of",
    "search_of",
    "several",
    "source_tags",
    "status_of",
    "step_of",
    "tags_of",
    "terminal_status",
    "text_of",
    "timeout_of",
    "view_of",
]

#: the ids of every store; other characters, like "/" and "..", could lead to another folder or URL
_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MAX_MOMENT = (1 << 63) - 1


def _id(kind: str, value: object) -> str:
    text = as_text(value)
    if isinstance(value, bool) or (text is None and not isinstance(value, int)):
        raise InvalidInputError(f"{kind} {shortened(value)} is {type(value).__name__}; it must be a string or an int")
    text = plain_text(text) if text is not None else shown(int(value))  # type: ignore[call-overload]  # it is an int
    if not _ID.fullmatch(text):
        raise InvalidInputError(f"{kind} {shortened(text)} is not an id: ids are letters, digits, '_' and '-'")
    return text


def run_id_of(value: object) -> str:
    """A run's id, from a string or an integer."""
    return _id("run id", value)


def experiment_id_of(value: object) -> str:
    """An experiment's id, from a string or, as in MLflow before 1.0, an integer of 64 bits: to a larger one a server
    answers as if it were out of order, and it would be asked for ever."""
    found = _id("experiment id", value)
    if found.isdecimal() and int(found) >= 1 << 63:
        raise InvalidInputError(f"experiment id {shortened(found)} does not fit 64 bits; no experiment has it")
    return found


def experiment_ids_of(values: Sequence[str | int] | str | int) -> list[str]:
    """The ids of the experiments to search, from a list or a single id."""
    return [experiment_id_of(value) for value in several("experiment_ids", values)]


def several(name: str, values: object) -> list[Any]:
    """The items of a list. A single string, path or integer is a list of one."""
    if isinstance(values, str | int | os.PathLike):
        return [values]
    items = _iterator(values)
    if items is None:
        raise InvalidInputError(f"{name}={shortened(values)} is neither a text nor a list of them")
    return list(items)


def _iterator(values: object) -> Iterator[Any] | None:
    """Over the items of a list, a generator, …; None for what is none. What a generator itself raises goes on."""
    try:
        return iter(values) if isinstance(values, Iterable) else None
    except Exception:  # whatever its __iter__ raises
        return None


def given(value: T) -> T | None:
    """An argument; None for an empty string. It is not asked whether it is true, which for an array raises."""
    return None if isinstance(value, str) and value == "" else value


def path_of(name: str, value: object) -> str:
    """A path of this machine, from the argument called ``name``."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]  # the check itself
    except Exception:  # whatever its __fspath__ raises
        text = None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidInputError(f"{name}={shortened(value)} is not a path")
    check_file_name(name, text)
    return text


def plain_text(text: str) -> str:
    """The same with "?" for what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def text_of(name: str, value: object) -> str:
    """A plain string, from the argument called ``name``."""
    text = as_text(value)
    if text is None:
        raise InvalidInputError(f"{name}={shortened(value)} is {type(value).__name__}; it must be a string")
    return plain_text(text)


def optional_text(name: str, value: object) -> str | None:
    """`text_of`, but None for None and for an empty string."""
    return None if value is None else text_of(name, value) or None


def integer_id(experiment_id: str, name: str) -> int:
    """An experiment's id as an integer, which `MLflowService.create_experiment` returns."""
    try:
        return int(experiment_id)
    except ValueError:
        raise InvalidInputError(
            f"experiment {shortened(name)} was created, but its id {experiment_id!r} is not an integer; "
            "MlflowClient.create_experiment gives ids of any kind, and get_experiment_by_name finds this one"
        ) from None


def checked_name(name: object) -> str:
    """An experiment's name: a string with a visible character."""
    text = as_text(name)
    if text is None or not text.strip() or "\0" in text:
        raise InvalidInputError(
            f"an experiment's name cannot be {shortened(name)}; it must be a string with at least one visible "
            "character, and without NUL"
        )
    return plain_text(text)


def location_of(location: str | os.PathLike[str] | None) -> str | None:
    """An artifact location. A URI stays as it is; a path becomes absolute, because other processes read it."""
    if location is None:
        return None
    try:
        text = os.fspath(location)
    except Exception:  # whatever its __fspath__ raises
        text = ""
    if not isinstance(text, str) or not text.strip() or "\0" in text or plain_text(text) != text:
        raise InvalidInputError(f"artifact location {shortened(location)} is neither a path nor a URI")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.\-]+:", text):
        return text
    check_folder_name("artifact location", text)
    return absolute("artifact location", text)


def moment_of(name: str, value: object, default: int) -> int:
    """A time in ms since the epoch, from any integer (NumPy's too), or ``default`` for None."""
    if value is None:
        return default
    try:
        moment = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # the check itself
    except Exception:  # whatever its __index__ raises
        moment = -1
    if not 0 <= moment <= _MAX_MOMENT:
        raise InvalidInputError(
            f"{name}={shortened(value)} is not an integer of milliseconds since the epoch; time.time_ns() // 1_000_000 "
            "is now"
        )
    return int(moment)


def step_of(name: str, value: object) -> int:
    """A step, a signed 64-bit integer."""
    try:
        return to_step(name, value)
    except InvalidInputError:
        raise InvalidInputError(f"{name}={shortened(value)}: a step is a whole number of 64 bits") from None


def status_of(status: str | int) -> str:
    """The name of a run's status, from its name or number."""
    try:
        return RunStatus.name_of(status)
    except ValueError as error:
        raise InvalidInputError(f"status {error}") from None


def terminal_status(status: str | int | None) -> str:
    """The name of a status that ends a run, FINISHED for None."""
    name = "FINISHED" if status is None else status_of(status)
    if not RunStatus.is_terminated(name):
        raise InvalidInputError(f"status {name!r} does not end a run; use FINISHED, FAILED or KILLED")
    return name


def view_of(view_type: object) -> int:
    """A `ViewType`."""
    try:
        return ViewType.from_string(ViewType.to_string(view_type))  # type: ignore[arg-type]  # the check itself
    except ValueError as error:
        raise InvalidInputError(f"view type {error}") from None


def tags_of(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags with string values."""
    if not isinstance(tags, Mapping | None):
        raise InvalidInputError(f"tags are a dictionary of names and values, not {shortened(tags)}")
    return {_tag_key(key): to_text("tag", key, value) for key, value in (tags or {}).items()}


def refuse_contradiction(name: str, value: str | None, tag: str, tags: Mapping[str, str]) -> None:
    """Raise if an argument that is stored as a tag is also given as that tag, with another value."""
    if value and tags.get(tag, value) != value:
        raise InvalidInputError(
            f"{name}={shortened(value)} and the tag {tag}={shortened(tags[tag])} are the same thing; give one of them"
        )


def refuse_long_value(kind: str, key: str, text: str) -> None:
    """Raise for a param's or tag's value that MLflow would cut, with ``MLFLOW_TRUNCATE_LONG_VALUES=false``."""
    if len(text) > LONGEST_VALUE[kind] and not switch("MLFLOW_TRUNCATE_LONG_VALUES", default=True):
        raise InvalidInputError(
            f"{kind} {shortened(key)} has {len(text)} characters, and {LONGEST_VALUE[kind]} are stored at most. Log an "
            "artifact instead, or have it cut: unset MLFLOW_TRUNCATE_LONG_VALUES"
        )


def _tag_key(key: object) -> str:
    text = as_text(key)
    if text is None:
        raise InvalidInputError(f"tag key {shortened(key)} is {type(key).__name__}; it must be a string")
    return plain_text(text)


def source_tags(
    source_type: str | int | None, source_name: str | None, entry_point_name: str | None, source_version: str | None
) -> dict[str, str]:
    """The tags that MLflow uses for arguments that were fields of a run before MLflow 1.0."""
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
    return {key: to_text("tag", key, value) for key, value in given.items() if value is not None}


def once(kind: str, items: Iterable[Param] | Iterable[RunTag], *, last_wins: bool = False) -> dict[str, str]:
    """Params or tags as a dictionary. A key that is there twice raises, unless ``last_wins``, as in MLflow."""
    found: dict[str, str] = {}
    for item in _entities(kind, items):
        key, value = _fields(kind, item, "key", "value")
        text = to_text(kind, key, value)
        if not last_wins and key in found:
            raise InvalidInputError(
                f"{kind} {shortened(key)} is given twice, as {shortened(found[key])} and {shortened(text)}"
            )
        found[key] = text
    return found


def _entities(kind: str, items: object) -> Iterable[Any]:
    found = iter(()) if items is None else _iterator(items)
    if found is None:
        raise InvalidInputError(f"{kind}s={shortened(items)} is not a list of {kind}s; see asynctrack.entities")
    return found


def _fields(kind: str, item: object, *names: str) -> list[Any]:
    """Of a metric, param or tag, whose key can be looked up: whether it is one that is allowed is asked later."""
    try:
        found = [getattr(item, name) for name in names]
        hash(found[0])
    except Exception:  # whatever a __getattr__ or a __hash__ raises
        raise InvalidInputError(f"{shortened(item)} is not a {kind}; see asynctrack.entities") from None
    return found


def points_of(metrics: Iterable[Metric]) -> list[tuple[str, float, int, int]]:
    """Key, value, step and timestamp (ms) of each metric."""
    found = []
    for item in _entities("metric", metrics):
        key, value, step, timestamp = _fields("metric", item, "key", "value", "step", "timestamp")
        found.append((key, to_float(key, value), to_step(key, step), to_timestamp(key, timestamp)))
    return found


def refuse_run_id(artifact_uri: str) -> str:
    """The artifact URI. A run id raises: `MlflowClient` takes one at this place, `MLflowService` does not."""
    text = as_text(artifact_uri)
    if not text or plain_text(text) != text:
        raise InvalidInputError(f"artifact_uri={shortened(artifact_uri)} is not a URI or a path")
    if _RUN_ID.fullmatch(text):
        raise InvalidInputError(
            f"artifact_uri={artifact_uri!r} is a run's id; this verb takes the run's artifact URI, "
            "get_run(run_id).info.artifact_uri, and the one of MlflowClient takes the id"
        )
    return text


class Search(NamedTuple):
    """The arguments of a search. ``page_token`` is the token of the page to get, None for the first."""

    view: int
    max_results: int
    filter_string: str
    order_by: tuple[str, ...]
    page_token: str | None


def search_of(
    view_type: object, max_results: object, filter_string: object, order_by: object, page_token: object = None
) -> Search:
    """The arguments of a search for runs or experiments."""
    try:
        most = -1 if isinstance(max_results, bool) else operator.index(max_results)  # type: ignore[arg-type]  # the check itself
    except Exception:  # whatever its __index__ raises
        most = -1
    if not 1 <= most <= _MAX_MOMENT:
        raise InvalidInputError(f"max_results={shortened(max_results)}: it must be an integer of 64 bits, at least 1")
    columns = [] if order_by is None else several("order_by", order_by)
    return Search(
        view_of(view_type),
        most,
        optional_text("filter_string", filter_string) or "",
        tuple(text_of("order_by", column) for column in columns),
        optional_text("page_token", page_token),
    )


def most_of(max_results: object) -> int | None:
    """How many results a search over all pages returns, None for all; as in MLflow, 0 and less mean none."""
    if max_results is None:
        return None
    try:
        return max(0, operator.index(max_results))  # type: ignore[arg-type]  # the check itself
    except Exception:  # whatever its __index__ raises
        raise InvalidInputError(f"max_results={shortened(max_results)}: it must be an integer, or None") from None


def flag_of(name: str, value: object) -> bool:
    """Whether an argument that may be anything is true. Asked before anything is logged: of an array it raises."""
    try:
        return bool(value)
    except Exception:  # whatever its __bool__ raises
        raise InvalidInputError(f"{name}={shortened(value)} is neither true nor false") from None


def timeout_of(timeout: object) -> float | None:
    """A timeout in seconds, None for no limit."""
    if timeout is None:
        return None
    try:
        seconds = float("nan") if isinstance(timeout, str | bytes) else float(timeout)  # type: ignore[arg-type]  # the check itself
    except Exception:  # whatever its __float__ raises
        seconds = float("nan")
    if seconds != seconds:
        raise InvalidInputError(f"timeout={shortened(timeout)} is not a number of seconds, or None")
    return seconds


def not_yet(**arguments: Any) -> None:
    """Raise for MLflow's arguments that this version of asynctrack does not support."""
    for name, value in arguments.items():
        if value is not None:
            raise InvalidInputError(f"{name}= is not available in this version of asynctrack; leave it out")

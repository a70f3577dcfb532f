"""What stands in a journal's frames and registry, as far as it can be used. Pure.

A journal is input: its checksums say that nothing was changed by accident, and nothing about who wrote it. Text, 64-bit
integers and None come out of here, in the places where they belong, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynctrack.constants import RunStatus
from asynctrack.delivery.uploads import Upload
from asynctrack.delivery.work import EndOfRun, Part
from asynctrack.stores.base import RunSpec

__all__ = ["Registration", "put_into", "registration_of", "run_of", "upload_of"]

_KINDS = ("start", "params", "tags", "inputs", "artifact", "end")
_INT64 = range(-(1 << 63), 1 << 63)
#: of `RunSpec`, what may be None beside text
_OPTIONAL = ("run_id", "experiment_id", "experiment_name", "run_name")

_STATUSES = {RunStatus.name_of(number) for number in RunStatus.all_status()}

#: what a run was registered with, and whether it is only logged to
Registration = tuple[RunSpec, bool]


def registration_of(entry: Any) -> Registration | None:
    """A run's entry in the registry; None where it cannot be used. What is not known here is left out."""
    if not isinstance(entry, Mapping) or not _is_text(entry.get("uid")) or not entry["uid"]:
        return None
    tags, start_time = entry.get("tags", {}), entry.get("start_time", 0)
    optional = {name: entry.get(name) for name in _OPTIONAL}
    user_id = entry.get("user_id", "")
    if not (_is_int(start_time) and _is_text(user_id) and _is_texts(tags)):
        return None
    if not all(value is None or _is_text(value) for value in optional.values()):
        return None
    spec = RunSpec(entry["uid"], **optional, user_id=user_id, start_time=start_time, tags=dict(tags))
    return spec, bool(entry.get("attached", False))


def run_of(frame: Any) -> int | None:
    """The number of the run that a frame is about, an event's; None where it is of a kind that is not known here.

    Raises ValueError where it cannot be used.
    """
    if not isinstance(frame, list) or not frame or not isinstance(frame[0], str):
        raise ValueError("frames that are no events")
    if frame[0] not in _KINDS:
        return None
    if len(frame) < 2 or not _is_int(frame[1]) or frame[1] < 1:
        raise ValueError(f"{frame[0]} frames of no run")
    return int(frame[1])


def put_into(part: Part, frame: list[Any], place: int) -> None:
    """Put what stands in a frame, in slot ``place``, into its run's part. Raises ValueError where it cannot be used."""
    kind, rest = frame[0], frame[2:]
    if kind == "start":
        part.starts = True
    elif kind == "params" and rest and _is_texts(rest[0]):
        part.add_params(place, rest[0].items())
        part.bytes += _size(rest[0])
    elif kind == "tags" and rest and _is_texts(rest[0]):
        part.add_tags(place, rest[0].items())
        part.bytes += _size(rest[0])
    elif kind == "inputs" and rest and _is_texts(rest[0]):
        part.add_inputs(place, rest[0].items())
        part.bytes += _size(rest[0])
    elif kind == "end" and len(rest) >= 2 and _is_status(rest[0]) and _is_int(rest[1]):
        part.ends, part.ends_at = EndOfRun(rest[0], rest[1]), place
    else:
        raise ValueError(f"{kind} frames that cannot be used")


def upload_of(frame: list[Any]) -> Upload:
    """The artifact that a frame is about. Raises ValueError where it cannot be used."""
    rest = frame[2:]
    if len(rest) < 2 or not isinstance(rest[0], list) or len(rest[0]) < 5 or not _is_text(rest[1]):
        raise ValueError("artifact frames that cannot be used")
    name, is_dir, *numbers = rest[0][:5]
    # One plain name: what it names is read, and deleted when it is delivered.
    plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    if not plain or not isinstance(is_dir, bool) or not all(map(_is_int, numbers)):
        raise ValueError("artifact frames that cannot be used")
    return Upload.of([*frame[:2], [name, is_dir, *numbers], rest[1]])


def _size(entries: Mapping[str, str]) -> int:
    return sum(len(key) + len(value) for key, value in entries.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_text(key) and _is_text(text) for key, text in value.items())


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_status(value: Any) -> bool:
    return value == "" or (isinstance(value, str) and value in _STATUSES)

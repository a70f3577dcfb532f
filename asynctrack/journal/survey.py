"""What waits in the spools of this and other processes, and what stores have refused: for looking at.

Nothing here takes a spool over or changes anything in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from asynctrack.journal.homes import spool_homes
from asynctrack.journal.locks import is_held
from asynctrack.journal.measured import MeasuredOn, measured_on
from asynctrack.journal.opening import open_regular
from asynctrack.journal.owner import Owner, host_name, lost_owner, read_owner
from asynctrack.journal.reader import Chunk, JournalReader
from asynctrack.journal.slots import count_streams
from asynctrack.journal.viewing import SpoolView

__all__ = [
    "RejectedEvent",
    "SpoolInfo",
    "WaitingRun",
    "find_ownerless",
    "find_spools",
    "holds_events",
    "read_lines",
    "read_rejected",
    "read_spool",
]

_REJECTED = "rejected.jsonl"


class WaitingRun(NamedTuple):
    """A run of which something is not delivered yet. ``events`` counts points, params, tags and artifacts, and is 0
    where only the run's start or end is left."""

    run_id: str
    name: str | None
    events: int


class SpoolInfo(NamedTuple):
    """One spool. ``owner``: whether the process that writes it lives; a lock held on another host proves nothing.
    ``delivering``: somebody is doing so. ``created`` is in ms since the epoch, ``age`` in seconds, ``rejected`` counts
    refused events, ``problems`` says what cannot be read."""

    path: str
    store: str
    host: str
    pid: int
    created: int
    age: float
    owner: Literal["alive", "dead", "unknown"]
    delivering: bool
    events: int
    bytes: int
    rejected: int
    runs: list[WaitingRun]
    problems: list[str]


class RejectedEvent(NamedTuple):
    """An event that a store will never accept. ``value`` is a metric's as text (NaN too); ``step`` and ``timestamp``
    (ms) are a metric's only; ``refused_at`` is in ms since the epoch."""

    spool: str
    run_id: str
    kind: str
    key: str
    value: Any
    reason: str
    refused_at: int
    step: int | None
    timestamp: int | None
    #: of a run that could not be created, in one of its events: the fields of `asynctrack.stores.base.RunSpec`
    spec: dict[str, Any] | None = None
    #: of a metric that is about a logged model, or was measured on a dataset
    on: MeasuredOn | None = None
    #: the store, if it is not the spool's own
    to: str | None = None


def find_spools(home: str | None = None) -> Iterator[str]:
    """The spool folders in ``home``; None: in all places where spools are put by default."""
    return (path for path in _folders(home) if os.path.exists(os.path.join(path, "owner")))


def find_ownerless(home: str | None = None) -> Iterator[tuple[str, str]]:
    """The folders there that were spools until their owner file was lost, and for each what to do about it."""
    for path in _folders(home):
        problem = lost_owner(path)
        if problem is not None:
            yield path, problem


def _folders(home: str | None) -> Iterator[str]:
    for folder in [os.path.abspath(home)] if home else spool_homes(None):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue  # none was ever made there
        for name in names:
            yield os.path.join(folder, name)


def read_spool(path: str) -> SpoolInfo | None:
    """What waits in a spool, whoever owns it; None where it is none, or was delivered and deleted just now."""
    owner = read_owner(path)
    if owner is None:
        return None
    try:
        held, delivering = is_held(path)
        runs, problems = _waiting(path, owner, living=held)
        size = sum(entry.stat().st_blocks * 512 for entry in os.scandir(path))
    except FileNotFoundError:
        return None
    return SpoolInfo(
        path=path,
        store=owner.store,
        host=owner.host,
        pid=owner.pid,
        created=owner.created,
        age=max(time.time() - owner.created / 1000, 0.0),
        owner="unknown" if owner.host != host_name() else "alive" if held else "dead",
        delivering=delivering,
        events=sum(run.events for run in runs),
        bytes=size,
        rejected=sum(1 for _ in read_rejected([path])),
        runs=runs,
        problems=problems,
    )


def holds_events(path: str) -> bool:
    """Whether something in a dead program's spool is not delivered, or cannot be read; false where it is gone. Reads no
    further than to the first of it."""
    owner = read_owner(path)
    if owner is None:
        return False
    view = SpoolView(path, owner)
    try:
        view.refresh(living=False)
        return any(view.waits(run, chunk) for chunk in view.walk() for run, _ in _events(view.reader, chunk)) or bool(
            view.unsure or view.reader.problems or view.segments.unreadable
        )
    except FileNotFoundError:
        return os.path.exists(path)  # without its registry
    except (OSError, ValueError):
        return True
    finally:
        view.close()


def read_rejected(paths: Iterable[str]) -> Iterator[RejectedEvent]:
    """The refused events in some spools, oldest first in each. A damaged line is left out."""
    for path in paths:
        yield from read_lines(path).values()


def read_lines(path: str) -> dict[bytes, RejectedEvent]:
    """The refused events of a spool, by the lines that they stand in."""
    try:
        fd = open_regular(os.path.join(path, _REJECTED), os.O_RDONLY)
    except (FileNotFoundError, ValueError):
        return {}  # nothing was refused, or something else has that name
    with open(fd, "rb") as file:
        data = file.read()
    events = ((line, _event(path, line)) for line in data.splitlines())
    return {line: event for line, event in events if event is not None}


def _event(path: str, line: bytes) -> RejectedEvent | None:
    try:
        entry = json.loads(line.decode("utf-8", "replace"))
        event = RejectedEvent(
            spool=path,
            run_id=entry["run_id"],
            kind=entry["kind"],
            key=entry["key"],
            value=entry["value"],
            reason=entry["reason"],
            refused_at=entry["refused_at"],
            step=entry.get("step"),
            timestamp=entry.get("timestamp"),
            spec=entry.get("spec"),
            on=measured_on(entry["key"], [entry.get(name) for name in MeasuredOn._fields[1:]]),
            to=entry.get("to"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # its writer died within it, or it is damaged
    return event if _is_sound(event) else None


def _is_sound(event: Any) -> bool:
    """Whether it can be what a store has refused: the file may be damaged, and whoever reads it logs the event again,
    and deletes the artifact that it names."""
    if not all(isinstance(text, str) for text in (event.run_id, event.kind, event.key, event.reason)):
        return False
    if (
        not isinstance(event.refused_at, int)
        or not isinstance(event.spec, dict | None)
        or not isinstance(event.to, str | None)
    ):
        return False
    try:
        if event.kind == "metric":
            float(event.value)
            return isinstance(event.step, int | None) and isinstance(event.timestamp, int | None)
        if event.kind == "end":
            int(event.value)
    except (ValueError, TypeError, OverflowError):
        return False
    if event.kind in ("param", "tag", "artifact") and not isinstance(event.value, str):
        return False
    return event.kind != "artifact" or os.path.basename(event.value) not in ("", ".", "..")


def _waiting(path: str, owner: Owner, *, living: bool) -> tuple[list[WaitingRun], list[str]]:
    """The runs with undelivered events, and what is wrong with the spool."""
    view = SpoolView(path, owner)
    try:
        view.refresh(living=living)
        runs = _count(view)
    except FileNotFoundError:
        lost = any(name.endswith(".slots") for name in os.listdir(path))
        return [], ["its registry is lost: what its events are about is not known"] if lost else []  # else: delivered
    except ValueError as error:
        return [], [str(error)]
    finally:
        view.close()
    problems = []
    if view.unsure is not None and not (living and view.damaged):
        problems.append(view.unsure)
    if not living:  # a living owner's files change while they are read
        problems += [f"{problem} ({records})" for problem, records in view.reader.problems.items()]
        problems += [f"cannot be read now: {reason}" for reason in view.segments.unreadable]
    return runs, problems


def _count(view: SpoolView) -> list[WaitingRun]:
    counts: dict[int, int] = {}
    for chunk in view.walk():
        for run, events in _events(view.reader, chunk):
            if view.waits(run, chunk):
                counts[abs(run)] = counts.get(abs(run), 0) + events
    found = []
    for run, events in sorted(counts.items()):
        spec = view.reader.registry.run(run) or {}
        at = view.positions.runs.get(run)
        run_id = (at.run_id if at is not None else None) or spec.get("run_id") or spec.get("uid") or "?"
        tags = spec.get("tags")
        name = spec.get("run_name") or (tags.get("mlflow.runName") if isinstance(tags, dict) else None)
        found.append(WaitingRun(run_id, name, events))
    return found


def _events(reader: JournalReader, chunk: Chunk) -> Iterator[tuple[int, int]]:
    """How many events of which runs; artifacts, which the cursor counts apart, under the run's negative number."""
    if chunk.plain is not None:
        points = count_streams(chunk.data)
    else:
        points = {number: len(records) for number, records in chunk.streams.items()}
    for number, count in points.items():
        stream = reader.registry.stream(number)
        yield (0 if stream is None else stream.run), count
    for frame in chunk.frames:
        match frame:
            case ["artifact", int(run), *_]:
                yield -run, 1
            case ["params" | "tags" | "inputs", int(run), dict(items), *_]:
                yield run, len(items)
            case [str(), int(run), *_]:
                yield run, 0

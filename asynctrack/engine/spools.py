"""What waits in the spools of this and other processes: for looking at, and for throwing refused events away.

Nothing here takes a spool over or changes what its owner, living or dead, has written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Container, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from asynctrack.artifacts.snapshot import remove_snapshots
from asynctrack.errors import InvalidInputError
from asynctrack.journal.frames import FrameFile
from asynctrack.journal.reader import Chunk, JournalReader
from asynctrack.journal.slots import count_streams
from asynctrack.journal.spool import Owner, Spool, host_name, is_held, lock_file, read_owner, spool_homes

__all__ = [
    "RejectedEvent",
    "SpoolInfo",
    "WaitingRun",
    "drop_rejected",
    "find_spools",
    "read_lines",
    "read_rejected",
    "read_spool",
]

#: slots read at once
_BLOCK = 8192
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


def find_spools(home: str | None = None) -> Iterator[str]:
    """The spool folders in ``home``; None: in all places where spools are put by default."""
    for folder in [os.path.abspath(home)] if home else spool_homes(None):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue  # none was ever made there
        for name in names:
            path = os.path.join(folder, name)
            if os.path.exists(os.path.join(path, "owner")):
                yield path


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


def read_rejected(paths: Iterable[str]) -> Iterator[RejectedEvent]:
    """The refused events in some spools, oldest first in each. A damaged line is left out."""
    for path in paths:
        yield from read_lines(path).values()


def read_lines(path: str) -> dict[bytes, RejectedEvent]:
    """The refused events of a spool, by the lines that they stand in."""
    try:
        with open(os.path.join(path, _REJECTED), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}  # nothing was refused
    events = ((line, _event(path, line)) for line in data.splitlines())
    return {line: event for line, event in events if event is not None}


def _event(path: str, line: bytes) -> RejectedEvent | None:
    try:
        entry = json.loads(line.decode("utf-8", "replace"))
        return RejectedEvent(
            spool=path,
            run_id=entry["run_id"],
            kind=entry["kind"],
            key=entry["key"],
            value=entry["value"],
            reason=entry["reason"],
            refused_at=entry["refused_at"],
            step=entry.get("step"),
            timestamp=entry.get("timestamp"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # its writer died within it, or it is damaged


def drop_rejected(path: str, lines: Container[bytes] | None = None) -> int:
    """Delete the refused events of a spool (None: all; else those in these lines), with their artifacts, and the folder
    where nothing else is left in it; how many there were. Whoever is just writing to it loses nothing.

    Raises InvalidInputError where ``path`` is no spool, and OSError.
    """
    if read_owner(path) is None:
        raise InvalidInputError(f"{path} is no spool; `asynctrack spool` lists them")
    where = os.path.join(path, _REJECTED)
    dropped: list[RejectedEvent] = []
    try:
        fd = lock_file(where, create=False)
    except FileNotFoundError:
        return 0  # nothing was refused
    try:
        found = read_lines(path)
        kept = [line for line in found if lines is not None and line not in lines]
        dropped = [event for line, event in found.items() if line not in kept]
        _drop_artifacts(path, dropped, [found[line] for line in kept])
        if kept:
            with open(f"{where}.new", "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.writelines(line + b"\n" for line in kept)
            os.replace(f"{where}.new", where)
        else:
            os.unlink(where)
            _remove_delivered(path)
    finally:
        os.close(fd)
    return len(dropped)


def _drop_artifacts(path: str, dropped: Iterable[RejectedEvent], kept: Iterable[RejectedEvent]) -> None:
    names, needed = (
        {os.path.basename(str(event.value)) for event in events if event.kind == "artifact"}
        for events in (dropped, kept)
    )
    for name in names - needed:
        remove_snapshots(os.path.join(path, "artifacts", name))


def _remove_delivered(path: str) -> None:
    """Delete a spool's folder where only refused events were left of it."""
    if os.path.exists(os.path.join(path, "registry")):
        return
    remove_snapshots(os.path.join(path, "artifacts"))  # what a damaged line has stood for
    if os.listdir(path) == ["owner"]:
        os.unlink(os.path.join(path, "owner"))
        os.rmdir(path)


def _waiting(path: str, owner: Owner, *, living: bool) -> tuple[list[WaitingRun], list[str]]:
    """The runs with undelivered events, and what is wrong with the spool."""
    try:
        registry = FrameFile(os.path.join(path, "registry"), create=False)
    except FileNotFoundError:
        return [], []  # delivered: only refused events are left
    spool = Spool(path, owner, -1, registry)
    problems: list[str] = []
    try:
        cursor = spool.load_cursor() or {}
    except ValueError as error:
        # Its consumer may be in the middle of writing it.
        cursor = {}
        problems += [] if living else [str(error)]
    head, missing = spool.segments()
    reader = JournalReader(registry, head, cursor.get("pending"))
    try:
        reader.refresh_registry()
        runs = _count(reader, cursor)
    finally:
        for segment in reader.chain():
            segment.close()
        registry.close()
    if not living:  # a living owner's files change while they are read
        problems += missing + [f"{problem} ({records})" for problem, records in reader.problems.items()]
    return runs, problems


def _count(reader: JournalReader, cursor: dict[str, Any]) -> list[WaitingRun]:
    front = cursor.get("front", 0)
    acknowledged = {run: entry[0] for run, entry in cursor.get("runs", {}).items()}
    ids = {run: entry[1] for run, entry in cursor.get("runs", {}).items()}
    # Between two of these, every slot is acknowledged by the same runs.
    borders = sorted({front, *acknowledged.values()})
    counts: dict[int, int] = {}
    position = borders[0]
    while True:
        border = next((at for at in borders if at > position), position + _BLOCK)
        chunk = reader.read(position, min(_BLOCK, border - position))
        if chunk.end == position:
            if border <= front and border > position:
                position = border  # slots that were never written
                continue
            break
        for run, events in _events(reader, chunk):
            if acknowledged.get(run, front) <= chunk.start:
                counts[abs(run)] = counts.get(abs(run), 0) + events
        position = chunk.end
    found = []
    for run, events in sorted(counts.items()):
        spec = reader.run(run) or {}
        run_id = ids.get(run) or spec.get("run_id") or spec.get("uid") or "?"
        name = spec.get("run_name") or spec.get("tags", {}).get("mlflow.runName")
        found.append(WaitingRun(run_id, name, events))
    return found


def _events(reader: JournalReader, chunk: Chunk) -> Iterator[tuple[int, int]]:
    """How many events of which runs; artifacts, which the cursor counts apart, under the run's negative number."""
    if chunk.plain is not None:
        points = count_streams(chunk.data)
    else:
        points = {number: len(records) for number, records in chunk.streams.items()}
    for number, count in points.items():
        stream = reader.stream(number)
        yield (0 if stream is None else stream.run), count
    for frame in chunk.frames:
        if frame[0] == "artifact":
            yield -frame[1], 1
        else:
            yield frame[1], len(frame[2]) if frame[0] in ("params", "tags") else 0

"""What stands in a store under the names of a run's refused events. Whoever logs them again must not put an old value
in the place of a newer one: a store does not know when a tag or an artifact was set."""

from __future__ import annotations

import filecmp
import os
import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.artifacts.files import files_below
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.delivery.missing import find_by_uid
from asynctrack.errors import NotFoundError, StoreError
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.artifacts.base import ArtifactRepository
    from asynctrack.entities import Run
    from asynctrack.journal.survey import RejectedEvent
    from asynctrack.stores.base import AbstractStore, RunSpec

__all__ = ["Standing", "snapshot_of", "standing"]

_OPEN = {"RUNNING", "SCHEDULED"}


def snapshot_of(event: RejectedEvent) -> str:
    """Where the artifact of a refused event is. The spool may have been moved since: of the recorded path only the last
    part is used."""
    return os.path.join(event.spool, "artifacts", os.path.basename(str(event.value)))


class Standing(NamedTuple):
    """What a store has of a run. ``others``: for each refused event in whose place it has another tag or artifact, what
    is there. ``ended``: when the run ended, in ms since the epoch; 0 if it is open, or not there."""

    others: Mapping[bytes, str] = {}
    ended: int = 0


async def standing(
    store: AbstractStore, run_id: str, spec: RunSpec | None, lines: Mapping[bytes, RejectedEvent]
) -> Standing:
    """What stands in the place of a run's refused events; ``spec``: what the run was to be created with, if that was
    refused too. Raises UnavailableError, OSError."""
    if spec is None and not any(event.kind in ("tag", "artifact", "end") for event in lines.values()):
        return Standing()
    run = await _find(store, run_id, spec)
    if run is None:
        return Standing()
    others = dict(_other_tags(run, spec, lines)) | await _other_artifacts(store, run, lines)
    return Standing(others, 0 if run.info.status in _OPEN else run.info.end_time or 0)


async def _find(store: AbstractStore, run_id: str, spec: RunSpec | None) -> Run | None:
    try:
        if spec is None:
            try:
                return await store.get_run(run_id)
            except NotFoundError:
                info = await find_by_uid(store, run_id)
        else:
            info = await store.find_run(spec)
        return None if info is None else await store.get_run(info.run_id)
    except StoreError as error:
        if error.retryable:
            raise
        return None  # the events are refused again, with the reason


def _other_tags(run: Run, spec: RunSpec | None, lines: Mapping[bytes, RejectedEvent]) -> Iterator[tuple[bytes, str]]:
    ours: dict[str, set[str]] = {}
    for key, value in [] if spec is None else spec.tags.items():
        ours.setdefault(key, set()).add(value)
    tags = {line: event for line, event in lines.items() if event.kind == "tag"}
    for event in tags.values():
        ours.setdefault(event.key, set()).update({str(event.value), str(event.value).replace("\0", "\ufffd")})
    for line, event in tags.items():
        there = run.data.tags.get(event.key)
        if there is not None and there not in ours[event.key]:
            yield line, f"tag {shortened(event.key)} is {shortened(there)} there, and not {shortened(event.value)}"


async def _other_artifacts(store: AbstractStore, run: Run, lines: Mapping[bytes, RejectedEvent]) -> dict[bytes, str]:
    files = {line: dict(_files(event)) for line, event in lines.items() if event.kind == "artifact"}
    if not any(files.values()) or not run.info.artifact_uri:
        return {}
    place = open_artifacts(run.info.artifact_uri, store.uri, store.io, store.client)
    ours: dict[str, list[tuple[str, int]]] = {}
    for target, file in (pair for pairs in files.values() for pair in pairs.items()):
        ours.setdefault(target, []).append(file)
    others = {target for target, sources in ours.items() if await _is_another(place, target, sources)}
    return {
        line: f"artifact {shortened(min(others & targets.keys()))} is another one there"
        for line, targets in files.items()
        if others & targets.keys()
    }


def _files(event: RejectedEvent) -> Iterator[tuple[str, tuple[str, int]]]:
    """The files of a refused artifact: where each is to be, where it is, and its size in bytes."""
    snapshot = snapshot_of(event)
    if os.path.isdir(snapshot):
        for file in files_below(snapshot):
            yield posixpath.join(event.key, file.relative), (file.path, file.stat.st_size)
    elif os.path.exists(snapshot):
        yield event.key, (snapshot, os.path.getsize(snapshot))


async def _is_another(place: ArtifactRepository, target: str, sources: list[tuple[str, int]]) -> bool:
    """Whether the artifact ``target`` is there, and none of the files in ``sources``."""
    for there in await place.list_artifacts(posixpath.dirname(target)):
        if there.path == target and not there.is_dir:
            alike = [path for path, size in sources if size == there.file_size]
            with tempfile.TemporaryDirectory(prefix="asynctrack-") as folder:
                copy = await place.download_artifacts(target, folder) if alike else ""
                return not any(filecmp.cmp(copy, path, shallow=False) for path in alike)
    return False

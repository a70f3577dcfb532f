"""How far other processes' spools are delivered, of some run: seen from outside, without changing anything."""

from __future__ import annotations

import os
from collections.abc import Set

from asynctrack.journal.frames import FrameFile
from asynctrack.journal.owner import read_owner
from asynctrack.journal.positions import Positions
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.registered import RegistryReader
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import find_spools, read_spool

__all__ = ["is_past", "marks_below"]


def marks_below(home: str, names: Set[str]) -> dict[str, int]:
    """The spools in the folder ``home`` that a run which goes by any of ``names`` is logged to, and for each a sequence
    number behind everything that stands in it now."""
    found = ((path, _mark(path, names)) for path in find_spools(home))
    return {path: mark for path, mark in found if mark is not None}


def _mark(path: str, names: Set[str]) -> int | None:
    try:
        spool = _opened(path)
        if spool is None:
            return None
        try:
            if not _numbers(spool, names):
                return None
            reader = JournalReader(spool.registry, spool.segments.look(None, living=True))
            try:
                return reader.written()
            finally:
                for segment in reader.chain():
                    segment.close()
        finally:
            spool.registry.close()
    except (OSError, ValueError):
        return None  # it is being deleted, as all of it is delivered; or nobody can read it


def is_past(path: str, names: Set[str], mark: int) -> bool:
    """Whether everything of the run that stands before ``mark`` in a spool is delivered, or refused."""
    try:
        spool = _opened(path)
        if spool is None:
            return True  # deleted, as all of it is delivered
        try:
            record = spool.load_cursor()
            positions = Positions() if record is None else Positions.of(record)
            if all(positions.acknowledged(number) >= mark for number in _numbers(spool, names)):
                return True
        finally:
            spool.registry.close()
        # The cursor moves when something is delivered. Behind that there may be nothing but slots without an event.
        left = read_spool(path)
    except (OSError, ValueError):
        return not os.path.exists(path)  # it is being changed just now
    return left is None or not any(run.events for run in left.runs if run.run_id in names)


def _opened(path: str) -> Spool | None:
    owner = read_owner(path)
    if owner is None:
        return None
    try:
        registry = FrameFile(os.path.join(path, "registry"), create=False)
    except FileNotFoundError:
        return None
    return Spool(path, owner, None, registry)


def _numbers(spool: Spool, names: Set[str]) -> list[int]:
    """The numbers that the run has in a spool."""
    registry = RegistryReader(spool.registry)
    registry.refresh()
    return [number for number, spec in registry.runs.items() if {spec.get("run_id"), spec.get("uid")} & names]

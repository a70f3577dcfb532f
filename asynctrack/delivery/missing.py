"""A run that the store does not know, although events for it were accepted: who may still bring it?

What is logged to a run by its id (`start_run(run_id=…)`, a worker that is given it) may arrive before the run is there:
its start waits in another program's spool. And a run whose server was away is known to its program by its uid, where
the server gives it an id of its own, and keeps the uid in a tag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from asynctrack.constants import UID_TAGS, ViewType
from asynctrack.delivery.entries import registration_of
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import creates_run
from asynctrack.delivery.source import Source
from asynctrack.errors import NotFoundError, StoreError, UnavailableError
from asynctrack.journal.frames import FrameFile
from asynctrack.journal.locks import is_held
from asynctrack.journal.owner import Owner, host_name, owner_of
from asynctrack.journal.positions import Positions
from asynctrack.journal.registered import RegistryReader
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import find_spools
from asynctrack.platforms import passes
from asynctrack.stores.base import AbstractStore, RunSpec

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = [
    "AwaitedRunError",
    "find_by_uid",
    "later_owner_of",
    "living_owner_below",
    "look_for",
    "registered_runs",
    "start_waits_below",
    "start_waits_in",
]

_UID = re.compile(r"[0-9a-f]{32}")
#: experiments that are searched at once
_EXPERIMENTS = 100


class AwaitedRunError(NotFoundError):
    """The store has no such run, and no spool that can be seen here brings it. One elsewhere may."""

    retryable = True
    held = True


async def look_for(store: AbstractStore, source: Source, lane: Lane, error: NotFoundError) -> StoreError | None:
    """Where the run of ``lane``, which was named by its id, may be; None: the lane knows its id now, and may go on.

    Else what to make of the ``error``: that it is to be waited for, or itself where there is nothing to wait for.
    """
    name = lane.spec.run_id
    if name is None:
        # This very spool has created it, so that it was there before; and so it is if the store has just come back.
        there = await _info(store, lane.run_id or lane.name)
        return await _or_gone(store, error) if there is None else None
    if store.chooses_run_ids and lane.run_id == name:
        info = await find_by_uid(store, name)
        if info is not None:
            lane.run_id = info.run_id
            return None
    place = start_waits_in(source, name)
    if place is not None:
        return UnavailableError(f"run {name} is not in {store.uri} yet: its start waits in {place}")
    if await _is_there_by_now(store, lane, name):
        return None
    if source.adopted or source.followed:
        return AwaitedRunError(
            f"{error}, and its start waits in no spool beside {source.spool.path}. If it does on another machine or in "
            "another folder, deliver that first"
        )
    return await _or_gone(store, error)


async def _or_gone(store: AbstractStore, error: NotFoundError) -> StoreError:
    if await store.is_gone():
        return UnavailableError(f"{store.uri} is empty or gone. Nothing is lost: it is tried again")
    return error


async def _is_there_by_now(store: AbstractStore, lane: Lane, name: str) -> bool:
    """Whether another process has created the run between the request that did not find it and our look at the spools,
    in which its start waited until then."""
    if store.chooses_run_ids and lane.run_id == name:
        info = await find_by_uid(store, name)
    else:
        info = await _info(store, lane.name)
    if info is not None:
        lane.run_id = info.run_id
    return info is not None


async def _info(store: AbstractStore, run_id: str) -> RunInfo | None:
    try:
        return await store.get_run_info(run_id)
    except NotFoundError:
        return None


async def find_by_uid(store: AbstractStore, uid: str) -> RunInfo | None:
    """The run that a store which gives ids of its own has made of what was started under ``uid``."""
    if not _UID.fullmatch(uid):
        return None
    token = None
    while True:
        page = await store.search_experiments(ViewType.ALL, page_token=token)
        ids = [experiment.experiment_id for experiment in page.items]
        for start in range(0, len(ids), _EXPERIMENTS):
            some = ids[start : start + _EXPERIMENTS]
            for tag in UID_TAGS:
                found = await store.search_runs(some, f"tags.`{tag}` = '{uid}'", ViewType.ALL, max_results=1)
                if found.items:
                    info: RunInfo = found.items[0].info
                    return info
        if not page.token or page.token == token:
            return None
        token = page.token


def start_waits_in(source: Source, uid: str) -> str | None:
    """The spool, beside that of ``source``, in which the creation of a run waits; None where none does. Raises OSError
    where that cannot be told now."""
    return _beside(source, lambda path, owner: _would_create(path, owner, uid))


def start_waits_below(home: str, uid: str) -> str | None:
    """The same in the folder ``home``."""
    return _first(home, None, lambda path, owner: _would_create(path, owner, uid))


def later_owner_of(source: Source, names: set[str]) -> str | None:
    """The spool of a living program, beside that of ``source``, which has taken a run up again later, and ends it."""

    def takes_it_up(path: str, owner: Owner) -> bool:
        return owner.created >= source.spool.owner.created and _has_taken_up(path, owner, names)

    try:
        return _beside(source, takes_it_up)
    except OSError:
        return None  # a neighbour that cannot be read holds no end up


def living_owner_below(home: str, names: set[str]) -> str | None:
    """The spool in the folder ``home`` of a living program which has taken a run up again, and ends it. Raises OSError
    where that cannot be told now."""
    return _first(home, None, lambda path, owner: _has_taken_up(path, owner, names))


def _has_taken_up(path: str, owner: Owner, names: set[str]) -> bool:
    if owner.host != host_name() or not is_held(path)[0]:
        return False
    return any(not attached and spec.run_id in names for _, spec, attached in registered_runs(path))


def _beside(source: Source, wanted: Callable[[str, Owner], bool]) -> str | None:
    """The first spool in the same folder that is ``wanted``."""
    if source.spool.path is None:
        return None
    own = os.path.abspath(source.spool.path)
    return _first(os.path.dirname(own), own, wanted)


def _first(home: str, own: str | None, wanted: Callable[[str, Owner], bool]) -> str | None:
    """The first spool in ``home``, apart from ``own``, that is ``wanted``. Raises OSError where there is none, and one
    cannot be read now: that is no answer."""
    unseen: OSError | None = None
    for path in find_spools(home):
        try:
            if path != own and wanted(path, owner_of(path)):
                return path
        except ValueError:
            continue  # nobody can read it
        except OSError as error:
            unseen = error if passes(error) else unseen
    if unseen is not None:
        raise unseen
    return None


def registered_runs(path: str) -> list[tuple[int, RunSpec, bool]]:
    """The runs of a spool: number, what they were registered with, and whether they are only logged to. Raises OSError,
    and ValueError where it is no spool that can be read."""
    file = FrameFile(os.path.join(path, "registry"), create=False)
    try:
        registry = RegistryReader(file)
        registry.refresh()
        entries = [(number, registration_of(registry.run(number))) for number in registry.new_runs()]
        return [(number, *found) for number, found in entries if found is not None]
    finally:
        file.close()


def _would_create(path: str, owner: Owner, uid: str) -> bool:
    """Raises OSError, and ValueError where it is no spool that can be read."""
    for number, spec, attached in registered_runs(path):
        if spec.uid != uid or attached or not creates_run(spec):
            continue
        registry = FrameFile(os.path.join(path, "registry"), create=False)
        try:
            record = Spool(path, owner, None, registry).load_cursor()
        finally:
            registry.close()
        positions = Positions() if record is None else Positions.of(record)
        if number not in positions.seen:
            return True
        return number in positions.runs and positions.runs[number].run_id is None
    return False

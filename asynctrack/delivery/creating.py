"""Creating a run at the store, once: a process that died, or an answer that was lost, may have created it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import WAY_OUT, begin_part, creates_run, is_member
from asynctrack.delivery.missing import find_by_uid, start_waits_in
from asynctrack.delivery.source import Source
from asynctrack.delivery.work import Work
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.stores.base import AbstractStore, RunSpec

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["create_run"]

#: statuses of runs that have not ended
_OPEN = {"RUNNING", "SCHEDULED"}


async def create_run(store: AbstractStore, source: Source, lane: Lane, work: Work) -> RunInfo:
    """The run of ``lane``, of which ``work`` is the first that is delivered. Raises `StoreError`."""
    described_here = lane.spec.run_id is not None or creates_run(lane.spec)
    spec = await _with_parent(store, source, lane) if described_here else lane.spec
    if is_member(spec):
        return await begin_part(store, source, lane, spec)
    if spec.run_id is not None:
        spec = spec._replace(run_id=lane.run_id)  # by now the store may have told the id of a run named by its uid
        if source.adopted and lane.run_id is not None:
            there = await store.get_run_info(lane.run_id)
            if there.status not in _OPEN and (there.end_time or 0) > spec.start_time:
                # Another program has ended it since the one died that this is from: only a later word counts.
                lane.superseded = there.end_time or 0
                return there
    made_before = lane.attached or source.adopted or source.followed or work.attempts or not work.starts
    made_before = made_before or work.uncertain
    if store.chooses_run_ids and spec.run_id is None and made_before:
        # It may exist: made by a process that died, by an attempt whose answer was lost, by the parent.
        info = await store.find_run(spec)
        if info is not None:
            return info
        if lane.attached:
            hint = f". {WAY_OUT}" if source.adopted else ""
            raise UnavailableError(f"run {spec.uid} has not been created yet by the process that started it{hint}")
    return await store.create_run(spec)


async def _with_parent(store: AbstractStore, source: Source, lane: Lane) -> RunSpec:
    """The run's spec, with the id that the store gave to the run it is nested in."""
    spec, parent = lane.spec, lane.parent
    if parent is None or (parent.info is None and parent.run_id == spec.tags[PARENT_RUN_TAG]):
        return await _with_foreign_parent(store, source, spec)
    run_id = parent.run_id
    if run_id is None and parent.refused is None:
        found = await store.find_run(parent.spec)
        run_id = None if found is None else found.run_id
    return spec if run_id is None else spec._replace(tags={**spec.tags, PARENT_RUN_TAG: run_id})


async def _with_foreign_parent(store: AbstractStore, source: Source, spec: RunSpec) -> RunSpec:
    """The same where another program has started it, and may know it by its uid only."""
    name = spec.tags.get(PARENT_RUN_TAG)
    if name is None or not store.chooses_run_ids:
        return spec
    try:
        found: RunInfo | None = await store.get_run_info(name)  # a store may know it by its uid, too
    except NotFoundError:
        found = await find_by_uid(store, name)
    if found is not None:
        return spec._replace(tags={**spec.tags, PARENT_RUN_TAG: found.run_id})
    place = start_waits_in(source, name)
    if place is not None:
        raise UnavailableError(f"run {name}, which this one is nested in, waits in {place} for its start")
    return spec

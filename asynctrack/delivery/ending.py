"""Ending a run at the store."""

from __future__ import annotations

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import end_part, is_member
from asynctrack.delivery.missing import later_owner_of
from asynctrack.delivery.source import Source
from asynctrack.delivery.work import EndOfRun
from asynctrack.errors import NotFoundError, StoreError
from asynctrack.stores.base import AbstractStore, Refusal

__all__ = ["end_run"]

#: statuses of runs that have not ended
_OPEN = {"RUNNING", "SCHEDULED"}


async def end_run(store: AbstractStore, source: Source, lane: Lane, end: EndOfRun, run_id: str) -> list[Refusal]:
    """Give the run of ``lane`` its end, or a shared run the end of one who shares it. What is refused of that."""
    # An attached run ends without a status when no more comes from here, and the store need not know.
    if not end.status:
        return []
    try:
        if is_member(lane.spec):
            return await end_part(store, run_id, lane.spec, end)
        if end.assumed and (lane.superseded or not await _is_open(store, source, lane, run_id)):
            return []
        if not lane.superseded or end.end_time > lane.superseded:
            await store.update_run(run_id, status=end.status, end_time=end.end_time)
    except StoreError as error:
        if error.retryable or isinstance(error, NotFoundError):
            raise
        return [Refusal("end", end.status, end.end_time, str(error))]
    return []


async def _is_open(store: AbstractStore, source: Source, lane: Lane, run_id: str) -> bool:
    """Whether nobody else has ended the run, or will."""
    if later_owner_of(source, {run_id, lane.spec.uid, lane.name}) is not None:
        return False
    try:
        return (await store.get_run_info(run_id)).status in _OPEN
    except NotFoundError:
        return True  # it will say so when the run is ended

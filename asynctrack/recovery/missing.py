"""`asynctrack.sync(create_missing=True)`: creating the runs that whoever was to create them never will.

A rank that shares a run, or a worker that was given it, waits for the process that creates the run. Where that one has
died before, or its spool is lost, nothing tells it from one that only begins late. So a person says it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.delivery.members import creates_run, missing_creator
from asynctrack.delivery.missing import find_by_uid, registered_runs, start_waits_below
from asynctrack.delivery.orphans import last_sign_of_life
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from asynctrack.stores.base import AbstractStore, RunSpec

__all__ = ["create_missing_runs"]

logger = logging.getLogger("asynctrack")


async def create_missing_runs(
    store: AbstractStore, spools: Iterable[str], homes: Iterable[str], experiment: str | None
) -> None:
    """Create in ``store`` the runs that ``spools`` wait for, and that no spool in the folders ``homes`` creates.
    ``experiment``: the name of the one in which they are created, whatever their programs chose.

    What cannot be created now is told in the log. Raises nothing.
    """
    awaited, homes = _awaited(spools), set(homes)
    # The outer of two nested runs first: the inner one has its id in a tag.
    for uid, waiting in sorted(awaited.items(), key=lambda entry: min(spec.start_time for _, spec in entry[1])):
        if any(start_waits_below(home, uid) is not None for home in homes):
            continue  # it is delivered like everything else
        try:
            await _create(store, uid, waiting, experiment)
        except UnavailableError as error:
            logger.error("asynctrack: %s cannot be asked now for runs that are missing: %s", store.uri, error)
            return
        except (StoreError, InvalidInputError) as error:
            logger.error("asynctrack: run %s, which nobody has created, cannot be created: %s", uid, error)


def _awaited(spools: Iterable[str]) -> Mapping[str, list[tuple[str, RunSpec]]]:
    """By uid: the runs that are to be created by somebody else, and where they were registered with what."""
    found: dict[str, list[tuple[str, RunSpec]]] = {}
    for path in spools:
        try:
            registered = registered_runs(path)
        except (OSError, ValueError):
            continue  # delivering it says why it cannot be read
        for _, spec, attached in registered:
            if spec.run_id is None and (attached or not creates_run(spec)):
                found.setdefault(spec.uid, []).append((path, spec))
    return found


async def _create(store: AbstractStore, uid: str, waiting: list[tuple[str, RunSpec]], experiment: str | None) -> None:
    shared = missing_creator(spec for _, spec in waiting)
    spec = waiting[0][1] if shared is None else shared
    if experiment is not None:
        spec = spec._replace(experiment_id=None, experiment_name=experiment)
    if await _is_there(store, spec):
        return
    parent = spec.tags.get(PARENT_RUN_TAG)
    if parent is not None and store.chooses_run_ids:
        found = await find_by_uid(store, parent)
        spec = spec if found is None else spec._replace(tags={**spec.tags, PARENT_RUN_TAG: found.run_id})
    run_id = (await store.create_run(spec)).run_id
    if shared is None:  # nobody who is left ends it
        await store.update_run(run_id, status="KILLED", end_time=max(last_sign_of_life(path) for path, _ in waiting))
    logger.warning("asynctrack: run %s, which the process that was to do so has not created, is created", run_id)


async def _is_there(store: AbstractStore, spec: RunSpec) -> bool:
    if store.chooses_run_ids:
        return await store.find_run(spec) is not None
    try:
        await store.get_run_info(spec.uid)
    except NotFoundError:
        return False
    return True

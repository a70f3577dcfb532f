"""`asynctrack.sync(create_missing=True)`: creating the runs that whoever was to create them never will.

A rank that shares a run, or a worker that was given it, waits for the process that creates the run. Where that one has
died before, or its spool is lost, nothing tells it from one that only begins late. So a person says it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from asynctrack.constants import PARENT_RUN_TAG, UID_TAGS
from asynctrack.delivery.members import creates_run, is_member, missing_creator
from asynctrack.delivery.missing import find_by_uid, registered_runs, start_waits_below
from asynctrack.delivery.orphans import last_sign_of_life
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from asynctrack.stores.base import AbstractStore, RunSpec

__all__ = ["create_missing_runs"]

logger = logging.getLogger("asynctrack")

#: seconds after which whoever had not seen a run that was just created has created theirs
_SETTLES = 2.0


async def create_missing_runs(
    store: AbstractStore,
    spools: Iterable[str],
    homes: Iterable[str],
    experiment: str | None,
    pause: Callable[[float], Awaitable[None]],
) -> None:
    """Create in ``store`` the runs that ``spools`` wait for, and that no spool in the folders ``homes`` creates.
    ``experiment``: the name of the one in which they are created, whatever their programs chose. ``pause`` waits for so
    many seconds.

    What cannot be created now is told in the log. Raises nothing.
    """
    awaited, homes = _awaited(spools), set(homes)
    created: list[tuple[RunSpec, str, list[str]]] = []
    try:
        # The outer of two nested runs first: the inner one has its id in a tag.
        for uid, waiting in sorted(awaited.items(), key=lambda entry: min(spec.start_time for _, spec in entry[1])):
            with _told(uid):
                if any(start_waits_below(home, uid) is not None for home in homes):
                    continue  # it is delivered like everything else
                spec = await _wanted(store, waiting, experiment)
                if not await _is_there(store, spec):
                    created.append((spec, (await store.create_run(spec)).run_id, [path for path, _ in waiting]))
        if created and store.chooses_run_ids:
            await pause(_SETTLES)  # on the other hosts of the job somebody may just be doing the same
        for spec, run_id, paths in created:
            with _told(spec.uid):
                await _settle(store, spec, run_id, paths)
    except UnavailableError as error:
        logger.error("asynctrack: %s cannot be asked now for runs that are missing: %s", store.uri, error)


@contextmanager
def _told(uid: str) -> Iterator[None]:
    """What is wrong with one run is said in the log."""
    try:
        yield
    except UnavailableError:
        raise  # so is every other one
    except (StoreError, InvalidInputError, OSError) as error:
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


async def _wanted(store: AbstractStore, waiting: list[tuple[str, RunSpec]], experiment: str | None) -> RunSpec:
    """The run as whoever was to create it would have described it."""
    spec = missing_creator(spec for _, spec in waiting) or waiting[0][1]
    if experiment is not None:
        spec = spec._replace(experiment_id=None, experiment_name=experiment)
    parent = spec.tags.get(PARENT_RUN_TAG)
    if parent is not None and store.chooses_run_ids:
        found = await find_by_uid(store, parent)
        spec = spec if found is None else spec._replace(tags={**spec.tags, PARENT_RUN_TAG: found.run_id})
    return spec


async def _settle(store: AbstractStore, spec: RunSpec, run_id: str, paths: list[str]) -> None:
    """Of several runs that were created at once, one counts: the one that everybody finds. Another that is created here
    goes, unless somebody has logged to it already."""
    counts = await store.find_run(spec) if store.chooses_run_ids else None
    if counts is not None and counts.run_id != run_id:
        data = (await store.get_run(run_id)).data
        if data.metrics or data.params or data.tags.keys() - spec.tags.keys() - {*UID_TAGS, "mlflow.runName"}:
            logger.error("asynctrack: run %s was created twice, also as %s, which is in use", counts.run_id, run_id)
        else:
            await store.delete_run(run_id)
        return
    if not is_member(spec):  # nobody who is left ends it
        await store.update_run(run_id, status="KILLED", end_time=max(map(last_sign_of_life, paths)))
    logger.warning("asynctrack: run %s, which the process that was to do so has not created, is created", run_id)


async def _is_there(store: AbstractStore, spec: RunSpec) -> bool:
    if store.chooses_run_ids:
        return await store.find_run(spec) is not None
    try:
        await store.get_run_info(spec.uid)
    except NotFoundError:
        return False
    return True

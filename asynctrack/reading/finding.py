"""A run in the store, whatever name it goes by; and the experiments there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asynctrack.constants import UID_TAGS, ViewType
from asynctrack.errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from asynctrack.entities import Experiment, Run
    from asynctrack.reading.pending import PendingRun
    from asynctrack.stores.base import AbstractStore

__all__ = ["all_experiments", "experiment_of", "names_of", "stored_run"]

#: experiments that a store is asked for at once
_PAGE = 1000


async def stored_run(store: AbstractStore, run_id: str, names: Iterable[str], held: PendingRun | None) -> Run:
    """The run with this id; where a server has given it another than its program knows, by one of its ``names``.
    ``held``: what spools hold of it. Raises `NotFoundError`, and what the store raises else."""
    try:
        return await store.get_run(run_id)
    except NotFoundError:
        # While its creation waits, it is not there by any name.
        if not store.chooses_run_ids or (held is not None and held.creates and held.told is None):
            raise
        from asynctrack.delivery.missing import find_by_uid  # late: a reader seldom needs it, and it loads much

        for name in sorted(names):
            found = await find_by_uid(store, name)
            if found is not None:
                return await store.get_run(found.run_id)
        raise


def names_of(run: Run) -> set[str]:
    """The ids by which programs may know a run."""
    tags = run.data.tags
    return {run.info.run_id, *(tags[tag] for tag in UID_TAGS if tag in tags)}


async def experiment_of(store: AbstractStore, held: PendingRun) -> str:
    """The id of the experiment of a run that waits to be created; "" where the experiment does, too."""
    spec = held.spec
    if spec.experiment_id is not None:
        return spec.experiment_id
    if spec.experiment_name is None:
        return "0"
    try:
        found = await store.get_experiment_by_name(spec.experiment_name)
    except StoreError:
        return ""
    return "" if found is None else found.experiment_id


async def all_experiments(store: AbstractStore, view_type: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
    """Every experiment of a store."""
    found: list[Experiment] = []
    token = None
    while True:
        page = await store.search_experiments(view_type, _PAGE, page_token=token)
        found += page.items
        if not page.token or page.token == token:
            return found
        token = page.token

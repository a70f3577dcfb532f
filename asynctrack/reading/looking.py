"""A look at a run: each point once, whether it is in the store or still waits in a spool."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from asynctrack.reading.follower import Follower
from asynctrack.reading.series import Series

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.errors import StoreError
    from asynctrack.stores.base import AbstractStore

__all__ = ["Look", "look"]


class Look(dict[str, Series]):
    """The series of a run by metric key, sorted by key.

    ``run``: the run as it is, or will be, in the store. ``ended``: nothing more will come. ``trouble``: why the store
    could not be asked; then there is only what spools here hold.
    """

    run: Run
    ended: bool
    trouble: StoreError | None


async def look(
    store: AbstractStore,
    run_id: str,
    keys: Collection[str] | None = None,
    *,
    live: bool = True,
    min_step: int | None = None,
    max_step: int | None = None,
    folder: str | None = None,
) -> Look:
    """The series of a run (``keys``: of these metrics only).

    ``live``: with the points that spools here hold and the store does not have yet. ``folder``: one more folder where
    spools are looked for. Changes nothing anywhere. Raises `NotFoundError` for a run of which neither the store nor a
    spool knows, and what the store raises where no spool knows the run.
    """
    follower = Follower(store, run_id, keys, live, min_step=min_step, max_step=max_step, folder=folder)
    await follower.look()
    assert follower.run is not None
    found = Look(follower.series)
    found.run, found.ended, found.trouble = follower.run, follower.ended, follower.trouble
    return found

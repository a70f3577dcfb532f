"""A look at a run: each point once, whether it is in the store or still waits in a spool."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from asynctrack.reading.series import Series

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["look"]


async def look(
    store: AbstractStore,
    run_id: str,
    keys: Collection[str] | None = None,
    *,
    live: bool = True,
    min_step: int | None = None,
    max_step: int | None = None,
) -> dict[str, Series]:
    """The series of a run by metric key (default: all of its metrics), sorted by key.

    ``live``: with the points that spools here hold and the store does not have yet. Changes nothing anywhere. Raises
    `NotFoundError` for a run of which neither the store nor a spool knows.
    """
    increment = await store.read_columns(run_id, keys, min_step=min_step, max_step=max_step)
    return {key: Series(columns, len(columns)) for key, columns in sorted(increment.columns.items())}

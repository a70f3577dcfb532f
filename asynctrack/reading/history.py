"""Reading a `History` from a store and the spools beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from asynctrack.reading.looking import look
from asynctrack.reading.table import History, Piece

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.stores.base import AbstractStore

__all__ = ["read_history"]


async def read_history(
    store: AbstractStore,
    runs: Sequence[str | Run],
    keys: Collection[str] | None = None,
    *,
    x: str = "step",
    samples: int | None = None,
    min_step: int | None = None,
    max_step: int | None = None,
    live: bool = True,
) -> History:
    """The history of some runs, in the order in which they are given, and of some keys (default: all), in order.

    ``live``: with the points that spools here hold and the store does not have yet. Raises `NotFoundError`,
    InvalidInputError for an ``x`` that is none.
    """
    wanted = keys if keys is None or x in (*keys, "step", "time", "relative") else [*keys, x]
    pieces = []
    for given in runs:
        run = await store.get_run(given) if isinstance(given, str) else given
        series = await look(store, run.info.run_id, wanted, live=live, min_step=min_step, max_step=max_step)
        order = sorted(series) if keys is None else [key for key in wanted or () if key in series]
        pieces += [Piece(run, key, series[key]) for key in order]
    found = History(pieces).over(x)
    if keys is not None:
        found = found.only(keys)  # x may have been read for the others alone
    return found if samples is None else found.sample(samples)

"""Reading a `History` from a store and the spools beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asynctrack.reading.looking import look
from asynctrack.reading.table import History, Piece

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.asked import Asked
    from asynctrack.stores.base import AbstractStore

__all__ = ["read_history"]

_AXES = ("step", "time", "relative")


async def read_history(store: AbstractStore, runs: Sequence[str | Run], asked: Asked, *, live: bool = True) -> History:
    """The history of some runs, in the order in which they are given; their keys in the order that was asked for.

    ``live``: with the points that spools here hold and the store does not have yet. Raises `NotFoundError`,
    InvalidInputError for an ``x`` that no run has.
    """
    keys = asked.keys
    wanted = keys if keys is None or asked.x in (*keys, *_AXES) else [*keys, asked.x]
    pieces = []
    for given in runs:
        run = await store.get_run(given) if isinstance(given, str) else given
        series = await look(store, run.info.run_id, wanted, live=live, min_step=asked.min_step, max_step=asked.max_step)
        pieces += [Piece(run, key, series[key]) for key in (wanted or sorted(series)) if key in series]
    found = History(pieces).over(asked.x)
    if keys is not None:
        found = found.only(keys)  # x may have been read for the others alone
    return found if asked.samples is None else found.sample(asked.samples)

"""Reading a `History` from a store and the spools beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asynctrack.reading.looking import look
from asynctrack.reading.table import History, Piece

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.asked import Asked
    from asynctrack.stores.base import AbstractStore

__all__ = ["read_history"]

logger = logging.getLogger("asynctrack")

_AXES = ("step", "time", "relative")


async def read_history(store: AbstractStore, runs: Sequence[str | Run], asked: Asked, *, live: bool = True) -> History:
    """The history of some runs, in the order in which they are given; their keys in the order that was asked for.

    ``live``: with the points that spools here hold and the store does not have yet. A warning says where a store does
    not answer and only these can be given. Raises `NotFoundError`, InvalidInputError for an ``x`` that no run has, and
    what the store raises for a run of which no spool knows.
    """
    keys = asked.keys
    wanted = keys if keys is None or asked.x in (*keys, *_AXES) else [*keys, asked.x]
    pieces = []
    for given in runs:
        run_id = given if isinstance(given, str) else given.info.run_id
        series = await look(store, run_id, wanted, live=live, min_step=asked.min_step, max_step=asked.max_step)
        run = series.run if isinstance(given, str) else given
        if series.trouble is not None:
            logger.warning(
                "asynctrack: %s does not answer, so of run %s only what waits on this machine is shown: %s",
                store.uri,
                run_id,
                series.trouble,
            )
        pieces += [Piece(run, key, series[key]) for key in (wanted or sorted(series)) if key in series]
    found = History(pieces).over(asked.x)
    if keys is not None:
        found = found.only(keys)  # x may have been read for the others alone
    return found if asked.samples is None else found.sample(asked.samples)

"""`asynctrack.history`: what any runs of any store have logged, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import flag_of, given, run_id_of, several
from asynctrack.current import store_for
from asynctrack.errors import InvalidInputError
from asynctrack.reading.asked import asked_of
from asynctrack.reading.history import read_history
from asynctrack.runs.faces import RunFace
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.frames import Format
    from asynctrack.runs.run import ActiveRun

__all__ = ["history", "place_of", "run_meant"]


def history(
    runs: str | Run | ActiveRun | Iterable[Any],
    keys: str | Iterable[str] | None = None,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    x: str = "step",
    min_step: int | None = None,
    max_step: int | None = None,
    live: bool = True,
    format: Format = "columns",
) -> Any:
    """What some runs have logged: a `History`, with a row for each point.

    ``runs``: run ids or runs, also what `search_runs` gives. ``keys``: of
    metrics, default all. ``live=True``: with the points that wait in spools on
    this machine, whether or not the store answers. Every point is there,
    unless ``samples`` says how many of each metric: then the extremes are
    among them. ``x``: what they are sampled and drawn over: "step", "time",
    "relative" (s since the run began) or a metric's key. ``format``: "pandas",
    "polars", "arrow", "dict", or "columns", the History itself.

    ``tracking_uri``: of their store, default that of open runs, else
    `get_tracking_uri`.

    Any thread may call. Nothing is changed or delivered. Raises NotFoundError
    for a run that is nowhere, InvalidInputError, ImportError for a format
    whose package is not installed, another StoreError.
    """
    wanted = asked_of(keys, samples, x, min_step, max_step, format)
    found, overlay = _runs(runs), flag_of("live", live)
    store = store_for(place_of(runs) if given(tracking_uri) is None else tracking_uri)
    return wanted.give(drive(read_history(store, found, wanted, live=overlay)))


def _runs(runs: object) -> list[str | Run]:
    if _is_table(runs):
        runs = runs["run_id"]  # type: ignore[index]  # it is a data frame
    one = run_meant(runs)
    return [one] if one is not None else [run_meant(run) or run_id_of(run) for run in several("runs", runs)]


def place_of(runs: object) -> str | None:
    """The store of open runs; None for the current one, as for anything that does not tell its store."""
    many = runs if isinstance(runs, (list, tuple)) else [runs]
    found = {run.tracking_uri if isinstance(run, RunFace) else None for run in many}
    if len(found) > 1:
        raise InvalidInputError("runs: they are in several stores; name one with tracking_uri, or read them one by one")
    return found.pop() if found else None


def _is_table(runs: object) -> bool:
    """Whether it is what `search_runs` gives with pandas or polars."""
    try:
        return type(runs).__name__ == "DataFrame" and "run_id" in runs.columns  # type: ignore[attr-defined]  # tested
    except Exception:  # an object of any kind, whose attributes may do anything
        return False


def run_meant(run: Any) -> str | Run | None:
    """A run, or its id; None for what is neither. An open run is read by its id: its data would have to wait for the
    store. So is MLflow's."""
    from asynctrack.entities import Run

    if type(run) is Run:
        return run
    try:
        return run_id_of(run.run_id if hasattr(run, "run_id") else run.info.run_id)
    except InvalidInputError:
        raise
    except Exception:  # an object of any kind, whose attributes may do anything
        return run_id_of(run) if isinstance(run, (str, int)) else None

"""Opening the store that a verb reads, and asking it, in the calling thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrack.cli.terminal import clean
from asynctrack.current import current_store_uri, store_for
from asynctrack.errors import NotFoundError, StoreError, UnavailableError
from asynctrack.reading.naming import resolve
from asynctrack.reading.runs import FoundRun, find_runs
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.reading.series import Series
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Columns, Summary

__all__ = [
    "ask", "columns_of", "experiment_names", "labels_of", "looked", "named", "named_all", "open_store",
    "store_uri", "summaries", "tell",
]  # fmt: skip

T = TypeVar("T")
#: MLflow's spelling of a store behind asynctrack
_PREFIX = "asynctrack+"


def store_uri(given: str | None) -> str:
    """The canonical URI of the store that ``--store`` names, or that programs started here log to. Raises
    InvalidInputError."""
    from asynctrack.stores.uri import resolve_store_uri

    uri = given if given is not None else os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.strip().startswith(_PREFIX):
        return resolve_store_uri(uri.strip().removeprefix(_PREFIX))
    return resolve_store_uri(given) if given is not None else current_store_uri()


def open_store(given: str | None) -> AbstractStore:
    """That store. Raises InvalidInputError, and NotFoundError for a database that is not there, where no spool holds
    anything for it either: opening would make it."""
    uri = store_uri(given)
    if uri.startswith("sqlite:"):
        from asynctrack.stores.sql.places import sqlite_path

        if not os.path.exists(sqlite_path(uri)):
            from asynctrack.stores.memory import MemoryStore

            nothing = MemoryStore(uri)
            if not drive(find_runs(nothing, limit=1)):
                raise NotFoundError(f"there is no database at {uri}; --store names another store")
            return nothing
    return store_for(uri)


def tell(trouble: StoreError | None) -> None:
    """Say on standard error that a store did not answer, and what is shown nevertheless."""
    if trouble is not None:
        print(f"asynctrack: {clean(trouble)}; only what waits on this machine is shown", file=sys.stderr, flush=True)


def ask(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine over such a store returns."""
    return drive(work)


def named(store: AbstractStore, text: str, live: bool) -> FoundRun:
    """The run that a user means. Raises NotFoundError, and InvalidInputError for a text that means several."""
    return drive(resolve(store, text, live))


def named_all(store: AbstractStore, texts: Sequence[str], live: bool) -> list[FoundRun]:
    """The runs that a user means, each once, in their order."""
    found = [named(store, text, live) for text in texts]
    return list({each.run.info.run_id: each for each in found}.values())


def summaries(store: AbstractStore, found: FoundRun, keys: list[str] | None = None) -> dict[str, Summary]:
    """The summary of each metric of a run, by key in order, with the points that wait in spools."""
    if not found.waiting:
        return dict(sorted(drive(store.summarize(found.run.info.run_id, keys)).items()))
    from asynctrack.stores.columns import Summary

    made = {key: Summary.of(columns) for key, columns in columns_of(looked(store, found, keys)).items()}
    return {key: each for key, each in made.items() if each is not None}


def looked(
    store: AbstractStore,
    found: FoundRun,
    keys: list[str] | None = None,
    *,
    min_step: int | None = None,
    max_step: int | None = None,
    whole: bool = False,
) -> dict[str, Series]:
    """The points of each metric of a run, by key in order, with those that wait in spools, and which these are.
    ``whole``: raise what the store raises, also where spools hold something."""
    from asynctrack.reading.looking import look

    run_id = found.run.info.run_id
    made = drive(look(store, run_id, keys, live=found.waiting > 0, min_step=min_step, max_step=max_step))
    if whole and made.trouble is not None:
        raise made.trouble
    tell(made.trouble)
    return made


def columns_of(made: Mapping[str, Series]) -> dict[str, Columns]:
    """The points alone, by key."""
    return {key: each.columns for key, each in made.items()}


def labels_of(runs: Sequence[FoundRun]) -> list[str]:
    """What each run is called beside the others: its name, with the start of its id where another has the name."""
    names = [run.run.info.run_name or run.run.info.run_id[:8] for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} {run.run.info.run_id[:8]}"
        for name, run in zip(names, runs, strict=True)
    ]


def experiment_names(store: AbstractStore) -> dict[str, str]:
    """The name of each experiment, also of deleted ones, by id; none where the store does not answer."""
    from asynctrack.constants import ViewType
    from asynctrack.reading.finding import all_experiments

    try:
        return {each.experiment_id: each.name for each in drive(all_experiments(store, ViewType.ALL))}
    except UnavailableError:
        return {}  # what is asked next says so, or does without

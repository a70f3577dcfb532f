"""The tracking URI and the experiment of new runs, and the stores that this process uses for blocking calls."""

from __future__ import annotations

import logging
import os

from asynctrack.arguments import checked_name, experiment_id_of, given
from asynctrack.engine.lifecycle import after_fork
from asynctrack.engine.shutdown import Phase, Shutdown, at_shutdown
from asynctrack.errors import InvalidInputError
from asynctrack.reentrant import RLock
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store, resolve_store_uri

__all__ = [
    "choose_experiment",
    "current_store_uri",
    "get_tracking_uri",
    "is_tracking_uri_set",
    "remember_experiment",
    "rival_experiment",
    "set_tracking_uri",
    "store_for",
    "store_to_ask",
]

logger = logging.getLogger("asynctrack")

_URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
#: the URI of `set_tracking_uri` as it was given, and its canonical form
_uri_set_here: tuple[str, str] | None = None
#: the experiment of new runs, as (id, name) with one of them None; None before `remember_experiment`
_chosen: tuple[str | None, str | None] | None = None
#: one store for each URI and settings (which hold credentials), because a server's store holds connections
_stores: dict[tuple[str, Settings, bool], AbstractStore] = {}
_lock = RLock()

# ── the tracking URI


def set_tracking_uri(uri: str | os.PathLike[str] | None) -> None:
    """Set the store of new runs and calls. Open runs keep their store.

    ``uri``: a path or a ``file:`` URI (MLflow's file layout there),
    ``sqlite:///path.db`` and ``postgresql://…`` (MLflow's databases),
    ``http(s)://…`` (an MLflow server), ``databricks`` or
    ``databricks://profile``; None or "": nothing is set any more. A relative
    path is one of the present working directory. Also sets
    ``MLFLOW_TRACKING_URI``, as MLflow does, for child processes. Raises
    InvalidInputError for any other URI, and for one that is in quotes.
    """
    global _uri_set_here
    if given(uri) is None:
        _uri_set_here = None
        os.environ.pop(_URI, None)
        return
    canonical = resolve_store_uri(uri)
    spelling = canonical if isinstance(uri, os.PathLike) else str(uri)
    _uri_set_here = spelling, canonical
    os.environ[_URI] = spelling


def get_tracking_uri() -> str:
    """The URI of the store of new runs, as it was given to `set_tracking_uri`
    or in ``MLFLOW_TRACKING_URI``, with any credentials in it; else MLflow's
    default: ``./mlruns`` if it holds experiments, ``sqlite:///mlflow.db`` if
    not. Raises nothing."""
    if _uri_set_here is not None:
        return _uri_set_here[0]
    named = os.environ.get(_URI, "")
    return named if named.strip() else resolve_store_uri(None)


def current_store_uri() -> str:
    """The canonical URI of that store, without credentials. Raises InvalidInputError for a URI of no known kind in
    ``MLFLOW_TRACKING_URI``."""
    return resolve_store_uri(_uri_set_here[1] if _uri_set_here is not None else get_tracking_uri())


def is_tracking_uri_set() -> bool:
    """Whether `set_tracking_uri` or ``MLFLOW_TRACKING_URI`` chose a store.
    Raises nothing."""
    return _uri_set_here is not None or bool(os.environ.get(_URI, "").strip())


# ── the experiment


def choose_experiment(experiment_id: str | int | None, experiment_name: str | None) -> tuple[str | None, str | None]:
    """The experiment of a new run, as (id, name). One of them is None; both
    are, for the default experiment.

    In this order: the arguments, `remember_experiment`,
    ``MLFLOW_EXPERIMENT_NAME`` (created if missing), ``MLFLOW_EXPERIMENT_ID``,
    the default experiment. Raises InvalidInputError.
    """
    if experiment_id is not None and experiment_name is not None:
        raise InvalidInputError("give experiment_id or experiment_name, not both")
    # "" is the id that set_experiment(name) returns offline.
    if experiment_id is not None and given(experiment_id) is not None:
        return experiment_id_of(experiment_id), None
    if experiment_name is not None:
        return None, checked_name(experiment_name)
    if _chosen is not None:
        return _chosen
    if name := os.environ.get(_EXPERIMENT_NAME):
        return None, checked_name(name)
    by_id = os.environ.get(_EXPERIMENT_ID)
    return experiment_id_of(by_id) if by_id else None, None


def remember_experiment(*, experiment_id: str | None = None, experiment_name: str | None = None) -> None:
    """Choose the experiment of new runs, by id or by name, in this process and
    its child processes."""
    global _chosen
    _chosen = experiment_id, experiment_name
    # Both are set: what the other says may be about another experiment, and a child process would have to choose.
    for variable, value in ((_EXPERIMENT_ID, experiment_id), (_EXPERIMENT_NAME, experiment_name)):
        if value is not None:
            os.environ[variable] = value
        else:
            os.environ.pop(variable, None)


def rival_experiment(name: str) -> str | None:
    """``MLFLOW_EXPERIMENT_ID``, if the experiment ``name`` of a new run comes from ``MLFLOW_EXPERIMENT_NAME``: the two
    may contradict each other."""
    if _chosen is not None or os.environ.get(_EXPERIMENT_NAME) != name:
        return None
    return os.environ.get(_EXPERIMENT_ID) or None


# ── stores for blocking calls


def store_for(tracking_uri: str | os.PathLike[str] | None = None) -> AbstractStore:
    """The store of a URI (default: `get_tracking_uri`) for blocking calls. All
    threads of the process share it. Do not keep the result: a forked child has
    stores of its own. Raises InvalidInputError."""
    return _store(current_store_uri() if tracking_uri is None else resolve_store_uri(tracking_uri))


def store_to_ask(uri: str) -> AbstractStore:
    """As `store_for`, for a question that a program asks before it goes on in any case: every answer of the store has
    to be there after ``connect_timeout`` seconds."""
    return _store(uri, hurries=True)


def _store(uri: str, *, hurries: bool = False) -> AbstractStore:
    key = uri, current_settings(), hurries
    with _lock:
        found = _stores.get(key)
        if found is None:
            found = _stores[key] = open_store(uri, InlineIO())
            found.patience = key[1].connect_timeout if hurries else None
    return found


def _close_stores(_: Shutdown) -> None:
    global _stores
    # Without the lock: another thread may hold it for as long as opening a store takes.
    stores, _stores = _stores, {}
    for store in stores.values():
        try:
            drive(store.aclose())
        except Exception:
            # Nothing is lost: the engine delivers through a store of its own.
            logger.exception("asynctrack: %s could not be closed", store.uri)


def _forked() -> None:
    global _lock
    _lock = RLock()
    # Not closed, because the connections belong to the parent.
    _stores.clear()


at_shutdown(Phase.LEAVING, _close_stores)
after_fork(_forked)

"""The tracking URI of this process, and the way to the tracking service, the low-level verbs on experiments and runs.

::

    from asynctrack.tracking import get_service

    service = get_service("file:./mlruns")
    run = service.create_run(service.create_experiment("vision"), tags={"team": "cv"})
    service.log_metric(run.info.run_id, "loss", 0.1)  # enqueued: does not wait
    service.set_terminated(run.info.run_id)           # delivers that run's events first
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from asynctrack.engine.lifecycle import after_fork, before_exit
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store, resolve_store_uri

if TYPE_CHECKING:
    from asynctrack.service.awaitable import AsyncMLflowService
    from asynctrack.service.blocking import MLflowService
    from asynctrack.service.client import MlflowClient
    from asynctrack.stores.base import AbstractStore

__all__ = [
    "AsyncMLflowService",
    "MLflowService",
    "MlflowClient",
    "get_async_service",
    "get_service",
    "get_tracking_uri",
    "is_tracking_uri_set",
    "set_tracking_uri",
    "store_for",
]

logger = logging.getLogger("asynctrack")

_VARIABLE = "MLFLOW_TRACKING_URI"
_set_here: str | None = None
#: one blocking store a URI and process (and settings, which hold credentials): a server's holds connections
_stores: dict[tuple[str, Settings], AbstractStore] = {}
_lock = threading.Lock()


def set_tracking_uri(uri: str | os.PathLike[str]) -> None:
    """Set the store for runs and calls from now on; runs that are open keep theirs.

    ``""`` or a path or ``file:`` URI: MLflow's file layout there (``./mlruns`` if empty); ``http(s)://…``: an MLflow
    server; ``databricks`` or ``databricks://profile``. Also sets ``MLFLOW_TRACKING_URI``, as MLflow does, for child
    processes. Raises InvalidInputError for any other kind.
    """
    global _set_here
    _set_here = resolve_store_uri(uri)
    # A server's as it was given, with the credentials that may stand in it, which a child process needs too.
    os.environ[_VARIABLE] = str(uri) if _set_here.startswith("http") else _set_here


def get_tracking_uri() -> str:
    """The store for the next run: as set here, else ``MLFLOW_TRACKING_URI``, else ``./mlruns``. A canonical URI."""
    return resolve_store_uri(_set_here or os.environ.get(_VARIABLE))


def is_tracking_uri_set() -> bool:
    """Whether a store was chosen, here or by the environment."""
    return bool(_set_here or os.environ.get(_VARIABLE))


def get_service(tracking_uri: str | os.PathLike[str] | None = None) -> MLflowService:
    """The tracking service of a store; without a URI of the one `get_tracking_uri` names now. Raises
    InvalidInputError for a URI that leads to no store."""
    from asynctrack.service.blocking import MLflowService

    return MLflowService.at(tracking_uri)


def get_async_service(tracking_uri: str | os.PathLike[str] | None = None) -> AsyncMLflowService:
    """`get_service` with verbs to await, for one event loop (asyncio or trio); close it with ``async with``."""
    from asynctrack.service.awaitable import AsyncMLflowService

    return AsyncMLflowService.at(tracking_uri)


def store_for(tracking_uri: str | os.PathLike[str] | None = None) -> AbstractStore:
    """The store of a URI (default: `get_tracking_uri`) for blocking calls, one for the whole process; to be asked for
    anew each time, since a forked child has its own. Raises InvalidInputError."""
    key = get_tracking_uri() if tracking_uri is None else resolve_store_uri(tracking_uri), current_settings()
    with _lock:
        found = _stores.get(key)
        if found is None:
            found = _stores[key] = open_store(key[0], InlineIO())
    return found


def _close_stores(_status: str) -> None:
    with _lock:
        stores = list(_stores.values())
        _stores.clear()
    for store in stores:
        try:
            drive(store.aclose())
        except Exception:
            # What was to be delivered goes through the engine's own store; this one was for reading.
            logger.exception("asynctrack: %s could not be closed", store.uri)


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    # Not closed: the connections are the parent's.
    _stores.clear()


before_exit(_close_stores)
after_fork(_forked)


def __getattr__(name: str) -> Any:
    """The services, loaded when somebody asks: `import asynctrack` needs none of them."""
    from importlib import import_module

    homes = {"AsyncMLflowService": "awaitable", "MLflowService": "blocking", "MlflowClient": "client"}
    if name in homes:
        return getattr(import_module(f"asynctrack.service.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The tracking URI of this process, and the tracking service: the low-level verbs on experiments and runs.

::

    from asynctrack.tracking import get_service

    service = get_service("file:./mlruns")
    run = service.create_run(service.create_experiment("vision"), tags={"team": "cv"})
    service.log_metric(run.info.run_id, "loss", 0.1)  # enqueued: does not wait
    service.set_terminated(run.info.run_id)           # delivers that run's events first
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from asynctrack.current import get_tracking_uri, is_tracking_uri_set, set_tracking_uri, store_for

if TYPE_CHECKING:
    from asynctrack.service.awaitable import AsyncMLflowService
    from asynctrack.service.blocking import MLflowService
    from asynctrack.service.client import MlflowClient

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


def get_service(tracking_uri: str | os.PathLike[str] | None = None) -> MLflowService:
    """The tracking service of the store at ``tracking_uri`` (default:
    `get_tracking_uri`). Any thread may use it. Raises InvalidInputError for a
    URI of no known kind."""
    from asynctrack.service.blocking import MLflowService

    return MLflowService.at(tracking_uri)


def get_async_service(tracking_uri: str | os.PathLike[str] | None = None) -> AsyncMLflowService:
    """The same service with verbs to await, for one event loop (asyncio or
    trio). Use it in ``async with``, which closes it. Raises InvalidInputError
    for a URI of no known kind."""
    from asynctrack.service.awaitable import AsyncMLflowService

    return AsyncMLflowService.at(tracking_uri)


def __getattr__(name: str) -> Any:
    """Load the services on first use: `import asynctrack` stays cheap."""
    from importlib import import_module

    homes = {"AsyncMLflowService": "awaitable", "MLflowService": "blocking", "MlflowClient": "client"}
    if name in homes:
        return getattr(import_module(f"asynctrack.service.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

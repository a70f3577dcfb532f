"""`AsyncMLflowService`: the verbs of `MLflowService`, awaited."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from asynctrack.service import artifacts, events, experiments, runs
from asynctrack.service.binding import awaited, plain
from asynctrack.service.session import Session
from asynctrack.service.target import Given, Located, OnLoop
from asynctrack.stores.base import AbstractStore

__all__ = ["AsyncMLflowService"]


class AsyncMLflowService:
    """`MLflowService` on an event loop, asyncio or trio: the same verbs and
    errors, awaited. Verbs that log are plain calls.

    One object serves one loop and any number of its tasks. Leaving its ``async
    with`` block closes its connections; logged events are still delivered.
    """

    def __init__(self, store: AbstractStore) -> None:
        self._session = Session(Given(store, OnLoop()))

    @classmethod
    def at(cls, tracking_uri: str | os.PathLike[str] | None = None) -> Self:
        """The service of the store at a URI; see
        `asynctrack.get_async_service`."""
        service = cls.__new__(cls)
        service._session = Session(Located(tracking_uri, OnLoop()))
        return service

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tracking_uri!r})"

    @property
    def tracking_uri(self) -> str:
        """The store's canonical URI, without credentials."""
        return self._session.target.uri

    create_experiment = awaited(experiments.create_experiment)
    get_experiment = awaited(experiments.get_experiment)
    get_experiment_by_name = awaited(experiments.get_experiment_by_name)
    list_experiments = awaited(experiments.list_experiments)
    search_experiments = awaited(experiments.search_experiments)
    rename_experiment = awaited(experiments.rename_experiment)
    set_experiment_tag = awaited(experiments.set_experiment_tag)
    delete_experiment_tag = awaited(experiments.delete_experiment_tag)
    delete_experiment = awaited(experiments.delete_experiment)
    restore_experiment = awaited(experiments.restore_experiment)

    create_run = awaited(runs.create_run)
    get_run = awaited(runs.get_run)
    list_runs = awaited(runs.list_runs)
    list_run_infos = awaited(runs.list_run_infos)
    search_runs = awaited(runs.search_runs)
    get_metric_history = awaited(runs.get_metric_history)
    update_run = awaited(runs.update_run)
    delete_run = awaited(runs.delete_run)
    restore_run = awaited(runs.restore_run)
    delete_tag = awaited(runs.delete_tag)
    set_terminated = awaited(runs.set_terminated)

    log_metric = plain(events.log_metric)
    log_param = plain(events.log_param)
    set_tag = plain(events.set_tag)
    log_batch = plain(events.log_batch)
    flush = awaited(events.flush)

    log_artifact = awaited(artifacts.log_artifact)
    log_artifacts = awaited(artifacts.log_artifacts)
    list_artifacts = awaited(artifacts.list_artifacts)
    download_artifacts = awaited(artifacts.download_artifacts)

    async def aclose(self) -> None:
        """Close the connections of this object. A store object that the user
        passed in stays open."""
        await self._session.target.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

"""`MLflowService`, and the verbs that it shares with `MlflowClient`."""

from __future__ import annotations

import os
from typing import Self

from asynctrack.service import artifacts, events, experiments, runs
from asynctrack.service.binding import blocking, plain
from asynctrack.service.session import Session
from asynctrack.service.target import Given, InThread, Located, Target
from asynctrack.stores.base import AbstractStore

__all__ = ["Blocking", "MLflowService"]


class Blocking:
    """The verbs that `MLflowService` and `MlflowClient` share. Any thread may
    call them. Verbs that log do not block; the others block the calling
    thread."""

    def __init__(self, target: Target) -> None:
        self._session = Session(target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tracking_uri!r})"

    @property
    def tracking_uri(self) -> str:
        """The store's canonical URI, without credentials."""
        return self._session.target.uri

    get_experiment = blocking(experiments.get_experiment)
    get_experiment_by_name = blocking(experiments.get_experiment_by_name)
    search_experiments = blocking(experiments.search_experiments)
    rename_experiment = blocking(experiments.rename_experiment)
    set_experiment_tag = blocking(experiments.set_experiment_tag)
    delete_experiment_tag = blocking(experiments.delete_experiment_tag)
    delete_experiment = blocking(experiments.delete_experiment)
    restore_experiment = blocking(experiments.restore_experiment)

    get_run = blocking(runs.get_run)
    search_runs = blocking(runs.search_runs)
    get_metric_history = blocking(runs.get_metric_history)
    update_run = blocking(runs.update_run)
    delete_run = blocking(runs.delete_run)
    restore_run = blocking(runs.restore_run)
    delete_tag = blocking(runs.delete_tag)
    set_terminated = blocking(runs.set_terminated)
    flush = blocking(events.flush)

    list_artifacts = blocking(artifacts.list_artifacts)
    download_artifacts = blocking(artifacts.download_artifacts)


class MLflowService(Blocking):
    """The tracking service of one store: create, read, update and delete
    experiments and runs.

    Each verb takes the id of the run or experiment it is about, a string or an
    integer. Any thread may call. Verbs that log (`log_metric`, `log_param`,
    `set_tag`, `log_batch`) return at once; the events are delivered in the
    background. The other verbs wait for the store. A verb that reads, changes
    or ends a run first waits until the events that this process logged to it
    are delivered.

    Raised are InvalidInputError for a bad argument, before anything is done;
    NotFoundError, AlreadyExistsError, RefusedError (for a deleted run or
    experiment), UnavailableError or another StoreError from the store;
    FlushTimeoutError for events that are not delivered within
    ``close_timeout`` seconds; and, by `flush` and `set_terminated`,
    DeliveryError for events that the store refused.
    """

    def __init__(self, store: AbstractStore) -> None:
        super().__init__(Given(store, InThread()))

    @classmethod
    def at(cls, tracking_uri: str | os.PathLike[str] | None = None) -> Self:
        """The service of the store at a URI; see `asynctrack.get_service`."""
        service = cls.__new__(cls)
        Blocking.__init__(service, Located(tracking_uri, InThread()))
        return service

    create_experiment = blocking(experiments.create_experiment)
    list_experiments = blocking(experiments.list_experiments)

    create_run = blocking(runs.create_run)
    list_runs = blocking(runs.list_runs)
    list_run_infos = blocking(runs.list_run_infos)

    log_metric = plain(events.log_metric)
    log_param = plain(events.log_param)
    set_tag = plain(events.set_tag)
    log_batch = plain(events.log_batch)

    log_artifact = blocking(artifacts.log_artifact)
    log_artifacts = blocking(artifacts.log_artifacts)

"""Which experiment a new run belongs to, and the fluent functions about experiments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from asynctrack.settings import current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import drive
from asynctrack.tracking import store_for

if TYPE_CHECKING:
    from asynctrack.entities import Experiment

__all__ = [
    "choose_experiment",
    "create_experiment",
    "delete_experiment",
    "get_experiment",
    "get_experiment_by_name",
    "search_experiments",
    "set_experiment",
    "set_experiment_tag",
    "set_experiment_tags",
    "store_here",
]

_NAME, _ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
#: the experiment of new runs, as (id, name): one of them where `set_experiment` was called
_chosen: tuple[str | None, str | None] | None = None


def store_here() -> AbstractStore:
    """The store of the current tracking URI, for blocking calls in this thread."""
    return store_for()


def choose_experiment(experiment_id: str | int | None, experiment_name: str | None) -> tuple[str | None, str | None]:
    """The experiment of a new run, as (id, name), one or both None: the arguments, else `set_experiment`, else
    ``MLFLOW_EXPERIMENT_NAME`` (created if missing), else ``MLFLOW_EXPERIMENT_ID``, else the default experiment."""
    if experiment_id is not None and experiment_name is not None:
        raise InvalidInputError("give experiment_id or experiment_name, not both")
    if experiment_id not in (None, ""):  # "": an experiment chosen by name, offline
        return str(experiment_id), None
    if experiment_name is not None:
        return None, experiment_name
    if _chosen is not None:
        return _chosen
    if os.environ.get(_NAME):
        return None, os.environ[_NAME]
    return os.environ.get(_ID) or None, None


def set_experiment(experiment_name: str | None = None, experiment_id: str | int | None = None) -> Experiment:
    """Make an experiment the one for runs from now on; one that is named and missing is created.

    Also sets ``MLFLOW_EXPERIMENT_ID``, as MLflow does, for child processes. Raises InvalidInputError unless exactly one
    argument is given or when the experiment is deleted, NotFoundError for an unknown id.

    Offline the store is not asked: what is given is remembered, in the environment too, and used when the runs are
    created. What is returned then holds that alone, and "" for what only the store knows.
    """
    global _chosen
    if (experiment_name is None) == (experiment_id is None):
        raise InvalidInputError("set_experiment takes exactly one of experiment_name and experiment_id")
    if current_settings().mode == "offline":
        return _choose_unseen(experiment_name, experiment_id)
    store = store_here()
    if experiment_name is not None:
        experiment = drive(store.get_experiment_by_name(experiment_name))
        if experiment is None:
            try:
                drive(store.create_experiment(experiment_name))
            except AlreadyExistsError:
                pass  # another process has created it since we looked
            experiment = drive(store.get_experiment_by_name(experiment_name))
        if experiment is None:
            raise NotFoundError(f"experiment {experiment_name!r} disappeared from {store.uri} while it was created")
    else:
        experiment = drive(store.get_experiment(str(experiment_id)))
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidInputError(
            f"experiment {experiment.name!r} ({experiment.experiment_id}) is deleted; restore it, or use another name"
        )
    _chosen = experiment.experiment_id, None
    os.environ[_ID] = experiment.experiment_id
    return experiment


def _choose_unseen(name: str | None, experiment_id: str | int | None) -> Experiment:
    global _chosen
    from asynctrack.entities import Experiment

    if name is not None:
        _chosen = None, name
        os.environ[_NAME] = name
        return Experiment("", name, "")
    _chosen = str(experiment_id), None
    os.environ[_ID] = str(experiment_id)
    return Experiment(str(experiment_id), "", "")


def create_experiment(name: str, artifact_location: str | None = None, tags: dict[str, Any] | None = None) -> str:
    """Create an experiment; its id. Raises AlreadyExistsError, InvalidInputError."""
    texts = {key: str(value) for key, value in (tags or {}).items()}
    return drive(store_here().create_experiment(name, artifact_location, texts))


def get_experiment(experiment_id: str | int) -> Experiment:
    """An experiment, also a deleted one. Raises NotFoundError."""
    return drive(store_here().get_experiment(str(experiment_id)))


def get_experiment_by_name(name: str) -> Experiment | None:
    """An experiment, also a deleted one; None where there is none of that name."""
    return drive(store_here().get_experiment_by_name(name))


def search_experiments(
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
) -> list[Experiment]:
    """All experiments that match, or the first ``max_results``."""
    store = store_here()
    found: list[Experiment] = []
    token: str | None = None
    while True:
        wanted = 1000 if max_results is None else min(1000, max_results - len(found))
        page = drive(store.search_experiments(view_type, wanted, filter_string or "", tuple(order_by or ()), token))
        found += page.items
        token = page.token
        if token is None or (max_results is not None and len(found) >= max_results):
            return found


def delete_experiment(experiment_id: str | int) -> None:
    """Mark an experiment deleted. Raises NotFoundError."""
    drive(store_here().delete_experiment(str(experiment_id)))


def set_experiment_tag(key: str, value: Any) -> None:
    """Set a tag of the experiment that runs started now belong to."""
    set_experiment_tags({key: value})


def set_experiment_tags(tags: dict[str, Any]) -> None:
    """Set tags of the experiment that runs started now belong to."""
    store = store_here()
    experiment_id, name = choose_experiment(None, None)
    if name is not None:
        experiment_id = set_experiment(name).experiment_id
    for key, value in tags.items():
        drive(store.set_experiment_tag(experiment_id or "0", key, str(value)))

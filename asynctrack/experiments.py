"""MLflow's functions about experiments. Any thread may call them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import checked_name, experiment_id_of, most_of, search_of, tags_of, text_of
from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.current import choose_experiment, remember_experiment, store_for
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from asynctrack.settings import current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.entities import Experiment
    from asynctrack.service.client import MlflowClient

__all__ = [
    "choose_experiment",
    "create_experiment",
    "delete_experiment",
    "delete_experiment_tag",
    "get_experiment",
    "get_experiment_by_name",
    "search_experiments",
    "set_experiment",
    "set_experiment_tag",
    "set_experiment_tags",
    "store_here",
]

#: experiments in one page
_PAGE = 1000


def store_here() -> AbstractStore:
    """The store of the current tracking URI, for blocking calls."""
    return store_for()


def _client() -> MlflowClient:
    from asynctrack.service.client import MlflowClient

    return MlflowClient()


def set_experiment(experiment_name: str | None = None, experiment_id: str | int | None = None) -> Experiment:
    """Choose the experiment of new runs, by name or by id. An experiment that
    is named and missing is created.

    Also sets ``MLFLOW_EXPERIMENT_ID``, as MLflow does, for child processes.
    Raises InvalidInputError unless exactly one argument is given, and for a
    deleted experiment; NotFoundError for an unknown id; other StoreErrors.

    With ``mode="offline"`` the store is not asked. The name or id is kept,
    also in the environment, and used when the runs are created. The
    `Experiment` returned then has "" in the fields that only the store knows.
    """
    if (experiment_name is None) == (experiment_id is None):
        raise InvalidInputError("set_experiment takes exactly one of experiment_name and experiment_id")
    name = None if experiment_name is None else checked_name(experiment_name)
    by_id = None if experiment_id is None else experiment_id_of(experiment_id)
    if current_settings().mode == "offline":
        from asynctrack.entities import Experiment

        remember_experiment(experiment_id=by_id, experiment_name=name)
        return Experiment(by_id or "", name or "", "")
    experiment = _client().get_experiment(by_id or "") if name is None else _named(name)
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidInputError(
            f"experiment {experiment.name!r} ({experiment.experiment_id}) is deleted; restore it, or use another name"
        )
    remember_experiment(experiment_id=experiment.experiment_id)
    return experiment


def _named(name: str) -> Experiment:
    """The experiment of that name. It is created if it is missing."""
    client = _client()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name)
        except AlreadyExistsError:
            pass  # another process created it in the meantime
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise NotFoundError(f"experiment {name!r} disappeared from {client.tracking_uri} while it was created")
    return experiment


def create_experiment(
    name: str, artifact_location: str | os.PathLike[str] | None = None, tags: Mapping[str, Any] | None = None
) -> str:
    """Create an experiment and return its id. Raises AlreadyExistsError (also
    when a deleted experiment has the name) or another StoreError, and
    InvalidInputError."""
    return _client().create_experiment(name, artifact_location, tags)


def get_experiment(experiment_id: str | int) -> Experiment:
    """An experiment, also a deleted one. Raises NotFoundError or another
    StoreError."""
    return _client().get_experiment(experiment_id)


def get_experiment_by_name(name: str | None) -> Experiment | None:
    """An experiment, also a deleted one, or None if no experiment has that
    name. Raises a StoreError when the store cannot answer."""
    return _client().get_experiment_by_name(name)


def search_experiments(
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
) -> list[Experiment]:
    """All experiments that match a filter in MLflow's syntax, or the first
    ``max_results`` (none, if that is not positive, as in MLflow). Raises InvalidInputError for a bad filter, or a
    StoreError."""
    client = _client()
    most = most_of(max_results)
    search_of(view_type, 1, filter_string, order_by)
    found: list[Experiment] = []
    token: str | None = None
    while most is None or len(found) < most:
        wanted = _PAGE if most is None else min(_PAGE, most - len(found))
        page = client.search_experiments(view_type, wanted, filter_string, order_by, token)
        found += page
        token = page.token
        if token is None:
            break
    return found


def delete_experiment(experiment_id: str | int) -> None:
    """Mark an experiment deleted. Raises NotFoundError or another StoreError;
    FlushTimeoutError when the events of this process are not delivered in
    time."""
    _client().delete_experiment(experiment_id)


def set_experiment_tag(key: str, value: Any) -> None:
    """Set one tag of the experiment of new runs. Raises what
    `set_experiment_tags` raises."""
    set_experiment_tags({text_of("key", key): value})


def set_experiment_tags(tags: Mapping[str, Any]) -> None:
    """Set tags of the experiment of new runs, which is created if it is
    missing. All are checked before any is set. Raises InvalidInputError, and
    NotFoundError or another StoreError."""
    texts = tags_of(tags)
    for key in texts:
        store_here().check_key("tag", key)
    experiment_id, name = choose_experiment(None, None)
    if name is not None:
        experiment_id = _named(name).experiment_id
    client = _client()
    for key, text in texts.items():
        client.set_experiment_tag(experiment_id or "0", key, text)


def delete_experiment_tag(key: str) -> None:
    """Remove a tag of the experiment of new runs. Raises NotFoundError, also
    for a tag that does not exist, and what `set_experiment_tags` raises."""
    wanted = text_of("key", key)
    experiment_id, name = choose_experiment(None, None)
    client = _client()
    if name is not None:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise NotFoundError(f"there is no experiment {shortened(name)}, so it has no tag {shortened(wanted)}")
        experiment_id = found.experiment_id
    client.delete_experiment_tag(experiment_id or "0", wanted)

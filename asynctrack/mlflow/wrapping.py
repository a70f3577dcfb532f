"""Makes of a tracking store of MLflow's one that logs through the journal.

The result is an instance of a subclass of the store's class, because MLflow asks ``isinstance(store, RestStore)``. It
has none of that class's state or behaviour: what `JournalStore` does not define is forwarded to the store. So the calls
that a store makes on itself (``FileStore.create_run`` calls ``set_tag``) stay within it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.mlflow import clients, quick
from asynctrack.mlflow.patches import adapt_mlflow
from asynctrack.mlflow.store import JournalStore
from asynctrack.stores.uri import resolve_store_uri

__all__ = ["class_for", "unwrap", "wrapped"]

logger = logging.getLogger("asynctrack")

#: about one run, which is named by the first argument: its events are delivered first
AFTER_ITS_EVENTS = (
    *("get_metric_history", "get_metric_history_bulk_interval_from_steps", "get_max_step_for_metric", "delete_tag"),
)
#: about one run, and as right before its events as behind them
ABOUT_ONE_RUN = ("record_logged_model",)
#: about the runs of some experiments, which are named by the first argument: their events are delivered first
AFTER_THEIR_EVENTS = ("_search_datasets",)
#: about any number of runs: the events of all are delivered first
AFTER_ALL_EVENTS = ("get_metric_history_bulk_interval", "get_metric_history_bulk")
#: about one logged model, which is named by the first argument, and answers it with its metrics: these are delivered
#: first
AFTER_ITS_METRICS = ("get_logged_model", "finalize_logged_model")
#: about any number of logged models, with their metrics
AFTER_ALL_METRICS = ("search_logged_models",)

_classes: dict[type, type] = {}


def wrapped(inner: Any, uri: str) -> Any:
    """The store ``inner``, which MLflow has built for ``uri``, behind the journal; ``inner`` itself, with a warning,
    where asynctrack has no store of its own that leads there."""
    try:
        target = resolve_store_uri(uri)
    except InvalidInputError as error:
        logger.warning("asynctrack: what is logged goes to MLflow's own store, as without asynctrack: %s", error)
        return inner
    adapt_mlflow()
    quick.SWAP.replace()
    clients.SWAP.replace()
    return class_for(type(inner))(inner, uri, target)


def unwrap() -> None:
    """MLflow builds its own stores again: have its functions do as they did."""
    quick.SWAP.restore()
    clients.SWAP.restore()
    clients.forget()


def class_for(cls: type) -> type:
    """The class of a wrapped store of class ``cls``."""
    if cls not in _classes:
        members = {name: _member(name, getattr(cls, name)) for name in dir(cls) if _is_forwarded(name)}
        _classes[cls] = type(f"Asynctrack{cls.__name__}", (JournalStore, cls), members)
    return _classes[cls]


def _is_forwarded(name: str) -> bool:
    return not name.startswith("__") and not hasattr(JournalStore, name)


def _member(name: str, value: Any) -> Any:
    if isinstance(value, type) or not callable(value):
        return property(lambda store: getattr(store._asynctrack_inner, name))
    forward = _forward(name)
    return functools.wraps(value)(forward)


def _forward(name: str) -> Callable[..., Any]:
    def plain(store: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(store._asynctrack_inner, name)(*args, **kwargs)

    def about_one_run(store: Any, run_id: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(store._asynctrack_inner, name)(store._asynctrack_id(run_id), *args, **kwargs)

    def after_its_events(store: Any, run_id: Any, *args: Any, **kwargs: Any) -> Any:
        store._asynctrack_deliver(run_id)
        return about_one_run(store, run_id, *args, **kwargs)

    def after_their_events(store: Any, experiment_ids: Any, *args: Any, **kwargs: Any) -> Any:
        store._asynctrack_deliver(experiment_ids=experiment_ids)
        return plain(store, experiment_ids, *args, **kwargs)

    def after_all_events(store: Any, *args: Any, **kwargs: Any) -> Any:
        store._asynctrack_deliver()
        return plain(store, *args, **kwargs)

    def after_its_metrics(store: Any, model_id: Any, *args: Any, **kwargs: Any) -> Any:
        models = store._asynctrack_runs.models
        for run_id in models.runs_of(model_id):
            store._asynctrack_deliver(run_id)
        return models.know(plain(store, model_id, *args, **kwargs))

    def after_all_metrics(store: Any, *args: Any, **kwargs: Any) -> Any:
        for run_id in store._asynctrack_runs.models.runs_of():
            store._asynctrack_deliver(run_id)
        return plain(store, *args, **kwargs)

    def makes_a_model(store: Any, *args: Any, **kwargs: Any) -> Any:
        return store._asynctrack_runs.models.know(plain(store, *args, **kwargs))

    def deletes_a_model(store: Any, model_id: Any, *args: Any, **kwargs: Any) -> Any:
        store._asynctrack_runs.models.forget(model_id)
        return plain(store, model_id, *args, **kwargs)

    for names, forward in (
        (AFTER_ITS_METRICS, after_its_metrics),
        (AFTER_ALL_METRICS, after_all_metrics),
        (("create_logged_model",), makes_a_model),
        (("delete_logged_model",), deletes_a_model),
        (AFTER_ITS_EVENTS, after_its_events),
        (ABOUT_ONE_RUN, about_one_run),
        (AFTER_THEIR_EVENTS, after_their_events),
        (AFTER_ALL_EVENTS, after_all_events),
    ):
        if name in names:
            return forward
    return plain

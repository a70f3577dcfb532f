"""The log methods of ``MlflowClient`` while stores are wrapped: straight to the journal where that is the same, else
MLflow's own.

It is the same for a run that is known here, of a wrapped store, as long as nobody has put something else in the place
of what the method would call: MLflow's service client, its store, the methods of both. As in `asynctrack.mlflow.quick`,
that is looked at in each call.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from mlflow.tracking import client as _module
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import client as _services
from mlflow.tracking._tracking_service import utils

from asynctrack.engine.lifecycle import after_fork
from asynctrack.errors import AsynctrackError
from asynctrack.mlflow.points import CLOCK, LIMIT, MetricPoint, current_time, may_be_moved, points_of
from asynctrack.mlflow.quick import waits
from asynctrack.mlflow.replaced import is_replaced
from asynctrack.mlflow.store import JournalStore
from asynctrack.mlflow.swapping import Swap
from asynctrack.values import to_float

if TYPE_CHECKING:
    from asynctrack.mlflow.runs import LoggedRun, LoggedRuns

__all__ = ["SWAP", "forget"]

_mlflow: Any = utils
_fluent: Any = fluent
_now = time.time_ns
_own_time: Any = _services
_service: Any = _services.TrackingServiceClient
#: what the short way is instead of, as it was; the methods of MLflow's service client and of its store have one name
_get_store, _store = utils._get_store, _service.store
_verbs = {name: getattr(_service, name) for name in ("log_metric", "log_param", "set_tag", "log_batch")}
#: what one call may hold that MLflow sends as it is: more than this it cuts into several batches
_MOST_METRICS, _MOST_OTHERS = 1000, 100

#: by tracking URI: the runs of the wrapped store, the class of MLflow's own behind it, and the wrapped store's
#: attributes: where it has another one, a program, a test mostly, has replaced a method of this very store
_stores: dict[str, tuple[LoggedRuns, type, dict[str, Any]]] = {}
#: attributes of a wrapped store, and of a service client
_OF_STORE, _OF_SERVICE = 3, 1
#: URIs that are remembered
_REMEMBERED = 100
_pid = os.getpid()


def _known(client: Any, verb: str, run_id: Any) -> tuple[LoggedRuns, LoggedRun] | None:
    """The runs of a client's store, and of these the one with an id. None where MLflow has to look for it, is not what
    it was, or has more to log than it was given: for the active model."""
    service = client._tracking_client
    runs, kind, attributes = _stores[service.tracking_uri]
    if type(service) is not _service or len(vars(service)) != _OF_SERVICE or len(attributes) != _OF_STORE:
        return None
    if _service.store is not _store or getattr(_service, verb) is not _verbs[verb]:
        return None
    if type(time.time) is not CLOCK or _own_time.get_current_time_millis is not current_time:
        return None
    if _mlflow._get_store is not _get_store or is_replaced(kind, verb):
        return None
    context, pid = _fluent._ACTIVE_MODEL_CONTEXT.thread_local.value
    if pid != _pid or context._model_id is not None:
        return None
    return runs, runs.by_id[run_id]


def log_metric(
    client: Any,
    run_id: Any,
    key: Any,
    value: Any,
    timestamp: Any,
    step: Any,
    synchronous: Any,
    dataset_name: Any,
    dataset_digest: Any,
    model_id: Any,
) -> Any:
    whole = (step is None or type(step) is int) and (timestamp is None or type(timestamp) is int)
    if whole and dataset_name is None and dataset_digest is None and waits(synchronous):
        try:
            known = _known(client, "log_metric", run_id)
            if known is not None:
                runs, run = known
                on = run.measured(key, model_id, None, None) if model_id else None
                at, when = step or 0, _now() // 1_000_000 if timestamp is None else timestamp
                good = -LIMIT <= at < LIMIT and 0 <= when < LIMIT and (on is None or model_id in runs.models.known)
                if good:
                    number = value if type(value) is float else to_float(key, value)
                    run.log_point(MetricPoint(key, number, at, when, timestamp is None or may_be_moved(when, on), on))
                    return None
        except (AsynctrackError, AttributeError, KeyError, TypeError, OverflowError):
            pass
    return _by_mlflow(
        "log_metric", client, run_id, key, value, timestamp, step, synchronous, dataset_name, dataset_digest, model_id
    )


def log_param(client: Any, run_id: Any, key: Any, value: Any, synchronous: Any) -> Any:
    if waits(synchronous) and _write(client, "log_param", run_id, params=((key, value),)):
        return value
    return _by_mlflow("log_param", client, run_id, key, value, synchronous)


def set_tag(client: Any, run_id: Any, key: Any, value: Any, synchronous: Any) -> Any:
    if waits(synchronous) and _write(client, "set_tag", run_id, tags=((key, value),)):
        return None
    return _by_mlflow("set_tag", client, run_id, key, value, synchronous)


def log_batch(client: Any, run_id: Any, metrics: Any, params: Any, tags: Any, synchronous: Any) -> Any:
    if waits(synchronous) and _are_lists(metrics, params, tags):
        try:
            texts = {each.key: str(each.value) for each in params}
            # A param that comes twice, and a tag that is no text, are for MLflow to refuse.
            if len(texts) == len(params) and all(type(each.value) is str for each in tags):
                labels = {each.key: each.value for each in tags}
                if _write(client, "log_batch", run_id, metrics, texts, labels):
                    return None
        except (AttributeError, TypeError, ValueError):
            pass
    return _by_mlflow("log_batch", client, run_id, metrics, params, tags, synchronous)


def _are_lists(metrics: Any, params: Any, tags: Any) -> bool:
    """Whether these are lists, with something in them, that MLflow sends in one piece."""
    if not all(type(each) in (list, tuple) for each in (metrics, params, tags)):
        return False
    others = len(params), len(tags)
    return max(others) <= _MOST_OTHERS and 0 < len(metrics) + sum(others) <= _MOST_METRICS


def _write(client: Any, verb: str, run_id: Any, metrics: Any = (), params: Any = (), tags: Any = ()) -> bool:
    """Log all of it to the journal; whether that was possible."""
    try:
        known = _known(client, verb, run_id)
        if known is None:
            return False
        runs, run = known
        points = list(points_of(metrics))
        if any(point.on is not None and point.on.model_id not in (None, *runs.models.known) for point in points):
            return False
        for point in points:
            if point.on is not None:
                run.streams[point.on]
        run.write(
            points,
            {key: str(value) for key, value in dict(params).items()},
            {key: str(value) for key, value in dict(tags).items()},
        )
    except (AsynctrackError, AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _by_mlflow(name: str, client: Any, *arguments: Any) -> Any:
    found = SWAP.own[name](client, *arguments)
    service: Any = getattr(client, "_tracking_client", None)
    if type(service) is _service and len(vars(service)) == _OF_SERVICE:
        store = service.store  # the next call may be the plain case
        if len(_stores) >= _REMEMBERED:
            _stores.clear()
        if isinstance(store, JournalStore):
            _stores[service.tracking_uri] = store._asynctrack_runs, type(store._asynctrack_inner), vars(store)
    return found


class _Replacements:
    @staticmethod
    def log_metric(
        self: Any,
        run_id: Any,
        key: Any,
        value: Any,
        timestamp: Any,
        step: Any,
        synchronous: Any,
        dataset_name: Any,
        dataset_digest: Any,
        model_id: Any,
    ) -> Any:
        return _asynctrack.log_metric(
            self, run_id, key, value, timestamp, step, synchronous, dataset_name, dataset_digest, model_id
        )

    @staticmethod
    def log_param(self: Any, run_id: Any, key: Any, value: Any, synchronous: Any) -> Any:
        return _asynctrack.log_param(self, run_id, key, value, synchronous)

    @staticmethod
    def set_tag(self: Any, run_id: Any, key: Any, value: Any, synchronous: Any) -> Any:
        return _asynctrack.set_tag(self, run_id, key, value, synchronous)

    @staticmethod
    def log_batch(self: Any, run_id: Any, metrics: Any, params: Any, tags: Any, synchronous: Any) -> Any:
        return _asynctrack.log_batch(self, run_id, metrics, params, tags, synchronous)


_asynctrack: Any = None  # named for type checkers; the code above runs elsewhere
SWAP = Swap(_module, _module.MlflowClient, _Replacements, __name__)


def forget() -> None:
    """Have each client's store looked up again."""
    _stores.clear()


def _forked() -> None:
    global _pid
    _pid = os.getpid()


after_fork(_forked)

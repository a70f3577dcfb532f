"""The fluent log functions while stores are wrapped: straight to the journal where that is the same, else MLflow's own.

It is the same for a run of a wrapped store that is active in this thread, or known here by its id; and for a metric of
a logged model or a dataset, where the run is known to use that, and the same metric has gone MLflow's own way before.
Everything that decides it is MLflow's state, looked at in each call: also whether somebody, a test mostly, has put
something else in the place of the clock, of MLflow's client or of its store. What the journal does not take goes
MLflow's own way, which leads to `asynctrack.mlflow.store`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils

from asynctrack.engine.lifecycle import after_fork
from asynctrack.errors import AsynctrackError
from asynctrack.journal.slots import PACK, PackError
from asynctrack.mlflow.points import CLOCK, MetricPoint, current_time
from asynctrack.mlflow.replaced import is_replaced, own_verb
from asynctrack.mlflow.store import JournalStore
from asynctrack.mlflow.swapping import Swap
from asynctrack.values import to_float

if TYPE_CHECKING:
    from asynctrack.mlflow.runs import LoggedRun, LoggedRuns

__all__ = ["SWAP", "waits"]

_mlflow: Any = utils
_fluent: Any = fluent
_now = time.time_ns
_pack, _pack_error = PACK, PackError
#: what the short way is instead of, as it was
_client, _get_store = _fluent.MlflowClient, utils._get_store
_log_metric, _log_batch = _client.log_metric, _client.log_batch
#: the environment as the interpreter keeps it: asking ``os.environ`` for what is not there costs a microsecond
_environ: Any = getattr(os.environ, "_data", {})
_ASYNC, _URI = b"MLFLOW_ENABLE_ASYNC_LOGGING", b"MLFLOW_TRACKING_URI"

#: the tracking URI as MLflow's module and as the environment have it; the runs of its store; the class of MLflow's own
#: store behind it, and that class's `log_metric`
_current: tuple[Any, Any, LoggedRuns | None, Any, Any] = (None, None, None, None, None)
_NOTHING = _current
_pid = os.getpid()
#: what a point is about: a logged model, and a dataset's name and digest
_Measured = tuple[Any, Any, Any]
#: of a point that is about nothing
_PLAIN: list[_Measured] = [(None, None, None)]


def _known(verb: str, run_id: Any) -> tuple[LoggedRuns, LoggedRun, Any] | None:
    """The runs of the store in use, and of these the one with an id (None: the active one), which is returned as MLflow
    knows it, too. None where MLflow has to look for it, or is not what it was. ``verb``: of the store, which MLflow
    would call."""
    uri, in_environment, runs, kind, _ = _current
    if runs is None or uri is not _mlflow._tracking_uri or in_environment is not _environ.get(_URI):
        return None
    if type(time.time) is not CLOCK or _fluent.get_current_time_millis is not current_time:
        return None
    if _mlflow._get_store is not _get_store or _fluent.MlflowClient is not _client:
        return None
    if _client.log_metric is not _log_metric or _client.log_batch is not _log_batch or is_replaced(kind, verb):
        return None
    if run_id is not None:
        run = runs.get(run_id)
        return None if run is None or run.answer is None else (runs, run, run.answer)
    try:
        stack, pid = _fluent._active_run_stack.thread_local.value
        theirs = stack[-1]
    except (AttributeError, IndexError):
        return None
    run = runs.get(theirs._info._run_id) if pid == _pid else None
    return None if run is None else (runs, run, theirs)


def _about(verb: str, run_id: Any, model_id: Any, dataset: Any, step: int) -> tuple[LoggedRun, list[_Measured]] | None:
    """The run of a point, and what the point is about, once for each logged model. None where MLflow has something to
    do before it can be logged."""
    known = _known(verb, run_id)
    if known is None:
        return None
    runs, run, theirs = known
    name = digest = None
    try:
        context, pid = _fluent._ACTIVE_MODEL_CONTEXT.thread_local.value
        if pid != _pid:
            return None
        if dataset is not None:
            name, digest = dataset.name, dataset.digest
            datasets = [each._dataset for each in theirs._inputs._dataset_inputs]
            if (name, digest) not in [(each._name, each._digest) for each in datasets]:
                return None
        model_id = model_id or context._model_id
        if model_id is not None:
            if not _uses(theirs, model_id) or model_id not in runs.models.known:
                return None
            return run, [(model_id, name, digest)]
        outputs = theirs._outputs
        if outputs is not None and outputs._model_outputs:
            found = [each._model_id for each in outputs._model_outputs if each._step == step]
            if found:
                return (run, [(each, name, digest) for each in found]) if runs.models.known.issuperset(found) else None
    except AttributeError:
        return None  # of another MLflow, or nothing was logged in this thread so far
    return run, [(None, name, digest)]


def _uses(run: Any, model_id: str) -> bool:
    """Whether MLflow knows that a run uses, or has made, a logged model: if not, it notes that first."""
    for each in run._inputs._model_inputs:
        if each._model_id == model_id:
            return True
    outputs = run._outputs
    return outputs is not None and any(each._model_id == model_id for each in outputs._model_outputs)


def waits(synchronous: Any) -> bool:
    """Whether the caller wants nothing to wait for later."""
    return bool(synchronous) or (synchronous is None and _ASYNC not in _environ)


def log_metric(
    key: Any, value: Any, step: Any, synchronous: Any, timestamp: Any, run_id: Any, model_id: Any, dataset: Any
) -> Any:
    """Where it is not the plain case, or may not be."""
    if waits(synchronous) and (step is None or type(step) is int) and (not timestamp or type(timestamp) is int):
        try:
            found = _about("log_metric", run_id, model_id, dataset, step or 0)
            if found is not None:  # MLflow, too, logs it for one of several models only
                run = found[0]
                on = run.measured(key, *found[1][0]) or key
                run.log_metric(on, value, step, timestamp or run.moments.own(key, step or 0, _now() // 1_000_000))
                return None
        except (AsynctrackError, TypeError, KeyError):
            pass
    return _by_mlflow("log_metric", key, value, step, synchronous, timestamp, run_id, model_id, dataset)


def log_metrics(
    metrics: Any, step: Any, synchronous: Any, run_id: Any, timestamp: Any, model_id: Any, dataset: Any
) -> Any:
    plain = (step is None or type(step) is int) and (not timestamp or type(timestamp) is int)
    if plain and type(metrics) is dict and waits(synchronous):
        try:
            run, about = _about("log_batch", run_id, model_id, dataset, step or 0) or (None, _PLAIN)
            if run is not None:
                movable, at, when = not timestamp, step or 0, timestamp or _now() // 1_000_000
                points = [
                    MetricPoint(key, value if type(value) is float else to_float(key, value), at, when, movable)
                    for key, value in metrics.items()
                ]
                if about != _PLAIN:
                    points = [point._replace(on=run.measured(point.key, *each)) for point in points for each in about]
                run.write(points, {}, {})
                return None
        except (AsynctrackError, TypeError, OverflowError, KeyError):
            pass
    return _by_mlflow("log_metrics", metrics, step, synchronous, run_id, timestamp, model_id, dataset)


def log_param(key: Any, value: Any, synchronous: Any) -> Any:
    if _write("log_param", synchronous, params=((key, value),)):
        return value
    return _by_mlflow("log_param", key, value, synchronous)


def log_params(params: Any, synchronous: Any, run_id: Any) -> Any:
    if _write("log_batch", synchronous, run_id, params=params):
        return None
    return _by_mlflow("log_params", params, synchronous, run_id)


def set_tag(key: Any, value: Any, synchronous: Any) -> Any:
    return (
        None if _write("set_tag", synchronous, tags=((key, value),)) else _by_mlflow("set_tag", key, value, synchronous)
    )


def set_tags(tags: Any, synchronous: Any) -> Any:
    return None if _write("log_batch", synchronous, tags=tags) else _by_mlflow("set_tags", tags, synchronous)


def _write(verb: str, synchronous: Any, run_id: Any = None, params: Any = (), tags: Any = ()) -> bool:
    """Log params or tags to the journal; whether that was possible."""
    known = _known(verb, run_id) if waits(synchronous) else None
    if known is None:
        return False
    try:
        known[1].write(
            (),
            {key: str(value) for key, value in dict(params).items()},
            {key: str(value) for key, value in dict(tags).items()},
        )
    except (AsynctrackError, TypeError, ValueError):
        return False
    return True


def _by_mlflow(name: str, *arguments: Any) -> Any:
    global _current
    found = _own[name](*arguments)
    store = _mlflow._get_store()  # the next call may be the plain case
    if isinstance(store, JournalStore):
        kind = type(store._asynctrack_inner)
        _current = _mlflow._tracking_uri, _environ.get(_URI), store._asynctrack_runs, kind, own_verb(kind, "log_metric")
    else:
        _current = _NOTHING
    return found


# ── replacing


class _Replacements:
    """The code that MLflow's functions get. It runs in `mlflow.tracking.fluent`, where ``_asynctrack`` is this
    module."""

    @staticmethod
    def log_metric(
        key: Any, value: Any, step: Any, synchronous: Any, timestamp: Any, run_id: Any, model_id: Any, dataset: Any
    ) -> Any:
        # The plain case is written out, because this is called most: `_known`, `_about` and `waits`.
        quick = _asynctrack
        if (
            (run_id is None and model_id is None and dataset is None)
            and (step is None or type(step) is int)
            and (synchronous or (synchronous is None and quick._ASYNC not in quick._environ))
            and not timestamp
        ):
            try:
                uri, in_environment, runs, kind, theirs = quick._current
                stack, pid = _active_run_stack.thread_local.value
                active = stack[-1]
                outputs = active._outputs
                if (
                    uri is quick._mlflow._tracking_uri
                    and in_environment is quick._environ.get(quick._URI)
                    and pid == quick._pid
                    and type(quick.time.time) is quick.CLOCK
                    and get_current_time_millis is quick.current_time
                    and MlflowClient is quick._client
                    and MlflowClient.log_metric is quick._log_metric
                    and kind.log_metric is theirs
                    and quick._mlflow._get_store is quick._get_store
                    and (outputs is None or not outputs._model_outputs)
                    and _ACTIVE_MODEL_CONTEXT.thread_local.value[0]._model_id is None
                ):
                    run = runs.by_id[active._info._run_id]
                    # From here on it is what `asynctrack.runs.log` and `Moments` do.
                    claim, slots, segment = run.chain.current
                    stream = run.streams[key]
                    if type(value) is not float:
                        value = quick.to_float(key, value)
                    if step is None:
                        step = 0
                    now = quick._now() // 1_000_000
                    last = run.moments.last[key]
                    if step > last[0]:
                        last[0] = step
                    elif now <= last[1]:
                        now = last[1] + 1
                        if now > run.moments.moved_to:
                            run.moments.moved_to = now
                    if now > last[1]:
                        last[1] = now
                    at = claim()
                    try:
                        quick._pack(slots, at, now, step, value, stream, now, step, value, stream, at)
                    except (quick._pack_error, ValueError, TypeError, OverflowError):
                        run.log._write_slowly(key, now, step, value, stream, segment, at)
                    return None
            except (AttributeError, NameError, IndexError, KeyError, TypeError, OverflowError, quick.AsynctrackError):
                pass
        return quick.log_metric(key, value, step, synchronous, timestamp, run_id, model_id, dataset)

    @staticmethod
    def log_metrics(
        metrics: Any, step: Any, synchronous: Any, run_id: Any, timestamp: Any, model_id: Any, dataset: Any
    ) -> Any:
        return _asynctrack.log_metrics(metrics, step, synchronous, run_id, timestamp, model_id, dataset)

    @staticmethod
    def log_param(key: Any, value: Any, synchronous: Any) -> Any:
        return _asynctrack.log_param(key, value, synchronous)

    @staticmethod
    def log_params(params: Any, synchronous: Any, run_id: Any) -> Any:
        return _asynctrack.log_params(params, synchronous, run_id)

    @staticmethod
    def set_tag(key: Any, value: Any, synchronous: Any) -> Any:
        return _asynctrack.set_tag(key, value, synchronous)

    @staticmethod
    def set_tags(tags: Any, synchronous: Any) -> Any:
        return _asynctrack.set_tags(tags, synchronous)


# Named for type checkers: the code above runs elsewhere.
_asynctrack: Any = None
_active_run_stack: Any = None
_ACTIVE_MODEL_CONTEXT: Any = None
MlflowClient: Any = None
get_current_time_millis: Any = None


SWAP = Swap(_fluent, _fluent, _Replacements, __name__)
_own = SWAP.own


def _forked() -> None:
    global _pid
    _pid = os.getpid()


after_fork(_forked)

"""`JournalStore`: the verbs of a tracking store of MLflow's that go through the journal, or have to see it delivered.

One rule makes it exact: what MLflow might refuse, and what the journal cannot hold, is handed to MLflow's own store,
behind the events that were logged before. So the exception is MLflow's own, with its class, code and words.
"""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import Future
from typing import Any

from mlflow.entities import Run, RunData, RunInfo, RunInputs, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from asynctrack.constants import UID_TAG
from asynctrack.engine.lifecycle import interpreter_is_ending
from asynctrack.errors import AsynctrackError, InvalidInputError, RunEndedError, StoreError, UnavailableError
from asynctrack.mlflow.inputs import entries_made, entries_used, with_inputs
from asynctrack.mlflow.patches import ends_a_run, takes_up_a_run, wants_no_data
from asynctrack.mlflow.points import entries_of, is_issued, points_of
from asynctrack.mlflow.replaced import is_replaced
from asynctrack.mlflow.runs import LoggedRun, LoggedRuns, runs_at, undelivered
from asynctrack.runs.waiting import raise_refused, timed_out
from asynctrack.stores.base import RunSpec
from asynctrack.stores.keys import check_key

__all__ = ["JournalStore", "drawn_name"]

logger = logging.getLogger("asynctrack")

_operations: Any = RunOperations


class JournalStore:
    """See `asynctrack.mlflow.wrapping`, which makes the classes that inherit it. Any thread may use a store."""

    def __init__(self, inner: Any, uri: str, target: str) -> None:
        self._asynctrack_inner = inner
        #: as MLflow was given it, perhaps with credentials
        self._asynctrack_uri = uri
        self._asynctrack_runs: LoggedRuns = runs_at(target)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_asynctrack", "__")):
            raise AttributeError(name)  # while it is copied or unpickled
        return getattr(self._asynctrack_inner, name)

    def __reduce__(self) -> Any:
        return _store_at, (self._asynctrack_uri,)

    # ── logging

    def log_metric(self, run_id: Any, metric: Any) -> Any:
        return self._asynctrack_log("log_metric", run_id, metrics=(metric,), call=(metric,))

    def log_param(self, run_id: Any, param: Any) -> Any:
        return self._asynctrack_log("log_param", run_id, params=(param,), call=(param,))

    def set_tag(self, run_id: Any, tag: Any) -> Any:
        return self._asynctrack_log("set_tag", run_id, tags=(tag,), call=(tag,))

    def log_batch(self, run_id: Any, metrics: Any, params: Any, tags: Any) -> Any:
        return self._asynctrack_log("log_batch", run_id, metrics, params, tags, call=(metrics, params, tags))

    def log_metric_async(self, run_id: Any, metric: Any) -> Any:
        return self._asynctrack_log_async("log_metric_async", run_id, metrics=(metric,), call=(metric,))

    def log_param_async(self, run_id: Any, param: Any) -> Any:
        return self._asynctrack_log_async("log_param_async", run_id, params=(param,), call=(param,))

    def set_tag_async(self, run_id: Any, tag: Any) -> Any:
        return self._asynctrack_log_async("set_tag_async", run_id, tags=(tag,), call=(tag,))

    def log_batch_async(self, run_id: Any, metrics: Any, params: Any, tags: Any) -> Any:
        return self._asynctrack_log_async(
            "log_batch_async", run_id, metrics, params, tags, call=(metrics, params, tags)
        )

    def _asynctrack_log(
        self, verb: str, run_id: Any, metrics: Any = (), params: Any = (), tags: Any = (), *, call: tuple[Any, ...]
    ) -> Any:
        """Log to the journal; by MLflow's own ``verb``, called with the run's id and ``call``, where that is better."""
        try:
            run = None if self._asynctrack_leaves(verb) else self._asynctrack_runs.find(run_id)
            if run is not None:
                points = list(points_of(metrics))
                self._asynctrack_runs.models.check(self._asynctrack_inner, run_id, points)
                run.write(points, entries_of("param", params), entries_of("tag", tags))
                return None
        except InvalidInputError:
            pass  # MLflow says it, in its own way
        except RunEndedError:
            pass  # ended by another thread in this moment, or the interpreter has ended: after its events
        except AsynctrackError as error:
            raise MlflowException(f"asynctrack: {error}") from error
        self._asynctrack_deliver(run_id)
        return getattr(self._asynctrack_inner, verb)(self._asynctrack_id(run_id), *call)

    def _asynctrack_log_async(self, verb: str, run_id: Any, *events: Any, **more: Any) -> Any:
        done = self._asynctrack_log(verb, run_id, *events, **more)
        return _operations([_Delivery(self, run_id)]) if done is None else done

    def flush_async_logging(self) -> None:
        self._asynctrack_deliver()
        self._asynctrack_inner.flush_async_logging()

    def shut_down_async_logging(self) -> None:
        if not ends_a_run(sys._getframe(1)):
            self._asynctrack_deliver()
        self._asynctrack_inner.shut_down_async_logging()

    def _asynctrack_leaves(self, verb: str) -> bool:
        """Whether a call is MLflow's own store's, because its method is not MLflow's."""
        return is_replaced(type(self._asynctrack_inner), verb)

    # ── delivering

    def _asynctrack_id(self, run_id: Any) -> Any:
        return self._asynctrack_runs.id_of(run_id)

    def _asynctrack_deliver(self, run_id: Any = None, experiment_ids: Any = None) -> bool:
        """Wait until what was logged to one run, to the runs of experiments, or here at all, is in the store; whether
        it is. A warning says so where it is not."""
        late = undelivered(self._asynctrack_runs.states(run_id, experiment_ids))
        if late is not None:
            logger.warning("asynctrack: %s", timed_out(late, late.engine.settings.close_timeout))
        return late is None

    # ── runs

    def create_run(self, experiment_id: Any, user_id: Any, start_time: Any, tags: Any, run_name: Any) -> Any:
        inner = self._asynctrack_inner
        try:
            if self._asynctrack_leaves("create_run"):
                raise InvalidInputError("not MLflow's")
            labels = entries_of("tag", tags or ())
            for key in labels:
                check_key("tag", key)
            if labels.get(MLFLOW_RUN_NAME, run_name) != run_name and run_name:
                raise InvalidInputError("two names")
            spec = RunSpec(
                uid=os.urandom(16).hex(),
                experiment_id=str(experiment_id),
                run_name=run_name or labels.get(MLFLOW_RUN_NAME) or drawn_name(inner),
                user_id=str(user_id or ""),
                start_time=int(start_time),
                tags=labels,
            )
            if interpreter_is_ending():
                raise RunEndedError("the interpreter is ending")
            run, info = self._asynctrack_runs.create(spec)
        except UnavailableError as error:  # on_unreachable="raise"
            raise MlflowException(f"asynctrack: {error}") from error
        except (InvalidInputError, StoreError, RunEndedError, TypeError, ValueError):
            return inner.create_run(experiment_id, user_id, start_time, tags, run_name)
        except AsynctrackError as error:
            raise MlflowException(f"asynctrack: {error}") from error
        run.answer = _new_run(run, spec, info, tags or ())
        return run.answer

    def get_run(self, run_id: Any, *args: Any, **kwargs: Any) -> Any:
        run = self._asynctrack_runs.get(run_id)
        if run is not None and wants_no_data(sys._getframe(1)):
            if run.answer is None:
                self._asynctrack_deliver(run_id)  # what it uses may be on its way
                run.answer = self._asynctrack_inner.get_run(run.state.run_id, *args, **kwargs)
            return run.answer
        self._asynctrack_deliver(run_id)
        if run is not None and run.answer is not None and not run.state.knows_id:
            return run.answer  # the store has not created it yet
        return _as_mlflow_has_it(self._asynctrack_inner.get_run(self._asynctrack_id(run_id), *args, **kwargs))

    def update_run_info(self, run_id: Any, run_status: Any, end_time: Any, run_name: Any) -> Any:
        run = self._asynctrack_runs.get(run_id)
        ends = run_status is not None and RunStatus.is_terminated(run_status)
        if self._asynctrack_leaves("update_run_info"):
            run = None
        if run is not None and ends and interpreter_is_ending() and run.log.ended:
            # Ended a moment ago, with the status that is right.
            return (run.answer or self._asynctrack_inner.get_run(self._asynctrack_id(run_id))).info
        if run is not None and ends and run_name is None and isinstance(end_time, int) and not run.log.ended:
            try:
                return self._asynctrack_end(run_id, run, RunStatus.to_string(run_status), end_time)
            except RunEndedError:
                pass  # by another thread in this moment
        self._asynctrack_deliver(run_id)
        info = self._asynctrack_inner.update_run_info(self._asynctrack_id(run_id), run_status, end_time, run_name)
        if run is not None:
            run.answer = None
        if ends:
            self._asynctrack_runs.leave(run_id)
        elif takes_up_a_run(sys._getframe(1)) and self._asynctrack_runs.find(run_id) is not None:
            self._asynctrack_runs.take_up(run_id)
        return info

    def _asynctrack_end(self, run_id: str, run: LoggedRun, status: str, end_time: int) -> Any:
        before = run.answer
        if is_issued(end_time):  # a point that was moved is not behind the end
            end_time = max(end_time, run.moments.moved_to)
        self._asynctrack_runs.end(run, status, end_time)
        run.answer = None
        if before is None:
            return self._asynctrack_inner.get_run(self._asynctrack_id(run_id)).info
        return _info(
            run_id=before.info.run_id,
            experiment_id=before.info.experiment_id,
            user_id=before.info.user_id,
            status=status,
            start_time=before.info.start_time,
            end_time=end_time,
            lifecycle_stage=before.info.lifecycle_stage,
            artifact_uri=before.info.artifact_uri,
            run_name=before.info.run_name,
        )

    def log_inputs(self, run_id: Any, datasets: Any = None, models: Any = None) -> Any:
        run = None if self._asynctrack_leaves("log_inputs") else self._asynctrack_runs.with_inputs(run_id)
        if run is not None:
            try:
                if run.log_inputs(entries_used(datasets, models, self._asynctrack_runs.models.known)):
                    run.answer = with_inputs(run.answer, datasets=datasets, models=models)
                return None
            except (AttributeError, AsynctrackError):
                self._asynctrack_deliver(run_id)  # MLflow says what is wrong with it
        given = {"datasets": datasets, "models": models}  # MLflow 2 has no models
        return self._asynctrack_change(run_id, "log_inputs", **{k: v for k, v in given.items() if v is not None})

    def log_outputs(self, run_id: Any, models: Any) -> Any:
        run = None if self._asynctrack_leaves("log_outputs") else self._asynctrack_runs.with_inputs(run_id)
        if run is not None:
            try:
                if run.log_inputs(entries_made(models, self._asynctrack_runs.models.known, run.answer.outputs)):
                    run.answer = with_inputs(run.answer, outputs=models)
                return None
            except (AttributeError, AsynctrackError):
                self._asynctrack_deliver(run_id)
        return self._asynctrack_change(run_id, "log_outputs", models)

    def delete_run(self, run_id: Any) -> Any:
        self._asynctrack_deliver(run_id)
        real = self._asynctrack_id(run_id)
        self._asynctrack_runs.forget(run_id)
        return self._asynctrack_inner.delete_run(real)

    def restore_run(self, run_id: Any) -> Any:
        real = self._asynctrack_id(run_id)
        self._asynctrack_runs.forget(run_id)
        return self._asynctrack_inner.restore_run(real)

    def _asynctrack_change(self, run_id: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
        """What is remembered of the run may not be right afterwards."""
        try:
            return getattr(self._asynctrack_inner, verb)(self._asynctrack_id(run_id), *args, **kwargs)
        finally:
            run = self._asynctrack_runs.get(run_id)
            if run is not None:
                run.answer = None

    # ── experiments

    def search_runs(self, experiment_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self._asynctrack_deliver(experiment_ids=experiment_ids)
        found = self._asynctrack_inner.search_runs(experiment_ids, *args, **kwargs)
        for run in found:
            _as_mlflow_has_it(run)
        return found

    def _search_runs(self, experiment_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self._asynctrack_deliver(experiment_ids=experiment_ids)
        return self._asynctrack_inner._search_runs(experiment_ids, *args, **kwargs)

    def delete_experiment(self, experiment_id: Any) -> Any:
        self._asynctrack_deliver(experiment_ids=[experiment_id])
        for run_id in self._asynctrack_runs.of_experiment(str(experiment_id)):
            self._asynctrack_runs.forget(run_id)
        return self._asynctrack_inner.delete_experiment(experiment_id)


class _Delivery(Future[None]):
    """What ``RunOperations.wait`` waits for: everything that was logged to the run so far."""

    def __init__(self, store: JournalStore, run_id: str) -> None:
        super().__init__()
        self._of = store, run_id

    def result(self, timeout: float | None = None) -> None:
        """Raises MlflowException for what is not stored."""
        store, run_id = self._of
        states = store._asynctrack_runs.states(run_id)
        late = undelivered(states, timeout)
        try:
            if late is not None:
                raise timed_out(late, timeout or late.engine.settings.close_timeout)
            for state in states:
                raise_refused(state)
        except AsynctrackError as error:
            raise MlflowException(f"asynctrack: {error}") from None


def drawn_name(inner: Any) -> str | None:
    """A name for a run that was given none, where MLflow's store draws one from Python's `random`; None where a server
    does. A program that seeds that gets the names, and later the numbers, that it gets without asynctrack."""
    maker = next(cls for cls in type(inner).__mro__ if "create_run" in vars(cls))
    draw = getattr(sys.modules.get(maker.__module__), "_generate_random_name", None)
    return None if draw is None else str(draw())


def _as_mlflow_has_it(run: Any) -> Any:
    """A run without the tag by which its creation is found again."""
    run.data.tags.pop(UID_TAG, None)
    return run


def _store_at(uri: str) -> Any:
    """For an unpickled store: the one of its process."""
    from mlflow.tracking._tracking_service import utils

    found: Any = utils
    return found._get_store(uri)


def _new_run(run: LoggedRun, spec: RunSpec, info: Any, tags: Any) -> Any:
    """What MLflow's stores answer when they have created a run. ``info``: as the store created it; None where it is
    away."""
    name = info.run_name if info is not None else spec.run_name
    named = [RunTag(MLFLOW_RUN_NAME, name)] if name and MLFLOW_RUN_NAME not in spec.tags else []
    found = _info(
        run_id=run.state.run_id,
        experiment_id=info.experiment_id if info is not None else spec.experiment_id,
        user_id=spec.user_id,
        status="RUNNING",
        start_time=spec.start_time,
        end_time=None,
        lifecycle_stage="active",
        artifact_uri=info.artifact_uri if info is not None else None,
        run_name=name,
    )
    return Run(found, RunData([], [], [*tags, *named]), RunInputs([]), *_outputs())


def _info(**fields: Any) -> Any:
    make: Any = RunInfo
    try:
        return make(**fields)
    except TypeError:  # MLflow 2 wants the id under its older name, too
        return make(run_uuid=fields["run_id"], **fields)


def _outputs() -> tuple[Any, ...]:
    """The outputs of a new run, where this MLflow has them: `mlflow.log_metric` looks through them."""
    try:
        from mlflow.entities import RunOutputs
    except ImportError:  # MLflow 2
        return ()
    return (RunOutputs([]),)

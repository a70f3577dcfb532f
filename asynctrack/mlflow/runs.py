"""The runs that this process logs to through MLflow: how each is met, logged to, delivered and ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic
from asynctrack.constants import LONGEST_VALUE
from asynctrack.current import store_to_ask
from asynctrack.engine.lifecycle import after_fork
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.journal.measured import MeasuredOn
from asynctrack.mlflow.models import LoggedModels
from asynctrack.mlflow.points import MetricPoint, Moments
from asynctrack.runs.active import attached_run, begun_run, detach, open_states
from asynctrack.runs.ending import check_created, end, say_outcome
from asynctrack.runs.waiting import timed_out, wait_blocking
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import delivers_here, drive

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo
    from asynctrack.runs.log import RunLog
    from asynctrack.runs.state import RunState

__all__ = ["LoggedRun", "LoggedRuns", "leave_all", "runs_at", "undelivered"]


logger = logging.getLogger("asynctrack")


class LoggedRun:
    """One run that this process logs to. Any thread may use it."""

    def __init__(self, log: RunLog, experiment_id: str | None) -> None:
        self.take(log)
        #: None where the store could not be asked
        self.experiment_id = experiment_id
        #: the run as MLflow knows it, for those who do not ask for its data; None: it may have changed
        self.answer: Any = None
        self.moments = Moments()

    def take(self, log: RunLog) -> None:
        """Log by this from now on."""
        if hasattr(self, "log"):  # params that were logged before conflict at the call, too
            log._state.params.update(self.state.params)
        self.log = log
        self.log_metric: Callable[..., None] = log.log_metric
        self.streams, self.chain = log._streams, log._chain

    @property
    def state(self) -> RunState:
        return self.log._state

    def measured(self, key: str, model_id: Any, dataset_name: Any, dataset_digest: Any) -> MeasuredOn | None:
        """What a metric of a logged model or a dataset is logged under; None where it is about neither. Raises KeyError
        where there was no such metric yet."""
        if model_id is None and dataset_name is None:
            return None
        on = MeasuredOn(key, model_id, dataset_name, dataset_digest)
        self.log._streams[on]
        return on

    def write(self, points: Iterable[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log all of it. Raises InvalidInputError if the store would refuse some of it; then nothing is logged."""
        log = self.log
        streams, known = self.state.streams, self.state.params
        points = list(points)
        for point in points:
            if (point.on or point.key) not in streams:
                log.check_key("metric", point.key)
        for key, value in params.items():
            log.check_key("param", key)
            if known.get(key, value) != value:
                raise InvalidInputError(f"param {key!r} has another value already")
        for key, text in tags.items():
            log.check_key("tag", key)
            if len(text) > LONGEST_VALUE["tag"]:  # some of MLflow's stores cut it, some do not
                raise InvalidInputError(f"tag {key!r} has {len(text)} characters")
        if params:
            log.log_params(params)
        moved: tuple[tuple[str, int, int], int] | None = None
        for key, number, step, timestamp, movable, on in points:
            if movable:
                given = key, step, timestamp
                if on is None or moved is None or moved[0] != given:  # else: one observation, about several models
                    moved = given, self.moments.own(key, step, timestamp)
                timestamp = moved[1]
            self.log_metric(on or key, number, step, timestamp)
        if tags:
            log.set_tags(tags)

    def log_point(self, point: MetricPoint) -> None:
        """Log one point. Raises InvalidInputError as `write`."""
        key, number, step, timestamp, movable, on = point
        name = on or key
        if name not in self.streams:
            self.log.check_key("metric", key)
        self.log_metric(name, number, step, self.moments.own(key, step, timestamp) if movable else timestamp)

    def log_inputs(self, entries: Mapping[str, str]) -> bool:
        """Log what the run uses and has made (see `asynctrack.journal.inputs`); False if it is dropped because the
        spool is full."""
        return self.state.frame("inputs", dict(entries))


class LoggedRuns:
    """Those of one store, by the id that MLflow knows. Any thread may use it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.models = LoggedModels()
        #: those known here
        self.by_id: dict[str, LoggedRun] = {}
        self.lock = threading.RLock()
        #: whether the store takes what runs use through the journal; None: not asked yet
        self._takes_inputs: bool | None = None

    def get(self, run_id: Any) -> LoggedRun | None:
        """A run that is known here, without asking anybody."""
        return self.by_id.get(run_id) if isinstance(run_id, str) else None

    def find(self, run_id: Any) -> LoggedRun | None:
        """A run that can be logged to. The store is asked when the run is met for the first time: None where it knows
        no such run, or has deleted it. A store that cannot be reached is not asked again: events are kept for it."""
        found = self.get(run_id)
        if found is not None and not found.log.ended:
            return found
        if not isinstance(run_id, str):
            return None
        with self.lock:
            found = self.by_id.get(run_id)
            if found is None:
                return self._meet(run_id)
            if found.log.ended:  # late system metrics: they are stored, and the run stays as it ended
                found.take(attached_run(self.id_of(run_id), self.uri))
            return found

    def with_inputs(self, run_id: Any) -> LoggedRun | None:
        """A run for which it can be logged what it uses and has made: it is known what that is so far, or its store was
        away when the run was met; and the store takes it. A store that cannot be reached is asked again."""
        if self._takes_inputs is None:
            try:
                self._takes_inputs = drive(store_to_ask(self.uri).takes_inputs())
            except StoreError:
                pass  # what is logged is kept meanwhile
        if self._takes_inputs is False:
            return None
        run = self.find(run_id)
        return None if run is None or (run.answer is None and run.experiment_id is not None) else run

    def _meet(self, run_id: str) -> LoggedRun | None:
        params: dict[str, str] = {}
        experiment_id = None
        try:
            run = drive(store_to_ask(self.uri).get_run(run_id))
        except (NotFoundError, RefusedError, InvalidInputError):
            return None
        except StoreError:
            pass  # it is away, or does not accept the credentials: what is logged is kept meanwhile
        else:
            if run.info.lifecycle_stage != "active":
                return None
            params, experiment_id = run.data.params, run.info.experiment_id
        try:
            found = LoggedRun(attached_run(run_id, self.uri), experiment_id)
        except InvalidInputError:
            return None
        # What an earlier process has logged conflicts at the call, too.
        for key, value in params.items():
            found.state.params.setdefault(key, value)
        self.by_id[run_id] = found
        return found

    def create(self, spec: RunSpec) -> tuple[LoggedRun, RunInfo | None]:
        """Begin a run and wait until the store has created it, but for ``connect_timeout`` seconds at most: then there
        is no info, and the run's uid stands for its id. Raises a StoreError if the store refuses it."""
        run = LoggedRun(begun_run(spec, self.uri), spec.experiment_id)
        state = run.state
        state.prints_links = False
        info = None
        if not delivers_here() and not state.engine.offline:
            receipt = state.engine.created(state.number)
            done = receipt.wait(state.engine.settings.connect_timeout)
            try:
                check_created(state, done, receipt)
            except BaseException:
                detach(state)
                raise
            info = receipt.result() if done else None
        with self.lock:
            self.by_id[state.run_id if info is None else info.run_id] = run
        return run, info

    def take_up(self, run_id: str) -> None:
        """A run that was started before is started again: this process ends it."""
        with self.lock:
            run = self.by_id.get(run_id)
            if run is None or (not run.log.ended and not run.state.attached):
                return
            if not run.log.ended:
                detach(run.state)
            run.take(begun_run(RunSpec(uid=os.urandom(16).hex(), run_id=self.id_of(run_id)), self.uri))
            run.state.prints_links = False

    def end(self, run: LoggedRun, status: str, end_time: int) -> None:
        """End a run behind its events, and wait for both for ``close_timeout`` seconds at most. What is not delivered
        then is kept with the run's end, and a warning says so; an error, where a full disk has no room for that."""
        state = run.state
        state.check_open_now()
        receipt = None
        if state.attached:
            detach(state, status, end_time)
        else:
            receipt = end(state, status, end_time)
        if not delivers_here():
            receipt = receipt or state.engine.flush(state.number)
            say_outcome(state, receipt, wait_blocking(state, receipt, state.engine.settings.close_timeout))

    def leave(self, run_id: str) -> None:
        """The run has been ended, by somebody else or otherwise than by `end`: nothing more is done about its end."""
        run = self.get(run_id)
        if run is not None and not run.log.ended:
            detach(run.state)

    def of_experiment(self, experiment_id: str) -> list[str]:
        """The runs of an experiment that are known here."""
        return [run_id for run_id, run in list(self.by_id.items()) if run.experiment_id == experiment_id]

    def forget(self, run_id: Any) -> None:
        """Have a run looked up again when it is logged to: it is deleted, or was."""
        self.leave(run_id)
        with self.lock:
            self.by_id.pop(run_id, None)

    def id_of(self, run_id: Any) -> Any:
        """The id that the store knows, for the one that MLflow was given: another where the store was away when the run
        was begun."""
        run = self.get(run_id)
        return run_id if run is None else run.state.run_id

    def states(self, run_id: Any = None, experiment_ids: Iterable[str] | None = None) -> list[RunState]:
        """What may have events on the way: of one run, of some experiments, or all of the store."""
        if run_id is not None:
            return open_states(self.uri, self.id_of(run_id)) if isinstance(run_id, str) else []
        if experiment_ids is None:
            return open_states(self.uri)
        wanted = {str(experiment_id) for experiment_id in experiment_ids}
        elsewhere = {run.state.run_id for run in list(self.by_id.values()) if run.experiment_id not in (None, *wanted)}
        return [state for state in open_states(self.uri) if state.run_id not in elsewhere]


def undelivered(states: list[RunState], timeout: float | None = None) -> RunState | None:
    """Wait until the events of these runs are stored or refused, ``timeout`` seconds (None: their ``close_timeout``) at
    most; a run for which that was not long enough, or None."""
    if not states or delivers_here():
        return None
    if timeout is None:
        timeout = max(state.engine.settings.close_timeout for state in states)
    deadline = monotonic() + timeout
    waiting = [(state, state.engine.flush(state.number)) for state in states if not state.engine.offline]
    for state, receipt in waiting:
        if not wait_blocking(state, receipt, max(deadline - monotonic(), 0.0)):
            return state
        try:
            receipt.result()
        except AsynctrackError:
            pass  # refused: the run's end reports it
    return None


#: by the store's URI; for each process, because MLflow forgets stores that have not been used for long
_tables: dict[str, LoggedRuns] = {}
_lock = threading.Lock()


def runs_at(uri: str) -> LoggedRuns:
    """The runs of this process in the store at a canonical URI."""
    with _lock:
        return _tables.setdefault(uri, LoggedRuns(uri))


def leave_all() -> None:
    """Wait until everything logged here is delivered, and forget it; a warning says what is not delivered in time."""
    for table in list(_tables.values()):
        late = undelivered(table.states())
        if late is not None:
            logger.warning("asynctrack: %s", timed_out(late, late.engine.settings.close_timeout))
        for run_id in list(table.by_id):
            table.forget(run_id)


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    for table in _tables.values():
        table.lock = threading.RLock()


after_fork(_forked)

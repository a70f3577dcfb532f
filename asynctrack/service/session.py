"""The object that every verb of a service works with: its store, and the runs that this process has open in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrack.arguments import run_id_of
from asynctrack.clock import monotonic
from asynctrack.errors import AuthenticationError, NotFoundError, StoreError
from asynctrack.runs.active import open_states
from asynctrack.runs.waiting import timed_out
from asynctrack.service.left import say_what_waits

if TYPE_CHECKING:
    from collections.abc import Collection

    from asynctrack.runs.log import RunLog
    from asynctrack.runs.state import RunState
    from asynctrack.service.target import Target
    from asynctrack.stores.base import AbstractStore, RunSpec

__all__ = ["Session"]

#: number of runs whose `RunLog` is kept, so that a log call need not look it up
_REMEMBERED = 1000
#: seconds for a run's events to be delivered before it is asked whether they concern a reader at all
_GRACE = 2.0


class Session:
    """The first argument of every verb. Any thread may use it. Its target decides how it waits: in a thread or on a
    loop."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._logs: dict[str | int, RunLog] = {}
        #: runs that this service created: whether they are there need not be asked
        self._created: set[str] = set()

    @property
    def store(self) -> AbstractStore:
        """The store, for verbs that wait for it."""
        return self.target.store

    def log(self, run_id: str | int) -> RunLog:
        """The log verbs of a run. The first call for a run attaches the service to it. Raises InvalidInputError, and in
        a blocking service NotFoundError or RefusedError for a run that the store does not have or has deleted."""
        try:
            log = self._logs[run_id]
        except (KeyError, TypeError):  # first call for this run, or an id that cannot be hashed
            return self._attach(run_id)
        return self._attach(run_id) if log.ended else log

    def _attach(self, run_id: str | int) -> RunLog:
        found = run_id_of(run_id)
        log = self.target.attach(found, asks=found not in self._created)
        if len(self._logs) >= _REMEMBERED:
            self._logs.clear()
        self._logs[run_id] = log
        return log

    def created(self, run_id: str) -> None:
        """Remember a run that this service has just created."""
        if len(self._created) >= _REMEMBERED:
            self._created.clear()
        self._created.add(run_id)

    def forget(self, run_id: str) -> None:
        """Forget a run that has ended or is deleted. The next log call attaches to it again."""
        self._created.discard(run_id)
        self._logs.pop(run_id, None)

    def states(self, run_id: str | None = None) -> list[RunState]:
        """The runs that this process has open in the store, or only the run ``run_id``."""
        return open_states(self.target.uri, run_id)

    async def settle(self, run_id: str | None = None) -> None:
        """Wait until the events that this process logged to one run, or to all runs of the store, are delivered. Raises
        what `deliver` raises."""
        say_what_waits(self.target.uri)
        await self.deliver(self.states(run_id))

    async def settle_experiments(self, experiment_ids: Collection[str]) -> None:
        """The same for all runs that may be in one of these experiments: an event that the store does not take now
        must not hold up what is read elsewhere."""
        say_what_waits(self.target.uri)
        here, unsure = [], []
        for state in self.states():
            known = _experiment_of(state)
            if known is None:
                unsure.append((state, state.engine.flush(state.number)))
            elif known in experiment_ids:
                here.append(state)
        deadline = monotonic() + _GRACE
        for state, receipt in unsure:
            # As a rule all is delivered at once, and the store need not be asked.
            done = await self.target.waits.wait(state, receipt, max(0.0, deadline - monotonic()))
            if not done and await self._may_be_in(experiment_ids, state):
                here.append(state)
        await self.deliver(here)

    async def _may_be_in(self, experiment_ids: Collection[str], state: RunState) -> bool:
        try:
            state.experiment_id = await self._asked_experiment(state.spec)
        except (NotFoundError, AuthenticationError):
            return False  # the store does not show it: nobody can read it yet
        except StoreError:
            return True
        return state.experiment_id is None or state.experiment_id in experiment_ids

    async def _asked_experiment(self, spec: RunSpec) -> str | None:
        """Where a run is, or will be; None: in the default experiment, whichever that is. Raises a StoreError."""
        if spec.run_id is not None:
            return (await self.store.get_run_info(spec.run_id)).experiment_id
        if spec.experiment_name is None:
            return spec.experiment_id
        found = await self.store.get_experiment_by_name(spec.experiment_name)
        if found is None:
            raise NotFoundError(f"no experiment {spec.experiment_name!r} in {self.store.uri}")
        return found.experiment_id

    async def deliver(self, states: list[RunState]) -> None:
        """Wait until the events of these runs are delivered. Raises FlushTimeoutError after ``close_timeout`` seconds,
        and the StoreError with which the store refused to create a run."""
        deadline = monotonic() + max((state.engine.settings.close_timeout for state in states), default=0.0)
        waiting = [(state, state.engine.flush(state.number)) for state in states]
        for state, receipt in waiting:
            if not await self.target.waits.wait(state, receipt, max(0.0, deadline - monotonic())):
                raise timed_out(state, state.engine.settings.close_timeout)
            receipt.result()


def _experiment_of(state: RunState) -> str | None:
    """The experiment that a run is known to be in."""
    lane = state.engine.lane(state.number)
    info = lane.info if lane is not None else None
    return info.experiment_id if info is not None else state.experiment_id

"""Batches of several runs in one transaction.

A transaction costs an SQLite file two waits for the disk and a page or more for each of its B-trees: with 64 runs, a
transaction each takes three times as long as one for all. So whoever gets the database first writes what all have
brought meanwhile.
"""

from __future__ import annotations

import copy
import os
import time
from collections import deque
from collections.abc import Sequence

from asynctrack.clock import monotonic
from asynctrack.errors import StoreError, UnavailableError
from asynctrack.reentrant import Gate, RLock
from asynctrack.stores.base import Batch, Refusal
from asynctrack.stores.sql.batches import write_batch
from asynctrack.stores.sql.session import Database

__all__ = ["BatchGroups"]

#: events that one transaction takes, at most one batch more: a quarter of a second
_MOST_EVENTS = 65536
#: how many times as long as for the database a batch waits for its turn: two transactions may come before
_TURNS = 3
#: of the last transaction's time, for how long those that had a part in it are waited for, and in which steps (s)
_PATIENCE, _STEP = 1 / 8, 0.0005


class _Job:
    """A batch that waits. ``refusals`` or ``error`` is set when it is dealt with; ``leads`` when its thread is the one
    to write; ``gate`` is opened with either."""

    __slots__ = ("batch", "error", "gate", "given_up", "leads", "refusals", "run_id")

    def __init__(self, run_id: str, batch: Batch) -> None:
        self.run_id = run_id
        self.batch = batch
        self.refusals: list[Refusal] | None = None
        self.error: Exception | None = None
        self.given_up = self.leads = False
        self.gate = Gate()

    @property
    def done(self) -> bool:
        return self.refusals is not None or self.error is not None

    def settle(self, refusals: list[Refusal] | None = None, error: Exception | None = None) -> None:
        self.refusals, self.error = refusals, error
        self.gate.set()


class BatchGroups:
    """Writes batches into one database. Any thread may call `log_batch`; one at a time writes, for all that wait, and
    hands that on to the first that came meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[_Job] = deque()
        #: whether some thread writes, or has been told to
        self._led = False
        #: of the last transaction: how many batches it had, and the seconds that their statements took
        self._together, self._took = 1, 0.0
        #: of all that; held for moments
        self._lock = RLock()

    def log_batch(self, run_id: str, batch: Batch, wait: float) -> list[Refusal]:
        """Store a batch; the events that are refused. Raises `StoreError` classes; ``wait``: seconds to wait for the
        database."""
        if self._pid != os.getpid():
            self._begin()  # forked: what waits is the parent's
        job = _Job(run_id, batch)
        with self._lock:
            self._waiting.append(job)
            job.leads = not self._led
            self._led = True
        if not job.leads:
            job.gate.wait(_TURNS * wait)
            with self._lock:
                job.given_up = not (job.done or job.leads)
            if job.given_up:
                raise UnavailableError(f"{self._database.uri} is in use by other threads of this program")
        if job.leads:
            self._lead(job, wait)
        if job.error is not None:
            raise copy.copy(job.error) from job.error  # several threads must not share one exception
        assert job.refusals is not None
        return job.refusals

    def _lead(self, job: _Job, wait: float) -> None:
        try:
            while not job.done:
                self._gather()
                self._write(self._next(), wait)
        finally:
            job.given_up = True  # Ctrl-C may come before it is dealt with
            with self._lock:
                while self._waiting and self._waiting[0].given_up:
                    self._waiting.popleft()
                self._led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].gate.set()

    def _gather(self) -> None:
        """Give those that were written together the time to bring their next batches: else the first of them is
        written alone while the others come."""
        until = monotonic() + self._took * _PATIENCE
        while len(self._waiting) < self._together and monotonic() < until:
            time.sleep(_STEP)

    def _next(self) -> list[_Job]:
        """What is written next, in the order in which it came."""
        jobs: list[_Job] = []
        events = 0
        while self._waiting and events < _MOST_EVENTS:
            job = self._waiting.popleft()
            if not job.given_up:  # else its caller has gone, and brings it again
                jobs.append(job)
                events += len(job.batch)
        return jobs

    def _write(self, jobs: Sequence[_Job], wait: float) -> None:
        try:
            self._write_together(jobs, wait)
        except UnavailableError as error:
            # It would be the same for those that wait, each after as long a wait.
            for job in (*jobs, *self._next()):
                job.settle(error=error)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].settle(error=error)
                return
            for job in jobs:
                self._write([job], wait)

    def _write_together(self, jobs: Sequence[_Job], wait: float) -> None:
        """All of it in one transaction, run by run in the order of their ids, in which every writer locks them."""
        found: list[tuple[_Job, list[Refusal] | StoreError]] = []
        with self._database.write(wait) as session:
            begun = monotonic()
            for job in sorted(jobs, key=lambda job: job.run_id):
                try:
                    found.append((job, write_batch(session, job.run_id, job.batch)))
                except StoreError as error:  # raised before anything of it was written
                    found.append((job, error))
            self._together, self._took = len(jobs), monotonic() - begun
        for job, result in found:
            if isinstance(result, StoreError):
                job.settle(error=result)
            else:
                job.settle(result)

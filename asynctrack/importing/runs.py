"""`import_runs`: the order in which a file store is written into another store, and how many runs at once."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

from asynctrack.clock import monotonic
from asynctrack.constants import LifecycleStage
from asynctrack.current import current_store_uri
from asynctrack.entities import Experiment, RunInfo
from asynctrack.errors import InvalidInputError, StoreError
from asynctrack.importing.source import Group, Noted, Source, SourceRun
from asynctrack.importing.writing import Target
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.keys import shorten
from asynctrack.stores.uri import open_store, resolve_store_uri

__all__ = ["Import", "import_runs"]

T = TypeVar("T")

#: runs written at once: they share transactions and the wait for answers
_AT_ONCE = 8
#: seconds between two calls of the progress function
_TICK = 0.1


class Import(NamedTuple):
    """What `import_runs` has done, or has done so far.

    ``runs``: runs that were written, of which ``events`` metric points,
    params and tags were taken. ``present``: runs that were there already.
    ``left``: runs still to come. ``problems``: a line for each file that could
    not be read, and for each run or event that was refused; everything else is
    imported. ``in_use``: folders in the source that hold artifacts of the
    store's experiments, as a database beside the folder has its own there:
    keep these if you delete the source.
    """

    source: str
    store: str
    experiments: int = 0
    runs: int = 0
    present: int = 0
    left: int = 0
    events: int = 0
    problems: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()


def import_runs(
    source: str | os.PathLike[str],
    *,
    to: str | os.PathLike[str] | AbstractStore | None = None,
    timeout: float = 60.0,
    progress: Callable[[Import], None] | None = None,
) -> Import:
    """Write a whole folder of MLflow's file layout into another store.

    ``source``: the folder (``./mlruns``), or the one that it is in. It is only
    read. ``to``: the URI of the other store, or the store; default: that of
    new runs.

    Experiments go to those of the same name, with their tags. Runs keep id,
    name, status, times, params, tags, the whole history of their metrics,
    artifacts, and whether they are deleted. A server gives them ids of its
    own: the old one is in the tag ``mlflow.asynctrack.uid``. Identical points
    of a metric are one.

    It may be interrupted and called again: runs that are there with the same
    status and end are left alone, and of others what is missing is written.
    A file that cannot be read, and what the store refuses, is a line in the
    result's ``problems``. Its ``in_use`` names what has to stay if the folder
    is deleted.

    ``timeout``: seconds for which a store that does not answer is tried again.
    ``progress``: called ten times a second with what is done so far.

    Blocks the calling thread. Raises InvalidInputError for a folder without
    experiments and for a store of no known kind, and StoreError if the store
    cannot be written to, or while another program imports the folder.
    """
    noted = Noted()
    folder = Source(_folder(source), noted)
    store = to.over(InlineIO()) if isinstance(to, AbstractStore) else open_store(_uri(to), InlineIO(), offline=False)
    if store.uri == resolve_store_uri(folder.root):
        raise InvalidInputError(f"{folder.root} cannot be imported into itself; name another store")
    work = _Work(Target(store, folder, noted, timeout), folder, noted, progress)
    try:
        with folder.alone():
            work.carry_out()
    finally:
        if store is not to:
            drive(store.aclose())
    return work.result()


def _uri(to: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    if to == "":
        raise InvalidInputError("to is empty (a variable that is not set, maybe); leave it out, or name a store")
    return current_store_uri() if to is None else to


def _folder(source: str | os.PathLike[str]) -> str:
    store = open_store(source, InlineIO(), offline=True)
    if not isinstance(store, FileStore):
        raise InvalidInputError(f"{shorten(str(source))} is not a folder; only MLflow's file stores can be imported")
    return store.root


class _Pending(NamedTuple):
    """A run that is to be written; ``there``: what there is of it already."""

    run: SourceRun
    experiment_id: str
    there: RunInfo | None
    deleted: bool


class _Work:
    """One import: counts what is done, from any thread."""

    def __init__(self, target: Target, source: Source, noted: Noted, progress: Callable[[Import], None] | None) -> None:
        self._target = target
        self._source = source
        self._noted = noted
        self._progress = progress
        self._told_at = 0.0
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()
        self._in_use: tuple[str, ...] = ()

    def result(self) -> Import:
        """What is done so far."""
        with self._lock:
            counts = {name: self._done[name] for name in ("experiments", "runs", "present", "left", "events")}
        return Import(
            self._source.root,
            self._target.store.uri,
            **counts,
            problems=tuple(self._noted.lines()),
            in_use=self._in_use,
        )

    def _count(self, **numbers: int) -> None:
        with self._lock:
            self._done.update(numbers)

    def carry_out(self) -> None:
        """Raises `StoreError` where the store cannot be written to (any more)."""
        groups = self._source.groups()
        self._count(left=sum(len(group.runs) for group in groups))
        with ThreadPoolExecutor(_AT_ONCE, "asynctrack-import") as pool:
            try:
                begun = [(group, *self._begin(pool, group)) for group in groups]
                # Parents come before what is nested in them, whose tag is to name the id that the store gave them.
                for level in _by_depth([each for _, _, pending in begun for each in pending]):
                    self._all(pool, self._write, level)
                for group, experiment, pending in begun:
                    if experiment is not None and _is_deleted(group) and (pending or not _gone(experiment)):
                        self._target.bury(experiment)
                self._in_use = tuple(self._target.places())
            except BaseException:
                self._target.cancelled.set()
                raise
        self._tell(last=True)

    def _begin(self, pool: ThreadPoolExecutor, group: Group) -> tuple[Experiment | None, list[_Pending]]:
        """The experiment in the store, and which of its runs are to be written."""
        name = f"experiment {shorten(group.experiment.name)}"
        try:
            experiment = self._target.experiment(group.experiment)
        except (StoreError, InvalidInputError) as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            self._leave_out(group, f"{name} in {self._source.root}", str(error))
            return None, []
        found = [_Pending(run, experiment.experiment_id, None, _is_deleted(group, run)) for run in group.runs]
        pending = [each for each in self._all(pool, self._look, found) if each is not None]
        if pending and _gone(experiment):
            if not _is_deleted(group):
                self._leave_out(group, name, "it is deleted in the store; restore it there, and import again")
                return None, []
            self._target.try_call(lambda: self._target.store.restore_experiment(experiment.experiment_id))
        self._count(experiments=1)
        return experiment, pending

    def _leave_out(self, group: Group, where: str, why: str) -> None:
        left = len(group.runs)
        self._noted.add(where, f"{why} ({left} runs are not imported)" if left else why)

    def _look(self, one: _Pending) -> _Pending | None:
        """With what there is of it; None if that is all of it."""
        there = self._target.find(one.run, one.experiment_id)
        if there is not None and self._target.is_whole(one.run, there, deleted=one.deleted):
            self._count(present=1, left=-1)
            return None
        return one._replace(there=there)

    def _write(self, one: _Pending) -> None:
        where = f"run {one.run.info.run_id}"
        try:
            events = self._target.write(one.run, one.experiment_id, one.there, deleted=one.deleted)
        except (StoreError, InvalidInputError, OSError) as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            self._noted.add(where, f"it is not imported, or only in part: {error}")
            self._count(left=-1)
        else:
            self._count(runs=1, left=-1, events=events)

    def _all(self, pool: ThreadPoolExecutor, work: Callable[[_Pending], T], items: Sequence[_Pending]) -> list[T]:
        """The results in order. Raises the first error, after which the others stop."""
        futures = [pool.submit(work, item) for item in items]
        waiting: set[Future[T]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, _TICK, FIRST_EXCEPTION)
            for future in done:
                error = future.exception()
                if error is not None:
                    for other in waiting:
                        other.cancel()
                    raise error
            self._tell()
        return [future.result() for future in futures]

    def _tell(self, *, last: bool = False) -> None:
        if self._progress is not None and (last or monotonic() > self._told_at + _TICK):
            self._told_at = monotonic()
            self._progress(self.result())


def _is_deleted(group: Group, run: SourceRun | None = None) -> bool:
    """Whether the experiment is deleted in the source, and so this run of it, or that run itself."""
    own = None if run is None else run.info.lifecycle_stage
    return LifecycleStage.DELETED in (group.experiment.lifecycle_stage, own)


def _gone(experiment: Experiment) -> bool:
    return experiment.lifecycle_stage == LifecycleStage.DELETED


def _by_depth(pending: Sequence[_Pending]) -> Iterator[list[_Pending]]:
    """The runs that are nested in none of the others, then those nested in these, and so on."""
    left = {each.run.info.run_id: each for each in pending}
    while left:
        level = [each for each in left.values() if each.run.parent not in left]
        level = level or list(left.values())  # each in another: nobody could be the first
        for each in level:
            del left[each.run.info.run_id]
        yield level

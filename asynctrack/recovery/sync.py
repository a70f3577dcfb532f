"""`asynctrack.sync`: deliver the spools of programs that have ended, or that are running offline."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from asynctrack.arguments import checked_name, flag_of, path_of, several, timeout_of
from asynctrack.clock import monotonic
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.homes import remove_emptied
from asynctrack.journal.locks import is_held
from asynctrack.journal.owner import lost_owner, read_owner
from asynctrack.journal.survey import find_ownerless, find_spools
from asynctrack.recovery.shipment import Shipment
from asynctrack.settings import current_settings
from asynctrack.stores.io import ThreadedIO, in_event_loop
from asynctrack.stores.uri import open_store, resolve_store_uri
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.recovery.job import Job
    from asynctrack.stores.base import AbstractStore

__all__ = ["Shipment", "spool_paths", "sync"]

logger = logging.getLogger("asynctrack")

#: seconds between two calls of the progress function, and between two searches for new spools
_TICK, _LOOK = 0.1, 1.0


def spool_paths(spool_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Every spool with undelivered events in ``spool_dir`` (default: the
    folders where programs started here create their spools)."""
    found = find_spools(_folder(spool_dir))
    return [path for path in found if os.path.exists(os.path.join(path, "registry"))]


def _folder(spool_dir: str | os.PathLike[str] | None) -> str | None:
    return current_settings().spool_dir if spool_dir is None else path_of("spool_dir", spool_dir)


def sync(
    spools: Sequence[str | os.PathLike[str]] | None = None,
    *,
    spool_dir: str | os.PathLike[str] | None = None,
    to: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    watch: bool = False,
    owner_gone: bool = False,
    create_missing: bool = False,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Shipment]:
    """Deliver spools, each to its recorded store or all to the store ``to``,
    and return the result of each spool.

    ``spools``: paths of spools; default: all spools in ``spool_dir`` (default:
    the folders where programs started here create their spools).

    ``experiment``: the name of the experiment in which runs are created.

    ``watch``: go on until the offline programs have ended, also with spools
    that appear meanwhile. Without it, the spool of a running offline program
    is delivered as far as it has been written.

    ``owner_gone``: assume that programs on other hosts have ended. Their locks
    cannot be seen from this host.

    ``create_missing``: assume that who was to create a run, and has not, is
    gone for good: rank 0 of a shared run that died before its `start_run`, or
    whose spool is lost. The run is created as the other ranks describe it, and
    that rank counts as KILLED. Not with ``watch``.

    ``timeout``: after that many seconds without progress at a store, the rest
    stays in the spools (not with ``watch``).

    ``progress``: called ten times a second with the numbers of events
    delivered and left.

    Each event is delivered once, also if `sync` is repeated, interrupted, or
    run twice at the same time. Spools of programs that deliver themselves, and
    of this process, are left alone. Blocks the calling thread, even if it runs
    an event loop (as in a notebook). Raises InvalidInputError for a ``to`` of
    no known kind. Other errors do not raise: they are the ``problem`` of a
    `Shipment`.
    """
    _refuse_empty(to=to, experiment=experiment)
    experiment = None if experiment is None else checked_name(experiment)
    watch, owner_gone = flag_of("watch", watch), flag_of("owner_gone", owner_gone)
    if flag_of("create_missing", create_missing) and watch:
        raise InvalidInputError("create_missing= is about programs that are gone, and watch= waits for them; give one")
    patience = timeout_of(timeout)
    if patience is None or patience < 0:
        raise InvalidInputError(f"timeout={shortened(timeout)}: it must be a number of seconds, 0 or more")
    if progress is not None and not callable(progress):
        raise InvalidInputError(f"progress={shortened(progress)}: it must be a function, or None")
    settings = current_settings()._replace(mode="online")  # ASYNCTRACK_MODE=offline is meant for programs that log
    target = None if to is None else open_store(to, ThreadedIO(), offline=False).uri

    def job_for(store: AbstractStore) -> Job:
        from asynctrack.recovery.job import Job  # mostly nothing waits, and loading it takes longer than to see that

        return Job(
            store,
            settings,
            redirected=target is not None,
            experiment=experiment,
            timeout=patience,
            owner_gone=owner_gone,
            watch=watch,
        )

    jobs = _Jobs(job_for, target)
    if spools is None:
        lost = [path for path, _ in find_ownerless(_folder(spool_dir))]
        paths: Iterable[str | os.PathLike[str]] = [*spool_paths(spool_dir), *lost]
    else:
        paths = [path_of("spools", path) for path in several("spools", spools)]
    try:
        jobs.assign(os.path.abspath(path) for path in paths)
        look = (lambda: spool_paths(spool_dir)) if watch and spools is None else None
        prepare = (lambda job: jobs.create_missing(job, experiment)) if create_missing else None
        if jobs.running:
            _carry_out(jobs, look, progress, prepare)
        if spools is None:
            remove_emptied(find_spools(_folder(spool_dir)))
    finally:
        jobs.close()
    return list(jobs.results.values())


def _refuse_empty(**given: object) -> None:
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise InvalidInputError(f"{name} is empty (a variable that is not set, maybe); leave it out, or name one")


def _carry_out(
    jobs: _Jobs,
    look: Callable[[], Iterable[str]] | None,
    progress: Callable[[int, int], None] | None,
    prepare: Callable[[Job], Awaitable[None]] | None,
) -> None:
    """Deliver the assigned spools, and the spools that ``look`` finds meanwhile. ``prepare``: what is done before."""
    import anyio

    from asynctrack.engine.shipping import make_own_loop, ship

    told_at = 0.0

    def tell() -> None:
        nonlocal told_at
        if progress is not None and monotonic() > told_at + _TICK:
            progress(*jobs.counts())
            told_at = monotonic()

    async def deliver(job: Job) -> None:
        try:
            if prepare is not None:
                await prepare(job)
            await ship(job.pump, lambda idle: job.stop(jobs.cancelled, tell))
        except Exception as error:  # an error at one store must not stop the delivery to the others
            logger.exception("asynctrack: cannot deliver to %s", job.uri)
            job.problem = repr(error)
        finally:
            jobs.finish(job)

    async def main() -> None:
        nonlocal told_at
        make_own_loop()
        async with anyio.create_task_group() as tasks:

            def begin(new: Iterable[Job]) -> None:
                for job in new:  # a name of its own: nothing here holds a job that has finished
                    tasks.start_soon(deliver, job)

            begin(list(jobs.running.values()))
            running = True
            while look is not None and running and not jobs.cancelled.is_set():
                await anyio.sleep(_LOOK)
                ended = not jobs.running  # then this is the last look, unless it finds something
                begin(jobs.assign(path for path in look() if path not in jobs.results))
                running = not ended or bool(jobs.running)
        told_at = 0.0
        tell()

    if not in_event_loop():
        anyio.run(main)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "asynctrack-sync") as thread:
        done = thread.submit(anyio.run, main)
        try:
            done.result()
        except BaseException:
            jobs.cancelled.set()  # Ctrl-C, which is raised only in the main thread
            raise


class _Jobs:
    """Assigns spools to one `Job` for each store. ``make`` creates the job of a store."""

    def __init__(self, make: Callable[[AbstractStore], Job], target: str | None) -> None:
        self._make = make
        self._target = target
        #: by path: the result of each spool; "partly" until the spool is done
        self.results: dict[str, Shipment] = {}
        #: by the store's URI: the jobs that are running
        self.running: dict[str, Job] = {}
        self.cancelled = threading.Event()
        #: what jobs that have finished have dealt with, and left
        self._done, self._left = 0, 0

    def assign(self, paths: Iterable[str]) -> list[Job]:
        """Give spools to the jobs of their stores; returns the jobs that are new."""
        owners = {path: read_owner(path) for path in paths if path not in self.results}
        new = []
        # The older one first: it may create a run that a later one logs to.
        for path, owner in sorted(owners.items(), key=lambda entry: entry[1].created if entry[1] else 0):
            if owner is None:
                problem = lost_owner(path) or "it is not a spool; `asynctrack spool` lists them"
                self.results[path] = Shipment(path, "", "failed", problem=problem)
                continue
            try:
                uri = self._target or resolve_store_uri(owner.store)
                if uri not in self.running:
                    job = self.running[uri] = self._make(open_store(uri, ThreadedIO(), offline=False))
                    new.append(job)
            except AsynctrackError as error:
                self.results[path] = Shipment(path, self._target or owner.store, "failed", problem=str(error))
                continue
            self.results[path] = Shipment(path, uri, "partly")
            self.running[uri].add(path)
        # In the order in which the caller named them.
        self.results = {path: self.results[path] for path in [*self.results, *owners]}
        return new

    async def create_missing(self, job: Job, experiment: str | None) -> None:
        """Create the runs that the spools of ``job`` wait for, and that nobody else will create."""
        import anyio

        from asynctrack.recovery.missing import create_missing_runs

        spools = [path for path, result in self.results.items() if result.store == job.uri]
        if self._target is not None:  # living programs deliver to the store that they meant
            spools = [path for path in spools if not is_held(path)[0]]
        homes = {os.path.dirname(path) for path in self.results}
        await create_missing_runs(job.pump.store, spools, homes, experiment, anyio.sleep)

    def counts(self) -> tuple[int, int]:
        """The number of events dealt with so far, and about how many are left."""
        jobs = list(self.running.values())
        return self._done + sum(job.done() for job in jobs), self._left + sum(job.left() for job in jobs)

    def finish(self, job: Job) -> None:
        """Release the spools that a job has left, and record the result of each spool: of the job itself nothing is
        kept, for a watch may see thousands."""
        del self.running[job.uri]
        self._done, self._left = self._done + job.done(), self._left + job.left()
        self.results.update(job.close())

    def close(self) -> None:
        """The same for all that are running."""
        for job in list(self.running.values()):
            self.finish(job)

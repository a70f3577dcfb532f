"""`asynctrack.sync`: delivering, by hand, what programs have left in their spools, or are still writing to them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asynctrack.engine.pump import Pump
from asynctrack.engine.shipping import ship
from asynctrack.engine.source import Source
from asynctrack.engine.spools import find_spools
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.spool import Spool, host_name, read_owner
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import ThreadedIO, in_event_loop
from asynctrack.stores.uri import open_store, resolve_store_uri

__all__ = ["Shipment", "spool_paths", "sync"]

#: seconds between two calls of the progress function
_TICK = 0.1


class Shipment(NamedTuple):
    """What became of one spool.

    ``state``: "delivered" (and deleted, but for refused events), "up to date" (its program is alive and goes on),
    "partly" (see ``problem``; the rest stays), "busy" (its program, or another sync, delivers it), or "failed" (see
    ``problem``). ``delivered`` and ``rejected`` are events, ``left`` about how many are still there.
    """

    spool: str
    store: str
    state: str
    delivered: int = 0
    rejected: int = 0
    left: int = 0
    problem: str | None = None


def spool_paths(spool_dir: str | None = None) -> list[str]:
    """Every spool in ``spool_dir``, else in the folders where programs started here would make theirs, but for those
    of which only refused events are left."""
    found = find_spools(spool_dir or current_settings().spool_dir)
    return [path for path in found if os.path.exists(os.path.join(path, "registry"))]


def sync(
    spools: Sequence[str | os.PathLike[str]] | None = None,
    *,
    spool_dir: str | None = None,
    to: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    watch: bool = False,
    owner_gone: bool = False,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Shipment]:
    """Deliver spools, each to the store its program meant, or all ``to`` another; what became of each.

    Without ``spools``, every one in ``spool_dir`` (default: as programs started here choose it). A living program's
    spool is delivered too where the program does not (``mode="offline"``); with ``watch`` this goes on until it ends.
    ``experiment`` is the experiment, by name, that runs are created in. ``owner_gone``: believe that programs of other
    hosts, whose locks say nothing here, have ended. ``timeout``: seconds without progress after which the rest of a
    store's spools stays where it is (not while it is watched). ``progress`` is called with the events delivered and
    left, ten times a second.

    It may be repeated, interrupted, and run twice at once: each event is delivered once. What this process logs itself
    is left alone, as its engine delivers it. Blocks, also where an event loop is running (in a notebook, say). Raises
    InvalidInputError for a ``to`` that leads to no store.
    """
    settings = current_settings()._replace(mode="online")  # whatever the programs here are told to do
    target = None if to is None else open_store(to, ThreadedIO(), offline=False).uri
    results: dict[str, Shipment] = {}
    by_store: dict[str, list[str]] = {}
    for path in map(os.path.abspath, spools if spools is not None else spool_paths(spool_dir)):
        owner = read_owner(path)
        if owner is None:
            results[path] = Shipment(path, "", "failed", problem="it is no spool; `asynctrack spool` lists them")
        elif path not in results:
            store = target or resolve_store_uri(owner.store)
            results[path] = Shipment(path, store, "failed")
            by_store.setdefault(store, []).append(path)
    jobs = []
    try:
        for uri, paths in by_store.items():
            try:
                store_of = open_store(uri, ThreadedIO(), offline=False)
            except AsynctrackError as error:
                results.update((path, results[path]._replace(problem=str(error))) for path in paths)
                continue
            job = _Job(store_of, settings, redirected=target is not None, experiment=experiment, timeout=timeout)
            jobs.append(job)
            for path in paths:
                job.take(path, owner_gone)
        _carry_out([job for job in jobs if job.pump.sources], watch, progress)
    finally:
        for job in jobs:
            results.update(job.close())
    return list(results.values())


def _carry_out(jobs: list[_Job], watch: bool, progress: Callable[[int, int], None] | None) -> None:
    import anyio

    cancelled = threading.Event()
    told_at = 0.0

    def tell() -> None:
        nonlocal told_at
        if progress is not None and time.monotonic() > told_at + _TICK:
            progress(sum(job.done() for job in jobs), sum(job.left() for job in jobs))
            told_at = time.monotonic()

    async def main() -> None:
        nonlocal told_at
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(ship, job.pump, job.stop(watch, cancelled, tell))
        told_at = 0.0
        tell()

    if not jobs:
        return
    if not in_event_loop():
        anyio.run(main)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "asynctrack-sync") as thread:
        done = thread.submit(anyio.run, main)
        try:
            done.result()
        except BaseException:
            cancelled.set()  # Ctrl-C, which only the main thread hears of
            raise


class _Job:
    """One store, and the spools that go there."""

    def __init__(
        self, store: AbstractStore, settings: Settings, *, redirected: bool, experiment: str | None, timeout: float
    ) -> None:
        self._uri = store.uri
        self._redirected = redirected
        self._timeout = timeout
        store.durable = settings.durability == "system"
        self.pump = Pump(store, settings)
        self.pump.experiment = experiment
        self._sources: dict[str, Source] = {}
        self._results: dict[str, Shipment] = {}
        self._moved_at = time.monotonic()
        self._seen = -1

    def take(self, path: str, owner_gone: bool) -> None:
        """Have a spool delivered, if it can be had."""
        try:
            self._take(path, owner_gone)
        except (AsynctrackError, OSError, ValueError) as error:
            self._results[path] = Shipment(path, self._uri, "failed", problem=str(error))

    def _take(self, path: str, owner_gone: bool) -> None:
        spool, followed = Spool.adopt(path), False
        if spool is not None and spool.owner.host == host_name() and spool.is_copy() and not owner_gone:
            spool.leave()
            raise InvalidInputError(
                f"it is a copy of {spool.owner.path}, whose program may deliver that itself: deliver that one, or this "
                "one, if the other is gone, with --owner-gone"
            )
        if spool is None and _delivers_itself(path):
            self._results[path] = Shipment(path, self._uri, "busy")
            return
        if spool is None or (spool.owner.host != host_name() and not owner_gone):
            # Over a network file system a free lock does not say that the owner, on another host, is dead.
            if spool is not None:
                spool.leave()
            spool, followed = Spool.follow(path), True
        if spool is None:
            self._results[path] = Shipment(path, self._uri, "busy")
            return
        try:
            _check_target(spool, self._uri)
        except InvalidInputError:
            spool.leave()
            raise
        source = self.pump.add(spool, followed=followed)
        if source is None:
            self._results[path] = Shipment(path, self._uri, "failed", problem="it cannot be read")
            return
        source.to = self._uri if self._redirected else None
        self._sources[path] = source

    def stop(self, watch: bool, cancelled: threading.Event, tell: Callable[[], None]) -> Callable[[bool], bool]:
        """Whether to leave off, to be asked after each round."""

        def stop(idle: bool) -> bool:
            tell()
            followed = [source.followed for source in self.pump.sources]
            if not followed or cancelled.is_set():
                return True
            if watch and any(followed):
                return False
            return (idle and all(followed)) or self._stuck()

        return stop

    def _stuck(self) -> bool:
        """Whether nothing has moved for too long: neither events nor, as far as one can see, large files."""
        done, now = self.done(), time.monotonic()
        works = [work for source in self.pump.sources for lane in source.lanes.values() for work in lane.flight]
        uploading = any(work.busy and work.upload is not None for work in works)
        if done != self._seen or uploading or self.pump.drained:
            self._seen, self._moved_at = done, now
        return now > self._moved_at + self._timeout

    def done(self) -> int:
        """Events dealt with so far."""
        return sum(source.delivered for source in self._sources.values())

    def left(self) -> int:
        """About how many are still to come."""
        return sum(source.pending() for source in self.pump.sources)

    def close(self) -> dict[str, Shipment]:
        """Let go of what is left, and say what became of each spool."""
        for path, source in self._sources.items():
            self._results[path] = self._outcome(path, source)
        for source in list(self.pump.sources):
            self.pump.let_go(source)
        return self._results

    def _outcome(self, path: str, source: Source) -> Shipment:
        counts = source.delivered - source.rejected, source.rejected
        if source not in self.pump.sources:
            if os.path.exists(os.path.join(path, "registry")):
                return Shipment(path, self._uri, "failed", *counts, problem="it cannot be read, or not be deleted")
            return Shipment(path, self._uri, "delivered", *counts)
        left = source.pending()
        if source.followed and source.drained and self.pump.last_error is None:
            return Shipment(path, self._uri, "up to date", *counts, left=left)
        problem = self.pump.last_error or "it was interrupted"
        return Shipment(path, self._uri, "partly", *counts, left=left, problem=problem)


def _delivers_itself(path: str) -> bool:
    owner = read_owner(path)
    return owner is not None and owner.ships and owner.host == host_name()


def _check_target(spool: Spool, uri: str) -> None:
    """A spool goes to one store: its cursor says how far it is there, and whom it knows there."""
    try:
        cursor = spool.load_cursor()
    except ValueError:
        return  # everything is compared with whatever store it goes to
    if cursor is None:
        return
    began = cursor.get("to", spool.owner.store)
    # Before anything of it arrives there, a run must be known there by its id.
    arrived = cursor["known_runs"] > len([run for run in cursor["runs"] if run > 0]) or any(
        entry[1] is not None for entry in cursor["runs"].values()
    )
    if arrived and began != uri:
        raise InvalidInputError(f"a part of it is in {began} already; deliver the rest there")

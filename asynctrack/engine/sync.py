"""`asynctrack.sync`: delivering, by hand, what programs have left in their spools, or are still writing to them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from asynctrack.engine.pump import Pump
from asynctrack.engine.shipping import ship
from asynctrack.engine.source import Source
from asynctrack.engine.spools import find_spools
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.spool import Spool, host_name, read_owner
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.uri import open_store, resolve_store_uri

__all__ = ["Shipment", "spool_paths", "sync"]

logger = logging.getLogger("asynctrack")


class Shipment(NamedTuple):
    """What became of one spool.

    ``state``: "delivered" (and deleted), "up to date" (its program is alive and goes on), "partly" (see ``problem``;
    the rest stays), "busy" (its program, or another sync, delivers it), or "failed" (see ``problem``).
    ``delivered`` and ``rejected`` are events, ``left`` about how many are still there.
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
    hosts, whose locks say nothing here, have ended. ``timeout``: seconds without progress after which the rest stays
    where it is. ``progress`` is called with the events delivered and left, about ten times a second.

    It may be repeated, interrupted, and run twice at once: each event is delivered once. Not for use on an event loop.
    """
    settings = current_settings()
    target = None if to is None else resolve_store_uri(to)
    by_store: dict[str, list[str]] = {}
    results: list[Shipment] = []
    for path in map(os.path.abspath, spools if spools is not None else spool_paths(spool_dir)):
        owner = read_owner(path)
        if owner is None:
            results.append(Shipment(path, "", "failed", problem="it is no spool, or this process's own"))
        else:
            by_store.setdefault(target or owner.store, []).append(path)
    for store, paths in by_store.items():
        job = _Job(store, settings, redirected=target is not None, experiment=experiment, progress=progress)
        results += job.run(paths, watch=watch, owner_gone=owner_gone, timeout=timeout)
    return results


class _Job:
    """One store, and the spools that go there."""

    def __init__(
        self,
        store: str,
        settings: Settings,
        *,
        redirected: bool,
        experiment: str | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = store
        self._redirected = redirected
        self._progress = progress
        self._results: dict[str, Shipment] = {}
        self._sources: dict[str, Source] = {}
        opened = open_store(store, ThreadedIO())
        opened.durable = settings.durability == "system"
        self._pump = Pump(opened, settings)
        self._pump.experiment = experiment
        self._moved_at = time.monotonic()
        self._most = -1

    def run(self, paths: Iterable[str], *, watch: bool, owner_gone: bool, timeout: float) -> list[Shipment]:
        """Deliver them."""
        import anyio

        for path in paths:
            try:
                self._take(path, owner_gone)
            except (AsynctrackError, OSError, ValueError) as error:
                self._results[path] = Shipment(path, self._store, "failed", problem=str(error))

        def stop(idle: bool) -> bool:
            self._tell()
            if not self._pump.sources or self._stuck(timeout):
                return True
            return idle and not watch and all(source.followed for source in self._pump.sources)

        try:
            if self._pump.sources:
                anyio.run(lambda: ship(self._pump, stop, wake=None))
        finally:
            for path, source in self._sources.items():
                self._results[path] = self._outcome(path, source)
            for source in list(self._pump.sources):
                self._pump.let_go(source)
        return list(self._results.values())

    def _take(self, path: str, owner_gone: bool) -> None:
        spool = Spool.adopt(path)
        followed = False
        if spool is None or (spool.owner.host != host_name() and not owner_gone):
            # Over a network file system a free lock does not say that the owner, on another host, is dead.
            if spool is not None:
                spool.release()
            spool, followed = Spool.follow(path), True
        if spool is None:
            self._results[path] = Shipment(path, self._store, "busy")
            return
        self._check_target(spool)
        source = self._pump.add(spool, followed=followed)
        if source is None:
            self._results[path] = Shipment(path, self._store, "failed", problem="it cannot be read")
            return
        source.to = self._store if self._redirected else None
        self._sources[path] = source

    def _check_target(self, spool: Spool) -> None:
        """A spool goes to one store: its cursor says how far it is there, and whom it knows there."""
        try:
            cursor = spool.load_cursor()
        except ValueError:
            cursor = None
        began = spool.owner.store if cursor is None else cursor.get("to", spool.owner.store)
        if cursor is not None and cursor["known_runs"] and began != self._store:
            spool.release()
            raise InvalidInputError(f"{spool.path}: a part of it is in {began} already; deliver the rest there")

    def _tell(self) -> None:
        done = sum(source.delivered for source in self._sources.values())
        if done != self._most:
            self._most, self._moved_at = done, time.monotonic()
        if self._progress is not None:
            self._progress(done, sum(source.pending() for source in self._pump.sources))

    def _stuck(self, timeout: float) -> bool:
        waiting = any(not source.drained for source in self._pump.sources)
        if not waiting:
            self._moved_at = time.monotonic()
        return waiting and time.monotonic() > self._moved_at + timeout

    def _outcome(self, path: str, source: Source) -> Shipment:
        counts = source.delivered - source.rejected, source.rejected
        if source not in self._pump.sources:
            return Shipment(path, self._store, "delivered", *counts)
        left = source.pending()
        if source.followed and source.drained:
            return Shipment(path, self._store, "up to date", *counts, left=left)
        problem = self._pump.last_error or "it was interrupted"
        return Shipment(path, self._store, "partly", *counts, left=left, problem=problem)

"""Spools on their way to one store: look, load, deliver, tidy up. Whoever has a thread or a loop drives it.

The engine of a logging process, the shipper process and ``asynctrack sync`` are three drivers of this one pump.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterator

from asynctrack.engine.batcher import Lane, Work
from asynctrack.engine.delivery import Delivery
from asynctrack.engine.source import Loaded, Source
from asynctrack.journal.spool import Spool, find_orphans
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

__all__ = ["Pump"]

logger = logging.getLogger("asynctrack")


#: events that are enough to have loaded, of all runs together that get on: some 25 MB
_CROWD = 1 << 18


#: all of this process
_pumps: list[weakref.ref[Pump]] = []


class Pump:
    """Sources and the store they go to. Belongs to one thread."""

    def __init__(self, store: AbstractStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.delivery = Delivery(store, settings.on_error)
        self.sources: list[Source] = []
        self._orphans: list[Source] = []
        #: the experiment, by name, for the runs of dead and other processes; None: the one that they chose
        self.experiment: str | None = None
        self._turn = 0
        _pumps.append(weakref.ref(self, _pumps.remove))

    # ── sources

    def add(self, spool: Spool, *, followed: bool = False) -> Source | None:
        """Deliver a dead process's spool, or a living one's that it does not deliver itself. None where it cannot be
        read; it stays as it is then, and a log line says so."""
        try:
            head, problems = (spool.next_segment(None), []) if followed else spool.segments()
            source = Source(
                spool,
                head,
                self.store.limits,
                adopted=not followed,
                followed=followed,
                durable=self.store.durable,
                experiment=self.experiment,
            )
        except Exception:
            logger.exception("asynctrack: cannot take over the spool %s; it stays as it is", spool.path)
            spool.release()
            return None
        for problem in problems:
            logger.error("asynctrack: damaged spool: %s", problem)
        self.sources.append(source)
        return source

    def adopt_orphans(self, home: str) -> None:
        """Deliver what dead processes of this host have left in ``home`` for this store."""
        for spool in find_orphans(home, self.store.uri):
            source = self.add(spool)
            if source is not None:
                self._orphans.append(source)
                logger.warning(
                    "asynctrack: delivering what process %d on %s left in %s",
                    spool.owner.pid, spool.owner.host, spool.path,
                )  # fmt: skip

    def finish(self, source: Source) -> None:
        """Everything readable in a dead process's spool is delivered: say what was not readable, and delete it."""
        for problem, records in source.reader.problems.items():
            logger.error("asynctrack: %s: %s (%d)", source.spool.path, problem, records)
        self.remove(source)
        if source in self._orphans:
            self._orphans.remove(source)
            logger.warning("asynctrack: %s is delivered", source.spool.path)

    def remove(self, source: Source) -> None:
        """Delete a spool that is delivered."""
        source.close()
        self.sources.remove(source)
        try:
            source.spool.remove()
        except OSError as error:
            logger.error("asynctrack: cannot delete the delivered spool %s: %s", source.spool.path, error)

    def let_go(self, source: Source) -> None:
        """Leave a spool as it is to whoever comes next."""
        source.close()
        self.sources.remove(source)
        source.spool.leave()

    # ── one round

    def take_over(self) -> bool:
        """Of the spools that are delivered beside their owners, keep those whose owners have died since; whether there
        are any."""
        found = False
        for source in list(self.sources):
            try:
                found |= source.take_over()
            except OSError as error:
                logger.error("asynctrack: cannot read the spool %s: %s", source.spool.path, error)
        return found

    def publish(self) -> None:
        """Tell the owners that want to know what became of their runs."""
        for source in self.sources:
            try:
                source.publish()
            except OSError as error:
                logger.error("asynctrack: cannot write the cursor in %s: %s", source.spool.path, error)

    def load(self) -> set[Loaded]:
        """Load what there is room for, once from each source; more where many runs get little of it each, for it is
        batches that cost, and not events."""
        loaded, _ = self._loaded()
        while True:
            for source in self.sources:
                source.depth, source.crowded = self.delivery.depth, loaded > _CROWD
            found = {self._load(source) for source in list(self.sources)}
            before, (loaded, runs) = loaded, self._loaded()
            if Loaded.MORE not in found or not before < loaded < min(_CROWD, runs * self.store.limits.entities // 2):
                return found

    @property
    def can_catch_up(self) -> bool:
        """Whether there is room now for what did not have any at the last look, although others had."""
        return any(source.can_catch_up for source in self.sources)

    def _loaded(self) -> tuple[int, int]:
        """How many events are loaded for runs that get on, and for how many runs."""
        now = time.monotonic()
        lanes = [lane for source in self.sources for lane in source.lanes.values() if lane.loaded_weight]
        weights = [lane.loaded_weight for lane in lanes if not lane.stalled(now)]
        return sum(weights), len(weights)

    def _load(self, source: Source) -> Loaded:
        try:
            source.refresh()
            loaded = source.load()
        except OSError as error:
            logger.error("asynctrack: cannot read the spool %s: %s", source.spool.path, error)
            return Loaded.ALL
        except Exception:
            if not source.adopted:
                raise
            # Whatever is wrong with a dead process's spool, this process's own events go on being delivered.
            logger.exception("asynctrack: cannot read the spool %s; it stays as it is", source.spool.path)
            self.let_go(source)
            return Loaded.ALL
        if source.adopted and loaded is Loaded.ALL and source.end_orphans(self._open_runs()):
            self.finish(source)
        return loaded

    def _open_runs(self) -> set[str]:
        """Ids of the runs of living processes, which a dead one's spool must not end: those of this process's other
        engines, too."""
        return {
            lane.run_id or lane.spec.uid
            # Copies: of a set, or a weak one, another thread's change would be noticed as an error.
            for reference in list(_pumps)
            if (pump := reference()) is not None
            for source in list(pump.sources)
            if not source.adopted
            for lane in list(source.lanes.values())
            if not lane.ended
        }

    def due(self) -> Iterator[tuple[Source, Lane, Work]]:
        """What is to be begun now. Each time another run comes first, so that none waits behind the others for ever."""
        lanes = [(source, lane) for source in self.sources for lane in source.lanes.values()]
        self._turn = (self._turn + 1) % max(len(lanes), 1)
        return self.delivery.due(iter(lanes[self._turn :] + lanes[: self._turn]))

    async def step(self, source: Source, lane: Lane, work: Work) -> bool:
        """Carry out what is `due`, and tidy up after it; whether segments were deleted."""
        try:
            await self.delivery.step(source, lane, work)
        finally:
            retired = self._tidy(source)
        return retired

    def _tidy(self, source: Source) -> bool:
        try:
            return bool(source.retire())
        except OSError as error:
            logger.error("asynctrack: the spool %s: %s", source.spool.path, error)
            return False

    def next_retry(self) -> float:
        """When something that was put off is to be tried again (monotonic seconds); infinity: nothing is."""
        now = time.monotonic()
        lanes = (lane for source in self.sources for lane in source.lanes.values())
        return min((lane.retry_at for lane in lanes if not lane.idle and lane.retry_at > now), default=float("inf"))

    @property
    def drained(self) -> bool:
        """Whether all that is loaded is delivered."""
        return all(source.drained for source in self.sources)

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""
        for source in self.sources:
            for lane in list(source.lanes.values()):
                if not lane.idle and lane.last_error:
                    return lane.last_error
        return None

"""Spools on their way to one store: look, load, deliver, tidy up. Whoever has a thread or a loop drives it.

The engine of a logging process, the shipper process and ``asynctrack sync`` are three drivers of this one pump.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from asynctrack.clock import monotonic
from asynctrack.delivery.crowd import Crowd, load_of
from asynctrack.delivery.intake import Courtesy, Intake, Orphans
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.queues import RunQueues
from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.supervision import Supervision
from asynctrack.delivery.turns import in_turn
from asynctrack.delivery.work import Work
from asynctrack.errors import SpoolError
from asynctrack.journal.spool import Spool
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

__all__ = ["Pump"]

logger = logging.getLogger("asynctrack")

T = TypeVar("T")

#: events that are enough to have loaded, of all runs together that get on: some 25 MB
_CROWD = 1 << 18


#: all of this process
_pumps: list[weakref.ref[Pump]] = []

_NOT_DELETED = "cannot delete what is delivered in {}"

#: problems of one spool that are named; the others are counted
_NAMED = 10
#: what was said last, by spool and problem: one that does not get on is let go again and again
_said: dict[str, dict[str, int]] = {}


class Pump:
    """Sources and the store they go to. Belongs to one thread."""

    def __init__(self, store: AbstractStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.sender = Sender(store, settings.on_error)
        self.sources: list[Source] = []
        #: of all sources: where the lanes of one run are
        self.queues = RunQueues()
        #: pieces of work that were dealt with: as long as it grows, something gets on
        self.moved = 0
        #: other programs' spools, a few at a time
        self.intake = Intake(self.let_go)
        self._supervision = Supervision()
        self._courtesy = Courtesy()
        self._crowd = Crowd()
        #: what the last look at each source has found; nothing where it failed
        self._found: dict[Source, Loaded | None] = {}
        self._orphans: set[Source] = set()
        #: those that nothing more is read from
        self._closed: set[Source] = set()
        #: the experiment, by name, for the runs of dead and other processes; None: the one that they chose
        self.experiment: str | None = None
        self._turn = 0
        #: in a forked child its parent's pumps are there, too, and deliver nothing
        self._pid = os.getpid()
        _pumps.append(weakref.ref(self, _pumps.remove))

    # ── sources

    def add(self, spool: Spool, *, followed: bool = False) -> Source | None:
        """Deliver a dead process's spool, or a living one's that it does not deliver itself. None where it cannot be
        read; it stays as it is then, and a log line says so."""
        try:
            head = spool.segments.look(None, living=followed)
            source = Source(
                spool,
                head,
                self.store.limits,
                adopted=not followed,
                followed=followed,
                durable=self.store.durable,
                experiment=self.experiment,
                queues=self.queues,
            )
        except Exception:
            logger.exception("asynctrack: cannot take over the spool %s; the next program tries again", spool.path)
            spool.release()
            return None
        self.sources.append(source)
        return source

    def adopt_orphans(self, homes: Iterable[str]) -> None:
        """Deliver what dead processes of this host have left in ``homes`` for this store."""
        self.intake.add(Orphans(homes, self.store.uri, self._add_orphan, self.queues.wait_no_more_for))

    def _add_orphan(self, spool: Spool) -> Source | None:
        source = self.add(spool)
        if source is not None:
            self._orphans.add(source)
        return source

    def finish(self, source: Source) -> None:
        """Everything readable in a dead process's spool is delivered: delete it."""
        orphan = source in self._orphans
        if self.remove(source) and orphan:
            logger.warning("asynctrack: %s is delivered", source.spool.path)

    def wind_up(self) -> None:
        """Called again and again by whoever is ending: no more of other programs' spools are taken up, and those at
        hand do not hold it up for long once its own are delivered."""
        self.intake.take_no_more()
        if not all(source.drained for source in self.sources if not source.adopted):
            return
        left = sum(self._attempt(source, "cannot read {}", source.pending, 0) for source in self.sources)
        if self._courtesy.is_over(left):
            self.intake.leave_all()

    @property
    def others_left(self) -> float:
        """Seconds that a request for another program's spool may take while this one is ending."""
        return self._courtesy.left

    def remove(self, source: Source) -> bool:
        """Delete a spool that is delivered, and say what was not readable; False where something in it is not accounted
        for, and it stays."""
        _say_problems(source, "; all else is delivered")
        self._forget(source)
        try:
            account = source.account()
            source.close()
            source.spool.remove(account)
            _said.pop(source.spool.path or "", None)
        except SpoolError as error:
            logger.error("asynctrack: %s", error)
            return False
        except OSError as error:
            logger.error(
                "asynctrack: cannot delete the spool %s: %s. All of it is delivered; the next program tries again",
                source.spool.path, error,
            )  # fmt: skip
            source.spool.leave()
        return True

    def let_go(self, source: Source) -> None:
        """Leave a spool as it is to whoever comes next, who goes on behind what was not readable."""
        _say_problems(source)
        source.close()
        self._forget(source)
        source.spool.leave()

    def _forget(self, source: Source) -> None:
        self.sources.remove(source)
        self.intake.gone(source)
        self._found.pop(source, None)
        self._orphans.discard(source)
        self._closed.discard(source)

    # ── one round

    def take_over(self) -> bool:
        """Of the spools that are delivered beside their owners, keep those whose owners have died since; whether there
        are any."""
        what = "cannot see whether the program of {} lives"
        dead = [self._attempt(source, what, source.take_over, False) for source in self.sources]
        return any(dead)

    def publish(self) -> None:
        """Tell the owners that want to know what became of their runs."""
        for source in self.sources:
            self._attempt(source, "cannot write the cursor in {}", source.publish, None)

    def _attempt(self, source: Source, what: str, do: Callable[[], T], otherwise: T) -> T:
        return self._supervision.attempt(source, what.format(source.spool.path or "memory"), do, otherwise)

    def load(self) -> set[Loaded]:
        """Load what there is room for, once from each source; more where many runs get little of it each, for it is
        batches that cost, and not events."""
        for spool in list(self.queues.put_back):
            if not os.path.exists(os.path.join(spool[1], "registry")):
                self.queues.wait_no_more(spool)  # another process has delivered it meanwhile
        self.intake.fill()
        loaded, _ = self._crowd.gets_on(self.sources)
        while True:
            tight = self._relieve()
            for source in self.sources:
                loader = source.loader
                loader.depth, loader.crowded, loader.tight = self.sender.depth, loaded > _CROWD, tight
            found = {self._load(source) for source in list(self.sources) if source not in self._closed}
            before, (loaded, runs) = loaded, self._crowd.gets_on(self.sources)
            if Loaded.MORE not in found or not before < loaded < min(_CROWD, runs * self.store.limits.entities // 2):
                return found

    def can_catch_up(self, source: Source, lane: Lane) -> bool:
        """Whether there is room now for what did not have any at the last look, although others had: for runs that may
        get on as something of ``lane`` is dealt with, or all of them, as the store is well again."""
        if self.sender.well_again:
            self.sender.well_again = False
            return any(each.loader.can_catch_up() for each in self.sources)
        return source.loader.can_catch_up([lane, *lane.beside])

    def _relieve(self) -> bool:
        """Where too much is loaded, have runs that wait for their next attempt let go of it; whether there is no room
        for what cannot be sent now."""
        loaded = sum(load_of(source.loader.front) for source in self.sources)
        too_much = loaded - _CROWD if loaded > 2 * _CROWD else 0
        for source in self.sources:
            if too_much > 0:
                freed = source.loader.relieve(too_much)
                loaded, too_much = loaded - freed, too_much - freed
        return loaded >= 2 * _CROWD

    def _load(self, source: Source) -> Loaded:
        found = self._attempt(source, "cannot read the spool {}", lambda: self._look(source), None)
        if source in self.sources:
            self._found[source] = found
        return found or Loaded.ALL

    def _look(self, source: Source) -> Loaded:
        source.refresh()
        loaded = source.load()
        self._attempt(source, _NOT_DELETED, source.retire, 0)  # for whoever waits for room, where nothing else is due
        if source.adopted and loaded is Loaded.ALL and source.end_orphans(*self._open_runs()):
            self.finish(source)
        return loaded

    def read_no_more(self, source: Source) -> None:
        """Deliver what is loaded from a spool, and then leave it."""
        self._closed.add(source)

    def has_all_of(self, source: Source) -> bool:
        """Whether all that stood in a spool at the last look is delivered."""
        if source in self._closed:
            return all(lane.idle for lane in source.active)
        return self._found.get(source) is Loaded.ALL and source.drained

    def _open_runs(self) -> tuple[set[str], set[str]]:
        """Ids of the runs of living processes, which a dead one's spool must not end: those that are to be ended here,
        by this process's other engines, too, and those that are only logged to."""
        lanes = [
            lane
            # Copies: of a set, or a weak one, another thread's change would be noticed as an error.
            for reference in list(_pumps)
            if (pump := reference()) is not None and pump._pid == os.getpid()
            for source in list(pump.sources)
            if not (source.adopted or source.finished)
            for lane in list(source.lanes.values())
            if not lane.ended and lane.uploads_of is None
        ]
        names = ({lane.name for lane in lanes if lane.attached is attached} for attached in (False, True))
        return next(names), next(names)

    def due(self) -> Iterator[tuple[Source, Lane, Work]]:
        """What is to be begun now. Each time another run comes first, so that none waits behind the others for ever;
        one's own come before those of dead programs."""
        self._turn += 1
        own = [source for source in self.sources if not source.adopted]
        others = [source for source in self.sources if source.adopted]
        return self.sender.due(chain(in_turn(own, self._turn), in_turn(others, self._turn)))

    async def step(self, source: Source, lane: Lane, work: Work) -> None:
        """Carry out what is `due`, and tidy up after it."""
        try:
            await self.sender.step(source, lane, work)
        finally:
            self._attempt(source, _NOT_DELETED, source.retire, 0)
            if work.done:
                self.moved += 1
                self.intake.moved(source)

    def next_retry(self) -> float:
        """When something that was put off is to be tried again (monotonic seconds); infinity: nothing is."""
        return min(self.sender.waiting.next_retry(monotonic()), self._supervision.next_retry())

    @property
    def drained(self) -> bool:
        """Whether all that is loaded is delivered, and no spool waits for its turn."""
        return not self.intake.more and all(source.drained for source in self.sources)

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""
        return next((error for source in self.sources if (error := self.trouble_of(source)) is not None), None)

    def trouble_of(self, source: Source) -> str | None:
        """Why something in a spool is not delivered yet, as far as that is known."""
        said = (lane.last_error for lane in source.active if not lane.idle and lane.last_error)
        return next(said, self._supervision.in_trouble(source))


def _say_problems(source: Source, rest: str = "") -> None:
    """Say what could not be read in a spool, and is lost, and what becomes of the ``rest``."""
    path, place = source.spool.path, source.spool.place
    said = _said.get(path or "", {})
    problems = {problem: records for problem, records in source.reader.problems.items() if said.get(problem) != records}
    if path is not None and problems:
        _said[path] = said | problems
    for problem, records in list(problems.items())[:_NAMED]:
        logger.error("asynctrack: %s: %s (%d)%s", place, problem, records, rest)
    more = list(problems.values())[_NAMED:]
    if more:
        logger.error("asynctrack: %s: %d more losses like these (%d)%s", place, len(more), sum(more), rest)

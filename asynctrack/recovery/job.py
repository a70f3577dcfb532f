"""The part of `asynctrack.sync` that delivers to one store: takes spools, decides when to stop, reports on each."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from asynctrack.clock import monotonic
from asynctrack.delivery.intake import TakenError
from asynctrack.delivery.outcome import SUSPECTED
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Source
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.owner import host_name, read_owner
from asynctrack.journal.positions import Positions
from asynctrack.journal.spool import Spool
from asynctrack.recovery.shipment import Shipment
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.uri import same_spelling

__all__ = ["Job"]


class Job:
    """The delivery of spools to one store. It gives them to its pump whenever
    the pump has room."""

    def __init__(
        self,
        store: AbstractStore,
        settings: Settings,
        *,
        redirected: bool,
        experiment: str | None,
        timeout: float,
        owner_gone: bool,
        watch: bool,
    ) -> None:
        self.uri = store.uri
        #: why nothing more can be delivered to the store
        self.problem: str | None = None
        self._redirected = redirected
        self._timeout = timeout
        self._owner_gone = owner_gone
        self._watch = watch
        store.durable = settings.durability == "system"
        self.pump = Pump(store, settings)
        self.pump.experiment = experiment
        self._paths: deque[str] = deque()
        self._sources: dict[str, Source] = {}
        self._results: dict[str, Shipment] = {}
        #: by path: events dealt with, and refused, in earlier turns of a spool
        self._before: dict[str, tuple[int, int]] = {}
        #: for spools of running programs: how far the journal had come when its delivery began
        self._goals: dict[Source, int] = {}
        #: why the delivery stopped early
        self._left_off = "it was interrupted"
        self._moved_at = monotonic()
        self._seen = (-1, -1)

    # ── a supply of spools

    def add(self, path: str) -> None:
        """Add a spool to deliver."""
        self._paths.append(path)
        self.pump.intake.add(self)

    def take(self) -> Source | None:
        """The next spool as a source; None if it cannot be delivered. Raises
        IndexError if there are no more, and TakenError."""
        path = self._paths.popleft()
        try:
            source = self._take(path)
        except (AsynctrackError, OSError, ValueError) as error:
            self._results[path] = Shipment(path, self.uri, "failed", problem=str(error))
            source = None
        if source is None:
            if path in self._before and self._results[path].state == "busy":
                raise TakenError(path)
            self.pump.queues.wait_no_more_for(path)
        return source

    def put_back(self, source: Source) -> None:
        """Deliver a spool later, because it makes no progress and others wait
        for their turn."""
        path = next(path for path, own in self._sources.items() if own is source)
        self._before[path] = self._counts(path)
        del self._sources[path]
        self._goals.pop(source, None)
        self._paths.append(path)

    def take_again(self, path: str) -> None:
        """The same for one that another process had."""
        self._paths.append(path)

    def _take(self, path: str) -> Source | None:
        spool, followed = Spool.adopt(path), False
        if spool is None and _delivers_itself(path):
            self._results[path] = self._busy(path)
            return None
        if spool is None or (spool.owner.host != host_name() and not self._owner_gone):
            # On a network file system, a free lock does not prove that the owner, on another host, is dead.
            if spool is not None:
                spool.leave()
            spool, followed = Spool.follow(path), True
        if spool is None:
            self._results[path] = self._busy(path)
            return None
        try:
            if not self._owner_gone:
                _check_no_copy(spool)
            _check_target(spool, self.uri)
        except InvalidInputError:
            spool.leave()
            raise
        source = self.pump.add(spool, followed=followed)
        if source is None:
            self._results[path] = Shipment(path, self.uri, "failed", problem="it cannot be read now; the log says why")
            return None
        source.to = self.uri if self._redirected else None
        self._sources[path] = source
        return source

    # ── when to stop

    def stop(self, cancelled: threading.Event, tell: Callable[[], None]) -> bool:
        """Whether to stop; called after each round.

        It always becomes true in the end, except with ``watch``: the spool of
        a running program is delivered only as far as it had come at the
        beginning, and only works that are dealt with count as progress.
        """
        self._settle()
        tell()
        if cancelled.is_set():
            return True
        followed = [source for source in self.pump.sources if source.followed]
        if followed and self._watch:
            return False
        for source in followed:
            self._follow_to_goal(source)
        if not self.pump.sources and not self.pump.intake.more:
            return True
        return self._stuck()

    def _follow_to_goal(self, source: Source) -> None:
        if source not in self._goals:
            self._goals[source] = source.low_water() + source.pending()
        if source.low_water() >= self._goals[source]:
            self.pump.read_no_more(source)
        if self.pump.has_all_of(source):
            path = next(path for path, own in self._sources.items() if own is source)
            self._keep_result(path, source)
            self.pump.let_go(source)

    def _stuck(self) -> bool:
        """Whether there was no progress for too long, neither with events nor with large files."""
        works = [work for source in self.pump.sources for lane in source.active for work in lane.flight]
        uploads = [work for work in works if work.upload is not None]
        moved, now = (self.pump.moved, sum(len(work.upload.done) for work in uploads if work.upload)), monotonic()
        # The upload of one large file may show no progress. Wait for it, but only for its first attempts.
        under_way = any(work.busy and work.attempts < SUSPECTED for work in uploads)
        if moved != self._seen or under_way:
            self._seen, self._moved_at = moved, now
        if now <= self._moved_at + self._timeout:
            return False
        self._left_off = f"there was no progress for {self._timeout:g} s"
        return True

    # ── results

    def _settle(self) -> None:
        """Of the spools that are finished keep the results alone: a watch may see thousands."""
        there = set(self.pump.sources)
        for path, source in list(self._sources.items()):
            if source not in there:
                self._keep_result(path, source)

    def _keep_result(self, path: str, source: Source) -> None:
        self._results[path] = self._outcome(path, source)
        self._before[path] = self._counts(path)
        del self._sources[path]
        self._goals.pop(source, None)

    def _counts(self, path: str) -> tuple[int, int]:
        dealt_with, refused = self._before.get(path, (0, 0))
        source = self._sources.get(path)
        return (dealt_with, refused) if source is None else (dealt_with + source.delivered, refused + source.rejected)

    def done(self) -> int:
        """The number of events dealt with so far."""
        return sum(self._counts(path)[0] for path in self._sources.keys() | self._before.keys())

    def left(self) -> int:
        """About how many events are left."""
        return sum(source.pending() for source in self.pump.sources)

    def close(self) -> dict[str, Shipment]:
        """Release the spools that are left, and return the result of each
        spool."""
        for path, source in self._sources.items():
            self._results[path] = self._outcome(path, source)
        for path in self._paths:
            dealt_with, refused = self._before.get(path, (0, 0))
            problem = self.problem or self.pump.last_error or self._left_off
            self._results[path] = Shipment(path, self.uri, "partly", dealt_with - refused, refused, problem=problem)
        for source in list(self.pump.sources):
            self.pump.let_go(source)
        return self._results

    def _busy(self, path: str) -> Shipment:
        """Somebody else delivers it."""
        dealt_with, refused = self._counts(path)
        return Shipment(path, self.uri, "busy", dealt_with - refused, refused)

    def _outcome(self, path: str, source: Source) -> Shipment:
        dealt_with, refused = self._counts(path)
        counts = dealt_with - refused, refused
        if source not in self.pump.sources:
            if os.path.exists(os.path.join(path, "registry")):
                return Shipment(
                    path, self.uri, "failed", *counts, problem="it cannot be read or deleted now; the log says why"
                )
            return Shipment(path, self.uri, "delivered", *counts)
        left = source.pending()
        if source.followed and self.pump.has_all_of(source):
            return Shipment(path, self.uri, "up to date", *counts, left=left)
        problem = self.problem or self.pump.trouble_of(source) or self.pump.last_error or self._left_off
        return Shipment(path, self.uri, "partly", *counts, left=left, problem=problem)


def _delivers_itself(path: str) -> bool:
    owner = read_owner(path)
    return owner is not None and owner.ships and owner.host == host_name()


def _check_no_copy(spool: Spool) -> None:
    """Raise InvalidInputError for a copy of a spool of this host."""
    if spool.owner.host == host_name() and spool.is_copy():
        raise InvalidInputError(
            f"it is a copy of {spool.owner.path}, which its program may deliver: deliver that spool, or, if it is "
            "gone, this copy with --owner-gone"
        )


def _check_target(spool: Spool, uri: str) -> None:
    """Raise InvalidInputError if a part of the spool is in another store: its cursor holds positions and run ids of
    that store."""
    try:
        cursor = spool.load_cursor()
        positions = Positions() if cursor is None else Positions.of(cursor)
    except ValueError:
        return  # without a cursor, every event is compared with what the store has
    began = same_spelling(positions.to or spool.owner.store)
    if positions.begun and began != uri:
        raise InvalidInputError(f"a part of it is in {began} already; deliver the rest there, with `--to {began}`")

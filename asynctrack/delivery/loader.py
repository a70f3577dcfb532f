"""Reading a journal on, and handing its events out to their runs, as there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from asynctrack.clock import monotonic
from asynctrack.delivery.directory import RunDirectory
from asynctrack.delivery.entries import registration_of
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.orphans import latest_point
from asynctrack.delivery.progress import Front
from asynctrack.delivery.sorting import Sorted, sort
from asynctrack.delivery.work import Part
from asynctrack.journal.reader import Chunk, JournalReader
from asynctrack.stores.base import Limits

__all__ = ["Loaded", "Loader"]

#: longer than a thread is between claim and write, however slow the disk; who was killed there never comes back
_PATIENCE = 5.0


class Loaded(Enum):
    """What `Source.load` found: maybe more right now, all there is, or no run with room for more."""

    MORE = 1
    ALL = 2
    NO_ROOM = 3


class Loader:
    """Loads the events of one journal. Raises OSError where it cannot be read just now; nothing is lost then."""

    def __init__(self, reader: JournalReader, directory: RunDirectory, front: Front, limits: Limits) -> None:
        self.reader = reader
        self.directory = directory
        self.front = front
        self.limits = limits
        #: its owner is dead: nothing is added
        self.final = False
        #: how many batches of one run are worth loading ahead; the engine sets it as the store keeps up
        self.depth = 1
        #: enough is loaded for all runs together that get on; the engine sets it, too
        self.crowded = False
        #: and for all runs that do not
        self.tight = False
        #: seconds for which what must keep its order waits for a slot that is claimed and not written
        self.patience = _PATIENCE
        #: slots that were passed over, and since when (monotonic seconds)
        self._holes: dict[int, float] = {}

    # ── runs

    def lane(self, run: int) -> Lane | None:
        """The lane of a run, made when its registration is first seen; None where that is damaged. Raises OSError."""
        found = self.directory.find(run)
        if found is None:
            self.register_new()
            found = self.directory.find(run)
        if found is None and run > 0:
            registration = registration_of(self.reader.registry.run(run))
            found = None if registration is None else self.directory.register(run, registration)
        return found

    def register_new(self) -> None:
        """Make lanes for the runs registered since. Raises OSError."""
        self.reader.registry.refresh()
        for run in self.reader.registry.new_runs():
            registration = registration_of(self.reader.registry.runs[run])
            if registration is not None and run not in self.directory.seen:
                self.directory.register(run, registration)

    # ── loading

    def load(self) -> Loaded:
        """Load one more chunk for the runs that have room. Raises OSError; nothing is lost then."""
        loaded = self._load_next()
        if self.final:
            self.front.complete = loaded is Loaded.ALL
        # After that: who logged to a pending slot and then asked for a flush has written it before the flush's mark.
        late = self.reader.read_pending()
        while late:
            try:
                found = self._sort(late[0])
            except BaseException:
                self.reader.pending.update(chunk.start for chunk in late)
                raise
            self._hand_out(found, late.pop(0), None)
        self._note_holes()
        return loaded

    def _load_next(self) -> Loaded:
        if self.crowded:
            return Loaded.NO_ROOM
        now = monotonic()
        behind = self.directory.behind()
        ready = [(position, lane) for position, lane in behind if self._has_room(lane, now)]
        if ready:
            start = min(position for position, _ in ready)
            # Those that have fallen behind together read on together, up to where the next ones join them.
            end = min((position for position, _ in behind if position > start), default=self.front.at)
            return self._load_behind(start, end, [lane for position, lane in ready if position == start])
        active = len(self.directory.active)
        if active == len(self.directory.lanes) and active > len(behind) and not self._any_has_room(now):
            return Loaded.NO_ROOM
        chunk = self.reader.read(self.front.at, self._count(self.front.at))
        self._hand_out(self._sort(chunk), chunk, None)
        self.front.at = chunk.end
        return Loaded.MORE if chunk.more else Loaded.ALL

    def _any_has_room(self, now: float) -> bool:
        """Whether a lane that has not fallen behind has room."""
        lanes = self.directory.busy_lanes()
        return any(lane.progress.position is None and self._has_room(lane, now) for lane in lanes)

    def _has_room(self, lane: Lane, now: float) -> bool:
        return lane.has_room(self.limits, self.depth, now, tight=self.tight)

    def can_catch_up(self, lanes: Iterable[Lane] | None = None) -> bool:
        """Whether a run that had fallen behind has room again: of all, or of some."""
        now = monotonic()
        if lanes is None:
            lanes = [lane for _, lane in self.directory.behind()]
        return any(lane.progress.position is not None and self._has_room(lane, now) for lane in lanes)

    def _count(self, start: int) -> int:
        """How many slots to read from there on: up to a multiple of what fits a batch. So the few slots at the end of
        a segment are filled up with the next one's, and are no batch of their own."""
        return self.limits.entities - start % self.limits.entities

    def _load_behind(self, start: int, end: int, lanes: list[Lane]) -> Loaded:
        count = min(self._count(start), end - start)
        chunk = self.reader.read(start, count)
        # Nothing there, although something stands behind it (before the front): these slots are all holes.
        position = min(chunk.end if chunk.end > start else start + count, self.front.at)
        only = {lane.run for lane in lanes}
        self._hand_out(self._sort(chunk, only), chunk, only)
        for lane in lanes:
            lane.progress.position = None if position >= self.front.at else position
            self.directory.rest(lane)
        return Loaded.MORE

    def _sort(self, chunk: Chunk, only: set[int] | None = None) -> Sorted:
        """What each run, or each of a few, has in a chunk."""
        found = sort(
            chunk,
            self.reader,
            known=lambda run: self.lane(run) is not None,
            wanted=lambda run: only is None or run in only,
        )
        if only is None:
            self.lost(found.problems)
        return found

    def _hand_out(self, found: Sorted, chunk: Chunk, only: set[int] | None) -> None:
        """Give each run its share; where it is everybody's, a run without room falls behind (unless it is late)."""
        now = monotonic()
        for run, part in [*found.parts.items(), *found.uploads]:
            main = self.directory.find(abs(run))
            assert main is not None
            lane = main if run > 0 else self.directory.uploads(main)
            position = lane.progress.position
            if chunk.late is not None:
                if position is not None and position <= chunk.late:
                    continue  # the lane reads on from before it, and will find it in its place
            elif only is None and position is not None:
                continue
            elif only is None and not self._has_room(lane, now):
                self.directory.activate(lane)
                lane.progress.position = part.start
                continue
            self.give(lane, part)

    def give(self, lane: Lane, part: Part) -> None:
        if self.final:
            lane.latest_point = max(lane.latest_point, latest_point(part.batch))
        lane.add(part)
        self.directory.activate(lane)

    def relieve(self, events: int) -> int:
        """Let go of so many events of runs that wait for their next attempt: they are read again for it. How many there
        were.

        Where the store is away, each of hundreds of runs would keep a batch at hand for its next attempt.
        """
        now, freed = monotonic(), 0
        for lane in self.directory.busy_lanes():
            if freed >= events:
                break
            loaded = lane.load
            if loaded and lane.uploads_of is None and lane.waits(now) and (late := lane.unload()) is not None:
                freed += loaded
                self.reader.pending |= late
        return freed

    def _note_holes(self) -> None:
        """Slots that are just being written: for a moment, what must keep its order waits for them."""
        if not self.reader.pending and not self._holes:
            return
        now = monotonic()
        self._holes = {slot: self._holes.get(slot, now) for slot in self.reader.pending}
        self.front.holes = frozenset(slot for slot, since in self._holes.items() if now < since + self.patience)

    def lost(self, problems: Mapping[str, int]) -> None:
        """Count what cannot be read: in words, and how many events that is."""
        for what, events in problems.items():
            self.reader.problems[what] = self.reader.problems.get(what, 0) + events

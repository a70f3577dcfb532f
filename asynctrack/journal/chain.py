"""The segments that a journal writes: from the oldest that is not deleted to the one that is written to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from asynctrack.errors import RunEndedError
from asynctrack.journal.former import FormerStreams
from asynctrack.journal.rolling import Action, SegmentSupply, Situation, decide, discard
from asynctrack.journal.room import Room
from asynctrack.journal.segment import Segment

__all__ = ["Chain", "closed_error"]


class Chain:
    """`current` is the whole truth of where to write; it is one attribute, replaced in one store, so no writer ever
    sees half a change. Any thread and any signal handler may call.

    A log call takes it *before* it looks up what numbers its metrics have. Then it can never write a number of one
    spool into the next: should the spool be given back meanwhile, it meets a closed segment, and looks them up again.

    ``rolled`` is called when a new segment is begun, ``reopen`` in a forked child, which is to `begin` anew.
    """

    current: tuple[Callable[[], int], Any, Segment]
    #: the oldest segment that is not deleted yet; the reader moves it on
    head: Segment
    supply: SegmentSupply

    def __init__(self, room: Room, rolled: Callable[[], None], reopen: Callable[[], None]) -> None:
        self._room = room
        self._rolled = rolled
        self._reopen = reopen
        #: of the spool that is written to
        self.former = FormerStreams()

    def begin(self, head: Segment, supply: SegmentSupply) -> None:
        """With a first segment."""
        self.pid = os.getpid()
        self.closed = False
        # Re-entrant: a signal handler may log while this very thread is rolling.
        self._lock = threading.RLock()
        self.head = self._unsynced = head
        self.former.next = FormerStreams()
        self.former = head.former = self.former.next
        self.supply = supply
        self.current = (head.claim, head.slots, head)

    # ── to the next segment

    def roll(self, full: Segment, deadline: float = 0.0, *, waits: bool = True) -> bool:
        """Go on behind ``full``, see `decide`. False when there is no room and the policy drops the event; raises
        SpoolFullError, and NoRoomNow as `Room.refuse` does. With a ``deadline`` (monotonic seconds) it is a run's
        end that is to be logged."""
        while True:
            problem = self._advance(full, ending=deadline > 0.0)
            if problem is None:
                return True
            if not self._room.refuse(self.supply.where, problem, deadline, waits=waits):
                return False

    def _advance(self, full: Segment, *, ending: bool) -> str | None:
        """Have a segment behind ``full``; where there can be none, why."""
        problem = self._room.problem
        failed = frozenset({Action.MAKE, Action.STEP_ASIDE} if problem else ())
        with self._lock:
            while True:
                action = decide(self._situation(full, ending, failed))
                if action is Action.REFUSE:
                    return problem
                if action is Action.CLOSED:
                    raise closed_error()
                if action is Action.REOPEN:
                    self.reopen()
                    return None
                if action is Action.GO_ON:
                    return None
                try:
                    segment = self.supply.take(action, full)
                except OSError as error:
                    failed |= {action}
                    problem = problem or error.strerror or str(error)
                    continue
                self._go_on(full, segment)
                break
        if action is not Action.STEP_ASIDE:
            self._room.found()
        self._rolled()
        return None

    def _situation(self, full: Segment, ending: bool, failed: frozenset[Action]) -> Situation:
        return Situation(
            forked=self.pid != os.getpid(),
            rolled=self.current[2] is not full,
            closed=self.closed,
            prepared=self.supply.has_prepared(full),
            ending=ending,
            consumed=self.supply.consumed,
            aside=full.aside,
            failed=failed,
        )

    def _go_on(self, full: Segment, segment: Segment) -> None:
        # No call stands between the test and the stores: a signal handler in this very thread, which comes through the
        # lock, has either rolled before the test or finds the new segment.
        if self.current[2] is full:
            segment.former = full.former
            self.current = (segment.claim, segment.slots, segment)
            full.next = segment
        else:
            discard(segment)
        full.seal()

    def roll_early(self, segment: Segment, *, ending: bool) -> bool:
        """Give up what is free in ``segment``, whose frames take all the room there is: then it is deleted as soon as
        it is delivered. An ``ending`` run may go on in memory. False where there can be no segment behind it, and for a
        call that would be told so rather than wait."""
        try:
            behind = self._make_early(segment, ending=ending)
        except OSError:
            return False  # no room, no file descriptor, no memory
        while segment.holds(at := segment.claim()):
            segment.void(at)  # nobody is to wait for what will never be written
        with self._lock:
            if self.closed:
                discard(behind)
            else:
                self._go_on(segment, behind)
        self._rolled()
        return True

    def _make_early(self, segment: Segment, *, ending: bool) -> Segment:
        if ending:
            if segment.path is not None and not segment.for_end:  # else another file has been of no use just now
                try:
                    return self.supply.take(Action.MAKE_FOR_END, segment)
                except OSError:
                    pass  # the disk is full
            return self.supply.take(Action.MAKE_IN_MEMORY, segment)
        try:
            return self.supply.make(segment, overdraw=True)
        except OSError:
            if self._room.policy != "block":
                raise  # points may still be logged in the one that is there
            return self.supply.take(Action.STEP_ASIDE, segment)

    # ── what the engine does, at each look

    def seal_behind(self) -> None:
        """Seal every segment but the current one (`roll` could not where another thread was writing)."""
        segment = self.head
        while segment is not self.current[2] and segment.next is not None:
            segment.seal()
            segment = segment.next

    def prepare(self) -> None:
        """Have the next segment at hand, so that rolling need not make it, and note how far this one is used. Never
        raises."""
        current = self.current[2]
        self.supply.prepare(current)
        try:
            current.note_used()
        except OSError:
            pass  # it is only wanted when this process has died, and there will be another look before

    def sync(self) -> None:
        """Hand everything logged so far to the disk itself. Raises OSError."""
        segment: Segment | None = self._unsynced if self._unsynced.first >= self.head.first else self.head
        while segment is not None:
            segment.sync()
            self._unsynced, segment = segment, segment.next

    def drop_deleted(self, delivered: Callable[[], int]) -> None:
        """Let go of the segments that another process, which delivers, has deleted. ``delivered``: every event before
        this sequence number is; asked when a segment is found deleted, for somebody else may have done it."""
        head = self.head
        while head.next is not None and head.path is not None and not os.path.exists(head.path):
            if delivered() < head.end:
                break
            head.remove()
            head = head.next
        if head is not self.head:
            self.head = head
            self._room.made()

    # ── the end

    def close(self) -> None:
        """Seal what is there and refuse further writes: they raise RunEndedError."""
        # A second call needs no lock: whoever held it at the first may never let go (`engine.lifecycle._terminate`).
        if not (self.closed and self.current[2].sealed):
            with self._lock:
                self.closed = True
                self.current[2].seal()
        self.supply.close()

    def forget(self) -> None:
        """In a forked child, before anything else runs: never touch the parent's files again."""
        # Another thread of the parent may have held it at the fork; here nobody would ever let go of it.
        self._lock = threading.RLock()
        self.supply.forget()
        segment: Segment | None = self.head
        while segment is not None:
            segment.forget()
            segment = segment.next
        # A segment past whose end everybody is: the first write comes to roll(), which opens a spool of our own.
        gone = Segment(None, 0, 0, fd=-1, sealed=True)
        gone.former = self.former
        self.head = gone
        self.current = (gone.claim, bytearray(0), gone)

    def reopen(self) -> None:
        """In a forked child: begin anew. Called by `roll`."""
        with self._lock:
            if self.pid != os.getpid():
                self._reopen()

    def begin_anew(self) -> None:
        """After `close`: go on in a new spool."""
        with self._lock:
            if self.closed:
                self._reopen()


def closed_error() -> RunEndedError:
    """What a log call raises once the journal is closed."""
    return RunEndedError("asynctrack has been shut down in this process; the event was not logged")

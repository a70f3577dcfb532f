"""From one segment to the next: which of the ways is taken, and the segments that it takes."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from asynctrack.journal.budget import Budget
from asynctrack.journal.disk import allocate, new_file, write_all
from asynctrack.journal.filesystem import keeps_room
from asynctrack.journal.header import encode_header
from asynctrack.journal.opening import Descriptor, open_regular
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import PACK, SLOT_SIZE, VOID
from asynctrack.journal.spool import Spool
from asynctrack.platforms import largest_file

__all__ = [
    "FIRST_SEGMENT_BYTES",
    "Action",
    "SegmentSupply",
    "Situation",
    "decide",
    "discard",
    "slots_for",
    "tell_unmapped",
]

logger = logging.getLogger("asynctrack")

FIRST_SEGMENT_BYTES = 256 * 1024
_GROWTH = 4
#: tried one after the other where the disk, or the limit, has no room for a larger one. The last is one block: of what
#: was deleted on a full disk, others may have taken all the rest
_SMALL_SEGMENT_BYTES = (16 * 1024, 4096)
#: a slot's place has 32 bits
_LARGEST_SEGMENT_BYTES = 2**31
#: one block
_ROOM_BYTES = 4096
#: slots after which a run is worth a second segment at hand
_SMALL_RUN = 1000

_told_unmapped: set[str] = set()


class Action(Enum):
    """What to do about a segment that takes no more."""

    #: in a forked child: a spool of its own
    REOPEN = auto()
    #: there is a next segment already
    GO_ON = auto()
    #: log calls raise
    CLOSED = auto()
    #: the segment that was made ahead
    TAKE_PREPARED = auto()
    #: a new file
    MAKE = auto()
    #: a new file of one block, whatever the limit of bytes, for the end of a run, which would stay RUNNING for ever
    MAKE_FOR_END = auto()
    #: the same in memory, of one slot, where the disk has no block. Should the process die before it is delivered,
    #: whoever delivers the spool ends the run as KILLED
    MAKE_IN_MEMORY = auto()
    #: a segment that takes no event. With it behind the full one, that one can be deleted as soon as it is delivered,
    #: and its room be used again. Else a full disk could never get any
    STEP_ASIDE = auto()
    #: what `Settings.spool_full` says
    REFUSE = auto()


class Situation(NamedTuple):
    """All that matters when a segment is found full."""

    forked: bool
    #: another thread has rolled, or a signal handler in this one
    rolled: bool
    closed: bool
    #: a segment for this very place is at hand
    prepared: bool
    #: the caller logs a run's end
    ending: bool
    #: this process delivers: it sees segments that are in memory only
    consumed: bool
    #: the full segment is one that takes no event
    aside: bool
    #: ways that have failed just now
    failed: frozenset[Action] = frozenset()


_CASES: tuple[tuple[Action, Callable[[Situation], bool]], ...] = (
    (Action.REOPEN, lambda now: now.forked),
    (Action.GO_ON, lambda now: now.rolled),
    (Action.CLOSED, lambda now: now.closed),
    (Action.TAKE_PREPARED, lambda now: now.prepared),
    (Action.MAKE, lambda now: True),
    (Action.MAKE_FOR_END, lambda now: now.ending),
    (Action.MAKE_IN_MEMORY, lambda now: now.ending and now.consumed),
    (Action.STEP_ASIDE, lambda now: not now.aside),
    (Action.REFUSE, lambda now: True),
)


def decide(now: Situation) -> Action:
    """What to do: the first case that holds and has not failed."""
    return next(action for action, holds in _CASES if action not in now.failed and holds(now))


def slots_for(size: int, most: int) -> int:
    """How many slots a segment of ``size`` bytes has, of ``most`` bytes at most, nor more than a file may
    have here; one at least."""
    return max(1, (min(size, most, _LARGEST_SEGMENT_BYTES, largest_file()) - HEADER_SIZE) // SLOT_SIZE)


class SegmentSupply:
    """Makes the segments behind the first one, ahead of need where it can, and pays for each from the budget.

    ``most_bytes``: of one segment. All methods may be called from any thread and from signal handlers; `Journal`
    holds its lock around those that give out a segment.
    """

    def __init__(self, spool: Spool, budget: Budget, most_bytes: int, *, consumed: bool) -> None:
        self.spool = spool
        self.budget = budget
        self._most = most_bytes
        #: this process delivers: it sees segments that are in memory only
        self.consumed = consumed
        self._numbers = itertools.count(2)  # the first one is made with the spool
        self._prepared: Segment | None = None
        #: a shipper delivers, and this process in its stead once the spool is deleted
        self.ships = spool.owner.ships
        self._told_deleted = False
        #: a file is kept for a segment that takes no event
        self._has_room = False
        #: a file descriptor for the end of a run, in a program that leaks them up to its limit
        self._spare = _spare_descriptor()

    @property
    def where(self) -> str:
        """The spool, for people."""
        return self.spool.path or "the spool in memory"

    # ── ahead of need

    def prepare(self, current: Segment) -> None:
        """Have the segment behind ``current`` at hand, so that rolling need not make it. Never raises."""
        try:
            if not current.aside:  # else the room that there is belongs to the segment for which a log call waits
                self._keep_room()
        except (OSError, ValueError):
            pass  # tried again at the next look
        if self._prepared is not None:
            return
        try:
            small = min(_SMALL_RUN, current.capacity // 2)
            if not current.first and not any(current.read(small, 1)):
                return  # small runs do with one
            size = max(current.size * _GROWTH, FIRST_SEGMENT_BYTES)
            self._prepared = self._make(current.end, slots_for(size, self._most), waited_for=False)
        except OSError:
            pass  # the roll will meet the same and apply the policy

    def has_prepared(self, full: Segment) -> bool:
        """Whether the segment behind ``full`` is at hand. One for a place that was filled without it is deleted."""
        prepared = self._prepared
        if prepared is not None and prepared.first != full.end:
            self._prepared = None
            discard(prepared)
        return self._prepared is not None

    # ── when a segment is full

    def take(self, action: Action, full: Segment) -> Segment:
        """The segment behind ``full``, as `decide` has it. Raises OSError."""
        if action is Action.TAKE_PREPARED:
            prepared, self._prepared = self._prepared, None
            if prepared is not None:
                return prepared
            action = Action.MAKE  # a signal handler was faster
        if action is Action.MAKE:
            return self.make(full)
        if action is Action.MAKE_FOR_END:
            segment = self._make_least(full, overdraw=True)
            segment.for_end = True
            return segment
        if action is Action.MAKE_IN_MEMORY:
            if not self.consumed:
                raise OSError(errno.ENOSPC, "whoever delivers does not see what is kept in memory")
            return self._pay(None, full.end, 1, overdraw=True)
        return self._step_aside(full)

    def make(self, full: Segment, *, overdraw: bool = False) -> Segment:
        """A new one, as large as there is room for; the smallest may ``overdraw`` the budget. Raises OSError.

        A program's first roll is quick: the call that meets it is one among a few thousand. Later ones come here only
        at full speed, when nobody has had the time to prepare one, and there the whole matters: pages that the
        writes make cost four times as much."""
        sizes = [max(full.size * _GROWTH, FIRST_SEGMENT_BYTES), FIRST_SEGMENT_BYTES, *_SMALL_SEGMENT_BYTES]
        for size in dict.fromkeys(slots_for(size, self._most) for size in sizes[:-1]):
            try:
                return self._make(full.end, size, waited_for=full.first == 0)
            except OSError:
                pass  # a nearly full disk may have room for a smaller one
        return self._make_least(full, overdraw=overdraw)

    def _make_least(self, full: Segment, *, overdraw: bool) -> Segment:
        return self._make(full.end, slots_for(_SMALL_SEGMENT_BYTES[-1], self._most), overdraw=overdraw)

    def _step_aside(self, full: Segment) -> Segment:
        """One that takes no event. Raises OSError."""
        if self.consumed:
            segment = self._pay(None, full.end, 0, overdraw=True)
        else:
            # Whoever delivers must find it, and goes on to one in which something stands.
            try:
                segment = self._make_aside(full.end)
            except FileNotFoundError:
                segment = self._make(full.end, 1, overdraw=True)  # in memory, where the spool was deleted
                segment.void(segment.claim())
        segment.aside = True
        return segment

    def _make_aside(self, first: int) -> Segment:
        """One of one slot, which is given up, in the file that is kept for it, if any. Raises OSError."""
        path, size = self.spool.segment_path(next(self._numbers)), HEADER_SIZE + SLOT_SIZE
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "the spool is in memory")
        data = bytearray(encode_header(first, 1).ljust(size, b"\0"))
        PACK(data, HEADER_SIZE, 0, 0, 0.0, VOID, 0, 0, 0.0, VOID, HEADER_SIZE)
        fd, self._has_room = self._open_room(), False
        try:
            os.ftruncate(fd, size)  # the file that is kept is larger
            write_all(fd, bytes(data), 0)
            os.rename(self._room, path)
        except OSError:
            os.close(fd)
            raise
        segment = Segment(path, first, 1, fd=fd, sealed=False)
        self.budget.reserve(size, overdraw=True)
        segment.charge(self.budget, size)
        return segment

    @property
    def _room(self) -> str:
        return os.path.join(str(self.spool.path), "slots.room")

    def _open_room(self) -> int:
        try:
            return new_file(self._room)
        except FileExistsError:
            return open_regular(self._room, os.O_RDWR)

    def _keep_room(self) -> None:
        """Have a block for a segment that takes no event: on a full disk there is none to be had. Raises OSError."""
        if self.consumed or self._has_room or self.spool.path is None:
            return
        fd = self._open_room()
        try:
            keeps_room(fd)  # which asks btrfs for it
            allocate(fd, _ROOM_BYTES)
        finally:
            os.close(fd)
        self._has_room = True

    def give_up_spare(self, error: OSError) -> bool:
        """Whether there is a free file descriptor now, where ``error`` is that there was none."""
        return error.errno in (errno.EMFILE, errno.ENFILE) and self._close_spare()

    # ── the end

    def close(self) -> None:
        """Give back what was never used."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            discard(prepared)
        self._close_spare()

    def forget(self) -> None:
        """In a forked child: close what was inherited; the files are the parent's."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.forget()
        self._close_spare()

    # ── inside

    def _make(self, first: int, slots: int, *, overdraw: bool = False, waited_for: bool = True) -> Segment:
        path = self.spool.segment_path(next(self._numbers))
        try:
            return self._pay(path, first, slots, overdraw=overdraw, waited_for=waited_for)
        except FileNotFoundError:
            if not (self.consumed or (self.ships and self.spool.deleted)):
                raise  # whoever delivers cannot see what is kept in memory
        self.tell_deleted()
        return self._pay(None, first, slots, overdraw=overdraw, waited_for=waited_for)

    def tell_deleted(self) -> None:
        """Say once that somebody has deleted the spool."""
        if not self._told_deleted:
            self._told_deleted = True
            logger.error(
                "asynctrack: the spool %s was deleted. Events go on being delivered, but are kept in memory only: what "
                "is not delivered does not survive the end of this process", self.spool.path,
            )  # fmt: skip

    def _pay(self, path: str | None, first: int, slots: int, *, overdraw: bool, waited_for: bool = True) -> Segment:
        size = HEADER_SIZE + slots * SLOT_SIZE
        self.budget.reserve(size, overdraw=overdraw)
        try:
            segment = Segment.create(path, first, slots, waited_for=waited_for)
        except BaseException:
            self.budget.release(size)
            raise
        segment.charge(self.budget, size)
        tell_unmapped(segment)
        return segment

    def _close_spare(self) -> bool:
        try:
            spare = self._spare.pop()  # in one step: of two threads that end their runs, one closes it
        except IndexError:
            return False
        return spare.is_ours  # and closed with the last reference


def tell_unmapped(segment: Segment) -> None:
    """Say once that log calls are slower than they might be."""
    if segment.unmapped and segment.unmapped not in _told_unmapped:
        _told_unmapped.add(segment.unmapped)
        logger.warning(
            "asynctrack: %s is on a file system (%s) that can run full under a mapped file, so each log call makes a "
            "system call, which takes some microseconds. Set ASYNCTRACK_SPOOL_DIR to a folder on ext4, XFS, tmpfs or "
            "(from Linux 6.17 on) btrfs for the usual speed.", segment.path, segment.unmapped,
        )  # fmt: skip


def _spare_descriptor() -> list[Descriptor]:
    """None where there is none to spare, or no /dev/null: it is wanted rarely, and never worth a failure."""
    try:
        return [Descriptor(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))]
    except OSError:
        return []


def discard(segment: Segment) -> None:
    """Delete a segment that was never used."""
    try:
        segment.remove()
    except OSError:
        pass  # it goes with the spool; until then a reader tells it from the one in use by its being empty

"""One stretch of the journal: a preallocated file of slots, memory-mapped while it is being written, and its frames."""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from asynctrack.journal.budget import Budget
from asynctrack.journal.disk import CHUNK, allocate, fill, map_file, new_file, write_all
from asynctrack.journal.filesystem import keeps_room
from asynctrack.journal.former import FormerStreams
from asynctrack.journal.frames import FramesBeside
from asynctrack.journal.header import HEADER_SIZE, Header, encode_header, is_sealed, seal_marks, used_marks
from asynctrack.journal.opening import Descriptor, SpoolFile, open_regular
from asynctrack.journal.slots import PACK, SLOT_SIZE, VOID, Slots, begun, settle
from asynctrack.journal.unmapped import UnmappedSlots

__all__ = ["HEADER_SIZE", "Segment"]

#: <linux/mman.h>
_POPULATE_WRITE = 23
#: slots among the last that were claimed may be written in any order: more than threads are between claim and write
_OUT_OF_ORDER = 256


class Segment:
    """Slots ``first`` … ``first + capacity - 1`` of a journal, and the frames they point at.

    The writer holds it open (``slots`` is the mapping, ``claim()`` gives the next slot's offset) and seals it once it
    has rolled to the next. Sealed means: every slot that will ever be written has been; what is empty stays empty.
    """

    def __init__(self, path: str | None, first: int, capacity: int, *, fd: int, sealed: bool) -> None:
        self.path = path
        self.first = first
        self.capacity = capacity
        self.sealed = sealed
        self._writable = not sealed
        #: slots that a dead writer had begun at least: an empty one among them is missing, not unused; 0: not known
        self.begun = 0
        #: the format: slots of the first version do not say where they belong
        self._has_places = True
        #: slots of which the header says that they were used, at least
        self.used = 0
        self.next: Segment | None = None
        #: where its writer keeps what numbers stood for until its spool was given back
        self.former: FormerStreams | None = None
        self.aside = False  #: takes no event: only there so that the one before it can be deleted
        self.for_end = False  #: made beyond the limit of bytes, for a run's end
        #: past the end: handed out when the segment is full
        self.size = HEADER_SIZE + capacity * SLOT_SIZE
        #: the mapping; empty, so that log calls cannot write to it and come to `put`, where there can be none
        self.slots: mmap.mmap | bytearray | None = None
        self.unmapped = ""  #: the file system because of which there is none
        self._unmapped: UnmappedSlots | None = None
        self.claim: Callable[[], int] = itertools.repeat(self.size).__next__
        self._file = SpoolFile(path, fd)
        #: frames that slots point at
        self.frames = FramesBeside(None if path is None else path.removesuffix(".slots") + ".frames")
        self._sealings = itertools.count().__next__
        #: bytes that it has reserved, itself and its frames, and where
        self._reserved = 0
        self._budget: Budget | None = None
        self._removed = False
        #: its files stay open although it is sealed, and the budget knows
        self._keeps_file = False

    @property
    def end(self) -> int:
        """The sequence number behind its last slot."""
        return self.first + self.capacity

    # ── made by the writer

    @classmethod
    def create(cls, path: str | None, first: int, capacity: int, *, waited_for: bool = False) -> Segment:
        """A new, empty segment; ``path=None``: anonymous memory. Raises OSError, also when the disk is full: all its
        blocks are taken now, lest a later write to the mapping fail (SIGBUS). Not mapped where that is not enough. Its
        pages are made now, too, unless a log call has ``waited_for`` it: then each is made when it is written to."""
        fd, made = -1, False
        size = HEADER_SIZE + capacity * SLOT_SIZE
        try:
            fd = new_file(path)
            made = True
            unmapped = "" if path is None else keeps_room(fd)
            allocate(fd, size)
            if not (unmapped or waited_for):
                fill(fd, size)
            write_all(fd, encode_header(first, capacity), 0)
            segment = cls(path, first, capacity, fd=fd, sealed=False)
            kept, fd = fd, -1  # the segment's, which closes it: a second time it might be another file's
            if unmapped:
                segment.slots, segment.unmapped, segment._unmapped = bytearray(), unmapped, UnmappedSlots(segment._file)
            else:
                segment.slots = map_file(kept, size)
                if not waited_for:
                    _map_all(segment.slots, size)
        except OSError:
            if fd >= 0:
                os.close(fd)
            if made and path is not None:
                os.unlink(path)
            raise
        segment.claim = _claimer(HEADER_SIZE)
        return segment

    def charge(self, budget: Budget, size: int) -> None:
        """From now on it pays for its frames, and gives back what it took, ``size`` for itself, when it is removed."""
        self._budget, self._reserved = budget, size

    def append_frame(self, frame: bytes, *, overdraw: bool = False) -> int:
        """Write one encoded frame beside the slots and return its offset. Raises OSError, also where the budget, unless
        it may ``overdraw`` that, has no room."""
        length = len(frame)
        if self._budget is None:
            return self.frames.append(frame)
        self._budget.reserve(length, overdraw=overdraw)
        try:
            offset = self.frames.append(frame)
        except BaseException:
            self._budget.release(length)
            raise
        self._reserved = self._reserved + length
        if self._removed:
            self.remove()  # sealed, read and deleted in the meantime: so is what was written behind that
        return offset

    def holds(self, at: int) -> bool:
        """Whether ``at`` is a slot of this segment that can be written."""
        return self._writable and at < self.size

    def put(self, at: int, timestamp: int, step: int, value: float, stream: int) -> None:
        """Write a claimed slot. Raises ValueError or TypeError once it is sealed, PackError for what does not fit, and
        OSError where it is not mapped."""
        if self._unmapped is None:
            slots: Any = self.slots  # TypeError where it is None
            PACK(slots, at, timestamp, step, value, stream, timestamp, step, value, stream, at)
        else:
            data = bytearray(SLOT_SIZE)
            PACK(data, 0, timestamp, step, value, stream, timestamp, step, value, stream, at)
            self._unmapped.write(bytes(data), at)

    def void(self, at: int) -> None:
        """Give up a claimed slot, so that no reader waits for it."""
        if self.holds(at):
            try:
                self.put(at, 0, 0, 0.0, VOID)
            except (ValueError, TypeError, OSError):
                pass  # sealed since we looked: its empty slots are final anyway. Or no room: it stays a hole until then

    def seal(self) -> bool:
        """Close it for writing; False while another thread is in the middle of a write (ask again).

        A thread that had claimed a slot and not filled it meets a closed mapping, and logs its event anew in the
        current segment. So nothing is lost, and from here on an empty slot is final.
        """
        # No lock: whoever held it might be suspended by a signal handler that waits for us. Two at once do the same.
        if self.sealed:
            return True
        # First of all: whoever meets the closed mapping must not take its failure for a fault of its arguments.
        self._writable = False
        if not self._unmap():
            return False
        try:
            file = self._file.opened()
            # Raw: a call that rolls is to take no time. Making the places to compare with is most of a program's first.
            for place, mark in seal_marks(_count_used(partial(_read_raw, self._file), self.used, self.capacity)):
                write_all(file.fd, mark, place)
        except OSError:
            pass  # the mark is for readers in other processes; a free lock tells them the same
        self.sealed = True
        if not self._sealings():  # the first one
            self._rest()
        return True

    def _unmap(self) -> bool:
        """Whether nobody writes any more."""
        slots = self.slots
        if slots is not None and not isinstance(slots, bytearray):
            try:
                slots.close()
            except BufferError:
                return False
        elif self._unmapped is not None and not self._unmapped.close():
            return False
        self.slots = None
        return True

    def note_used(self) -> None:
        """Note in the header how many slots are used by now: when this process dies, an empty one among them has been
        lost, and was not just never used. Called by the engine every now and then. Raises OSError."""
        if self.slots is None or self.used >= self.capacity or not any(_look(self, self.used, 1)):
            return
        file, used = self._file.opened(), _count_used(partial(_look, self), self.used, self.capacity)
        for place, count in used_marks(used):
            write_all(file.fd, count, place)
        self.used = used

    def _rest(self) -> None:
        """Close the files, unless the budget has descriptors to spare: open ones can be read though deleted."""
        if self.path is not None:
            self._keeps_file = self._budget is not None and self._budget.reserve_file()
            if not self._keeps_file:
                self._file.close()
                self.frames.rest()

    def sync(self) -> None:
        """Hand slots and frames to the disk itself (``durability="system"``). Raises OSError."""
        self._file.sync()
        self.frames.sync()

    # ── found by a reader

    @classmethod
    def open(cls, path: str) -> Segment:
        """A segment as a dead or another process left it. Raises ValueError for a file that is none, an
        UnknownFormatError where a newer version wrote it, and OSError."""
        data = Descriptor(open_regular(path, os.O_RDONLY)).read(HEADER_SIZE, 0)
        header = Header.decode(data, path)
        segment = cls(path, header.first, header.capacity, fd=-1, sealed=is_sealed(data))
        segment._has_places = header.version > 1
        segment.used = header.used
        return segment

    def refresh(self) -> None:
        """Look again how far its writer, in another process, is, and whether it has sealed it. Raises OSError."""
        if not self.sealed:
            data = self._file.read(HEADER_SIZE, 0)
            self.sealed = is_sealed(data)
            try:
                self.used = max(self.used, Header.decode(data, str(self.path)).used)
            except ValueError:
                pass  # damaged since it was opened, which costs nothing

    def read(self, index: int, count: int) -> Slots:
        """Up to ``count`` whole slots from slot ``index`` on; fewer where the segment ends or its file is cut. Raises
        OSError."""
        slots = _read_raw(self._file, index, min(count, self.capacity - index))
        if self._has_places:
            settle(slots, HEADER_SIZE + index * SLOT_SIZE)
        return slots

    def count_begun(self) -> int:
        """How many slots its writer has begun at least."""
        return max(begun(self.read(0, self.capacity)), self.used)

    def close(self) -> None:
        """Let go of the files; the data stays, and can be read again where there is a file."""
        self.sealed, self._writable = True, False
        self._unmap()  # if a write is just under way in another thread, the mapping goes with that thread's call
        self._file.close()
        self.frames.close()
        if self._keeps_file and self._budget is not None:
            self._keeps_file = False
            self._budget.release_file()

    def remove(self) -> None:
        """Close it and delete its files. Raises OSError; then it may be called again."""
        self.close()
        for path in (self.path, self.frames.path):
            if path is not None:
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass  # frames that were never written, or a spool folder that the user has deleted
        self._removed = True
        size, self._reserved = self._reserved, 0
        if self._budget is not None:
            self._budget.release(size)

    def forget(self) -> None:
        """In a forked child: let go of the files, which are the parent's. Another thread of the parent may have been in
        the middle of anything."""
        self.frames.forget()
        self.close()


def _look(segment: Segment, index: int, count: int) -> Slots:
    """As `Segment.read`, but as they stand in the mapping, where there is one: a system call lets go of the GIL, and
    beside a loop that logs at full speed it is 5 ms until this thread has it back."""
    slots = segment.slots  # once: a thread that rolls seals it at any moment
    if slots is not None and segment._unmapped is None:
        try:
            start = HEADER_SIZE + index * SLOT_SIZE
            return slots[start : start + count * SLOT_SIZE]
        except ValueError:
            pass  # sealed since we looked
    return segment.read(index, count)


def _read_raw(file: SpoolFile, index: int, count: int) -> bytearray:
    """Slots as they stand in a segment's file."""
    slots = bytearray(max(count, 0) * SLOT_SIZE)
    del slots[file.read_into(slots, HEADER_SIZE + index * SLOT_SIZE) // SLOT_SIZE * SLOT_SIZE :]
    return slots


def _count_used(read: Callable[[int, int], Slots], low: int, high: int) -> int:
    """How many slots are used, at least, of which ``low`` are for sure and ``high`` at most. They are begun in order,
    but for a few at the end."""
    last = max(low, high - _OUT_OF_ORDER)
    if used := begun(read(last, high - last)):
        return last + used  # as of every full one
    while low < last:
        middle = (low + last) // 2
        if any(read(middle, 1)):
            low = middle + 1
        else:
            last = middle
    return low + begun(read(low, _OUT_OF_ORDER))


def _map_all(slots: mmap.mmap, size: int) -> None:
    """Have every page of a mapping ready to be written, so that no log call pays for a page fault: 5 µs for 64 events
    on ext4, 30 µs with the processor's caches full of other things. Most of the price was in `fill`, which has
    written the pages; this holds the GIL, so it goes in small steps."""
    try:
        for at in range(0, size, CHUNK):
            slots.madvise(_POPULATE_WRITE, at, min(CHUNK, size - at))
    except (OSError, AttributeError):
        pass  # before Linux 5.14, or elsewhere


def _claimer(start: int) -> Callable[[], int]:
    claim = itertools.count(start, SLOT_SIZE).__next__
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return claim  # one C call: atomic under the GIL, and safe in a signal handler
    lock = threading.RLock()  # a signal handler may log in the middle of this

    def locked() -> int:
        with lock:
            return claim()

    return locked

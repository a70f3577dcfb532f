"""The writing end of the journal: claiming slots without a lock, rolling to the next segment under one.

Everything here may be called from any thread and from signal handlers. `Journal.current` is the whole truth of where
to write; it is one attribute, replaced in one store, so no writer ever sees half a change.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from asynctrack.errors import InvalidInputError, RunEndedError, SpoolFullError
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import FRAME, LAST_STREAM, PACK, SLOT_SIZE, VOID, PackError
from asynctrack.journal.spool import open_spool, spool_homes
from asynctrack.settings import Settings

__all__ = ["Journal"]

logger = logging.getLogger("asynctrack")

_FIRST_SEGMENT_BYTES = 256 * 1024
_GROWTH = 4
#: tried where the disk has no room for a larger one
_SMALLEST_SEGMENT_BYTES = 16 * 1024
#: slots after which a run is worth a second segment at hand
_SMALL_RUN = 1000
#: seconds between two attempts to make a segment while the disk is full
_RETRY_FULL = 0.1
#: seconds between two looks for room by a log call that waits
_ROOM_POLL = 0.02


class Journal:
    """The journal of one process for one store: the writer, and the spool it writes to.

    ``rolled`` is called when a new segment is begun, ``wake`` when the policy has to wait for room; ``consumed`` says
    that this process delivers it, too. The hot path, in `asynctrack.runlog`, is ``claim, slots, _ = journal.current``
    and one `PACK`; what that cannot do comes here.
    """

    def __init__(
        self,
        store_uri: str,
        settings: Settings,
        rolled: Callable[[], None],
        wake: Callable[[], None],
        *,
        consumed: bool = True,
    ) -> None:
        self._consumed = consumed
        self.store_uri = store_uri
        self.settings = settings
        self.dropped = 0
        self._rolled = rolled
        self._wake = wake
        #: of this process's children too, wherever they go before they log
        self._homes = spool_homes(settings.spool_dir)
        self._open()

    def _open(self) -> None:
        slots = self._slots_for(_FIRST_SEGMENT_BYTES)
        ships = self.settings.mode != "offline"
        self.spool, head, problems = open_spool(
            self._homes, self.store_uri, slots, consumed=self._consumed, ships=ships
        )
        if problems and self.spool.path is None:
            logger.warning(
                "asynctrack keeps events in memory only: no spool directory could be made (%s). Until they are "
                "delivered they do not survive the end of this process. Set ASYNCTRACK_SPOOL_DIR to a writable folder.",
                "; ".join(problems),
            )
        self.pid = os.getpid()
        self.closed = False
        #: a file descriptor for the end of a run, in a program that leaks them up to its limit
        self._reserve = _spare_descriptor()
        # Re-entrant: a signal handler may log while this very thread is rolling.
        self._lock = threading.RLock()
        self._file_numbers = itertools.count(2)  # the first one is made with the spool
        self._runs = itertools.count(1)
        self._streams = itertools.count(1)
        self._prepared: Segment | None = None
        self._told_deleted = False
        #: no attempt to make a segment before that (monotonic seconds), and why the last one failed
        self._full_until = 0.0
        self._full_because = ""
        self._told_full = False
        #: bytes of artifacts in the spool, at most
        self._put_aside = 0
        #: the oldest segment that is not deleted yet; the reader moves it on
        self.head = head
        self._unsynced = self.head
        self.current: tuple[Callable[[], int], Any, Segment] = (self.head.claim, self.head.slots, self.head)

    # ── what runs register, once each

    def register_run(self, spec: dict[str, Any]) -> int:
        """Enter a run in the registry and return its number. Raises OSError."""
        number = next(self._runs)
        self.spool.registry.append(encode_frame(["run", number, spec]))
        return number

    def register_stream(self, run: int, key: str) -> int | None:
        """Enter a metric of a run in the registry and return its stream number; None when there was no room and the
        policy drops the event. Raises SpoolFullError by policy, RunEndedError once the journal is closed."""
        number = next(self._streams)
        if number > LAST_STREAM:
            raise InvalidInputError(f"metric {key!r}: this process has used up its {LAST_STREAM} metrics")
        while True:
            try:
                self.spool.registry.append(encode_frame(["stream", number, run, key]))
            except OSError as error:
                if self.closed:
                    raise _closed() from None  # so is the registry, or soon: waiting for room would never end
                if not self._without_room(error.strerror or str(error)):
                    return None
            else:
                return number

    # ── writing

    def write(self, timestamp: int, step: int, value: float, stream: int) -> bool:
        """Log one slot, whatever it takes. False when the policy dropped it.

        Raises SpoolFullError by policy, and PackError, with nothing logged, for what does not fit a slot.
        """
        while True:
            claim, slots, segment = self.current
            at = claim()
            try:
                PACK(slots, at, timestamp, step, value, stream, timestamp, step, value, stream)
            except (PackError, ValueError, TypeError):
                # Past the segment's end, or sealed by another thread since we looked: on to the next one.
                if not segment.holds(at):
                    if not self.roll(segment):
                        return False
                    continue
                segment.void(at)
                raise
            return True

    def write_frame(self, entry: list[Any], *, patience: float | None = None) -> bool:
        """Log one frame as an event of its own, in order with all others. False when the policy dropped it.

        With ``patience`` it waits so many seconds for room, whatever the policy, and no longer. Where the journal is
        delivered by this very process it need not wait: then such a frame is kept in memory.

        Raises SpoolFullError by policy, and TypeError or ValueError for what msgpack cannot hold.
        """
        frame = encode_frame(entry)
        deadline = 0.0 if patience is None else time.monotonic() + patience
        while True:
            claim, slots, segment = self.current
            at = claim()
            if segment.holds(at):
                try:
                    offset = segment.append_frame(frame)
                    PACK(slots, at, offset, len(frame), 0.0, FRAME, offset, len(frame), 0.0, FRAME)
                except (ValueError, TypeError):
                    continue  # sealed between claim and write: the frame's bytes are left unused
                except OSError as error:
                    if not segment.holds(at):
                        continue  # sealed, read and deleted between claim and write: not for want of room
                    segment.void(at)
                    if deadline and (self._give_up_reserve(error) or self._roll_into_memory(segment)):
                        continue
                    if not self._without_room(f"{error.strerror or error}", deadline):
                        return False
                    continue
                return True
            if not self.roll(segment, deadline):
                return False

    def mark(self) -> int:
        """A sequence number behind every event whose log call has returned. Uses up one slot."""
        while True:
            claim, slots, segment = self.current
            at = claim()
            if at >= segment.size:
                return segment.first + segment.capacity
            try:
                PACK(slots, at, 0, 0, 0.0, VOID, 0, 0, 0.0, VOID)
            except (ValueError, TypeError):
                if self.current[2] is segment:
                    return segment.first + segment.capacity  # closed for good
                continue  # sealed since we looked: on to the next one
            return segment.first + (at - HEADER_SIZE) // SLOT_SIZE

    # ── segments

    def roll(self, full: Segment, deadline: float = 0.0) -> bool:
        """Make room behind ``full``. False when there is none and the policy drops the event; raises SpoolFullError."""
        if self.pid != os.getpid():
            self.reopen()
            return True
        while True:
            with self._lock:
                if self.current[2] is not full:
                    return True
                if self.closed:
                    raise _closed()
                try:
                    segment = self._next_segment(full)
                except OSError as error:
                    problem = error.strerror or str(error)
                else:
                    # No call stands between the test and the store: a signal handler in this very thread, which
                    # comes through the lock, has either rolled before the test or finds the new segment.
                    if self.current[2] is full:
                        self.current = (segment.claim, segment.slots, segment)
                        full.next = segment
                    else:
                        _discard(segment)
                    full.seal()
                    self._told_full = False
                    break
            if deadline and self._roll_into_memory(full):
                return True
            if not self._without_room(problem, deadline):
                return False
        self._rolled()
        return True

    def _roll_into_memory(self, full: Segment) -> bool:
        """A next segment of one slot, without a file: for the end of a run, which would stay RUNNING for ever. Should
        the process die before it is delivered, whoever delivers the spool ends the run as KILLED. False where another
        process delivers, which could not see it."""
        if not self._consumed:
            return False
        try:
            segment = Segment.create(None, full.first + full.capacity, 1)
        except OSError:
            return False  # no file descriptor, no memory
        while full.holds(at := full.claim()):
            full.void(at)  # nobody is to wait for what will never be written
        with self._lock:
            if self.current[2] is full and not self.closed:
                self.current = (segment.claim, segment.slots, segment)
                full.next = segment
                full.seal()
            else:
                segment.close()
        return True

    def _give_up_reserve(self, error: OSError) -> bool:
        """Whether there is a free file descriptor now, where ``error`` is that there was none."""
        return error.errno in (errno.EMFILE, errno.ENFILE) and self._close_reserve()

    def _close_reserve(self) -> bool:
        try:
            fd = self._reserve.pop()  # in one step: of two threads that end their runs, one closes it
        except IndexError:
            return False
        os.close(fd)
        return True

    def seal_behind(self) -> None:
        """Seal every segment but the current one (`roll` could not where another thread was writing)."""
        segment = self.head
        while segment is not self.current[2] and segment.next is not None:
            segment.seal()
            segment = segment.next

    def prepare(self) -> None:
        """Have the next segment at hand, so that rolling need not make it. Called by the engine; never raises."""
        segment = self.current[2]
        if self._prepared is None and self._has_room():
            try:
                small = min(_SMALL_RUN, segment.capacity // 2)
                if not segment.first and not any(segment.read(small, 1)):
                    return  # small runs do with one
                self._prepared = self._make(segment.first + segment.capacity, self._slots_after(segment))
            except OSError:
                pass  # the roll will meet the same and apply the policy

    def sync(self) -> None:
        """Hand everything logged so far to the disk itself (``durability="system"``). Called by the engine; raises
        OSError."""
        self.spool.registry.sync()
        segment: Segment | None = self._unsynced if self._unsynced.first >= self.head.first else self.head
        while segment is not None:
            segment.sync()
            self._unsynced, segment = segment, segment.next

    def room_made(self) -> None:
        """A segment has been deleted: whoever waits for room may look again."""
        self._full_until = 0.0

    def disk_bytes(self) -> int:
        """Bytes the journal takes."""
        total = 0
        segment: Segment | None = self.head
        while segment is not None:
            total += segment.disk_bytes()
            segment = segment.next
        return total

    def room(self) -> int:
        """Bytes that may still be put aside for artifacts."""
        left = self.settings.max_spool_bytes - self.disk_bytes() - self._put_aside
        if left <= self.settings.max_spool_bytes // 2 and self._put_aside:
            # What has been delivered since is deleted: look what is left.
            self._put_aside = self.artifact_bytes()
            left = self.settings.max_spool_bytes - self.disk_bytes() - self._put_aside
        return max(left, 0)

    def wait_for_room(self) -> None:
        """Wait a moment for what is being delivered to make room."""
        self._wake()
        time.sleep(_ROOM_POLL)  # no Event: a signal handler that logs may come here while this thread is here

    def artifact_bytes(self, *, links: bool = False) -> int:
        """Bytes of artifacts that wait in the spool. A link to a file that its owner keeps takes none; ``links`` counts
        it all the same."""
        if not self._put_aside:
            return 0
        total = 0
        for folder, _, names in os.walk(self.spool.artifacts()):
            for name in names:
                try:
                    found = os.stat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue  # delivered just now
                total += found.st_size if links or found.st_nlink == 1 else 0
        return total

    def put_aside(self, size: int) -> None:
        """So many bytes were put aside for an artifact."""
        self._put_aside += size

    def close(self) -> None:
        """Seal what is there and refuse further writes: they raise RunEndedError."""
        # A second call needs no lock: whoever held it at the first may never let go (`engine.lifecycle._terminate`).
        if not (self.closed and self.current[2].sealed):
            with self._lock:
                self.closed = True
                self.current[2].seal()
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            _discard(prepared)
        self._close_reserve()

    # ── fork

    def forget(self) -> None:
        """In a forked child, before anything else runs: never touch the parent's files again."""
        # Another thread of the parent may have held it at the fork; here nobody would ever let go of it.
        self._lock = threading.RLock()
        self._close_reserve()
        # A segment past whose end everybody is: the first write comes to roll(), which opens a spool of our own.
        gone = Segment(None, 0, 0, fd=-1, sealed=True)
        self.current = (gone.claim, bytearray(0), gone)

    def reopen(self) -> None:
        """A spool of this process's own. Called by `roll` in a forked child."""
        with self._lock:
            if self.pid != os.getpid():
                self._open()

    # ── inside

    def _next_segment(self, full: Segment) -> Segment:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            if prepared.first == full.first + full.capacity:
                return prepared
            _discard(prepared)  # made for a place that somebody has filled without it
        if time.monotonic() < self._full_until:
            raise OSError(self._full_because)
        if not self._has_room():
            raise OSError(f"max_spool_bytes={self.settings.max_spool_bytes} is reached")
        first = full.first + full.capacity
        for size in (full.size * _GROWTH, _FIRST_SEGMENT_BYTES):
            try:
                return self._make(first, self._slots_for(size))
            except OSError:
                pass  # a nearly full disk may have room for a smaller one
        return self._make(first, self._slots_for(_SMALLEST_SEGMENT_BYTES))

    def _has_room(self) -> bool:
        upcoming = HEADER_SIZE + self._slots_after(self.current[2]) * SLOT_SIZE
        return self.disk_bytes() + upcoming <= self.settings.max_spool_bytes

    def _make(self, first: int, slots: int) -> Segment:
        try:
            return Segment.create(self.spool.segment_path(next(self._file_numbers)), first, slots)
        except FileNotFoundError:
            if not self._consumed:
                raise  # whoever delivers cannot see what is kept in memory
        if not self._told_deleted:
            self._told_deleted = True
            logger.error(
                "asynctrack: the spool %s was deleted. Events go on being delivered, but are kept in memory only: what "
                "is not delivered does not survive the end of this process", self.spool.path,
            )  # fmt: skip
        return Segment.create(None, first, slots)

    def _slots_for(self, size: int) -> int:
        return max(1, (min(size, self.settings.segment_bytes) - HEADER_SIZE) // SLOT_SIZE)

    def _slots_after(self, segment: Segment) -> int:
        return self._slots_for(segment.size * _GROWTH)

    def _without_room(self, problem: str, deadline: float = 0.0) -> bool:
        """Apply ``spool_full``: True to try again, False when the event is dropped. Raises SpoolFullError.

        With a ``deadline`` (monotonic seconds) the policy is to try again until then, and to drop after it.
        """
        now = time.monotonic()
        if now >= self._full_until:
            # Not renewed by calls that made no attempt: those of a fast loop would put the next attempt off for ever.
            self._full_until, self._full_because = now + _RETRY_FULL, problem
            self._wake()  # whoever delivers may be resting until its time comes
        policy = ("block" if now < deadline else "drop_new") if deadline else self.settings.spool_full
        where = self.spool.path or "the spool in memory"
        if policy == "raise":
            raise SpoolFullError(f"{where}: {problem}. The event was not logged; make room or raise max_spool_bytes.")
        if not self._told_full:
            self._told_full = True
            does = "log calls wait until there is room" if policy == "block" else "new events are dropped and counted"
            logger.error("asynctrack: no room in %s (%s); %s", where, problem, does)
        if policy == "drop_new":
            self.dropped += 1
            return False
        self.wait_for_room()
        return True


def _closed() -> RunEndedError:
    return RunEndedError("asynctrack has been shut down in this process; the event was not logged")


def _spare_descriptor() -> list[int]:
    """None where there is none to spare, or no /dev/null: it is wanted rarely, and never worth a failure."""
    try:
        return [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
    except OSError:
        return []


def _discard(segment: Segment) -> None:
    """Delete a segment that was never used."""
    try:
        segment.remove()
    except OSError:
        pass  # it goes with the spool; until then a reader tells it from the one in use by its being empty

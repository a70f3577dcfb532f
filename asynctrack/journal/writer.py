"""The writing end of the journal: claiming slots without a lock, and what a log call does when that does not work.

Everything here may be called from any thread and from signal handlers.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Any

from asynctrack.clock import monotonic
from asynctrack.journal.budget import Budget, bytes_below, files_to_keep
from asynctrack.journal.chain import Chain, closed_error
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.homes import open_spool, spool_homes
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.registry import Registry
from asynctrack.journal.rolling import FIRST_SEGMENT_BYTES, SegmentSupply, slots_for, tell_unmapped
from asynctrack.journal.room import Room
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import FRAME, SLOT_SIZE, VOID, PackError
from asynctrack.settings import Settings

__all__ = ["Journal"]

logger = logging.getLogger("asynctrack")


class Journal:
    """The journal of one process for one store: the writer, and the spool it writes to.

    ``rolled`` is called when a new segment is begun, ``wake`` when the policy has to wait for room; ``consumed`` says
    that this process delivers it, too. The hot path, in `asynctrack.runs.log`, is ``claim, slots, _ = chain.current``
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
        self._room = Room(settings.spool_full, wake)
        #: the same one for life: the log calls hold it
        self.chain = Chain(self._room, rolled, self._open)
        #: of this process's children too, wherever they go before they log
        self.homes = spool_homes(settings.spool_dir, store_uri)
        self._open()

    def _open(self) -> None:
        slots = slots_for(FIRST_SEGMENT_BYTES, self.settings.segment_bytes)
        ships = self.settings.mode != "offline"
        self.spool, head, problems = open_spool(self.homes, self.store_uri, slots, consumed=self._consumed, ships=ships)
        if self.spool.path is None:
            _tell_memory_only(problems)
        #: what the journal takes; the spool's other users release what they delete
        self.budget = self.spool.budget = Budget(self.settings.max_spool_bytes, files_to_keep())
        self.budget.reserve(head.size, overdraw=True)
        head.charge(self.budget, head.size)
        tell_unmapped(head)
        self.registry = Registry(self.spool.registry, getattr(self, "registry", None))
        supply = SegmentSupply(self.spool, self.budget, self.settings.segment_bytes, consumed=self._consumed)
        self.chain.begin(head, supply)

    # ── what runs register, once each

    def register_run(self, spec: dict[str, Any]) -> int:
        """Enter a run in the registry and return its number. Raises OSError."""
        return self.registry.add_run(spec)

    def register_stream(self, run: int, key: str | MeasuredOn, *, waits: bool = True) -> int | None:
        """A metric's new stream number in the registry; None when there was no room and the policy drops the event.
        Raises SpoolFullError and NoRoomNow as `write_frame` does, and RunEndedError once the journal is closed."""
        while True:
            try:
                return self.registry.add_stream(run, key)
            except OSError as error:
                if self.chain.closed:
                    raise closed_error() from None  # so is the registry, or soon: waiting for room would never end
                if not self._room.refuse(self.chain.supply.where, error.strerror or str(error), waits=waits):
                    return None

    # ── writing

    def write(
        self, timestamp: int, step: int, value: float, stream: int, segment: Segment | None = None, at: int = 0
    ) -> bool:
        """Log one slot, whatever it takes; in that at ``at`` of ``segment``, claimed by the caller, where it can be
        written. False when the policy dropped it. Raises SpoolFullError by policy, and PackError, with nothing logged,
        for what does not fit a slot."""
        while True:
            claim, _, current = self.chain.current  # before the number is looked at: see `Chain`
            if stream < self.registry.first_stream:
                raise closed_error()  # its run has ended, and is delivered, since the call began; or rests
            if segment is None:
                segment, at = current, claim()
            if segment.holds(at):
                try:
                    if segment.unmapped and self._room.problem:
                        raise OSError(errno.ENOSPC, self._room.problem)  # it takes its time to say no
                    segment.put(at, timestamp, step, value, stream)
                except OSError as error:
                    if segment.holds(at) and not self._room.refuse(self.chain.supply.where, error.strerror or ""):
                        return False
                except (PackError, ValueError, TypeError):
                    if segment.holds(at):
                        segment.void(at)
                        raise
                else:
                    return True
            elif not self.chain.roll(segment):
                return False
            segment = None

    def write_frame(self, entry: list[Any], *, patience: float | None = None, waits: bool = True) -> bool:
        """Log one frame as an event of its own, in order with all others. False when the policy dropped it.

        With ``patience``, for a run's end, it waits so many seconds for room, whatever the policy, and no longer. Such
        a frame may overdraw the limit of bytes, and so may a segment for it; where the disk is full and this very
        process delivers, it is kept in memory.

        Raises SpoolFullError by policy, NoRoomNow where that is to wait and the caller ``waits`` not (it holds a lock
        that others need), and TypeError or ValueError for what msgpack cannot hold.
        """
        frame = encode_frame(entry)
        deadline = 0.0 if patience is None else monotonic() + patience
        while True:
            claim, _, segment = self.chain.current
            at = claim()
            if not segment.holds(at):
                if not self.chain.roll(segment, deadline, waits=waits):
                    return False
                continue
            try:
                offset = segment.append_frame(frame, overdraw=patience is not None)
                segment.put(at, offset, len(frame), 0.0, FRAME)
            except (ValueError, TypeError):
                continue  # sealed between claim and write: the frame's bytes are left unused
            except OSError as error:
                if not segment.holds(at):
                    continue  # sealed, read and deleted between claim and write: not for want of room
                segment.void(at)
                if not self._find_room(segment, len(frame), error, deadline, waits):
                    return False
                continue
            return True

    def _find_room(self, segment: Segment, size: int, error: OSError, deadline: float, waits: bool) -> bool:
        """What to do about a frame for which there is no room beside ``segment``: as `Room.refuse`."""
        if deadline and self.chain.supply.give_up_spare(error):
            return True
        if (deadline or segment.frames) and self.chain.roll_early(segment, ending=deadline > 0.0):
            return True
        problem, never = error.strerror or str(error), size + segment.size > self.settings.max_spool_bytes
        return self._room.refuse(self.chain.supply.where, problem, deadline, never=never, waits=waits)

    def mark(self) -> int:
        """A sequence number behind every event whose log call has returned. Uses up one slot."""
        while True:
            claim, _, segment = self.chain.current
            at = claim()
            if at >= segment.size:
                return segment.end
            try:
                segment.put(at, 0, 0, 0.0, VOID)
            except OSError:
                pass  # where it is not mapped: a hole is a mark, too
            except (ValueError, TypeError):
                if self.chain.current[2] is segment:
                    return segment.end  # closed for good
                continue  # sealed since we looked
            return segment.first + (at - HEADER_SIZE) // SLOT_SIZE

    # ── for the engine, at each look

    @property
    def current(self) -> tuple[Callable[[], int], Any, Segment]:
        """Where to write."""
        return self.chain.current

    @property
    def head(self) -> Segment:
        """The oldest segment that is not deleted yet; whoever delivers moves it on."""
        return self.chain.head

    @head.setter
    def head(self, segment: Segment) -> None:
        self.chain.head = segment

    def seal_behind(self) -> None:
        """Seal every segment but the current one."""
        self.chain.seal_behind()

    def prepare(self) -> None:
        """Have the next segment at hand, so that rolling need not make it. Never raises."""
        self.chain.prepare()

    def sync(self) -> None:
        """Hand everything logged so far to the disk itself (``durability="system"``). Raises OSError."""
        self.spool.registry.sync()
        self.chain.sync()

    # ── room

    @property
    def dropped(self) -> int:
        """Events that were not accepted, for want of room."""
        return self._room.dropped

    def drop(self) -> None:
        """Count an event that is not accepted."""
        self._room.dropped += 1

    def room_made(self) -> None:
        """A segment has been deleted: whoever waits for room may look again."""
        self._room.made()

    def wait_for_room(self) -> None:
        """Wait a moment for what is being delivered to make room."""
        self._room.wait()

    def room(self) -> int:
        """Bytes that may still be put aside for artifacts."""
        return self.budget.left()

    def disk_bytes(self) -> int:
        """Bytes that segments and their frames take."""
        return self.budget.bytes - self.budget.snapshot_bytes

    def put_aside(self, name: str) -> None:
        """An artifact was put aside under ``name``. Before its frame is written: it may be delivered right then."""
        self.budget.add_snapshot(name, bytes_below(os.path.join(self.spool.artifacts(), name)))

    def artifact_bytes(self, *, links: bool = False) -> int:
        """Bytes of artifacts that wait in the spool. Links to files that owners keep count where ``links``."""
        if links and self.budget.has_snapshots:
            return bytes_below(self.spool.artifacts(), links=True)
        return self.budget.snapshot_bytes

    def look_for_deleted(self, delivered: Callable[[], int]) -> None:
        """Release what another process, which delivers, has deleted. See `Chain.drop_deleted`."""
        self.chain.drop_deleted(delivered)
        if self.budget.has_snapshots:
            self.budget.drop_deleted_snapshots(self.spool.artifacts())

    def consume(self, *, here: bool) -> None:
        """From now on this process delivers what it logs, or another one does (again, in a forked child)."""
        self._consumed = self.chain.supply.consumed = here

    # ── the end

    def close(self) -> None:
        """Seal what is there and refuse further writes: they raise RunEndedError."""
        self.chain.close()

    def forget(self) -> None:
        """In a forked child, before anything else runs: never touch the parent's files again."""
        self.chain.forget()

    def reopen(self) -> None:
        """A spool of this process's own, in a forked child."""
        self.chain.reopen()

    def begin_anew(self) -> None:
        """After `close`: a new spool, for new runs. Those that were closed before stay closed. Raises OSError."""
        self.chain.begin_anew()

    @property
    def closed(self) -> bool:
        """Log calls raise."""
        return self.chain.closed


def _tell_memory_only(problems: list[str]) -> None:
    if problems:
        logger.warning(
            "asynctrack keeps events in memory only: no spool directory could be made (%s). Until they are delivered "
            "they do not survive the end of this process. Set ASYNCTRACK_SPOOL_DIR to a writable folder.",
            "; ".join(problems),
        )

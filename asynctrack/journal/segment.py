"""One stretch of the journal: a preallocated file of slots, memory-mapped while it is being written, and its frames."""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable

from asynctrack.journal.disk import CHUNK, allocate, new_file, write_all
from asynctrack.journal.frames import FrameFile
from asynctrack.journal.slots import PACK, SLOT_SIZE, VOID, begun

__all__ = ["HEADER_SIZE", "Segment"]

#: <linux/mman.h>
_POPULATE_WRITE = 23
_MAGIC = b"ATRKSLOT"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQQI")  # magic, version, slot size, first sequence number, slots, created ms, CRC-32
_COPY_SIZE = 64
_SEALED_AT = 60
_SEALED = struct.Struct("<I")
_SEALED_MARK = 0x5EA1ED01

#: the header stands there twice, each copy with its CRC, so that one damaged byte does not cost the segment
HEADER_SIZE = 2 * _COPY_SIZE


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
        self.next: Segment | None = None
        #: past the end: handed out when the segment is full
        self.size = HEADER_SIZE + capacity * SLOT_SIZE
        self.slots: mmap.mmap | None = None
        self.claim: Callable[[], int] = itertools.repeat(self.size).__next__
        self._fd = fd
        self._frames: FrameFile | None = None
        self._lock = threading.RLock()

    # ── made by the writer

    @classmethod
    def create(cls, path: str | None, first: int, capacity: int) -> Segment:
        """A new, empty, mapped segment; ``path=None``: anonymous memory. Raises OSError, also when the disk is full:
        all its blocks are taken now, so that no later write to the mapping can fail (that would be a SIGBUS)."""
        fd = -1
        size = HEADER_SIZE + capacity * SLOT_SIZE
        header = _HEADER.pack(_MAGIC, _VERSION, SLOT_SIZE, first, capacity, time.time_ns() // 1_000_000, 0)
        header = header[:-4] + zlib.crc32(header[:-4]).to_bytes(4, "little")
        try:
            fd = new_file(path)
            allocate(fd, size)
            write_all(fd, header.ljust(_COPY_SIZE, b"\0") * 2, 0)
            segment = cls(path, first, capacity, fd=fd, sealed=False)
            segment.slots = mmap.mmap(fd, size)
        except OSError:
            if fd >= 0:
                os.close(fd)
                if path is not None:
                    os.unlink(path)
            raise
        _map_all(segment.slots, size)
        segment.claim = _claimer(HEADER_SIZE)
        return segment

    def append_frame(self, frame: bytes) -> int:
        """Write one encoded frame beside the slots and return its offset. Raises OSError."""
        frames = self._frames
        if frames is None:
            with self._lock:
                frames = self._frames
                if frames is None:
                    made = self._make_frames()
                    # No call stands between these two: a signal handler that logs in this very thread, while the
                    # file is being made, has either set it before or finds it.
                    if self._frames is None:
                        self._frames = made
                    frames = self._frames
                    if frames is not made:
                        made.close()
        return frames.append(frame)

    def _make_frames(self) -> FrameFile:
        path = self._frames_path()
        try:
            return FrameFile(path, create=True)
        except FileExistsError:
            # Made a moment ago by the call that this one interrupts.
            return FrameFile(path, create=False, writable=True)

    def holds(self, at: int) -> bool:
        """Whether ``at`` is a slot of this segment that can be written."""
        return self._writable and at < self.size

    def void(self, at: int) -> None:
        """Give up a claimed slot, so that no reader waits for it."""
        slots = self.slots
        if slots is not None and self.holds(at):
            try:
                PACK(slots, at, 0, 0, 0.0, VOID, 0, 0, 0.0, VOID)
            except (ValueError, TypeError):
                pass  # sealed since we looked: its empty slots are final anyway

    def seal(self) -> bool:
        """Close it for writing; False while another thread is in the middle of a write (ask again).

        A thread that had claimed a slot and not filled it meets a closed mapping, and logs its event anew in the
        current segment. So nothing is lost, and from here on an empty slot is final.
        """
        # Two at once (the thread that rolled, and the engine after it): the first one's mark must be written before
        # the second takes the segment for sealed and deletes it. Never waited for: who holds it may be suspended by a
        # signal handler that waits for us.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self.sealed or self._seal()
        finally:
            self._lock.release()

    def _seal(self) -> bool:
        # First of all: whoever meets the closed mapping must not take its failure for a fault of its arguments.
        self._writable = False
        if self.slots is not None:
            try:
                self.slots.close()
            except BufferError:
                return False
            self.slots = None
        try:
            for copy in range(2):
                write_all(self._fd, _SEALED.pack(_SEALED_MARK), copy * _COPY_SIZE + _SEALED_AT)
        except OSError:
            pass  # the mark is for readers in other processes; a free lock tells them the same
        self.sealed = True
        return True

    def sync(self) -> None:
        """Hand slots and frames to the disk itself (``durability="system"``). Raises OSError."""
        if self._fd >= 0:
            os.fdatasync(self._fd)
        if self._frames is not None:
            self._frames.sync()

    # ── found by a reader

    @classmethod
    def open(cls, path: str) -> Segment:
        """A segment as a dead or another process left it. Raises ValueError for a file that is none, and OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(fd, HEADER_SIZE, 0)
        for copy in range(2):
            fields = header[copy * _COPY_SIZE : copy * _COPY_SIZE + _HEADER.size]
            if len(fields) < _HEADER.size or zlib.crc32(fields[:-4]) != int.from_bytes(fields[-4:], "little"):
                continue
            magic, version, slot_size, first, capacity, _, _ = _HEADER.unpack(fields)
            if magic != _MAGIC or version != _VERSION or slot_size != SLOT_SIZE:
                os.close(fd)
                raise ValueError(f"{path}: journal format {version} is not known here; read it with a newer asynctrack")
            return cls(path, first, capacity, fd=fd, sealed=_is_sealed(header))
        os.close(fd)
        raise ValueError(f"{path}: both copies of the segment's header are damaged")

    def refresh(self) -> None:
        """Look again whether its writer, in another process, has sealed it."""
        if not self.sealed:
            self.sealed = _is_sealed(os.pread(self._fd, HEADER_SIZE, 0))

    def read(self, index: int, count: int) -> bytes:
        """Up to ``count`` whole slots from slot ``index`` on; fewer where the segment ends or its file is cut."""
        count = min(count, self.capacity - index)
        start = HEADER_SIZE + index * SLOT_SIZE
        data = os.pread(self._fd, count * SLOT_SIZE, start)
        return data[: len(data) // SLOT_SIZE * SLOT_SIZE]

    def count_begun(self) -> int:
        """How many slots its writer has begun at least."""
        return begun(self.read(0, self.capacity))

    def read_frame(self, offset: int, length: int) -> bytes:
        """The bytes of one frame; fewer, or none, where the file is cut or gone."""
        if self._frames is None:
            path = self._frames_path()
            if path is None or not os.path.exists(path):
                return b""
            self._frames = FrameFile(path, create=False)
        return self._frames.read(offset, length)

    def disk_bytes(self) -> int:
        """Bytes it takes on disk, frames included."""
        frames = self._frames
        try:
            return self.size + (frames.size() if frames is not None else 0)
        except OSError:
            return self.size  # the engine is deleting it at this moment

    def close(self) -> None:
        """Let go of the files; the data stays."""
        self.sealed, self._writable = True, False
        if self.slots is not None:
            try:
                self.slots.close()
                self.slots = None
            except BufferError:
                pass  # a write is just under way in another thread: the mapping goes with that thread's call
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._frames is not None:
            self._frames.close()
            self._frames = None

    def remove(self) -> None:
        """Close it and delete its files. Raises OSError."""
        self.close()
        if self.path is not None:
            for path in (self.path, self._frames_path()):
                try:
                    os.unlink(str(path))
                except FileNotFoundError:
                    pass  # frames that were never written, or a spool folder that the user has deleted

    def _frames_path(self) -> str | None:
        return None if self.path is None else self.path.removesuffix(".slots") + ".frames"


def _is_sealed(header: bytes) -> bool:
    return any(
        header[copy * _COPY_SIZE + _SEALED_AT : (copy + 1) * _COPY_SIZE] == _SEALED.pack(_SEALED_MARK)
        for copy in range(2)
    )


def _map_all(slots: mmap.mmap, size: int) -> None:
    """Have every page of a mapping ready to be written, so that no log call pays for a page fault: 5 µs for 64 events
    on ext4, 30 µs with the processor's caches full of other things. Most of the price was in `allocate`, which has
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
    lock = threading.Lock()

    def locked() -> int:
        with lock:
            return claim()

    return locked

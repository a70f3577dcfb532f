"""The reading end of the journal, the same for a living process's own, a shipper's and a dead process's.

`JournalReader.read` takes what is there behind a sequence number. It never waits behind a slot that is claimed and
not yet written: it goes on, keeps the slot in `pending`, and looks again until its segment is sealed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from asynctrack.journal.frames import FrameFile, decode_frame, scan_frames
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import (
    PACK,
    SLOT_SIZE,
    VOID,
    Block,
    Record,
    begun,
    count_streams,
    decode_block,
    frame_places,
    plain_streams,
)

__all__ = ["Chunk", "JournalReader", "Stream"]

#: slots to look ahead for one that has been written: as many as threads may be between claim and write
_AHEAD = 64
#: slots that are read at first of a segment that is being written: most looks find fewer
_FEW = 1024


class Stream(NamedTuple):
    """What a stream number stands for: a metric of a run."""

    run: int
    key: str


class Chunk:
    """What stands in slots ``start`` … ``end - 1``."""

    __slots__ = ("data", "end", "frames", "late", "more", "places", "plain", "start", "streams")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        #: the points by stream; empty, until `decode`, in a chunk of nothing but points
        self.streams: dict[int, list[Record]] = {}
        #: the streams of a chunk of nothing but points, and its slots
        self.plain: set[int] | None = None
        self.data = b""
        #: decoded frames, in order, and the sequence numbers of their slots
        self.frames: list[Any] = []
        self.places: list[int] = []
        #: there may be more right behind ``end``
        self.more = False
        #: the sequence number of the formerly pending slot that this chunk is about
        self.late: int | None = None

    def decode(self) -> None:
        """Sort a chunk of nothing but points by stream."""
        if self.plain is not None:
            self.streams, self.plain = decode_block(self.data).streams, None


class JournalReader:
    """Reads a chain of segments and the registry. Not thread-safe: one consumer."""

    def __init__(self, registry: FrameFile, head: Segment | None, pending: list[int] | None = None) -> None:
        self.head = head
        #: slots passed over that may still be written
        self.pending: set[int] = set(pending or ())
        self.runs: dict[int, dict[str, Any]] = {}
        self._newest_run = 0
        self._streams: dict[int, Stream] = {}
        self._streams_of: dict[int, set[int]] = {}
        self._registry = registry
        self._registry_end = 0
        #: what could not be read, in words, and how many records that is
        self.problems: dict[str, int] = {}

    # ── the registry

    def refresh_registry(self) -> None:
        """Take in what has been registered since. Raises OSError."""
        self._scan_registry(self._registry_end)

    def run(self, number: int) -> dict[str, Any] | None:
        """What a run was registered with, from the file if it was forgotten; None where its entry is damaged."""
        if number not in self.runs and number <= self._newest_run:
            self._scan_registry(0)
        return self.runs.get(number)

    def forget(self, run: int) -> None:
        """Keep nothing of a run in memory any more."""
        self.runs.pop(run, None)
        for number in self._streams_of.pop(run, ()):
            self._streams.pop(number, None)

    def stream(self, number: int) -> Stream | None:
        """The metric behind a stream number; None where its entry is damaged."""
        found = self._streams.get(number)
        if found is None:
            self.refresh_registry()
            found = self._streams.get(number)
        if found is None:
            # Another thread's entry, at a smaller offset, may have been under way when we passed it.
            self._scan_registry(0)
            found = self._streams.get(number)
        return found

    def _scan_registry(self, start: int) -> None:
        size = self._registry.size()
        if size <= start:
            return
        entries, end, _ = scan_frames(self._registry.read(start, size - start))
        self._registry_end = max(self._registry_end, start + end)
        for entry in entries:
            if entry[0] == "run":
                self.runs[entry[1]] = entry[2]
                self._newest_run = max(self._newest_run, entry[1])
            elif entry[0] == "stream":
                self._streams[entry[1]] = Stream(entry[2], entry[3])
                self._streams_of.setdefault(entry[2], set()).add(entry[1])

    # ── the slots

    def chain(self) -> Iterator[Segment]:
        """The segments, oldest first."""
        segment = self.head
        while segment is not None:
            yield segment
            segment = segment.next

    def read(self, start: int, count: int) -> Chunk:
        """What is there from ``start`` on, ``count`` slots at most; ``chunk.end == start``: nothing. Raises OSError."""
        segment = self._segment_at(start)
        if segment is None:
            return Chunk(start, start)
        start = max(start, segment.first)  # slots in a file that is missing: their loss was reported on opening
        index = start - segment.first
        sealed = segment.sealed  # before reading: what is written later is then read later
        if not sealed:
            count = self._worth_reading(segment, index, count)
        data = segment.read(index, count)
        if not sealed and not self._behind(segment, index, count):
            data = _begun(data)
        chunk = Chunk(start, start + len(data) // SLOT_SIZE)
        if sealed and len(data) // SLOT_SIZE < min(count, segment.capacity - index):
            self._report(f"{segment.path} is cut", segment.capacity - index - len(data) // SLOT_SIZE)
            chunk.end = segment.first + segment.capacity
        chunk.more = chunk.end - start >= count or (
            chunk.end >= segment.first + segment.capacity and segment.next is not None
        )
        if sealed:
            # What was never used is most of a last segment: no slot of it is worth a look.
            used = _begun(data)
            self._report_unfinished(min(segment.begun - index, len(data) // SLOT_SIZE) - len(used) // SLOT_SIZE)
            data = used
        if self.pending:
            data = self._without_pending(data, start)
        chunk.data, chunk.plain = data, plain_streams(data)
        if chunk.plain is None:
            block = decode_block(data)
            chunk.streams = block.streams
            if sealed:
                self._report_missing(segment, index, block)
            else:
                self.pending.update(start + i for i in _unwritten(block))
            if block.frames:
                self._read_frames(segment, block.frames, [start + place for place in frame_places(data)], chunk)
        return chunk

    def read_pending(self) -> list[Chunk]:
        """Pending slots have been written since, one a chunk. Forgets those that never will be. Raises OSError."""
        found = []
        for number in sorted(self.pending):
            segment = self._segment_at(number)
            if segment is None or number < segment.first:
                self.pending.discard(number)
                continue
            sealed = segment.sealed
            block = decode_block(segment.read(number - segment.first, 1))
            if block.streams or block.frames:
                late = Chunk(number, number + 1)
                late.late = number
                late.streams = block.streams
                self._read_frames(segment, block.frames, [number] * len(block.frames), late)
                found.append(late)
            elif sealed:
                self._report_missing(segment, number - segment.first, block)
            elif _unwritten(block):
                continue
            self.pending.discard(number)
        return found

    def retire(self, before: int) -> list[Segment]:
        """Unlink from the chain every sealed segment that ends at or before ``before`` and has no pending slot."""
        retired = []
        while self.head is not None and self.head.next is not None:
            end = self.head.first + self.head.capacity
            if end > before or not self.head.sealed or any(number < end for number in self.pending):
                break
            retired.append(self.head)
            self.head = self.head.next
        return retired

    def count(self, start: int, streams: Container[int]) -> int:
        """How many points of ``streams`` stand from ``start`` on. Changes nothing, so any thread may ask. Raises
        OSError when a segment is deleted meanwhile."""
        total = 0
        while True:
            segment = self._segment_at(start)
            if segment is None:
                return total
            data = segment.read(start - segment.first, 8192)
            if not segment.sealed:
                data = _begun(data)
            if not data:
                return total
            total += sum(points for number, points in count_streams(data).items() if number in streams)
            start += len(data) // SLOT_SIZE

    def _without_pending(self, data: bytes, start: int) -> bytes:
        """Slots read again, without those that `read_pending` is going to bring: nothing comes twice."""
        slots = bytearray(data)
        for number in self.pending:
            if 0 <= number - start < len(data) // SLOT_SIZE:
                PACK(slots, (number - start) * SLOT_SIZE, 0, 0, 0.0, VOID, 0, 0, 0.0, VOID)
        return bytes(slots)

    def _worth_reading(self, segment: Segment, index: int, most: int) -> int:
        """How many slots to read of ``most``: not megabytes of empty ones for the few that a quiet program writes."""
        count = _FEW
        while count < most and self._behind(segment, index, count):
            count *= 4
        return min(count, most)

    def _behind(self, segment: Segment, index: int, count: int) -> bool:
        """Whether something stands right behind these slots: then even the last of them have been claimed."""
        if index + count >= segment.capacity:
            return segment.next is not None
        return any(segment.read(index + count, _AHEAD))

    def _segment_at(self, number: int) -> Segment | None:
        """The segment that holds slot ``number``, or the first one behind it."""
        segment = self.head
        while segment is not None and number >= segment.first + segment.capacity:
            segment = segment.next
        return segment

    def _read_frames(self, segment: Segment, records: list[Record], places: list[int], chunk: Chunk) -> None:
        for (offset, length, _, _), place in zip(records, places, strict=True):
            try:
                chunk.frames.append(decode_frame(segment.read_frame(offset, length)))
                chunk.places.append(place)
            except ValueError:
                self._report(f"damaged frames beside {segment.path}", 1)

    def _report_missing(self, segment: Segment, index: int, block: Block) -> None:
        """Report what is not there in a block of a sealed segment, read from slot ``index`` on."""
        self._report("damaged records", len(block.damaged))
        self._report_unfinished(len(block.unfinished) + bisect_left(block.empty, segment.begun - index))

    def _report_unfinished(self, records: int) -> None:
        self._report("unfinished records (log calls cut short by the end of the process, or damage)", records)

    def _report(self, problem: str, records: int) -> None:
        if records > 0:
            self.problems[problem] = self.problems.get(problem, 0) + records


def _begun(data: bytes) -> bytes:
    """The slots up to the last one that has been begun; what follows is not claimed, or only just."""
    return data[: begun(data) * SLOT_SIZE]


def _unwritten(block: Block) -> list[int]:
    return block.empty + block.unfinished + block.damaged

"""The reading end of the journal, the same for a living process's own, a shipper's and a dead process's.

`JournalReader.read` takes what is there behind a sequence number. It never waits behind a slot that is claimed and
not yet written: it goes on, keeps the slot in `pending`, and looks again until its segment is sealed.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Container, Iterator
from typing import Any

from asynctrack.clock import monotonic
from asynctrack.journal.frames import FrameFile, decode_frame
from asynctrack.journal.registered import RegistryReader, Stream
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import (
    PACK_SETTLED,
    SLOT_SIZE,
    VOID,
    Block,
    Record,
    Slots,
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
#: bytes of frames in a chunk; more only where one alone is larger
_FRAME_BYTES = 1 << 20


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
        self.data: Slots = b""
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

    def __init__(
        self,
        registry: FrameFile,
        head: Segment | None,
        pending: list[int] | None = None,
        *,
        problems: dict[str, int] | None = None,
    ) -> None:
        self.head = head
        #: seconds for which what is gone is not passed over
        self.patience = 0.0
        self._gone_since: float | None = None
        #: slots passed over that may still be written
        self.pending: set[int] = set(pending or ())
        self.registry = RegistryReader(registry)
        #: what could not be read, in words, and how many records that is
        self.problems: dict[str, int] = {} if problems is None else problems

    def chain(self) -> Iterator[Segment]:
        """The segments, oldest first."""
        segment = self.head
        while segment is not None:
            yield segment
            segment = segment.next

    def written(self) -> int:
        """About where the writer is: nothing stands behind this sequence number. Raises OSError."""
        written = 0
        for segment in self.chain():
            # Of a living owner's, all but the last are full.
            begun = segment.begun or (segment.capacity if segment.next else segment.count_begun())
            written = max(written, segment.first + begun)
        return written

    def read(self, start: int, count: int) -> Chunk:
        """What is there from ``start`` on, ``count`` slots at most; ``chunk.end == start``: nothing. Raises OSError.

        Fewer slots where their frames are large: a chunk is in memory as a whole.
        """
        segment = self._segment_at(start)
        if segment is None:
            return Chunk(start, start)
        if start < segment.first:
            self._not_yet(segment)
        start = max(start, segment.first)  # slots in a file that is missing: their loss was reported on opening
        try:
            chunk = self._read(segment, start, count)
        except FileNotFoundError:
            self._not_yet(segment)
            return self._gone(segment, start)
        self._gone_since = None
        return chunk

    def _not_yet(self, segment: Segment) -> None:
        """Something of a segment, or before it, is gone. Raises FileNotFoundError while that is not to be passed over:
        see `patience`."""
        now = monotonic()
        if self._gone_since is None:
            self._gone_since = now
        if now < self._gone_since + self.patience:
            raise FileNotFoundError(errno.ENOENT, "it, or what stands before it, is gone", segment.path)

    def _read(self, segment: Segment, start: int, count: int) -> Chunk:
        index = start - segment.first
        sealed = segment.sealed  # before reading: what is written later is then read later
        if not sealed:
            count = self._worth_reading(segment, index, count)
        data = segment.read(index, count)
        if not sealed and not self._behind(segment, index, count):
            data = _begun(data)
        chunk = Chunk(start, start + len(data) // SLOT_SIZE)
        cut = min(count, segment.capacity - index) - len(data) // SLOT_SIZE if sealed else 0
        # What was never used is most of a last segment: no slot of it is worth a look.
        used = _begun(data) if sealed else data
        chunk.data = self._without_pending(used, start) if self.pending else used
        chunk.plain = plain_streams(chunk.data)
        block = decode_block(chunk.data) if chunk.plain is None else None
        if block is not None and block.frames:
            places = frame_places(chunk.data)
            enough = _enough(block.frames, places)
            if enough is not None:
                return self._read(segment, start, enough)
            self._read_frames(segment, block.frames, [start + place for place in places], chunk)
        if cut > 0:
            self._report(f"{segment.path} is cut", segment.end - chunk.end)
            chunk.end = segment.end
        chunk.more = chunk.end - start >= count or (chunk.end >= segment.end and segment.next is not None)
        if sealed:
            unused = (len(data) - len(used)) // SLOT_SIZE
            self._report_unfinished(min(segment.begun - index - len(used) // SLOT_SIZE, unused))
            if segment.next is not None and not segment.begun:
                self._report_erased(unused + (len(block.empty) if block is not None else 0))
        if block is not None:
            chunk.streams = block.streams
            if sealed:
                self._report_missing(segment, index, block)
            else:
                self.pending.update(start + i for i in _unwritten(block))
        return chunk

    def _gone(self, segment: Segment, start: int) -> Chunk:
        """Somebody has deleted the segment: go on behind it, and say so."""
        chunk = Chunk(start, segment.end)
        chunk.more = segment.next is not None
        self._report(f"{segment.path} was deleted, with up to so many records", segment.end - start)
        return chunk

    def read_pending(self) -> list[Chunk]:
        """Pending slots have been written since, one a chunk. Forgets those that never will be. Raises OSError."""
        found = []
        erased = 0
        for number in sorted(self.pending):
            segment = self._segment_at(number)
            if segment is None or number < segment.first:
                self.pending.discard(number)
                continue
            sealed = segment.sealed
            try:
                block = decode_block(segment.read(number - segment.first, 1))
            except FileNotFoundError:
                self._not_yet(segment)
                self._report(f"{segment.path} was deleted, with up to so many records", 1)
                self.pending.discard(number)
                continue
            if block.streams or block.frames:
                late = Chunk(number, number + 1)
                late.late = number
                late.streams = block.streams
                if block.frames:
                    self._read_frames(segment, block.frames, [number] * len(block.frames), late)
                found.append(late)
            elif sealed:
                erased += len(block.empty) if not segment.begun else 0
                self._report_missing(segment, number - segment.first, block)
            elif _unwritten(block):
                continue
            self.pending.discard(number)
        self._report_erased(erased)
        return found

    def retirable(self, before: int) -> list[Segment]:
        """The sealed segments that end at or before ``before`` and have no pending slot, oldest first. Never the last
        one. They stay in the chain until their files are deleted: see `drop`."""
        retirable = []
        for segment in self.chain():
            end = segment.end
            if segment.next is None or end > before or not segment.sealed:
                break
            if any(number < end for number in self.pending):
                break
            retirable.append(segment)
        return retirable

    def drop(self, segment: Segment) -> None:
        """Take the chain's first segment, which has been deleted, out of it."""
        if self.head is segment:
            self.head = segment.next

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

    def _without_pending(self, data: Slots, start: int) -> Slots:
        """Slots read again, without those that `read_pending` is going to bring: nothing comes twice."""
        slots = bytearray(data)
        for number in self.pending:
            if 0 <= number - start < len(data) // SLOT_SIZE:
                PACK_SETTLED(slots, (number - start) * SLOT_SIZE, 0, 0, 0.0, VOID, 0, 0, 0.0, VOID)
        return slots

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
        found = segment.frames.read([(offset, length) for offset, length, _, _ in records])
        if not all(found):
            self._not_yet(segment)
        for data, (_, length, _, _), place in zip(found, records, places, strict=True):
            try:
                if len(data) != length:
                    raise ValueError("it is cut, or the slot points nowhere")
                chunk.frames.append(decode_frame(data))
                chunk.places.append(place)
            except ValueError:
                self._report(f"damaged frames beside {segment.path}", 1)

    def _report_missing(self, segment: Segment, index: int, block: Block) -> None:
        """Report what is not there in a block of a sealed segment, read from slot ``index`` on."""
        self._report("damaged records", len(block.damaged))
        self._report_unfinished(len(block.unfinished) + bisect_left(block.empty, segment.begun - index))

    def _report_erased(self, records: int) -> None:
        """A living owner leaves a slot empty where a thread had claimed it when the segment was sealed, and logged
        elsewhere. That many threads there are not."""
        if records > _AHEAD:
            self._report("records that were erased", records)

    def _report_unfinished(self, records: int) -> None:
        self._report("unfinished records (log calls cut short by the end of the process, or damage)", records)

    def _report(self, problem: str, records: int) -> None:
        if records > 0:
            self.problems[problem] = self.problems.get(problem, 0) + records


def _begun(data: Slots) -> Slots:
    """The slots up to the last one that has been begun; what follows is not claimed, or only just."""
    used = begun(data) * SLOT_SIZE
    return data if used == len(data) else data[:used]


def _enough(frames: list[Record], places: list[int]) -> int | None:
    """Before which slot of a block to stop, as the frames up to there are large enough; None: they are not."""
    total = 0
    for (_, length, _, _), place in zip(frames, places, strict=True):
        total += max(length, 0)
        if total > _FRAME_BYTES and place > places[0]:
            return place
    return None


def _unwritten(block: Block) -> list[int]:
    return block.empty + block.unfinished + block.damaged

"""The 64-byte record of the journal: layout, and decoding a block of them. Pure; `FORMAT.md` is the specification.

Every record is written twice, side by side, by one C call, and its second half says where in the file it belongs. A
record is there when its halves are equal but for that, not zero, and in their place: that is commit mark and checksum
in one. Measured on CPython 3.11, packing the five values twice costs the log call about 20 ns, the place 10 ns; a CRC
over them would cost over 100 ns. 64 bytes also never cross a cache line, a sector or a page.

What is read from a file goes through `settle` first. From there on places are zero, as they were in format version 1,
and a record in a wrong place has halves that differ: there is one kind of damage.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import NamedTuple

__all__ = [
    "FRAME",
    "LAST_STREAM",
    "PACK",
    "PACK_AT",
    "PACK_SETTLED",
    "PACK_WHEN",
    "SLOT_SIZE",
    "VOID",
    "Block",
    "PackError",
    "Record",
    "Slots",
    "all_finite",
    "begun",
    "count_streams",
    "decode_block",
    "decode_slot",
    "frame_places",
    "plain_streams",
    "records",
    "settle",
    "shares",
]

SLOT_SIZE = 64
_HALF = SLOT_SIZE // 2
_LAYOUT = struct.Struct("<qqdI4xqqdII")
_FIRST_HALF = struct.Struct("<qqdI36x")
_WHOLE = struct.Struct(f"{SLOT_SIZE}s")

#: ``PACK(file, offset, timestamp, step, value, stream, timestamp, step, value, stream, offset)``: the offset is also
#: the place that the record says it belongs to
PACK = _LAYOUT.pack_into
#: the same in two steps, for several records of one timestamp and step, a sixth cheaper for twenty:
#: ``PACK_WHEN(timestamp, step)``, and ``PACK_AT(file, offset, when, value, stream, when, value, stream, offset)``
PACK_WHEN = struct.Struct("<qq").pack
PACK_AT = struct.Struct("<16sdI4x16sdII").pack_into
#: as in format version 1, and in what `settle` has gone through:
#: ``PACK_SETTLED(buffer, offset, timestamp, step, value, stream, timestamp, step, value, stream)``
PACK_SETTLED = struct.Struct("<qqdI4xqqdI4x").pack_into
#: what they raise for an offset past the end and for a step that does not fit
PackError = struct.error

#: stream numbers with a meaning of their own; 0 is a slot not written yet
VOID = 0xFFFFFFFF
FRAME = 0xFFFFFFFE
LAST_STREAM = 0xFFFFFFFD

_NOT_WRITTEN = 0
#: what stands in a void slot beside its tag
_NOTHING = (0, 0, 0.0)
_SPECIAL = {_NOT_WRITTEN, VOID, FRAME}

#: timestamp (ms), step, value, stream; in a FRAME slot the frame's offset, its length in bytes, 0.0, FRAME
Record = tuple[int, int, float, int]


#: whole records, side by side; nobody changes them
Slots = bytes | bytearray

#: where the slots of a file begin, as far as was needed; and how far that is kept at most, which is 512 KiB
_all_places = memoryview(array("I"))
_MOST_PLACES = 1 << 17


class Block(NamedTuple):
    """What a run of slots holds. Indices count slots from the block's start."""

    streams: dict[int, list[Record]]
    frames: list[Record]
    #: never written (or being written just now)
    empty: list[int]
    #: the first half only: the call that wrote it had not returned when its process died
    unfinished: list[int]
    #: halves that differ: damaged since it was written (or, in a living journal, being written just now)
    damaged: list[int]


def settle(slots: bytearray, at: int) -> None:
    """In whole slots as they were read from offset ``at`` of a file, set the places that are right to zero.

    Slots in which nothing stands, or only a first half, stay as they are; of all others, which are damaged, the halves
    are made to differ.
    """
    used = begun(slots)  # most reads come up to what is not written yet
    words = memoryview(slots).cast("I")[: used * SLOT_SIZE // 4]
    firsts, places = words[7::16], words[15::16]
    right = _places_from(at // SLOT_SIZE, used)
    if places == right:
        places[:] = memoryview(bytes(right.nbytes)).cast("I")
        return
    for index, place in enumerate(right):
        if places[index] == place:
            places[index] = 0
        elif any(slots[index * SLOT_SIZE + _HALF : (index + 1) * SLOT_SIZE]):
            places[index] = firsts[index] ^ 0xFFFFFFFF


def _places_from(first: int, count: int) -> memoryview:
    """The offsets of so many slots. They are kept: making them for each read was 18 ns of some 800 that an event takes
    from the journal into a file."""
    global _all_places
    end = first + count
    if end > _MOST_PLACES:
        return memoryview(array("I", range(first * SLOT_SIZE, end * SLOT_SIZE, SLOT_SIZE)))
    places = _all_places  # once: another thread may replace it at any moment, by fewer too
    if end > len(places):
        # Twice as many as last time, so that a program which logs slowly does not have them made at each look.
        _all_places = places = memoryview(array("I", range(0, SLOT_SIZE << end.bit_length(), SLOT_SIZE)))
    return places[first:end]


def decode_block(block: Slots) -> Block:
    """Sort the records of ``block`` (whole slots) by stream, in order. Nothing but whole, equal records comes out."""
    if not _halves_agree(block):
        return _decode_one_by_one(block)
    streams: dict[int, list[Record]] = {}
    for record in _FIRST_HALF.iter_unpack(block):
        try:
            streams[record[3]].append(record)
        except KeyError:
            streams[record[3]] = [record]
    if any(record[:3] != _NOTHING for record in streams.pop(VOID, ())):
        return _decode_one_by_one(block)  # a block of ones, say
    frames = streams.pop(FRAME, [])
    if any(record[2] for record in frames):
        return _decode_one_by_one(block)
    empty: list[int] = []
    if streams.pop(_NOT_WRITTEN, None):
        empty = _places(block, _NOT_WRITTEN)
        if any(any(_slot(block, index)) for index in empty):
            # A record without a stream of which some other byte is set is damage that has hit both halves alike.
            return _decode_one_by_one(block)
    return Block(streams, frames, empty, [], [])


def frame_places(block: Slots) -> list[int]:
    """Which slots of a block the records in its `Block.frames` stand in."""
    return [index for index in _places(block, FRAME) if decode_slot(_slot(block, index))]


def plain_streams(block: Slots) -> set[int] | None:
    """The stream numbers in a block of nothing but whole points; None where anything else stands in it."""
    if not _halves_agree(block):
        return None
    streams = set(memoryview(block).cast("I")[6::16])
    return None if streams & _SPECIAL else streams


def records(block: Slots) -> Iterator[Record]:
    """The records in a block of nothing but whole points (see `plain_streams`), in order."""
    return _FIRST_HALF.iter_unpack(block)


def shares(block: Slots, owners: Mapping[int, int]) -> dict[int, bytes]:
    """The slots of a block of nothing but points by the owners of their streams, in order; others' are left out."""
    parts: dict[int, list[bytes]] = {owner: [] for owner in owners.values()}
    take = {stream: parts[owner].append for stream, owner in owners.items()}
    for stream, (slot,) in zip(memoryview(block).cast("I")[6::16], _WHOLE.iter_unpack(block), strict=True):
        if stream in take:
            take[stream](slot)
    return {owner: b"".join(slots) for owner, slots in parts.items()}


def all_finite(block: Slots) -> bool:
    """Whether no value in a block of nothing but points is NaN or ±Inf; False, too, where their sum overflows."""
    return isfinite(sum(memoryview(block).cast("d")[2::8]))


def count_streams(block: Slots) -> dict[int, int]:
    """How many points of each stream stand in a block, damaged ones included: an eighth of the price of decoding."""
    counts = Counter(memoryview(block).cast("I")[6::16])
    return {stream: count for stream, count in counts.items() if stream not in _SPECIAL}


def begun(block: Slots) -> int:
    """How many slots of a block come up to the last one that anything stands in. (`bytes.rstrip` takes 3 ns a byte.)"""
    low, high = 0, len(block) // SLOT_SIZE
    if high and any(_slot(block, high - 1)):
        return high
    while low < high:  # everything from `high` on is empty
        middle = (low + high) // 2
        if block[middle * SLOT_SIZE : high * SLOT_SIZE] == bytes((high - middle) * SLOT_SIZE):
            high = middle
        else:
            low = middle + 1
    return high


def decode_slot(slot: Slots) -> Record | None:
    """The record in one slot, VOID ones too; None while it is not (wholly) there."""
    first = slot[:_HALF]
    if first != slot[_HALF:] or not any(first):
        return None
    record: Record = _FIRST_HALF.unpack(slot)
    if (record[3] == VOID and record[:3] != _NOTHING) or (record[3] == FRAME and record[2]):
        return None
    return record if record[3] != _NOT_WRITTEN else None


def _halves_agree(block: Slots) -> bool:
    words = memoryview(block).cast("Q")
    return all(words[field::8] == words[field + 4 :: 8] for field in range(4))


def _decode_one_by_one(block: Slots) -> Block:
    result = Block({}, [], [], [], [])
    for index in range(len(block) // SLOT_SIZE):
        slot = _slot(block, index)
        record = decode_slot(slot)
        if record is None:
            if not any(slot):
                result.empty.append(index)
            elif not any(slot[_HALF:]):
                result.unfinished.append(index)
            else:
                result.damaged.append(index)
        elif record[3] == FRAME:
            result.frames.append(record)
        elif record[3] != VOID:
            result.streams.setdefault(record[3], []).append(record)
    return result


def _places(block: Slots, stream: int) -> list[int]:
    """The slots in which a stream number stands, damaged ones too."""
    return [index for index, number in enumerate(memoryview(block).cast("I")[6::16]) if number == stream]


def _slot(block: Slots, index: int) -> Slots:
    return block[index * SLOT_SIZE : (index + 1) * SLOT_SIZE]

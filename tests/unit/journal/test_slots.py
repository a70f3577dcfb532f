"""The 64 bytes of a record: what is there is read to the last bit, and nothing else is."""

from __future__ import annotations

import math
import struct
import sys
from types import FrameType
from typing import Any

import pytest

from asynctrack.journal import slots
from asynctrack.journal.slots import (
    FRAME,
    LAST_STREAM,
    PACK,
    PACK_SETTLED,
    SLOT_SIZE,
    VOID,
    PackError,
    begun,
    count_streams,
    decode_block,
    decode_slot,
    plain_streams,
    records,
    settle,
)

EMPTY = bytes(SLOT_SIZE)


def slot(timestamp: int, step: int, value: float, stream: int) -> bytes:
    """One record as a log call writes it."""
    buffer = bytearray(SLOT_SIZE)
    PACK_SETTLED(buffer, 0, timestamp, step, value, stream, timestamp, step, value, stream)
    return bytes(buffer)


A = slot(1000, 1, 0.5, 1)
B = slot(1001, 2, 1.5, 2)


def test_a_record_stands_where_the_format_says() -> None:
    """Little-endian, field by field, twice, without gaps other than the four bytes of padding."""
    half = struct.pack("<q", 1000) + struct.pack("<q", -7) + struct.pack("<d", 0.1) + struct.pack("<I", 9) + bytes(4)
    assert slot(1000, -7, 0.1, 9) == half + half


@pytest.mark.parametrize("value", [0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
def test_every_value_comes_back_to_the_last_bit(value: float) -> None:
    """Signs of zero, infinities and denormals too."""
    for step in (-(2**63), -1, 0, 2**63 - 1):
        record = decode_slot(slot(2**63 - 1, step, value, LAST_STREAM))
        assert record is not None
        assert record[:2] == (2**63 - 1, step)
        assert struct.pack("<d", record[2]) == struct.pack("<d", value)


def test_nan_is_a_value_with_all_its_bits() -> None:
    """A NaN's payload is kept; only a reader that compares values could take it for damage."""
    bits = struct.pack("<Q", 0x7FF800000000BEEF)
    (value,) = struct.unpack("<d", bits)
    record = decode_slot(slot(1, 2, value, 3))
    assert record is not None
    assert struct.pack("<d", record[2]) == bits


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_a_step_of_more_than_64_bits_is_an_error(step: int) -> None:
    """It is never cut to fit."""
    with pytest.raises(PackError):
        slot(0, step, 0.0, 1)


def test_a_slot_past_the_end_is_an_error() -> None:
    """That is how a log call learns that its segment is full."""
    with pytest.raises(PackError):
        PACK_SETTLED(bytearray(SLOT_SIZE), SLOT_SIZE, 0, 0, 0.0, 1, 0, 0, 0.0, 1)


@pytest.mark.parametrize("at", range(SLOT_SIZE))
def test_no_changed_byte_gives_a_record(at: int) -> None:
    """Wherever it is: the two halves differ then."""
    for mask in (1, 0x80, 0xFF):
        changed = bytearray(A)
        changed[at] ^= mask
        assert decode_slot(bytes(changed)) is None
        assert decode_block(bytes(changed)).damaged == [0]
        assert plain_streams(bytes(changed)) is None


@pytest.mark.parametrize("length", range(1, SLOT_SIZE))
def test_a_record_written_in_part_gives_no_record(length: int) -> None:
    """Up to the middle it is an unfinished call; from there on the halves differ, until nothing is missing."""
    part = A[:length].ljust(SLOT_SIZE, b"\0")
    block = decode_block(part)
    if part == A:
        assert block.streams == {1: [(1000, 1, 0.5, 1)]}
    else:
        assert not block.streams
        assert len(block.empty + block.unfinished + block.damaged) == 1


def test_every_slot_of_a_mixed_block_is_told_apart() -> None:
    """Points by stream and in order, frames, and what is not there, by its place."""
    unfinished = A[:32] + bytes(32)
    damaged = A[:40] + b"\xff" + A[41:]
    block = decode_block(A + slot(70, 30, 0.0, FRAME) + EMPTY + B + slot(0, 0, 0.0, VOID) + unfinished + damaged + A)
    assert block.streams == {1: [(1000, 1, 0.5, 1)] * 2, 2: [(1001, 2, 1.5, 2)]}
    assert block.frames == [(70, 30, 0.0, FRAME)]
    assert (block.empty, block.unfinished, block.damaged) == ([2], [5], [6])


def test_a_record_without_a_stream_is_damage() -> None:
    """Both halves alike and not zero, but stream 0: an accident has hit the same byte of both."""
    both = bytearray(EMPTY)
    both[3] = both[35] = 1
    assert decode_block(bytes(both)).damaged == [0]
    assert decode_block(A + EMPTY).empty == [1]


def placed(at: int, stream: int = 1) -> bytes:
    """One record as a log call writes it at an offset."""
    buffer = bytearray(at + SLOT_SIZE)
    PACK(buffer, at, 1000, 1, 0.5, stream, 1000, 1, 0.5, stream, at)
    return bytes(buffer[at:])


def settled(data: bytes, at: int) -> bytearray:
    """What `settle` makes of records read from an offset."""
    slots = bytearray(data)
    settle(slots, at)
    return slots


def test_a_record_says_where_in_the_file_it_belongs() -> None:
    """In the last four bytes of its slot. Read where it belongs, it has none."""
    assert placed(128) == A[:60] + (128).to_bytes(4, "little")
    assert settled(placed(128) + placed(192, 2), 128) == A + slot(1000, 1, 0.5, 2)


def test_records_in_a_wrong_place_are_damage_and_all_others_what_they_are() -> None:
    """Also those that came from a file of an older format, and blocks of ones; what is empty or unfinished stays so."""
    unfinished = placed(384)[:32] + bytes(32)
    data = placed(128) + placed(128) + EMPTY + A + unfinished + b"\xff" * SLOT_SIZE + placed(512)
    block = decode_block(settled(data, 128))
    assert block.streams == {1: [(1000, 1, 0.5, 1)] * 2}
    assert (block.empty, block.unfinished, block.damaged) == ([2], [4], [1, 3, 5])
    assert settled(b"", 128) == b""


@pytest.mark.parametrize("at", range(SLOT_SIZE))
def test_no_changed_byte_of_a_record_in_its_place_gives_a_record(at: int) -> None:
    for mask in (1, 0x80, 0xFF):
        changed = bytearray(placed(128))
        changed[at] ^= mask
        assert decode_block(settled(bytes(changed), 128)).damaged == [0]


def block_at(first: int, count: int) -> bytearray:
    """So many points, as log calls write them from slot ``first`` of a file on."""
    block = bytearray(count * SLOT_SIZE)
    for index in range(count):
        PACK(block, index * SLOT_SIZE, 7, index, 0.5, 1, 7, index, 0.5, 1, (first + index) * SLOT_SIZE)
    return block


@pytest.mark.parametrize("line", range(12))
@pytest.mark.parametrize(("mine", "other"), [(100, 3000), (3000, 100)])
def test_two_threads_that_read_at_once_find_every_record(
    line: int, mine: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_all_places", slots._all_places[:0])
    lines: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_name != "_places_from":
            return None
        lines.append(frame.f_lineno)
        if len(lines) == line + 1:
            settle(block_at(2, other), 2 * SLOT_SIZE)  # here the other thread has its turn
        return trace

    block = block_at(2, mine)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        settle(block, 2 * SLOT_SIZE)
    finally:
        sys.settrace(before)
    for read in (block, block_at(2, 3000), block_at(2900, 500)):
        if read is not block:
            settle(read, (2 if len(read) == 3000 * SLOT_SIZE else 2900) * SLOT_SIZE)
        assert decode_block(read).damaged == []


def test_places_are_not_made_anew_for_each_read_of_a_quiet_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_all_places", slots._all_places[:0])
    made = set()
    for count in range(1, 2000):
        settle(block_at(2 + count, 1), (2 + count) * SLOT_SIZE)
        made.add(len(slots._all_places))
    assert len(made) < 16


def test_places_of_a_very_large_segment_are_right_and_not_kept() -> None:
    for first in ((1 << 17) - 3, 1 << 24):
        block = block_at(first, 5)
        settle(block, first * SLOT_SIZE)
        assert decode_block(block).damaged == []
    assert len(slots._all_places) <= 1 << 17


def test_a_void_slot_or_a_frame_with_anything_in_it_that_does_not_belong_there_is_damage() -> None:
    for wrong in (slot(1, 0, 0.0, VOID), slot(0, 1, 0.0, VOID), slot(0, 0, 1.0, VOID), slot(7, 9, 1.0, FRAME)):
        assert decode_slot(wrong) is None
        assert decode_block(A + wrong + A).damaged == [1]


def test_only_a_block_of_nothing_but_points_is_plain() -> None:
    """It goes to the store undecoded, so nothing else may stand in it."""
    assert plain_streams(A + B + A) == {1, 2}
    assert list(records(A + B)) == [(1000, 1, 0.5, 1), (1001, 2, 1.5, 2)]
    for other in (EMPTY, slot(0, 0, 0.0, VOID), slot(0, 0, 0.0, FRAME), A[:32] + bytes(32)):
        assert plain_streams(A + other) is None
    assert plain_streams(b"") == set()


def test_counting_leaves_out_what_is_no_point() -> None:
    """Empty and void slots and frames are no points of any metric."""
    block = A + B + A + EMPTY + slot(0, 0, 0.0, VOID) + slot(0, 9, 0.0, FRAME)
    assert count_streams(block) == {1: 2, 2: 1}


@pytest.mark.parametrize("used", [0, 1, 2, 63, 64, 65, 1000])
@pytest.mark.parametrize("unused", [0, 1, 5, 4096])
def test_begun_counts_up_to_the_last_slot_that_anything_stands_in(used: int, unused: int) -> None:
    """Holes before it count, a single byte of it is enough."""
    slots = b"\x01".rjust(used * SLOT_SIZE, b"\0") if used else b""
    assert begun(slots + bytes(unused * SLOT_SIZE)) == used

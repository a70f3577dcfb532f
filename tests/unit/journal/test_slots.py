"""The 64 bytes of a record: what is there is read to the last bit, and nothing else is."""

from __future__ import annotations

import math
import struct

import pytest

from asynctrack.journal.slots import (
    FRAME,
    LAST_STREAM,
    PACK,
    SLOT_SIZE,
    VOID,
    PackError,
    begun,
    count_streams,
    decode_block,
    decode_slot,
    plain_streams,
    records,
)

EMPTY = bytes(SLOT_SIZE)


def slot(timestamp: int, step: int, value: float, stream: int) -> bytes:
    """One record as a log call writes it."""
    buffer = bytearray(SLOT_SIZE)
    PACK(buffer, 0, timestamp, step, value, stream, timestamp, step, value, stream)
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
        PACK(bytearray(SLOT_SIZE), SLOT_SIZE, 0, 0, 0.0, 1, 0, 0, 0.0, 1)


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

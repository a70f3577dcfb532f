"""The header of a segment file: which slots it holds, whether it is sealed, and how many of them were used.

It stands there twice, each copy with its CRC, so that one damaged byte does not cost the segment. `FORMAT.md` is the
specification.
"""

from __future__ import annotations

import struct
import time
import zlib
from typing import NamedTuple

from asynctrack.journal.slots import SLOT_SIZE

__all__ = ["HEADER_SIZE", "Header", "UnknownFormatError", "encode_header", "is_sealed", "seal_marks", "used_marks"]

_MAGIC = b"ATRKSLOT"
_VERSION = 3
_READABLE = (1, 2, _VERSION)
_FIELDS = struct.Struct("<8sIIQQQI")  # magic, version, slot size, first sequence number, slots, created ms, CRC-32
_COPY_SIZE = 64
_USED_AT = 44
_USED = struct.Struct("<II")  # how many slots were used at least, and the complement of that
_SEALED_AT = 60
_SEALED_MARK = 0x5EA1ED01

_SEALED = struct.pack("<I", _SEALED_MARK)

#: two copies: as much as two slots
HEADER_SIZE = 2 * _COPY_SIZE


class UnknownFormatError(ValueError):
    """A newer asynctrack has written it: it is not damaged, and is left as it is."""


class Header(NamedTuple):
    """Slots ``first`` … ``first + capacity - 1``."""

    version: int
    first: int
    capacity: int
    #: slots that were used at least: an empty one among them has been lost
    used: int = 0

    @classmethod
    def decode(cls, data: bytes, path: str) -> Header:
        """The header that a file begins with. Raises ValueError where it is damaged, and
        UnknownFormatError where it is of a version to come."""
        for copy in range(2):
            fields = data[copy * _COPY_SIZE : copy * _COPY_SIZE + _FIELDS.size]
            if len(fields) < _FIELDS.size or zlib.crc32(fields[:-4]) != int.from_bytes(fields[-4:], "little"):
                continue
            magic, version, slot_size, first, capacity, _, _ = _FIELDS.unpack(fields)
            if magic != _MAGIC or version not in _READABLE or slot_size != SLOT_SIZE:
                raise UnknownFormatError(
                    f"{path}: journal format {version} is not known here; read it with a newer asynctrack"
                )
            return cls(version, first, capacity, min(_used(data), capacity))
        raise ValueError(f"{path}: both copies of the segment's header are damaged")


def encode_header(first: int, capacity: int) -> bytes:
    """The header of a new segment."""
    fields = _FIELDS.pack(_MAGIC, _VERSION, SLOT_SIZE, first, capacity, time.time_ns() // 1_000_000, 0)
    fields = fields[:-4] + zlib.crc32(fields[:-4]).to_bytes(4, "little")
    return fields.ljust(_COPY_SIZE, b"\0") * 2


def used_marks(used: int) -> list[tuple[int, bytes]]:
    """What is written, and where, to note how many slots were used. One copy after the other: whenever the process
    dies, one of them holds."""
    return [(copy * _COPY_SIZE + _USED_AT, _USED.pack(used, used ^ 0xFFFFFFFF)) for copy in range(2)]


def _used(data: bytes) -> int:
    counts = (
        [_USED.unpack_from(data, copy * _COPY_SIZE + _USED_AT) for copy in range(2)] if len(data) >= HEADER_SIZE else []
    )
    return max((used for used, check in counts if used ^ check == 0xFFFFFFFF), default=0)


def seal_marks(used: int) -> list[tuple[int, bytes]]:
    """What is written, and where, once a segment is sealed of which ``used`` slots were used."""
    mark = (_USED.pack(used, used ^ 0xFFFFFFFF) + bytes(_SEALED_AT - _USED_AT - _USED.size)) + _SEALED
    return [(copy * _COPY_SIZE + _USED_AT, mark) for copy in range(2)]


def is_sealed(data: bytes) -> bool:
    """Whether the header that a file begins with carries the mark, in either copy."""
    places = [copy * _COPY_SIZE + _SEALED_AT for copy in range(2)]
    return any(data[at : at + len(_SEALED)] == _SEALED for at in places)

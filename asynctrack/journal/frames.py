"""Variable-length entries: msgpack behind a magic, a length and a CRC-32. `FORMAT.md` is the specification."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from typing import Any

import msgpack

from asynctrack.journal.disk import new_file, write_all

__all__ = ["FrameFile", "decode_frame", "encode_frame", "scan_frames"]

_MAGIC = b"\xa7FRM"
_HEADER = struct.Struct("<4sII")  # magic, payload bytes, CRC-32 of the payload


def encode_frame(entry: Any) -> bytes:
    """One entry as bytes. Raises TypeError or ValueError for what msgpack cannot hold."""
    payload: bytes = msgpack.packb(entry, use_bin_type=True, unicode_errors="surrogatepass")
    return _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def decode_frame(data: bytes) -> Any:
    """The entry that ``data`` starts with. Raises ValueError where the frame is cut or damaged."""
    if len(data) < _HEADER.size:
        raise ValueError("the frame is cut in its header")
    magic, length, checksum = _HEADER.unpack_from(data)
    payload = data[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(payload) != length or zlib.crc32(payload) != checksum:
        raise ValueError("the frame is cut or damaged")
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, unicode_errors="surrogatepass")


def scan_frames(data: bytes, start: int = 0) -> tuple[list[Any], int, int]:
    """Every whole frame from ``start``: the entries, the offset behind the last whole one, and how many stretches
    of bytes in between are no frame (damage; a cut or unfinished last frame does not count)."""
    entries: list[Any] = []
    damaged = 0
    offset = end = start
    while (found := data.find(_MAGIC, offset)) >= 0:
        try:
            entry = decode_frame(data[found : found + _frame_size(data, found)])
        except ValueError:
            offset = found + 1  # the magic may stand in a payload, or its frame is damaged: look for the next one
            continue
        damaged += found > end
        entries.append(entry)
        offset = end = found + _frame_size(data, found)
    return entries, end, damaged


def _frame_size(data: bytes, offset: int) -> int:
    if len(data) - offset < _HEADER.size:
        return _HEADER.size
    return int(_HEADER.size + _HEADER.unpack_from(data, offset)[1])


class FrameFile:
    """Frames appended to one file (``path=None``: in memory).

    Appending is safe from any thread and from a signal handler; reading too.
    """

    def __init__(self, path: str | None, *, create: bool, writable: bool = False) -> None:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        self._fd = new_file(path) if create or path is None else os.open(path, flags)
        self._end = 0 if create else self.size()
        # Re-entrant: a signal handler may log a param while this very thread is inside append().
        self._lock = threading.RLock()

    def append(self, frame: bytes) -> int:
        """Write one encoded frame and return its offset. Raises OSError; nothing points at what was written then."""
        length = len(frame)
        with self._lock:
            # No call stands between these two: a signal handler that appends cannot be given the same place.
            offset = self._end
            self._end = offset + length
            write_all(self._fd, frame, offset)
        return offset

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; none where there are none."""
        return os.pread(self._fd, length, offset)

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Hand the frames to the disk itself. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        # Not while another thread is appending, whose frame would go into whatever file gets the number next. A thread
        # that a signal handler has stopped there for good keeps the file open.
        if not self._lock.acquire(timeout=1.0):
            return
        try:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
        finally:
            self._lock.release()

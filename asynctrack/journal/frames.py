"""Variable-length entries: msgpack behind a magic, a length and a CRC-32. `FORMAT.md` is the specification."""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from typing import Any

import msgpack

from asynctrack.journal.disk import new_file, write_all
from asynctrack.journal.opening import Descriptor, open_regular, reopened

__all__ = ["FrameFile", "FramesBeside", "decode_frame", "encode_frame", "scan_frames"]

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
        """Raises OSError, and ValueError where there is something at ``path`` that is no file."""
        flags = os.O_RDWR if writable else os.O_RDONLY
        fd = new_file(path) if create or path is None else open_regular(path, flags)
        self._descriptor: Descriptor | None = Descriptor(fd)
        #: where it is now; and how it was opened
        self.path, self._flags = path, os.O_RDWR if create else flags
        self._end = 0 if create else self.size()
        # Re-entrant: a signal handler may log a param while this very thread is inside append().
        self._lock = threading.RLock()

    def append(self, frame: bytes) -> int:
        """Write one encoded frame and return its offset. Raises OSError; nothing points at what was written then."""
        length = len(frame)
        with self._lock:
            descriptor = self._opened()
            # No call stands between these two: a signal handler that appends cannot be given the same place.
            offset = self._end
            self._end = offset + length
            try:
                write_all(descriptor.fd, frame, offset)
            except OSError:
                # The place is given to the next frame, unless one stands behind it already: a signal handler's.
                if self._end == offset + length:
                    self._end = offset
                raise
        return offset

    def restart(self, frame: bytes) -> None:
        """Have one encoded frame alone, written over what is there: that takes no new room on the disk where so much
        was in use. For a file that nobody else appends to. Raises OSError."""
        descriptor = self._opened()
        write_all(descriptor.fd, frame, 0)
        os.ftruncate(descriptor.fd, len(frame))
        self._end = len(frame)

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; none where there are none, or so many cannot be there. Raises
        OSError."""
        descriptor = self._opened()
        # Both may come from a file: no more memory is asked for than there are bytes.
        there = descriptor.size() - offset
        if offset < 0 or length <= 0 or there <= 0:
            return b""
        return descriptor.read(min(length, there), offset)

    def size(self) -> int:
        """Bytes in the file. Raises OSError."""
        return self._opened().size()

    def sync(self) -> None:
        """Hand the frames to the disk itself. Raises OSError."""
        self._opened().sync()

    def forget(self) -> None:
        """In a forked child: `close`."""
        self._lock = threading.RLock()
        self.close()

    def close(self) -> None:
        """Let go of the file. A thread that is reading or appending just now comes to its end."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            descriptor.is_ours  # noqa: B018  # else it is not closed

    @property
    def closed(self) -> bool:
        """Whether it was let go of."""
        return self._descriptor is None

    def _opened(self) -> Descriptor:
        descriptor = self._descriptor
        if descriptor is None:
            raise OSError(errno.EBADF, "the file of frames is closed")
        if not descriptor.is_ours:
            descriptor = self._descriptor = reopened(descriptor, self.path, self._flags)
        return descriptor


class FramesBeside:
    """The frames that a segment's slots point at: a file that is made for the first of them. Any thread and any signal
    handler may call."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._file: FrameFile | None = None
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        """Whether there are any, or were to be."""
        return self._file is not None

    def append(self, frame: bytes) -> int:
        """Write one encoded frame and return its offset. Raises OSError."""
        file = self._file
        if file is None:
            with self._lock:
                file = self._file
                if file is None:
                    made = self._make()
                    # No call stands between these two: a signal handler that logs in this very thread, while the
                    # file is being made, has either set it before or finds it.
                    if self._file is None:
                        self._file = made
                    file = self._file
                    if file is not made:
                        made.close()
        return file.append(frame)

    def _make(self) -> FrameFile:
        try:
            return FrameFile(self.path, create=True)
        except FileExistsError:
            # Made a moment ago by the call that this one interrupts.
            return FrameFile(self.path, create=False, writable=True)

    def read(self, places: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of some frames, by offset and length; fewer, or none, where the file is cut or gone. Raises
        OSError."""
        file = self._file
        if (file is None or file.closed) and self.path is None:
            return [b""] * len(places)
        if file is None or file.closed:
            try:
                file = FrameFile(self.path, create=False)
            except (FileNotFoundError, ValueError):
                return [b""] * len(places)
        return [file.read(*place) for place in places]

    def size(self) -> int:
        """Bytes that they take. Raises OSError."""
        return 0 if self._file is None else self._reopened(self._file).size()

    def sync(self) -> None:
        """Hand them to the disk itself. Raises OSError."""
        if self._file is not None:
            try:
                self._reopened(self._file).sync()
            except FileNotFoundError:
                pass  # deleted: nothing of it is to survive

    def _reopened(self, file: FrameFile) -> FrameFile:
        return FrameFile(self.path, create=False) if file.closed else file

    def rest(self) -> None:
        """Close the file until it is used again: nothing is appended any more."""
        if self._file is not None:
            self._file.close()

    def forget(self) -> None:
        """In a forked child: `close`, without waiting for a thread that only the parent has."""
        self._lock = threading.RLock()
        if self._file is not None:
            self._file.forget()
            self._file = None

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

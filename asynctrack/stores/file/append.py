"""Appending to a metric file: each point once, no line torn, beside other writers.

The lock is on the file, so whoever holds it may take a last line without newline for a dead writer's. Such a fragment
is completed where it begins the first line that this batch still has to write, which is what an append of our own
leaves when it was cut short; any other is cut off, because its owner's journal still has the point and MLflow
cannot read a torn line with another behind it.
"""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

from asynctrack.stores.file.files import (
    LinksUnsupportedError,
    create_whole,
    locked,
    make_folder,
    open_regular,
    unavailable,
    write_all,
)
from asynctrack.stores.file.lines import WINDOW, Block, Identity, encode, identity, is_canonical, parse_lines

__all__ = ["Behind", "Tail", "append", "whole_size"]

logger = logging.getLogger("asynctrack")

#: bytes that hold WINDOW of our lines: 13 to 20 digits, a 25-character value, up to 20 digits
_WINDOW_BYTES = WINDOW * 64
_BLOCK = 1 << 20  # bytes read at once
_LONGEST_LINE = 65536  # bytes; whatever is longer is no point
_NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)
_APPEND = os.O_RDWR | os.O_APPEND | _NOT_A_LINK


class Behind:
    """Every point of a metric file behind a mark, as far as the file has been read.

    A mark may stay for many batches: where a cursor is damaged it is the file's beginning, for all of a spool. Each
    batch then reads what has come since the one before, and not the whole file.
    """

    def __init__(self, mark: int, size: int) -> None:
        self.mark = mark
        #: bytes: where the first line begins that has not been read whole. As many points before the mark are read,
        #: too, as are compared without one
        self.read_to = max(0, min(mark, size) - _WINDOW_BYTES)
        #: the first line read is cut by our offset unless a newline stands right before it
        self._is_cut = self.read_to > 0
        self.seen: set[Identity] = set()
        #: the last ones, at most WINDOW
        self.recent: list[tuple[int, int, float]] = []

    def fits(self, mark: int, size: int) -> bool:
        """Whether it can say what is behind ``mark`` in a file of ``size`` bytes."""
        return self.mark == mark and self.read_to <= size

    def read(self, fd: int, size: int) -> bytes:
        """Read on, to ``size``. What follows the last newline, or its first 64 KiB. Raises OSError."""
        rest = b""
        at = self.read_to
        while at < size and (data := os.pread(fd, min(_BLOCK, size - at), at)):
            at += len(data)
            end = data.rfind(b"\n") + 1
            if not end:
                rest = (rest + data)[:_LONGEST_LINE]
                continue
            lines = rest + data[:end]
            if self._is_cut or len(rest) == _LONGEST_LINE:
                lines = data[data.find(b"\n") + 1 : end]
                self._is_cut = False
            points = parse_lines(lines)[0]
            self.seen.update(identity(*point) for point in points)
            self.recent = [*self.recent, *points][-WINDOW:]
            self.read_to = at - len(data) + end
            rest = data[end:]
        return rest


class Tail(NamedTuple):
    """What we know of a metric file since our last append."""

    #: bytes
    size: int
    #: the last lines, at most WINDOW, in our spelling
    recent: list[str]
    #: see `is_canonical`
    canonical: bool
    #: where that append was to look behind a mark
    behind: Behind | None = None

    @classmethod
    def of(
        cls, size: int, before: list[str], lines: list[str], *, canonical: bool, behind: Behind | None = None
    ) -> Tail:
        """Behind ``lines``, with those ``before`` them; ``canonical`` where both are known to be."""
        recent = lines[-WINDOW:] if len(lines) >= WINDOW else [*before, *lines][-WINDOW:]
        return cls(size, recent, canonical or is_canonical("".join(recent).encode()), behind)


def append(path: str, block: Block, folder: str, tail: Tail | None = None, mark: int | None = None) -> Tail:
    """Append the points of ``block`` that are not among the file's last 256 lines, nor behind ``mark``.

    ``folder``, in the same file system, is for a temporary file; ``mark`` is the size (bytes) the file had before an
    earlier attempt whose outcome is unknown. ``tail`` is what the last append returned. Raises `UnavailableError`
    with the file as it was, or OSError of `KEY_ERRORS`.
    """
    while True:
        fd = _open(path, block, folder)
        if fd is None:
            return Tail.of(len(block.data), [], block.lines, canonical=block.canonical)
        try:
            with locked(fd, path):
                about = os.fstat(fd)
                if about.st_nlink:
                    return _append_locked(fd, path, about.st_size, block, tail, mark)
                # A first writer failed and took its empty file away between our open and our lock: begin again.
        finally:
            os.close(fd)


def _open(path: str, block: Block, folder: str) -> int | None:
    """The file, open; None when there was none and it now exists, whole."""
    flags = _APPEND
    while True:
        try:
            return open_regular(path, flags)
        except FileNotFoundError:
            make_folder(path, folder)
        try:
            # An empty metric file makes MLflow fail the whole experiment, so ours appears with its first lines.
            if create_whole(path, block.data, folder):
                return None
        except LinksUnsupportedError:
            flags |= os.O_CREAT


def _append_locked(fd: int, path: str, size: int, block: Block, tail: Tail | None, mark: int | None) -> Tail:
    behind = None
    if tail is not None and tail.size == size and mark is None:
        recent, canonical, fragment = tail.recent, tail.canonical, b""
        lines = block.without_lines(recent, canonical=canonical)
        whole = size
    else:
        known = Behind(size if mark is None else mark, size)
        if mark is not None:
            known = behind = tail.behind if tail and tail.behind and tail.behind.fits(mark, size) else known
        fragment, whole = known.read(fd, size), known.read_to
        lines = block.without(known.seen)
        # Others may spell the same point otherwise, and the next append compares texts.
        recent, canonical = encode(known.recent), False
    data = block.data if lines is block.lines else "".join(lines).encode()
    if whole < size and (mark is None or len(fragment) < size - whole or not data.startswith(fragment)):
        _cut(fd, path, whole, fragment[:200])
        size = whole
    _write(fd, path, size, data[size - whole :])
    return Tail.of(whole + len(data), recent, lines, canonical=canonical and block.canonical, behind=behind)


def _read(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _cut(fd: int, path: str, size: int, fragment: bytes) -> None:
    logger.warning(
        "%s ended in a torn line, %r: cut off. A writer died within it; its own spool still has the point",
        path,
        fragment,
    )
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise unavailable(error, path) from error


def _write(fd: int, path: str, size: int, data: bytes) -> None:
    """Write at the end, or leave the file at ``size`` as it is: the lock makes every byte behind it ours."""
    try:
        write_all(fd, data)
    except OSError as error:
        failure = unavailable(error, path)
        try:
            if size:
                os.ftruncate(fd, size)
            else:
                os.unlink(path)  # an empty metric file makes MLflow fail the whole experiment
        except OSError:
            failure.ambiguous = True
        raise failure from error


def whole_size(path: str) -> int:
    """How many bytes of a metric file are whole lines; 0 where there is no such file. Raises OSError.

    A fragment behind them is not counted, because a later append may cut it off and would begin before the mark.
    """
    try:
        fd = open_regular(path, os.O_RDONLY | _NOT_A_LINK)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        size = os.fstat(fd).st_size
        step = _WINDOW_BYTES
        end = size
        while end:
            start = max(0, end - step)
            newline = _read(fd, start, end).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0
    finally:
        os.close(fd)

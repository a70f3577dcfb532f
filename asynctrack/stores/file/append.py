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
    unavailable,
    write_all,
)
from asynctrack.stores.file.lines import WINDOW, Block, encode, identity, is_canonical, parse_lines

__all__ = ["Tail", "append", "whole_size"]

logger = logging.getLogger("asynctrack")

#: bytes that hold WINDOW of our lines: 13 to 20 digits, a 25-character value, up to 20 digits
_WINDOW_BYTES = WINDOW * 64
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Tail(NamedTuple):
    """What we know of a metric file since our last append."""

    #: bytes
    size: int
    #: the last lines, at most WINDOW, in our spelling
    recent: list[str]
    #: see `is_canonical`
    canonical: bool

    @classmethod
    def of(cls, size: int, before: list[str], lines: list[str], *, canonical: bool) -> Tail:
        """Behind ``lines``, with those ``before`` them; ``canonical`` where both are known to be."""
        recent = lines[-WINDOW:] if len(lines) >= WINDOW else [*before, *lines][-WINDOW:]
        return cls(size, recent, canonical or is_canonical("".join(recent).encode("ascii")))


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
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            make_folder(path, folder)
        try:
            # An empty metric file makes MLflow fail the whole experiment, so ours appears with its first lines.
            if create_whole(path, block.data, folder):
                return None
        except LinksUnsupportedError:
            flags |= os.O_CREAT


def _append_locked(fd: int, path: str, size: int, block: Block, tail: Tail | None, mark: int | None) -> Tail:
    if tail is not None and tail.size == size and mark is None:
        recent, canonical, fragment = tail.recent, tail.canonical, b""
        lines = block.without_lines(recent, canonical=canonical)
    else:
        found, fragment = _read_tail(fd, size, size if mark is None else min(mark, size))
        points = parse_lines(found)[0]
        lines = block.without({identity(*point) for point in points})
        # Others may spell the same point otherwise, and the next append compares texts.
        recent, canonical = encode(points[-WINDOW:]), False
    data = block.data if lines is block.lines else "".join(lines).encode("ascii")
    if fragment and (mark is None or not data.startswith(fragment) or b"\n" in fragment):
        _cut(fd, path, size - len(fragment), fragment)
        size, fragment = size - len(fragment), b""
    _write(fd, path, size, data[len(fragment) :])
    return Tail.of(size - len(fragment) + len(data), recent, lines, canonical=canonical and block.canonical)


def _read_tail(fd: int, size: int, since: int) -> tuple[bytes, bytes]:
    """The whole lines from WINDOW lines before ``since`` to the end, and what follows the last newline."""
    start = max(0, since - _WINDOW_BYTES)
    data = _read(fd, start, size)
    if start:
        # The first line read is cut by our offset unless a newline stands right before it.
        data = data[data.find(b"\n") + 1 :]
    whole = data.rfind(b"\n") + 1
    return data[:whole], data[whole:]


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
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
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

"""Metric files as columns: the new lines of a file, many at a time, by NumPy where that pays."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from asynctrack.stores.columns import Columns
from asynctrack.stores.file.files import LONGEST_LINE, NO_POINT
from asynctrack.stores.file.lines import parse_lines
from asynctrack.stores.file.quick import is_exact, quick_columns

__all__ = ["columns_of", "new_lines", "pays"]

_BLOCK = 1 << 20  # bytes read at once
#: bytes from which on the 0.2 s are well spent in which NumPy is loaded
_MANY = 2 << 20
#: bytes that Python has parsed by the time NumPy would have begun
_FEW = 16 << 10
_MOST = 1 << 63
#: what numbers are written with; with anything else among them, lines are taken one by one
_NUMBERS = b"0123456789.-+einfa"


class _Parsed:
    """Bytes that this process has parsed: from many small files, it may come to much."""

    so_far = 0


def pays(size: int) -> bool:
    """Whether to parse so many bytes by NumPy. It is loaded for that, where it is installed."""
    _Parsed.so_far += size
    if size < _FEW or (_Parsed.so_far < _MANY and "numpy" not in sys.modules):
        return False
    try:
        return is_exact()
    except ImportError:
        return False


def new_lines(fd: int, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The whole lines between two offsets of a file, of which the first is a line's beginning: many at a time, in flat
    memory, and with each block the offset behind it. What follows the last newline is left out, as its writer may be
    about to write the rest; a line too long for a point comes as one that is none. Raises OSError."""
    rest = b""
    while start < end and (data := os.pread(fd, min(_BLOCK, end - start), start)):
        whole = data.rfind(b"\n") + 1
        if whole:
            start += whole  # what follows is read again, which is less work than to put it before the next block
            yield (rest + data[:whole] if rest else data[:whole]), start
            rest = b""
        else:
            start += len(data)
            rest = rest + data if len(rest) + len(data) <= LONGEST_LINE else NO_POINT


def columns_of(data: bytes, quick: bool) -> tuple[Columns, int]:
    """The points of whole lines, and the number of lines that are none, or none that columns can hold: a step or a time
    that is no 64-bit integer. ``quick``: by NumPy, if it can read them."""
    found = quick_columns(data) if quick else None
    if found is None:
        return _plainly(data)
    columns, odd = found
    missing = []
    together, damaged = _plainly(b"".join(line + b"\n" for _, line in odd))
    if not damaged:
        for row, (at, _) in enumerate(odd):
            _put(columns, at, together, row)
        return columns, 0
    for at, line in odd:
        one, damaged = _by_line(line + b"\n")
        if damaged:
            missing.append(at)
        else:
            _put(columns, at, one, 0)
    if missing:
        left_out = set(missing)
        columns = columns.at([at for at in range(len(columns)) if at not in left_out])
    return columns, len(missing)


def _put(columns: Columns, at: int, others: Columns, row: int) -> None:
    columns.steps[at], columns.times[at], columns.values[at] = others.steps[row], others.times[row], others.values[row]


def _plainly(data: bytes) -> tuple[Columns, int]:
    lines = data.count(b"\n")
    # The layout is looked at before the lines are taken apart, all at once: a line is two spaces and a newline.
    if data.translate(None, _NUMBERS) == b"  \n" * lines:
        fields = data.split()
        if len(fields) == 3 * lines:
            try:
                return Columns(map(int, fields[2::3]), map(int, fields[::3]), map(float, fields[1::3])), 0
            except (ValueError, OverflowError):
                pass  # one of them is no number, or too large
    return _by_line(data)


def _by_line(data: bytes) -> tuple[Columns, int]:
    points, damaged = parse_lines(data)
    kept = [point for point in points if -_MOST <= point[0] < _MOST and -_MOST <= point[1] < _MOST]
    columns = Columns((step for _, step, _ in kept), (time for time, _, _ in kept), (value for *_, value in kept))
    return columns, damaged + len(points) - len(kept)

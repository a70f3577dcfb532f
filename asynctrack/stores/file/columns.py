"""Reading a run's metric files as columns: all of them, or only what has been appended since an earlier reading.

A cursor knows, by key, how far a file was read: its inode, the offset behind the last whole line, when the file was
changed, and a checksum of the bytes before the offset. A file that is another one by these, or was written anew, is
read from its beginning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from zlib import crc32

from asynctrack.stores.columns import Columns, Increment, check_steps, increment, known_marks
from asynctrack.stores.file import layout
from asynctrack.stores.file.entries import can_be_key, keys_below, open_file
from asynctrack.stores.file.files import NO_POINT
from asynctrack.stores.file.parsing import columns_of, new_lines, pays
from asynctrack.stores.file.tree import Tree

__all__ = ["Mark", "Reading", "is_settled", "read_columns", "reading"]

#: bytes before the offset whose checksum the cursor has
_CHECKED = 256
#: inode, offset, st_mtime_ns (0 if that was just now), checksum
Mark = list[int]
#: ns: what was written this recently may be written again within one tick of the file system's clock
_RACY = 2_000_000_000
#: bound here, so that a test which freezes the time does not make young files old
_now_ns = partial(time.time_ns)


def is_settled(about: os.stat_result) -> bool:
    """Whether a file that is changed from now on will have another stat."""
    return _now_ns() - max(about.st_mtime_ns, about.st_ctime_ns) >= _RACY


class Reading:
    """A metric file that is open, and is read on from a mark, or from its beginning."""

    def __init__(self, tree: Tree, path: str, fd: int, mark: Mark | None) -> None:
        self._tree, self._path, self._fd = tree, path, fd
        self._about = os.fstat(fd)
        start = 0 if mark is None else self._end_of(mark)
        #: whether what was read before still stands
        self.stands = mark is None or start == mark[1]
        self._start = self._end = start
        #: of the bytes before the end, where they were just read
        self._behind: int | None = None

    def _end_of(self, mark: Mark) -> int:
        inode, end, _, checksum = mark
        # An inode may be that of a file which was removed in between, and a file be written anew in its place.
        known = inode == self._about.st_ino and end <= self._about.st_size and checksum == self._checksum(end)
        return end if known else 0

    def _checksum(self, end: int) -> int:
        start = max(0, end - _CHECKED)
        return crc32(os.pread(self._fd, end - start, start))

    def columns(self) -> Iterator[Columns]:
        """The points behind the mark, many at a time. Raises OSError."""
        size = self._about.st_size
        quick = pays(size - self._start)
        all_damaged = 0
        for data, end in new_lines(self._fd, self._start, size):
            self._end = end
            last = data[-_CHECKED:]
            is_whole = len(last) == min(_CHECKED, end) and NO_POINT[-1:] not in last  # no number ends so
            self._behind = crc32(last) if is_whole else None
            block, damaged = columns_of(data, quick)
            all_damaged += damaged
            yield block
        if all_damaged:
            self._tree.warn_once(self._path, f"{all_damaged} damaged lines")

    def mark(self) -> Mark:
        """The mark behind what was read. Raises OSError."""
        changed = self._about.st_mtime_ns if is_settled(self._about) else 0
        checksum = self._checksum(self._end) if self._behind is None else self._behind
        return [self._about.st_ino, self._end, changed, checksum]


@contextmanager
def reading(tree: Tree, path: str, mark: Mark | None) -> Iterator[Reading | None]:
    """A metric file for reading on from a mark; None where there is none that can be read. Raises OSError."""
    fd = open_file(path, tree.warn_once)
    try:
        yield None if fd is None else Reading(tree, path, fd, mark)
    finally:
        if fd is not None:
            os.close(fd)


def read_columns(
    tree: Tree, run_id: str, keys: Collection[str] | None, after: object, min_step: int | None, max_step: int | None
) -> Increment:
    """Raises `NotFoundError`, `DamagedError`, OSError, `InvalidInputError`."""
    check_steps(min_step, max_step)
    known = known_marks(after, 4)
    run_dir = tree.run_dir(run_id)
    tree.run_info(run_dir)
    if keys is None:
        wanted = keys_below(os.path.join(run_dir, layout.METRICS), "metric", tree.warn_once)
    else:
        wanted = [key for key in dict.fromkeys(keys) if can_be_key("metric", key)]
    found, marks, anew = {}, {}, set(known)
    for key in wanted:
        path, mark = layout.key_path(run_dir, "metric", key), known.get(key)
        if mark is not None and _is_as_it_was(path, mark):
            marks[key] = mark
            anew.discard(key)
            continue
        with reading(tree, path, mark) as file:
            if file is None:
                continue
            found[key] = Columns()
            for block in file.columns():
                found[key].extend(block.between(min_step, max_step))
            marks[key] = file.mark()
            if file.stands:
                anew.discard(key)
    return increment(found, marks, anew)


def _is_as_it_was(path: str, mark: Mark) -> bool:
    try:
        about = os.stat(path)
    except OSError:
        return False  # to open it says why
    return [about.st_ino, about.st_size, about.st_mtime_ns] == mark[:3]

"""Reading a run's metric files as columns: all of them, or only what has been appended since an earlier reading.

A cursor knows, by key, how far a file was read: its inode, the offset behind the last whole line, when the file was
changed, and a checksum of the bytes before the offset. A file that is another one by these, or was written anew, is
read from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any
from zlib import crc32

from asynctrack.stores.columns import Columns, Increment, check_steps, increment, known_marks
from asynctrack.stores.file import layout
from asynctrack.stores.file.entries import can_be_key, keys_below, open_file
from asynctrack.stores.file.parsing import columns_of, new_lines, pays
from asynctrack.stores.file.tree import Tree

__all__ = ["read_columns"]

#: bytes before the offset whose checksum the cursor has
_CHECKED = 256
#: inode, offset, st_mtime_ns, checksum
_Mark = list[int]


def read_columns(
    tree: Tree, run_id: str, keys: Collection[str] | None, after: Any, min_step: int | None, max_step: int | None
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
        mark = known.get(key)
        read = _read(tree, layout.key_path(run_dir, "metric", key), mark, min_step, max_step)
        if read is None:
            continue
        found[key], marks[key], stands = read
        if stands:
            anew.discard(key)
    return increment(found, marks, anew)


def _read(
    tree: Tree, path: str, mark: _Mark | None, min_step: int | None, max_step: int | None
) -> tuple[Columns, _Mark, bool] | None:
    """The points of a file behind a mark, the next mark, and whether those before the mark still stand. None where
    there is no file."""
    if mark is not None and _is_as_it_was(path, mark):
        return Columns(), mark, True
    fd = open_file(path, tree.warn_once)
    if fd is None:
        return None
    try:
        about = os.fstat(fd)
        start = 0 if mark is None else _stands_to(fd, about, mark)
        end, columns, all_damaged = start, Columns(), 0
        quick = pays(about.st_size - start)
        for data, behind in new_lines(fd, start, about.st_size):
            block, damaged = columns_of(data, quick)
            columns.extend(block.between(min_step, max_step))
            all_damaged += damaged
            end = behind
        if all_damaged:
            tree.warn_once(path, f"{all_damaged} damaged lines")
        return columns, [about.st_ino, end, about.st_mtime_ns, _checksum(fd, end)], mark is None or start == mark[1]
    finally:
        os.close(fd)


def _is_as_it_was(path: str, mark: _Mark) -> bool:
    try:
        about = os.stat(path)
    except OSError:
        return False  # to open it says why
    return [about.st_ino, about.st_size, about.st_mtime_ns] == mark[:3]


def _stands_to(fd: int, about: os.stat_result, mark: _Mark) -> int:
    """The offset behind which the file is new: that of the mark, or 0."""
    inode, end, _, checksum = mark
    # An inode may be that of a file which was removed in between, and a file be written anew in its place.
    return end if inode == about.st_ino and end <= about.st_size and checksum == _checksum(fd, end) else 0


def _checksum(fd: int, end: int) -> int:
    start = max(0, end - _CHECKED)
    return crc32(os.pread(fd, end - start, start))

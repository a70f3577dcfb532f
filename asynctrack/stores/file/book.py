"""What is known of the files of an experiment's runs: what their meta.yaml say, the summaries of metric files, and the
values of params and tags.

A file that has not changed since it was read, by its stat, is not read again, and of a metric file that has grown only
the new lines are. All of it may be kept in the user's cache folder from one program to the next (see `cache`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import Any

from asynctrack.entities import Metric
from asynctrack.stores.columns import Spot, Summary
from asynctrack.stores.file import cache, layout
from asynctrack.stores.file.columns import is_settled, reading
from asynctrack.stores.file.entries import can_be_key, files_below, open_file, read_entry
from asynctrack.stores.file.tree import Tree

__all__ = ["Book", "book_of"]

_LONGEST = 1000  # characters of a value that is remembered
_LARGEST_META = 4096  # bytes of a meta.yaml that is remembered
_MOST_FILES = 400_000  # of an experiment that are remembered; each costs about 300 bytes
_MOST_BOOKS = 64
#: bytes for which a file is opened, at the price of reading as many
_OPENING = 2048
#: what must have been read anew, in bytes, before it is worth being saved; and the same as a part of the saved file
_WORTH, _PART = 1 << 20, 0.25
#: of a metric file that may be known to the saved file: bytes from which on it is looked for there
_LARGE = 256 << 10

#: of any file: inode, size, st_mtime_ns, st_ctime_ns. Behind them, of a param or tag: its value; of a
#: meta.yaml: its mapping; of a metric file: the offset and the checksum of its mark, the number of points and, if there
#: are any, the first, the latest, the least and the largest with three numbers each (None where there is none), and the
#: newest time. Tuples, which Python's search for garbage leaves alone
_Known = tuple[Any, ...]
_STAMP = 4
_POINTS = 6
_LATEST = 10

#: by key
_Files = dict[str, _Known]


class Book:
    """What is known of one experiment's runs. Any thread may call its methods."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        #: by run id and kind
        self._runs: dict[str, dict[str, _Files]] = {}
        #: what was saved and nobody has asked about, as `cache.load` has found it; by run id and kind with a / between
        self._saved: dict[str, bytes] = {}
        self._loaded = False
        #: bytes that were read and are not saved
        self._unsaved = 0
        #: files that were learned of since they were counted, and as many as there were then
        self._added = 0
        self._path = cache.cache_path(folder)

    # ── asking

    def values(self, tree: Tree, run_dir: str, kind: str) -> dict[str, str]:
        """The params or tags of a run, sorted by key."""
        found, values = self._files(tree, run_dir, kind)
        if values:
            values |= {key: known[_STAMP] for key, known in found.items()}
            return dict(sorted(values.items()))
        return {key: found[key][_STAMP] for key in sorted(found)}

    def value(self, tree: Tree, run_dir: str, kind: str, key: str) -> str | None:
        """One of them."""
        known = self._file(tree, run_dir, kind, key)
        return known[_STAMP] if isinstance(known, tuple) else known

    def latest(self, tree: Tree, run_dir: str) -> list[Metric]:
        """The latest point of each metric of a run, sorted by key."""
        found, _ = self._files(tree, run_dir, "metric")
        return [
            Metric(key, found[key][_LATEST + 2], found[key][_LATEST + 1], found[key][_LATEST])
            for key in sorted(found)
            if found[key][_POINTS]
        ]

    def latest_value(self, tree: Tree, run_dir: str, key: str) -> float | None:
        """The latest value of one metric."""
        known = self._file(tree, run_dir, "metric", key)
        return known[_LATEST + 2] if isinstance(known, tuple) and known[_POINTS] else None

    def summaries(self, tree: Tree, run_dir: str, keys: Collection[str] | None) -> dict[str, Summary]:
        """The summaries of a run's metrics, or of some of them."""
        found: dict[str, Any]
        if keys is None:
            found, _ = self._files(tree, run_dir, "metric")
        else:
            wanted = [key for key in dict.fromkeys(keys) if can_be_key("metric", key)]
            found = {key: self._file(tree, run_dir, "metric", key) for key in wanted}
        summaries = {key: _summary(known) for key, known in found.items() if known is not None}
        return {key: summary for key, summary in summaries.items() if summary is not None}

    def meta(self, run_dir: str, about: os.stat_result) -> dict[str, Any] | None:
        """What a run's meta.yaml says, if that is known of the file with this stat; to be copied before it is
        changed."""
        known = self._known(run_dir, "meta").get("")
        return known[_STAMP] if known is not None and known[:_STAMP] == _stamp(about) else None

    def note_meta(self, run_dir: str, about: os.stat_result, found: dict[str, Any]) -> None:
        """What was read of it. ``about`` is older, so that what is written in between will be noticed."""
        self._unsaved += _OPENING
        plain = all(not value or isinstance(value, str | int | float) for value in found.values())
        if plain and about.st_size <= _LARGEST_META and is_settled(about):
            self._known(run_dir, "meta")[""] = (*_stamp(about), found)
            self._added += 1

    # ── the files

    def _known(self, run_dir: str, kind: str) -> _Files:
        run_id = os.path.basename(run_dir)
        files = self._runs.setdefault(run_id, {}).setdefault(kind, {})
        text = self._saved.pop(f"{run_id}/{kind}", None) if self._saved else None
        if text is not None:
            newer = dict(files)
            files.update(cache.parsed(text))
            files.update(newer)
            self._added += len(files)
        return files

    def _files(self, tree: Tree, run_dir: str, kind: str) -> tuple[_Files, dict[str, str]]:
        """Every file of a kind that is known now, and the values of those that cannot be remembered."""
        known = self._known(run_dir, kind)
        found: _Files = {}
        values: dict[str, str] = {}
        folder = f"{run_dir}/{layout.FOLDERS[kind]}"
        for key, entry in files_below(folder, kind, tree.warn_once, known):
            try:
                about = entry.stat()
            except OSError:
                _say_why(tree, entry.path)
                continue
            there = known.get(key)
            if there is None or (
                there[1] != about.st_size
                or there[2] != about.st_mtime_ns
                or there[0] != about.st_ino
                or there[3] != about.st_ctime_ns
            ):
                read = self._read(tree, run_dir, kind, key, entry.path, about)
                if isinstance(read, str):
                    values[key] = read
                if not isinstance(read, tuple):
                    continue
                there = read
            found[key] = there
        if len(known) != len(found):
            for key in known.keys() - found.keys():
                known.pop(key, None)
        return found, values

    def _file(self, tree: Tree, run_dir: str, kind: str, key: str) -> _Known | str | None:
        """What is known of one file; only its value where that cannot be remembered, None where there is none."""
        path = layout.key_path(run_dir, kind, key)
        there = self._known(run_dir, kind).get(key)
        try:
            about = os.stat(path)
        except OSError:
            _say_why(tree, path)
            return None
        if there is not None and there[:_STAMP] == _stamp(about):
            return there
        return self._read(tree, run_dir, kind, key, path, about)

    def _read(
        self, tree: Tree, run_dir: str, kind: str, key: str, path: str, about: os.stat_result
    ) -> _Known | str | None:
        """The same by reading it. ``about`` is older, so that what is written in between will be noticed."""
        if kind == "metric":
            if about.st_size >= _LARGE and key not in self._known(run_dir, kind) and self._pays_to_load(about.st_size):
                self.load()
            known = self._known(run_dir, kind)
            there = known.get(key)
            if there is not None and there[:_STAMP] == _stamp(about):
                return there
            read = self._summarized(tree, path, about, there)
            if read is not None:
                known[key] = read
                self._added += 1
            return read
        value = read_entry(path, tree.warn_once)
        self._unsaved += _OPENING
        if value is None or len(value) > _LONGEST or not is_settled(about) or not stat.S_ISREG(about.st_mode):
            return value
        read = self._known(run_dir, kind)[key] = (*_stamp(about), value)
        self._added += 1
        return read

    def _summarized(self, tree: Tree, path: str, about: os.stat_result, there: _Known | None) -> _Known | None:
        mark = None if there is None else [there[0], there[_STAMP], there[2], there[_STAMP + 1]]
        with reading(tree, path, mark) as file:
            if file is None:
                return None
            summary = _summary(there) if there is not None and file.stands else None
            for block in file.columns():
                summary = Summary.of(block, summary)
            inode, end, _, checksum = file.mark()
        self._unsaved += _OPENING + end - (mark[1] if mark is not None and file.stands else 0)
        # One that was changed just now is looked into the next time, too, though its stat may be the same then.
        changed = about.st_ctime_ns if is_settled(about) else 0
        return inode, about.st_size, about.st_mtime_ns, changed, end, checksum, *_numbers(summary)

    # ── keeping it

    def _pays_to_load(self, size: int) -> bool:
        return not self._loaded and self._path is not None and cache.size_of(self._path) < 4 * size

    def load(self) -> None:
        """Take up what was saved, where that has not been done."""
        if self._loaded or self._path is None:
            return
        self._loaded = True
        self._saved = cache.load(self._path)

    def keep(self, run_ids: Collection[str] | None = None) -> None:
        """Save what is known, if much of it is new. ``run_ids``: those that are there, all others are forgotten."""
        if run_ids is not None:
            for run_id in self._runs.keys() - set(run_ids):
                self._runs.pop(run_id, None)
        if self._path is not None and self._unsaved >= max(_WORTH, cache.size_of(self._path) * _PART):
            self.load()
            self._unsaved = 0
            cache.save(self._path, self._all(run_ids))
        if self._added > _MOST_FILES:  # at most: some may have been read several times
            self._added = sum(len(files) for kinds in list(self._runs.values()) for files in list(kinds.values()))
        if self._added > _MOST_FILES:
            self._runs, self._saved, self._loaded, self._added = {}, {}, False, 0

    def _all(self, run_ids: Collection[str] | None) -> dict[str, Any]:
        """What is known, by run id and kind; the oldest first. ``run_ids``: of these runs only."""
        there = None if run_ids is None else set(run_ids)
        found: dict[str, Any] = {
            name: text for name, text in self._saved.items() if there is None or name.partition("/")[0] in there
        }
        for run_id, kinds in list(self._runs.items()):
            for kind in list(kinds):
                name = f"{run_id}/{kind}"
                found.pop(name, None)
                found[name] = self._known(run_id, kind)
        return found


def _say_why(tree: Tree, path: str) -> None:
    """A file has no stat: it went away, or (a warning says so) cannot be read. Raises OSError for what is not this
    file's own fault."""
    fd = open_file(path, tree.warn_once)
    if fd is not None:
        os.close(fd)


def book_of(tree: Tree, folder: str) -> Book:
    """What is known of the runs of an experiment, by its folder."""
    book = tree.books.get(folder)
    if book is None:
        if len(tree.books) >= _MOST_BOOKS:
            tree.books.clear()
        book = tree.books[folder] = Book(folder)
    return book


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _numbers(summary: Summary | None) -> list[Any]:
    if summary is None:
        return [0]
    spots = (summary.first, summary.latest, summary.min, summary.max)
    return [
        summary.points,
        *(number for spot in spots for number in (spot or (None, None, None))),
        summary.last_time,
    ]


def _summary(known: _Known) -> Summary | None:
    points, *numbers = known[_POINTS:]
    if not points:
        return None
    first, latest, least, most = (
        None if numbers[at] is None else Spot(*numbers[at : at + 3]) for at in range(0, 12, 3)
    )
    if first is None or latest is None:
        return None
    return Summary(points, first, latest, least, most, numbers[12])

"""Storing a batch: all of one run's events, in one visit to the disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from asynctrack.entities import LifecycleStage
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.base import Batch, Point, Refusal
from asynctrack.stores.file import layout
from asynctrack.stores.file.append import Tail, append, whole_size
from asynctrack.stores.file.entries import MAX_PARAM_LENGTH, MAX_TAG_LENGTH, write_param, write_tag
from asynctrack.stores.file.files import KEY_ERRORS, check_inside, exists, unavailable
from asynctrack.stores.file.lines import Block, encode_records
from asynctrack.stores.file.measured import append_lines, model_lines
from asynctrack.stores.file.runs import change_run
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.points import MeasuredOn

__all__ = ["BatchWriter"]

logger = logging.getLogger("asynctrack")

_MOST_POINTS = 1_000_000  # of metric files that are compared as a whole; each costs about 200 bytes
_REMEMBERED = 1024  # metric files; each costs up to 25 kB


class BatchWriter:
    """Writes batches into the runs of one `Tree`, and remembers where each metric file ended."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._tails: dict[str, Tail] = {}
        self._cut: set[tuple[str, str, str]] = set()

    def known_bookmark(self, run_id: str, batch: Batch) -> dict[str, int] | None:
        """The `bookmark` without a look at the disk; None where some file is not remembered.

        Whatever others have appended since is behind it, too: then an append that is repeated reads a little more.
        """
        run_dir = self._tree.known_run_dir(run_id)
        if run_dir is None:
            return None
        sizes = {}
        for key in batch.metric_keys():
            tail = self._tails.get(layout.key_path(run_dir, "metric", key))
            if tail is None:
                return None
            sizes[key] = tail.size
        return sizes

    def bookmark(self, run_id: str, batch: Batch) -> dict[str, int]:
        """The size in bytes of every metric file that ``batch`` will append to; 0 for one that is not there yet."""
        run_dir = self._tree.find_run(run_id)
        if run_dir is None:
            return dict.fromkeys(batch.metric_keys(), 0)
        return {key: self._size(run_dir, key) for key in batch.metric_keys()}

    def _size(self, run_dir: str, key: str) -> int:
        try:
            check_key("metric", key, as_path=True)
            return whole_size(layout.key_path(run_dir, "metric", key))
        except InvalidInputError:
            return 0
        except OSError as error:
            if error.errno in KEY_ERRORS:
                return 0  # it will be refused
            raise

    def log_batch(
        self, run_id: str, batch: Batch, bookmark: dict[str, int] | None, durable: bool = False
    ) -> list[Refusal]:
        """Store what can be stored; the rest comes back refused. ``durable``: on the disk itself. Raises
        `UnavailableError`, and `NotFoundError` where there is no such run."""
        try:
            run_dir = self._writable_run(run_id)
        except RefusedError as refusal:
            return [Refusal(kind, key, value, str(refusal)) for kind, key, value in batch.items()]
        work = _Work(self._tree, run_dir, self._tails, self._cut)
        try:
            work.params(batch.params)
            work.metrics(batch, bookmark)
            work.tags(batch.tags)
            if durable:
                work.sync()
        except (OSError, UnavailableError) as error:
            failure = error if isinstance(error, UnavailableError) else unavailable(error, run_dir)
            # What is stored already may be more than the window behind which identical points are recognised.
            failure.ambiguous |= work.stored
            if failure is error:
                raise
            raise failure from error
        # Worker threads come here with batches of several runs at once: two may take the same one.
        excess = len(self._tails) - _REMEMBERED
        for path in list(self._tails)[:excess] if excess > 0 else ():
            self._tails.pop(path, None)
        if bookmark is not None:
            self._forget_points()
        return work.refusals

    def _forget_points(self) -> None:
        """Of the files whose points are remembered, the last one is kept, however many it has."""
        remembered = [(path, tail.behind) for path, tail in list(self._tails.items()) if tail.behind is not None]
        points = sum(len(behind.seen) for _, behind in remembered)
        for path, behind in remembered[:-1]:
            if points <= _MOST_POINTS:
                break
            self._tails.pop(path, None)
            points -= len(behind.seen)

    def _writable_run(self, run_id: str) -> str:
        run_dir = self._tree.written_run_dir(run_id)
        self._tree.guard(run_dir)
        try:
            stage = self._tree.run_info(run_dir).lifecycle_stage
        except NotFoundError as error:
            raise self._tree.gone(run_dir) from error  # it was found two lines ago; if it is deleted, the next time not
        if stage == LifecycleStage.DELETED:
            raise RefusedError(f"run {run_id} is deleted; restore it to log to it")
        return run_dir


class _Work:
    """One batch on its way into one run."""

    def __init__(
        self,
        tree: Tree,
        run_dir: str,
        tails: dict[str, Tail],
        cut: set[tuple[str, str, str]],
    ) -> None:
        self.refusals: list[Refusal] = []
        self.stored = False
        self._written: set[str] = set()
        self._tree, self._run_dir, self._tails, self._cut = tree, run_dir, tails, cut
        self._run_id = os.path.basename(run_dir)

    def params(self, params: list[tuple[str, str]]) -> None:
        for key, value in params:
            text = self._truncated("param", key, value, MAX_PARAM_LENGTH)
            current = self._try("param", key, [value], write_param, text, self._run_dir)
            if current is not None:
                reason = f"param {shorten(key)} already logged with {shorten(current)}, and params never change"
                self.refusals.append(Refusal("param", key, value, f"{reason}; log it under another key"))

    def metrics(self, batch: Batch, bookmark: dict[str, int] | None) -> None:
        lines = encode_records(batch.blocks)
        for key in dict.fromkeys([*batch.decoded, *lines]):
            block = Block(batch.decoded.get(key, ()), lines.get(key))
            if block.lines:
                # A file that the bookmark does not know of may hold any of it, from its beginning.
                mark = None if bookmark is None else bookmark.get(key, 0)
                self._try("metric", key, _points(batch, key), self._append, block, mark)
        for points in batch.decoded.values():
            for on, copies in model_lines(points, self._run_id).items():
                self._model(on, copies, whole=bookmark is not None)

    def _model(self, on: MeasuredOn, lines: list[tuple[Point, str]], *, whole: bool) -> None:
        """Give a logged model its copy of some points. Where there is no such model, only the run has them."""
        points = [point for point, _ in lines]
        if any(refusal.kind == "metric" and refusal.key == on.key for refusal in self.refusals):
            return  # the run cannot hold them
        folder = layout.model_dir(self._run_dir, on.model_id or "")
        if folder is None or not exists(os.path.join(folder, layout.META)):
            reason = f"there is no logged model {shorten(on.model_id)} in this experiment; only the run has the value"
            self.refusals += [
                Refusal("metric", on.key, point, f"metric {shorten(on.key)}: {reason}") for point in points
            ]
            return
        texts = [line for _, line in lines]
        self._try("metric", on.key, points, partial(append_lines, whole=whole), texts, folder, within=folder)

    def _append(self, path: str, block: Block, mark: int | None) -> None:
        # Taken out and put back in, so that the least recently used come first.
        self._tails[path] = append(path, block, self._run_dir, self._tails.pop(path, None), mark)

    def tags(self, tags: list[tuple[str, str]]) -> None:
        for key, value in dict(tags).items():  # the last one wins
            value = self._truncated("tag", key, value, MAX_TAG_LENGTH)
            given = [every for name, every in tags if name == key]
            if key == layout.RUN_NAME_TAG and value:
                try:
                    change_run(self._tree, self._run_dir, run_name=value)
                except NotFoundError as error:
                    raise self._tree.gone(self._run_dir) from error  # it was there when the batch began
            self._try("tag", key, given, write_tag, value, self._run_dir)

    def sync(self) -> None:
        """Hand what was written, and its folders, to the disk itself. Raises OSError."""
        for path in sorted({*self._written, *map(os.path.dirname, self._written)}):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _try(
        self,
        kind: str,
        key: str,
        values: Iterable[Any],
        write: Callable[..., Any],
        *args: Any,
        within: str | None = None,
    ) -> Any:
        """Call ``write(path, *args)``; what is this key's own fault refuses its events and no other. The path is
        ``within`` the run's folder, unless another is given."""
        try:
            check_key(kind, key, as_path=True)
            path = layout.key_path(within or self._run_dir, kind, key)
            if "/" in key and path not in self._tails:
                check_inside(os.path.dirname(path), os.path.realpath(self._tree.root))
            try:
                result = write(path, *args)
            except OSError as error:
                if error.errno not in KEY_ERRORS:
                    raise
                # It may not be the key's fault but that of the whole store, taken away at this moment.
                if not exists(os.path.join(self._run_dir, layout.META)):
                    raise self._tree.gone(self._run_dir) from error
                result = write(path, *args)
        except (InvalidInputError, RefusedError) as error:
            reason = str(error)
        except StoreError:
            raise
        except OSError as error:
            if error.errno not in KEY_ERRORS:
                raise
            reason = (
                f"{kind} key {shorten(key)} cannot be stored in run {self._run_id}: {error.strerror}. Keys are paths "
                f"here: {shorten('a')} and {shorten('a/b')} cannot both exist"
            )
        else:
            self.stored = True
            self._written.add(path)
            if ":" in key:
                self._tree.tell_of_colon(kind, key)
            return result
        self.refusals += [Refusal(kind, key, value, reason) for value in values]
        return None

    def _truncated(self, kind: str, key: str, value: str, limit: int) -> str:
        if len(value) <= limit:
            return value
        if (self._run_id, kind, key) not in self._cut and len(self._cut) < _REMEMBERED:
            self._cut.add((self._run_id, kind, key))
            logger.warning(
                "run %s: %s %s has %d characters and was cut to %d, as MLflow does",
                self._run_id, kind, shorten(key), len(value), limit,
            )  # fmt: skip
        return value[:limit]


def _points(batch: Batch, key: str) -> Iterator[Point]:
    """The points of one metric; decoded only where somebody asks, because they are refused."""
    yield from batch.metrics[key]

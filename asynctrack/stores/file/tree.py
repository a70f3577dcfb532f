"""Finding one's way in a store: experiments, runs and their ``meta.yaml``, damaged ones skipped with one warning."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic
from asynctrack.entities import Experiment, RunInfo, ViewType
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.markup import clean
from asynctrack.stores.file import layout, meta
from asynctrack.stores.file.entries import read_entries
from asynctrack.stores.file.files import check_inside, is_file, read_regular
from asynctrack.stores.keys import shorten

if TYPE_CHECKING:
    from asynctrack.stores.file.book import Book

__all__ = ["DamagedError", "Tree"]

logger = logging.getLogger("asynctrack")

_MOST_META = 4 << 20  # bytes of a meta.yaml; MLflow repeats an experiment's tags in it
_REMEMBERED = 4096  # meta files and warnings; a run costs about 2 kB
_RACY = 100_000_000  # ns: a file changed this recently may change again within the same tick of the file system's clock
_SETTLED = 2_000_000_000  # ns: a file torn this long ago is not being written any more
#: bound here, so that a test which freezes the time does not make young files old
_now_ns = partial(time.time_ns)
_Stamp = tuple[int, int, int]


class DamagedError(UnavailableError):
    """A ``meta.yaml`` that cannot be read: being rewritten at this moment by MLflow, or torn by a crash.

    It is worth another attempt until it has been the same file for two seconds. Then it is ``settled``: nobody is about
    to write it any more. One without content, as a power cut leaves it, is ``incomplete`` then: whoever knows what the
    run was created with can create it again.
    """

    def __init__(self, message: str, *, settled: bool = False, blank: bool = False) -> None:
        super().__init__(message)
        self.retryable = blank or not settled
        self.incomplete = blank and settled


class _Damages:
    """Files that could not be read: as what, and since when (by `monotonic`)."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stamp, float]] = {}

    def error(self, path: str, about: os.stat_result, problem: ValueError) -> DamagedError:
        """What to raise for a file that could not be read once more."""
        # Not by the file's age alone, which the clock of another machine tells: a run's events may be refused for it.
        stamp, now = _stamp(about), monotonic()
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[path] = stamp, now
        settled = now - known[1] > _SETTLED / 1e9
        message = f"{path} cannot be read: {problem}; mend or remove it"
        return DamagedError(message, settled=settled, blank=isinstance(problem, _BlankError))


class Tree:
    """One store's directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.trash = os.path.join(root, layout.TRASH)
        #: runs that were created here and have not ended
        self.unended: set[str] = set()
        self._metas: dict[str, tuple[_Stamp, dict[str, Any]]] = {}
        self._run_dirs: dict[str, str] = {}
        #: the root's identity when a run was found in it
        self._found_in: dict[str, tuple[int, int]] = {}
        self._guarded: set[str] = set()
        self._warned: set[str] = set()
        self._told_of_colon = False
        #: what is known of the runs of each experiment, by its folder
        self.books: dict[str, Book] = {}
        self._damages = _Damages()

    # ── meta.yaml

    def meta(self, folder: str) -> dict[str, Any] | None:
        """The mapping in ``folder``'s meta.yaml, to be copied before it is changed; None where there is no such file.

        Raises `DamagedError` where it cannot be read, OSError where that cannot be told.
        """
        path = os.path.join(folder, layout.META)
        for pause in (0.002, 0.02, 0.1, None):
            try:
                about = os.stat(path)
                return self._load(path, about)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            except ValueError as error:
                # MLflow truncates and rewrites the file in place: what is torn now may be whole in a moment.
                if pause is None or _age(about) > _SETTLED:
                    raise self._damages.error(path, about, error) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _load(self, path: str, about: os.stat_result) -> dict[str, Any]:
        stamp = _stamp(about)
        known = self._metas.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        run_dir = os.path.dirname(path)
        book = self.books.get(os.path.dirname(run_dir))
        found = None if book is None else book.meta(run_dir, about)
        if found is not None:
            return found
        data = read_regular(path, _MOST_META)
        if not data.strip(b"\0 \r\n"):
            raise _BlankError("it is empty")
        found = meta.load(data)
        if book is not None:
            book.note_meta(run_dir, about, found)
        if _age(about) > _RACY:
            if len(self._metas) >= _REMEMBERED:
                self._metas.clear()
            self._metas[path] = stamp, found
        return found

    def tell_of_colon(self, kind: str, key: str) -> None:
        """Say, the first time a key with a colon is stored, who cannot read the store any more."""
        if not self._told_of_colon:
            self._told_of_colon = True
            logger.warning(
                "the colon in the %s key %s is read by MLflow 2.16 and later; earlier versions fail at every search in "
                "an experiment with such a key. Name it otherwise if they are to read %s",
                kind, shorten(key), self.root,
            )  # fmt: skip

    def warn_once(self, path: str, problem: object) -> None:
        """Log a warning about ``path``, the first time."""
        if path in self._warned:
            return
        if len(self._warned) >= _REMEMBERED:
            self._warned.clear()
        self._warned.add(path)
        logger.warning("skipped %s: %s", clean(path), clean(problem))  # a name may be made to rule the terminal

    # ── experiments

    def experiment_dirs(self, view_type: int = ViewType.ALL) -> Iterator[tuple[str, str]]:
        """(id, directory) of all that looks like an experiment. Nothing where the store does not exist yet."""
        for parent, hidden in ((self.root, ViewType.DELETED_ONLY), (self.trash, ViewType.ACTIVE_ONLY)):
            if view_type == hidden:
                continue
            for name in _folders(parent):
                if layout.is_experiment_id(name):
                    yield name, os.path.join(parent, name)

    def experiment_dir(self, experiment_id: str, view_type: int = ViewType.ALL) -> str:
        """Raises `NotFoundError`."""
        if layout.is_experiment_id(experiment_id):
            for parent, hidden in ((self.root, ViewType.DELETED_ONLY), (self.trash, ViewType.ACTIVE_ONLY)):
                folder = os.path.join(parent, experiment_id)
                if view_type != hidden and is_file(os.path.join(folder, layout.META)):
                    return folder
        raise NotFoundError(f"no experiment {shorten(experiment_id)} in {self.root}")

    def written_experiment_dir(self, experiment_id: str) -> str:
        """The same of one that is written to. Raises `UnavailableError` where the whole store is gone, which may pass,
        and `NotFoundError`."""
        try:
            return self.experiment_dir(experiment_id)
        except NotFoundError:
            if self.is_gone():
                raise self.gone(self.root) from None
            return self.experiment_dir(experiment_id)  # it may have come back in between

    def experiment(self, experiment_id: str, folder: str) -> Experiment | None:
        """The experiment in ``folder``; None where there is none. Raises `DamagedError`."""
        found = self.meta(folder)
        if found is None:
            return None
        try:
            tags = read_entries(os.path.join(folder, layout.TAGS), "tag", self.warn_once)
            return meta.experiment_from_meta(found, experiment_id, tags)
        except ValueError as error:
            raise DamagedError(f"{folder}: {layout.META}: {error}") from error

    def experiments(self, view_type: int = ViewType.ALL, name: str | None = None) -> Iterator[Experiment]:
        """Every readable experiment, or those of one name; the others are skipped with a warning."""
        for experiment_id, folder in self.experiment_dirs(view_type):
            try:
                if name is not None and (self.meta(folder) or {}).get("name", name) != name:
                    continue  # before its tags are read
                found = self.experiment(experiment_id, folder)
            except (DamagedError, OSError) as problem:
                self.warn_once(folder, problem)
                continue
            if found is None:
                self.warn_once(folder, f"it has no {layout.META}")
            elif name in (None, found.name):
                yield found

    # ── runs

    def find_run(self, run_id: str) -> str | None:
        """The directory of a run, in an experiment or in a deleted one; None where there is none. Raises OSError."""
        if not layout.is_run_id(run_id):
            return None
        known = self._run_dirs.get(run_id)
        if known is not None and is_file(os.path.join(known, layout.META)):
            return known
        for _, folder in self.experiment_dirs():
            run_dir = os.path.join(folder, run_id)
            # A folder that is no experiment has no runs: where artifacts are kept in the root, it is a run's.
            if is_file(os.path.join(run_dir, layout.META)) and is_file(os.path.join(folder, layout.META)):
                if len(self._run_dirs) >= _REMEMBERED:
                    self._run_dirs.clear()
                    self._found_in.clear()
                self._run_dirs[run_id] = run_dir
                self._found_in[run_id] = self._identity()
                return run_dir
        return None

    def known_run_dir(self, run_id: str) -> str | None:
        """Where the run was when it was last looked for."""
        return self._run_dirs.get(run_id)

    def run_dir(self, run_id: str) -> str:
        """Raises `NotFoundError`."""
        found = self.find_run(run_id)
        if found is None:
            raise NotFoundError(f"no run {shorten(run_id)} in {self.root}")
        return found

    def written_run_dir(self, run_id: str) -> str:
        """The directory of a run that was created here. Raises `UnavailableError` where the whole store is gone, or
        another one stands in its place, which may pass, and `NotFoundError`."""
        found = self.find_run(run_id)
        if found is None and (self.is_gone() or self.is_elsewhere(run_id)):
            raise self.gone(self.root)
        return found or self.run_dir(run_id)

    def is_elsewhere(self, run_id: str) -> bool:
        """Whether a run that is not found was here before, in a store that is gone, or in whose place another one
        stands. Raises OSError."""
        return run_id in self._found_in and (self.is_gone() or self._identity() != self._found_in[run_id])

    def _identity(self) -> tuple[int, int]:
        about = os.stat(self.root)
        return about.st_dev, about.st_ino

    def gone(self, path: str) -> UnavailableError:
        """What to raise where ``path`` was there a moment ago, or in this process's life."""
        return UnavailableError(
            f"{path} is empty or gone, or another one; check that its file system is mounted. Nothing is lost: it is "
            f"tried again"
        )

    def is_gone(self) -> bool:
        """Whether there is no store (any more). Folders without a ``meta.yaml`` are no experiments: somebody may have
        written below them while the file system was not mounted. Raises OSError."""
        return not any(is_file(os.path.join(folder, layout.META)) for _, folder in self.experiment_dirs())

    def guard(self, run_dir: str) -> None:
        """Raise `RefusedError` where links lead the run's folders out of the store. To be called before writing."""
        if run_dir in self._guarded:
            return
        # Once per run and not per file: links are made by people, not in the middle of a batch.
        for part in ("", layout.METRICS, layout.PARAMS, layout.TAGS):
            check_inside(os.path.join(run_dir, part), os.path.realpath(self.root))
        if len(self._guarded) >= _REMEMBERED:
            self._guarded.clear()
        self._guarded.add(run_dir)

    def run_info(self, run_dir: str) -> RunInfo:
        """The run in ``run_dir``. Raises `DamagedError`, `NotFoundError`."""
        experiment_dir, run_id = os.path.split(run_dir)
        path = os.path.join(run_dir, layout.META)
        found = self.meta(run_dir)
        if found is None:
            raise NotFoundError(f"no run {shorten(run_id)} in {self.root}")
        try:
            return meta.run_from_meta(found, run_id, os.path.basename(experiment_dir))
        except ValueError as error:
            raise self._damages.error(path, os.stat(path), error) from error

    def runs(self, experiment_dir: str) -> Iterator[tuple[str, RunInfo]]:
        """(directory, info) of every readable run; the others are skipped with a warning."""
        try:
            names = _folders(experiment_dir)
        except OSError as problem:
            self.warn_once(experiment_dir, problem)
            return
        for name in names:
            if not layout.is_run_id(name):
                continue
            run_dir = os.path.join(experiment_dir, name)
            try:
                info = self.run_info(run_dir)
            except NotFoundError:
                continue  # without a meta.yaml it is no run: artifacts may be kept here, or a run is being created
            except (DamagedError, OSError) as problem:
                self.warn_once(run_dir, problem)
            else:
                yield run_dir, info


def _folders(parent: str) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


class _BlankError(ValueError):
    """A file that exists and holds nothing: no more than its name had reached the disk when the power failed."""


def _stamp(about: os.stat_result) -> _Stamp:
    return about.st_mtime_ns, about.st_size, about.st_ino


def _age(about: os.stat_result) -> int:
    """Nanoseconds between a file's last change and now, by clocks that may differ."""
    return abs(_now_ns() - about.st_mtime_ns)

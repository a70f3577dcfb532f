"""Reading a whole file store, to write it into another store: what cannot be read is noted, and the rest goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from asynctrack.constants import PARENT_RUN_TAG, LifecycleStage
from asynctrack.entities import Experiment, RunInfo, RunInputs, RunOutputs
from asynctrack.errors import InvalidInputError, UnavailableError
from asynctrack.platforms import CLOSE_ON_EXEC, fcntl, unquoted_path
from asynctrack.stores.base import Batch
from asynctrack.stores.file import layout
from asynctrack.stores.file.entries import keys_below, read_entries, read_entry
from asynctrack.stores.file.files import is_file
from asynctrack.stores.file.inputs import inputs_of, outputs_of
from asynctrack.stores.file.lines import identity
from asynctrack.stores.file.reading import named, points_in
from asynctrack.stores.file.tree import Tree

__all__ = ["Group", "Noted", "Source", "SourceRun", "distinct"]

Read = tuple[int, int, float]


class SourceRun(NamedTuple):
    """A run of the source: its folder, and the id of the run that it is nested in, if any."""

    folder: str
    info: RunInfo
    parent: str | None


class Group(NamedTuple):
    """The experiments of one name, which are one elsewhere; the first is active if any is."""

    experiment: Experiment
    runs: list[SourceRun]


class Noted:
    """What went wrong, by the file or run that it is about; any thread may add to it."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, where: str, problem: object) -> None:
        """The first problem of each place is kept."""
        with self._lock:
            self._found.setdefault(where, str(problem))

    def lines(self) -> list[str]:
        """One line for each place, in order of its name."""
        with self._lock:
            return [f"{where}: {problem}" for where, problem in sorted(self._found.items())]


class _Tree(Tree):
    """A tree that notes what it cannot read, where the store's own logs it."""

    def __init__(self, root: str, noted: Noted) -> None:
        super().__init__(root)
        self._noted = noted

    def warn_once(self, path: str, problem: object) -> None:
        self._noted.add(path, problem)


class Source:
    """A folder in MLflow's layout. It is only read."""

    def __init__(self, root: str, noted: Noted) -> None:
        """Raises `InvalidInputError` where there is none, in ``root`` or in an ``mlruns`` in it."""
        self.root = next((path for path in (root, os.path.join(root, "mlruns")) if _is_store(path)), "")
        if not self.root:
            raise InvalidInputError(f"{root} holds no experiments of MLflow's file store; name the folder mlruns")
        self._tree = _Tree(self.root, noted)
        self._noted = noted

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raise `UnavailableError` while another program imports the folder: both would write the same events, and not
        every store would notice. Where there are no locks, nobody knows."""
        # A lock on the folder itself, or on a run's, is the store's own, for its writers.
        fd = os.open(min(folder for _, folder in self._tree.experiment_dirs()), os.O_RDONLY | CLOSE_ON_EXEC)
        try:
            if fcntl is not None:
                with suppress(OSError):
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        raise UnavailableError(
                            f"{self.root} is being imported by another program; wait until that has ended, and then "
                            f"import what is left"
                        ) from None
            yield
        finally:
            os.close(fd)

    def groups(self) -> list[Group]:
        """Every experiment with its runs; none of their events is read yet."""
        found: dict[str, list[tuple[Experiment, list[SourceRun]]]] = {}
        for experiment_id, folder in self._tree.experiment_dirs():
            if not is_file(os.path.join(folder, layout.META)):
                self._note_lost_runs(folder)
                continue
            try:
                experiment = self._tree.experiment(experiment_id, folder)
            except Exception as error:
                self._noted.add(folder, f"{error}. Its runs are not imported")
                continue
            if experiment is not None:
                found.setdefault(experiment.name, []).append((experiment, list(self._runs(folder))))
        groups = []
        for same in found.values():
            same.sort(key=lambda each: each[0].lifecycle_stage != LifecycleStage.ACTIVE)
            groups.append(Group(same[0][0], [run for _, runs in same for run in runs]))
        return groups

    def _note_lost_runs(self, folder: str) -> None:
        """A folder without a meta.yaml may hold artifacts of a database's runs, which is well; or have lost it."""
        with os.scandir(folder) as entries:
            runs = [entry.name for entry in entries if is_file(os.path.join(entry.path, layout.META))]
        if runs:
            self._noted.add(folder, f"it has no {layout.META}: its {len(runs)} runs are not imported")

    def _runs(self, folder: str) -> Iterator[SourceRun]:
        for run_dir, info in self._tree.runs(folder):
            tag = None if info.run_name else self._tag(run_dir, layout.RUN_NAME_TAG)
            yield SourceRun(run_dir, named(info, tag), self._tag(run_dir, PARENT_RUN_TAG))
        with os.scandir(folder) as entries:
            for entry in entries:
                lost = layout.is_run_id(entry.name) and os.path.isdir(os.path.join(entry.path, layout.METRICS))
                if lost and not is_file(os.path.join(entry.path, layout.META)):
                    self._noted.add(entry.path, f"it has no {layout.META}: the run is not imported")

    def _tag(self, run_dir: str, key: str) -> str | None:
        return read_entry(layout.key_path(run_dir, "tag", key), self._tree.warn_once)

    def entries(self, run: SourceRun, kind: str) -> dict[str, str]:
        """The params or tags of a run; ``kind`` is "param" or "tag"."""
        return read_entries(os.path.join(run.folder, layout.FOLDERS[kind]), kind, self._tree.warn_once)

    def metric_keys(self, run: SourceRun) -> list[str]:
        """The keys of a run's metrics."""
        return keys_below(os.path.join(run.folder, layout.METRICS), "metric", self._tree.warn_once)

    def batches(self, run: SourceRun, most: int, stored: Callable[[str], set[object]] | None) -> Iterator[Batch]:
        """Every point of a run, each once, at most so many at a time. ``stored``: the `identity` of what need not come,
        by key."""
        batch = Batch()
        for key in self.metric_keys(run):
            path = layout.key_path(run.folder, "metric", key)
            there = set() if stored is None else stored(key)
            points: list[Read] = []
            for point in distinct(lambda path=path: points_in(self._tree, path)):  # type: ignore[misc]
                if there and identity(*point) in there:
                    continue
                points.append(point)
                if batch.points + len(points) >= most:
                    batch.add(key, points)
                    yield batch
                    batch, points = Batch(), []
            if points:
                batch.add(key, points)
        if batch:
            yield batch

    def inputs(self, run: SourceRun) -> tuple[RunInputs, RunOutputs]:
        """The datasets and logged models that a run has used, and the models that it has logged."""
        return inputs_of(self._tree, run.folder), outputs_of(self._tree, run.folder)

    def artifacts(self, run: SourceRun) -> str | None:
        """The folder with the run's artifacts on this machine; None if there are none here."""
        place = run.info.artifact_uri or ""
        own = os.path.join(run.folder, layout.ARTIFACTS)
        parts = urlsplit(place)
        said = unquoted_path(parts.path) if parts.scheme in ("", "file") else ""
        # Where the store has been moved, its files still name the old place. And a file must not name any folder.
        usual = said.endswith(f"/{run.info.run_id}/{layout.ARTIFACTS}")
        for path in (own, said) if usual else (own,):
            if os.path.isdir(path) and os.listdir(path):
                return path
        return None

    def is_own_place(self, experiment: Experiment) -> bool:
        """Whether an experiment's artifacts are where the store puts them unless told otherwise."""
        place = experiment.artifact_location
        parts = urlsplit(place)
        if parts.scheme not in ("", "file"):
            return parts.scheme == "mlflow-artifacts"
        return not place or unquoted_path(parts.path).rstrip("/").endswith(f"/{experiment.experiment_id}")


def distinct(read: Callable[[], Iterator[Read]]) -> Iterator[Read]:
    """The points of one metric in their order, identical ones once. ``read`` begins at the first each time.

    As long as steps and times do not go back, points are compared with those of the same step and time only. After
    that all are remembered: about 200 bytes for each.
    """
    last: tuple[int, int] | None = None
    same: set[object] = set()
    before = -1
    for number, point in enumerate(read()):
        at = point[1], point[0]
        if last is not None and at < last:
            before = number
            break
        known = identity(*point)
        if at != last:
            last, same = at, set()
        elif known in same:
            continue
        same.add(known)
        yield point
    if before < 0:
        return
    seen: set[object] = set()
    for number, point in enumerate(read()):
        known = identity(*point)
        if number >= before and known not in seen:
            yield point
        seen.add(known)


def _is_store(path: str) -> bool:
    if not os.path.isdir(path):
        return False
    return any(is_file(os.path.join(folder, layout.META)) for _, folder in Tree(path).experiment_dirs())

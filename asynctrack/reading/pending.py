"""What the spools on this machine hold for a store, and the store does not have yet: runs, params, tags and points."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from asynctrack.constants import RunStatus
from asynctrack.delivery.members import creates_run, is_member
from asynctrack.entities import Metric, Run, RunData, RunInfo
from asynctrack.frozen import replaced
from asynctrack.journal.homes import homes_in_use, spool_homes
from asynctrack.journal.owner import READABLE_VERSIONS, Owner, read_owner
from asynctrack.journal.survey import find_spools
from asynctrack.reading.points import Stretch
from asynctrack.reading.spools import Held, SpoolWatch
from asynctrack.settings import current_settings
from asynctrack.stores.branches import Branch, branches_of
from asynctrack.stores.columns import Columns
from asynctrack.stores.uri import own_paths, same_spelling

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore, RunSpec

__all__ = ["Pending", "PendingRun"]

_RUN_NAME = "mlflow.runName"


class PendingRun:
    """What spools hold of one run. Several processes may: ranks, workers, programs that have taken it up again."""

    def __init__(self, parts: list[tuple[SpoolWatch, Held]]) -> None:
        #: from the oldest spool to the youngest, as they are delivered
        self.parts = sorted(parts, key=lambda part: (part[0].owner.created, part[0].path))

    @property
    def names(self) -> set[str]:
        """The ids by which the run may be known."""
        return {name for _, held in self.parts for name in held.names}

    @property
    def spec(self) -> RunSpec:
        """What it was created with, or else what it is logged to with."""
        creators = [held.spec for _, held in self.parts if creates_run(held.spec) and not held.attached]
        return (creators or [held.spec for _, held in self.parts])[0]

    @property
    def uid(self) -> str:
        """The id that stands for the run until the store has given it one."""
        return self.spec.run_id or self.spec.uid

    @property
    def run_id(self) -> str | None:
        """The run's id in the store; None: not known yet."""
        return self.told or next((held.run_id for _, held in self.parts if held.run_id is not None), None)

    @property
    def told(self) -> str | None:
        """The id that the store has given it, as far as is known."""
        return next((held.told for _, held in self.parts if held.told is not None), None)

    @property
    def creates(self) -> bool:
        """Whether its creation is among what waits."""
        return any(held.begins and creates_run(held.spec) and not held.attached for _, held in self.parts)

    @property
    def alive(self) -> bool:
        """Whether a living process has it open."""
        return any(watch.alive and not held.over and held.end is None for watch, held in self.parts)

    @property
    def waiting(self) -> int:
        """How many points, params, tags and artifacts wait."""
        return sum(held.waiting for _, held in self.parts)

    @property
    def artifacts(self) -> int:
        """How many artifacts wait."""
        return sum(len(held.artifacts) for _, held in self.parts)

    @property
    def last_time(self) -> int:
        """The last sign of life of those who log to it, in ms since the epoch."""
        return max(watch.last_time for watch, _ in self.parts)

    @property
    def params(self) -> dict[str, str]:
        """The params that wait."""
        return {key: value for _, held in reversed(self.parts) for key, value in reversed(list(held.params()))}

    @property
    def tags(self) -> dict[str, str]:
        """The tags that wait."""
        return {key: value for _, held in self.parts for key, value in held.tags()}

    @property
    def branches(self) -> list[Branch]:
        """What the waiting tags say is replaced."""
        return branches_of(self.tags)

    @property
    def end(self) -> tuple[str, int] | None:
        """Status and time (ms since the epoch) of the run's end, where that waits."""
        found = None
        for _, held in self.parts:
            if held.attached or is_member(held.spec):
                continue  # the run goes on without it
            if held.end is not None:
                found = held.end.status, held.end.end_time
            elif held.begins:
                found = None  # taken up again since
        return found

    def stretches(self) -> Iterator[tuple[str, list[Stretch]]]:
        """The points that wait, by key, spool by spool."""
        for _, held in self.parts:
            yield from held.points.items()

    @property
    def points(self) -> dict[str, Columns]:
        """The points that wait."""
        found: dict[str, Columns] = {}
        for key, stretches in self.stretches():
            for stretch in stretches:
                found.setdefault(key, Columns()).extend(stretch.columns)
        return found

    @property
    def alive_elsewhere(self) -> bool:
        """Whether it may be open in a process that cannot be seen from here: those that share it, or log to it."""
        return all(held.attached or is_member(held.spec) for _, held in self.parts)

    # ── as a run

    def over(self, run: Run) -> Run:
        """The run as it will be in the store, which has ``run`` now."""
        params, tags = {**self.params, **run.data.params}, {**run.data.tags, **self.tags}
        newest, metrics = dict(run.data.latest), dict(run.data.metrics)
        for key, stretches in self.stretches():
            for stretch in _last(stretches):
                point = _latest(key, stretch.columns)
                if key not in newest or _rank(point) > _rank(newest[key]):
                    newest[key], metrics[key] = point, point.value
        info = self._info(run.info, tags)
        return Run(info, RunData(metrics, params, tags, newest), run.inputs, run.outputs)

    def _info(self, info: RunInfo, tags: dict[str, str]) -> RunInfo:
        if self.tags.get(_RUN_NAME):
            info = replaced(info, run_name=tags[_RUN_NAME])
        end = self.end
        if end is not None:
            return replaced(info, status=end[0], end_time=end[1])
        again = any(held.begins and not held.attached for _, held in self.parts)
        if again and RunStatus.is_terminated(info.status):
            info = replaced(info, status="RUNNING", end_time=None)
        return info

    def alone(self, experiment_id: str) -> Run:
        """The run as it will be in a store that does not have it yet."""
        spec = self.spec
        name = spec.run_name or spec.tags.get(_RUN_NAME)
        info = RunInfo(self.run_id or self.uid, experiment_id, spec.user_id, "RUNNING", spec.start_time, run_name=name)
        return self.over(Run(info, RunData(tags={} if name is None else {_RUN_NAME: name})))


def _last(stretches: list[Stretch]) -> list[Stretch]:
    """Those with the largest step."""
    found = [stretch for stretch in stretches if len(stretch)]
    last = max((stretch.steps[1] for stretch in found), default=0)
    return [stretch for stretch in found if stretch.steps[1] == last]


def _latest(key: str, columns: Columns) -> Metric:
    last = max(columns.steps)
    if columns.steps[-1] == last and columns.steps.count(last) == 1:
        at = len(columns) - 1
    else:
        at = max(
            (index for index, step in enumerate(columns.steps) if step == last),
            key=lambda index: (columns.times[index], _or_zero(columns.values[index])),
        )
    return Metric(key, columns.values[at], columns.times[at], columns.steps[at])


def _rank(point: Metric) -> tuple[int, int, float]:
    return point.step, point.timestamp, _or_zero(point.value)


def _or_zero(value: float) -> float:
    return 0.0 if value != value else value


class Pending:
    """The spools here that are for one store. Belongs to one thread at a time; raises nothing.

    ``folder``: one more where spools are looked for. Looking again reads what is new. What is delivered meanwhile is
    kept until `settle`, so that who asks the store in between misses nothing.
    """

    def __init__(self, store: AbstractStore, folder: str | None = None) -> None:
        self._uri = store.uri
        self._chooses_ids = store.chooses_run_ids
        self._homes = _homes(store.uri, folder)
        self.watches: dict[str, SpoolWatch] = {}
        #: spools that are for other stores
        self._others: dict[str, Owner] = {}
        #: those that are gone: what they held is delivered
        self._gone: set[str] = set()
        #: what cannot be read, by spool
        self.problems: dict[str, str] = {}

    def refresh(self) -> None:
        """Find the spools, and the runs in them."""
        self.problems.clear()
        before = set(self.watches)
        self._find()
        for path, watch in list(self.watches.items()):
            self._try(path, watch.refresh)
            if path not in self._gone and same_spelling(watch.store) != self._uri:
                self._others[path] = watch.owner
                if path in before:
                    self._gone.add(path)
                else:
                    self.watches.pop(path).close()  # it was never one of these

    def walk(self, names: set[str] | None = None) -> None:
        """Read what is new of the run that goes by these names; None: of all."""
        for path, watch in self.watches.items():
            if path in self._gone:
                continue
            numbers = [number for number, held in watch.runs.items() if names is None or held.names & names]
            if numbers:
                self._try(path, lambda: watch.walk(numbers))  # noqa: B023  # called here

    def _try(self, path: str, look: Callable[[], None]) -> None:
        try:
            look()
        except FileNotFoundError:
            self._gone.add(path)
            self.watches[path].alive = False
        except Exception as error:  # whatever stands there: one bad spool hides no other
            self.problems[path] = f"{type(error).__name__}: {error}"

    def settle(self) -> None:
        """The store was asked after the last look, and has what is delivered."""
        for path in self._gone:
            watch = self.watches.pop(path, None)
            if watch is not None:
                watch.close()
        if self._gone:
            # Where one was moved, and not delivered, what it held waits in another place.
            for held in [held for watch in self.watches.values() for held in watch.runs.values()]:
                held.restore()
        self._gone.clear()
        for watch in self.watches.values():
            watch.settle()

    def close(self) -> None:
        """Let go of the spools."""
        for watch in self.watches.values():
            watch.close()

    # ── runs

    def runs(self) -> list[PendingRun]:
        """Every run that something waits of, or that a process has open, which may be a dead one."""
        groups: dict[str, list[tuple[SpoolWatch, Held]]] = {}
        for watch in self.watches.values():
            for held in watch.runs.values():
                if held.over and not held.waiting and held.end is None:
                    continue
                parts = [(watch, held)]
                for other in {id(groups[name]): groups[name] for name in held.names if name in groups}.values():
                    parts += other
                for name in {name for _, part in parts for name in part.names}:
                    groups[name] = parts
        return [PendingRun(parts) for parts in {id(parts): parts for parts in groups.values()}.values()]

    def run(self, names: set[str]) -> PendingRun | None:
        """The run that goes by one of these names; None: nothing here knows it."""
        found = [run for run in self.runs() if run.names & names]
        return PendingRun([part for run in found for part in run.parts]) if found else None

    # ── spools

    def _find(self) -> None:
        for home in self._homes:
            for path in find_spools(home):
                if path in self.watches or path in self._others:
                    continue
                problem = _not_to_be_read(path)
                owner = read_owner(path) if problem is None else None
                if owner is not None and owner.version not in READABLE_VERSIONS:
                    problem = f"journal format {owner.version} is not known here; use a newer asynctrack"
                if problem is not None:
                    self.problems[path] = problem
                elif owner is not None:
                    self._add(SpoolWatch(path, owner, chooses_ids=self._chooses_ids))

    def _add(self, watch: SpoolWatch) -> None:
        self.watches[watch.path] = watch


def _not_to_be_read(path: str) -> str | None:
    """Why a folder is passed over; None where it is not."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    if not os.path.isdir(path) or os.path.islink(path):
        return "it is a link, or no folder"
    if hasattr(os, "geteuid") and os.geteuid() not in (0, about.st_uid):
        return f"it belongs to another user ({about.st_uid})"
    return None


def _homes(uri: str, folder: str | None) -> list[str]:
    """Where spools for a store may be: as configured, ``folder``, where this process has its own, and beside a store of
    files."""
    found = spool_homes(current_settings().spool_dir) + homes_in_use()
    found += [] if folder is None else [os.path.abspath(os.path.expanduser(folder))]
    found += [os.path.join(os.path.dirname(path), ".asynctrack") for path in own_paths(uri)[-1:]]
    return list(dict.fromkeys(map(os.path.realpath, found)))

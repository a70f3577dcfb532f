"""What the page shows of a store. Its methods block, and any thread may call them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.clock import monotonic
from asynctrack.constants import RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from asynctrack.reading.looking import look
from asynctrack.reading.runs import FoundRun, find_runs
from asynctrack.stores.io import drive
from asynctrack.stores.uri import own_paths
from asynctrack.ui.charts import Asked, chart_of, nearest, packed, x_of
from asynctrack.ui.extremes import Extremes
from asynctrack.ui.listing import MOST_RUNS, Listing
from asynctrack.ui.patience import patient
from asynctrack.ui.tapes import Tapes

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Columns
    from asynctrack.ui.tapes import Points

__all__ = ["Board", "News"]

#: seconds between two looks at a run's points
_LOOK_EVERY = 0.1
#: keys of one request for charts
MOST_KEYS = 64


class News(NamedTuple):
    """What is new since an earlier look. ``version``: pass it to the next one. ``keys``: metrics with new points.
    ``listing``: another number when the list of runs has changed. ``waiting``: events that are not in the store yet.
    ``alive``: runs that go on. ``behind``: seconds since the look before, that is how old what was shown could
    be. ``trouble``: why the store could not be asked, in words."""

    version: int
    keys: list[str]
    listing: int
    waiting: int
    alive: int
    behind: float
    trouble: str | None


class Board:
    """The runs of a store, and the points of those that are looked at."""

    def __init__(self, store: AbstractStore) -> None:
        # To ask a folder or a file of this machine takes no thread.
        self.store = store = store if own_paths(store.uri) else patient(store)
        self._tapes = Tapes(store)
        self._listing = Listing(store, self._listed)
        #: when a look began that the store has answered
        self._fresh_at: float | None = None
        self._version = 0
        self._changes: dict[str, int] = {}
        #: runs that are over and have been read since, with the latest values that they had
        self._finished: dict[str, tuple[Any, ...]] = {}
        self._extremes = Extremes(store)

    # ── runs

    def begin(self, *, wait: bool = False) -> None:
        """List the newest runs, if that was not done: a page is about to ask for them. In a thread of its own, unless
        it is waited for."""
        if wait:
            self._listing.once()
        else:
            self._listing.begin()

    def refresh(self) -> None:
        """List all runs anew."""
        self._listing.refresh()

    def _listed(self) -> None:
        for run_id, latest in list(self._finished.items()):
            its = self._listing.found.get(run_id)
            if its is None or not self._is_over(run_id) or latest != _latest_of(its):
                self._finished.pop(run_id, None)  # it goes on, or somebody has logged to it afterwards

    def runs(self, columns: Sequence[tuple[str, str]] = (), filter_string: str = "") -> dict[str, Any]:
        """The list of runs for the page, those that go on first; ``whole``: none is missing; ``invalid``: why a filter
        is none, as when it is being typed. ``columns``: keys of metrics, each with "last", "min" or "max"."""
        self._listing.once()
        found = list(self._listing.found.values())
        trouble, invalid = self._listing.trouble, None
        if filter_string:
            try:
                found = list(drive(find_runs(self.store, filter_string=filter_string, limit=MOST_RUNS)))
            except InvalidInputError as error:
                invalid, found = str(error), []
            except StoreError as error:
                trouble, found = str(error), []
        values = {
            f"{key}:{part}": [self._extremes.value(each, key, part) for each in found] for key, part in columns
        }  # a list for each column, because most of it is the same text otherwise
        return {
            "store": self.store.uri,
            "trouble": trouble,
            "invalid": invalid,
            "listing": self._listing.number,
            "whole": self._listing.is_whole,
            "experiments": self._listing.experiments,
            "runs": [_described(each) for each in found],
            "columns": values,
        }

    def keys(self, ids: Iterable[str]) -> list[str]:
        """The metrics that at least one of some runs has, sorted."""
        self._listing.once()
        names: set[str] = set()
        for run_id in self._listing.whole_ids(ids):
            names.update(self._listing.found[run_id].run.data.metrics)
            for _, tape in self._tapes.known([run_id]):
                names.update(list(tape.points))
        return sorted(names)

    def found(self) -> list[FoundRun]:
        """The runs as they were listed last, those that go on first."""
        return list(self._listing.found.values())

    def experiments(self) -> dict[str, str]:
        """The name of each experiment by its id, as it was listed last."""
        return self._listing.experiments

    # ── points

    def charts(self, keys: Sequence[str], ids: Iterable[str], asked: Asked) -> bytes:
        """Charts of some metrics of some runs, as `asynctrack.ui.charts.packed`. Raises InvalidInputError."""
        if len(keys) > MOST_KEYS:
            raise InvalidInputError(f"{len(keys)} keys: one request is for {MOST_KEYS} charts at most")
        self._listing.once()
        run_ids = self._listing.whole_ids(ids)
        found = self._listing.found
        run_ids = [run_id for run_id in run_ids if run_id in found]  # else it has been deleted just now
        runs = {run_id: found[run_id].run for run_id in run_ids}
        version = self._version
        wanted = [*keys, asked.x] if asked.x not in ("step", "time", "relative") else keys
        points, trouble = self._read(run_ids, wanted)
        made = [chart_of(asked, key, runs, points) for key in dict.fromkeys(keys)]
        return packed(made, {"version": version, "trouble": trouble})

    def points(self, ids: Iterable[str], keys: Sequence[str]) -> dict[str, dict[str, Points]]:
        """All points of some metrics of some runs, by run and key. What the store does not give now is left out; the
        next `look` says why."""
        self._listing.once()
        found, _ = self._read(self._listing.whole_ids(ids), keys)
        return {run_id: {key: points[key] for key in keys if key in points} for run_id, points in found.items()}

    def _read(self, run_ids: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, dict[str, Points]], str | None]:
        """What has been read of each run, these metrics included, and what troubles the store."""
        trouble = self._listing.trouble
        points = {}
        for run_id in run_ids:
            tape = self._tapes.of(run_id)
            its = self._listing.found.get(run_id)
            if its is None:
                continue  # it has been deleted just now
            over = self._is_over(run_id)
            try:
                # A key that the list does not know yet may be of a run that goes on.
                tape.want([key for key in keys if key in its.run.data.metrics or not over])
                if over:
                    self._finished.setdefault(run_id, _latest_of(its))
            except NotFoundError:
                pass  # it has been deleted, or moves from a spool to the store just now: the next list says
            except StoreError as error:
                trouble = trouble or str(error)
            points[run_id] = dict(tape.points)  # while a chart is made of them, another thread may read what is new
        self._tapes.trim(run_ids)
        return points, trouble

    def _is_over(self, run_id: str) -> bool:
        found = self._listing.found.get(run_id)
        if found is None:
            return True
        return RunStatus.is_terminated(found.run.info.status) and not found.alive and not found.waiting

    def look(self, ids: Iterable[str], since: int) -> News:
        """Look at the runs that the page shows, as far as they have been read, and at what is new there."""
        self._listing.refresh_soon()
        begun, trouble = monotonic(), None
        for run_id, tape in self._tapes.known(self._listing.whole_ids(ids)):
            its, over = self._listing.found.get(run_id), self._is_over(run_id)
            if its is None or (over and run_id in self._finished):
                continue
            try:
                changed = tape.look(_LOOK_EVERY)
            except NotFoundError:
                continue  # as in `charts`
            except StoreError as error:
                trouble = str(error)
                break  # the others would wait for it as long
            if changed:
                self._version += 1
                self._changes.update(dict.fromkeys(changed, self._version))
            elif over:
                self._finished[run_id] = _latest_of(its)
            if tape.trouble is not None:
                trouble = str(tape.trouble)
        trouble = self._listing.trouble or trouble
        behind = max(begun - self._fresh_at, 0.0) if self._fresh_at is not None else 0.0
        if trouble is None:
            self._fresh_at = begun
        found = self._listing.found.values()
        return News(
            self._version,
            sorted(key for key, version in list(self._changes.items()) if version > since),
            self._listing.number,
            sum(each.waiting for each in found),
            sum(each.alive or not RunStatus.is_terminated(each.run.info.status) for each in found),
            round(behind, 2),
            trouble,
        )

    def at_step(self, text: str, step: int) -> dict[str, Any]:
        """All that a run has logged at a step. Raises NotFoundError, and what the store raises."""
        run_id = self.run(text).run.info.run_id
        found = drive(look(self.store, run_id, min_step=step, max_step=step))
        values = [[key, value if math.isfinite(value) else str(value), time]
                  for key, series in found.items() for _, time, value in series.columns.rows()]  # fmt: skip
        return {"run": run_id, "step": step, "values": values}

    def step_at(self, text: str, key: str, kind: str, at: float, half: float, value: float | None) -> int:
        """The step of the point of a metric that is nearest to an x: see `asynctrack.ui.charts.nearest`. Raises
        NotFoundError, and what the store raises."""
        run = self.run(text).run
        run_id = run.info.run_id
        tape = self._tapes.of(run_id)
        tape.want([key] if kind in ("step", "time", "relative") else [key, kind])
        points = dict(tape.points)
        index = None
        if key in points:
            x = x_of(kind, run, points, key)
            index = nearest(points[key], x, at, half, value)
        if index is None:
            raise NotFoundError(f"run {run_id} has no point of {key!r} near {at}")
        return int(points[key].series.columns.steps[index])

    def run(self, text: str) -> FoundRun:
        """The run of this id, or whose id alone begins so. Raises NotFoundError, and UnavailableError if the store
        could not be asked."""
        found = self._listing.sought([text])
        if not found and self._listing.trouble is not None:
            raise UnavailableError(f"run {text!r} is not among those that were listed: {self._listing.trouble}")
        if not found:
            raise NotFoundError(f"there is no run {text!r}, or there are several whose ids begin so")
        return self._listing.found[found[0]]

    def rows(self, key: str, ids: Iterable[str]) -> Iterator[tuple[Run, Columns]]:
        """The points of a metric, all of them, run by run. Raises `StoreError`."""
        for run_id in self._listing.sought(ids):
            tape = self._tapes.of(run_id)
            tape.want([key])
            if key in tape.points:
                yield self._listing.found[run_id].run, tape.points[key].series.columns


def _latest_of(found: FoundRun) -> tuple[Any, ...]:
    """The latest values of a run's metrics, as what is equal as long as they are."""
    return tuple(value if value == value else None for value in found.run.data.metrics.values())


def _described(found: FoundRun) -> dict[str, Any]:
    info, data = found.run.info, found.run.data
    tags = {key: value for key, value in data.tags.items() if not key.startswith(("mlflow.", "asynctrack."))}
    return {
        "id": info.run_id, "name": info.run_name or "", "experiment": info.experiment_id, "status": info.status,
        "start": info.start_time, "end": info.end_time, "seen": found.last_time,
        "alive": found.alive, "waiting": found.waiting, "params": data.params, "tags": tags,
    }  # fmt: skip

"""What the page shows of a store. Its methods block, and any thread may call them."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.clock import monotonic
from asynctrack.constants import RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError
from asynctrack.reading.looking import look
from asynctrack.reading.runs import FoundRun, find_runs
from asynctrack.stores.io import drive
from asynctrack.ui.charts import Asked, chart_of, nearest, packed, x_of
from asynctrack.ui.extremes import Extremes
from asynctrack.ui.tapes import Tapes

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Columns
    from asynctrack.ui.tapes import Points

__all__ = ["Board", "News"]

#: runs that are listed at most, and at first: of thousands that were never read before the newest are there in a second
MOST_RUNS, FIRST_RUNS = 10_000, 100
#: seconds between two looks at a run's points, and between two listings; a look that takes long is not repeated before
#: it has taken a part of the time only
_LOOK_EVERY, _LIST_EVERY, _PART = 0.1, 2.0, 10
#: seconds after the first runs before all are listed: so long their charts have the processor
_FIRST_ALONE = 1.0
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
        self.store = store
        self._tapes = Tapes(store)
        self._found: dict[str, FoundRun] = {}
        self._sorted_ids: list[str] = []
        self._experiments: dict[str, str] = {}
        self._listing = 0
        self._is_whole = False
        self._shape: Any = None
        self._listed_at, self._list_at = -math.inf, -math.inf
        self._listing_lock = threading.Lock()
        self._trouble: str | None = None
        #: when a look began that the store has answered
        self._fresh_at: float | None = None
        self._version = 0
        self._changes: dict[str, int] = {}
        #: runs that are over and have been read since, with the latest values that they had
        self._finished: dict[str, tuple[Any, ...]] = {}
        self._extremes = Extremes(store)

    # ── runs

    def refresh(self, most: int = MOST_RUNS) -> None:
        """List the runs anew. The store's trouble is remembered, and what was listed before stays. ``most``: at first
        so many; all others with the next `look`."""
        with self._listing_lock:
            begun = monotonic()
            try:
                found = drive(find_runs(self.store, limit=most))
                if found.trouble is None:
                    self._experiments = _experiment_names(self.store)
            except StoreError as error:
                self._trouble = str(error)
                self._list_at = monotonic() + _LIST_EVERY
                return
            self._trouble = None if found.trouble is None else str(found.trouble)
            self._found = {each.run.info.run_id: each for each in found}
            self._sorted_ids = sorted(self._found)
            for run_id, latest in list(self._finished.items()):
                its = self._found.get(run_id)
                if its is None or not self._is_over(run_id) or latest != _latest_of(its):
                    self._finished.pop(run_id, None)  # it goes on, or somebody has logged to it afterwards
            shape = [
                (each.run.info, each.waiting, each.alive, each.last_time, len(each.run.data.metrics)) for each in found
            ]
            was_whole, self._is_whole = self._is_whole, most >= MOST_RUNS or len(found) < most
            if shape != self._shape or self._is_whole > was_whole:
                self._shape = shape
                self._listing += 1
            self._listed_at = monotonic()
            pause = max(_LIST_EVERY, _PART * (self._listed_at - begun)) if self._is_whole else _FIRST_ALONE
            self._list_at = self._listed_at + pause

    def _refresh_soon(self) -> None:
        """In a thread of its own: with thousands of runs it takes longer than a look at points may."""
        if monotonic() >= self._list_at and not self._listing_lock.locked():
            self._list_at = monotonic() + _LIST_EVERY
            threading.Thread(target=self.refresh, name="asynctrack-view-runs", daemon=True).start()

    def runs(self, columns: Sequence[tuple[str, str]] = (), filter_string: str = "") -> dict[str, Any]:
        """The list of runs for the page, those that go on first; ``whole``: none is missing. ``columns``: keys of
        metrics, each with "last", "min" or "max". Raises InvalidInputError for a filter that is none."""
        self._list_once()
        found = list(self._found.values())
        trouble = self._trouble
        if filter_string:
            try:
                found = list(drive(find_runs(self.store, filter_string=filter_string, limit=MOST_RUNS)))
            except StoreError as error:
                trouble, found = str(error), []
        values = {
            f"{key}:{part}": [self._extremes.value(each, key, part) for each in found] for key, part in columns
        }  # a list for each column, because most of it is the same text otherwise
        return {
            "store": self.store.uri,
            "trouble": trouble,
            "listing": self._listing,
            "whole": self._is_whole,
            "experiments": self._experiments,
            "runs": [_described(each) for each in found],
            "columns": values,
        }

    def keys(self, ids: Iterable[str]) -> list[str]:
        """The metrics that at least one of some runs has, sorted."""
        self._list_once()
        names: set[str] = set()
        for run_id in self._whole_ids(ids):
            names.update(self._found[run_id].run.data.metrics)
            for _, tape in self._tapes.known([run_id]):
                names.update(list(tape.points))
        return sorted(names)

    def _list_once(self) -> None:
        if self._listed_at == -math.inf:
            self.refresh(FIRST_RUNS)
        elif not self._is_whole:
            self._refresh_soon()

    def _whole_ids(self, ids: Iterable[str]) -> list[str]:
        """The runs whose ids begin so, each once; what no run, or several, are called is left out."""
        found: dict[str, None] = {}
        for text in ids:
            at = bisect_left(self._sorted_ids, text)
            matches = [each for each in self._sorted_ids[at : at + 2] if text and each.startswith(text)]
            if len(matches) == 1 or (matches and matches[0] == text):
                found[matches[0]] = None
        return list(found)

    def found(self) -> list[FoundRun]:
        """The runs as they were listed last, those that go on first."""
        return list(self._found.values())

    def experiments(self) -> dict[str, str]:
        """The name of each experiment by its id, as it was listed last."""
        return self._experiments

    # ── points

    def charts(self, keys: Sequence[str], ids: Iterable[str], asked: Asked) -> bytes:
        """Charts of some metrics of some runs, as `asynctrack.ui.charts.packed`. Raises InvalidInputError."""
        if len(keys) > MOST_KEYS:
            raise InvalidInputError(f"{len(keys)} keys: one request is for {MOST_KEYS} charts at most")
        self._list_once()
        run_ids = self._whole_ids(ids)
        found = self._found
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
        self._list_once()
        found, _ = self._read(self._whole_ids(ids), keys)
        return {run_id: {key: points[key] for key in keys if key in points} for run_id, points in found.items()}

    def _read(self, run_ids: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, dict[str, Points]], str | None]:
        """What has been read of each run, these metrics included, and what troubles the store."""
        trouble = self._trouble
        points = {}
        for run_id in run_ids:
            tape = self._tapes.of(run_id)
            its = self._found.get(run_id)
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
        found = self._found.get(run_id)
        if found is None:
            return True
        return RunStatus.is_terminated(found.run.info.status) and not found.alive and not found.waiting

    def look(self, ids: Iterable[str], since: int) -> News:
        """Look at the runs that the page shows, as far as they have been read, and at what is new there."""
        self._refresh_soon()
        begun, trouble = monotonic(), None
        for run_id, tape in self._tapes.known(self._whole_ids(ids)):
            its, over = self._found.get(run_id), self._is_over(run_id)
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
        trouble = self._trouble or trouble
        behind = max(begun - self._fresh_at, 0.0) if self._fresh_at is not None else 0.0
        if trouble is None:
            self._fresh_at = begun
        found = self._found.values()
        return News(
            self._version,
            sorted(key for key, version in list(self._changes.items()) if version > since),
            self._listing,
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
        """The run of this id, or whose id alone begins so. Raises NotFoundError."""
        self._list_once()
        found = self._whole_ids([text])
        if not found:
            raise NotFoundError(f"there is no run {text!r}, or there are several whose ids begin so")
        return self._found[found[0]]

    def rows(self, key: str, ids: Iterable[str]) -> Iterator[tuple[Run, Columns]]:
        """The points of a metric, all of them, run by run. Raises `StoreError`."""
        self._list_once()
        for run_id in self._whole_ids(ids):
            tape = self._tapes.of(run_id)
            tape.want([key])
            if key in tape.points:
                yield self._found[run_id].run, tape.points[key].series.columns


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


def _experiment_names(store: AbstractStore) -> dict[str, str]:
    names: dict[str, str] = {}
    token = None
    while True:
        page = drive(store.search_experiments(max_results=1000, page_token=token))
        names |= {each.experiment_id: each.name for each in page.items}
        token = page.token
        if not token:
            return names

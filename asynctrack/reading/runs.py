"""The runs of a store, with those that only spools know, and what waits of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.entities import Run
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError
from asynctrack.reading.finding import all_experiments, experiment_of, names_of, stored_run
from asynctrack.reading.pending import Pending, PendingRun
from asynctrack.stores import search

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["FoundRun", "FoundRuns", "find_runs"]

#: runs that a store is asked for at once
_PAGE = 1000


class FoundRun(NamedTuple):
    """One run. ``run``: as it is, or will be, in the store. ``waiting``: how many points, params, tags and artifacts
    spools here hold. ``alive``: a living process has it open. ``stored``: the store has it. ``last_time``: the last
    sign of life, in ms since the epoch, where there was one. ``trouble``: why the store could not be asked; then
    this is only what spools here hold."""

    run: Run
    waiting: int = 0
    alive: bool = False
    stored: bool = True
    last_time: int | None = None
    trouble: StoreError | None = None

    @classmethod
    def of(
        cls,
        run: Run | None,
        held: PendingRun | None,
        experiment_id: str = "",
        trouble: StoreError | None = None,
    ) -> FoundRun:
        """What the store says of a run, and what spools hold of it; one of the two is not None. ``experiment_id``: of a
        run that the store does not have."""
        if held is None:
            assert run is not None
            times = [point.timestamp for point in run.data.latest.values()]
            return cls(run, last_time=run.info.end_time or max(times, default=None))
        whole = held.over(run) if run is not None else held.alone(experiment_id)
        return cls(whole, held.waiting, held.alive, run is not None, held.last_time, trouble)


class FoundRuns(list[FoundRun]):
    """Runs. ``trouble``: why the store could not be asked; then these are only those that spools here hold.
    ``problems``: which spools cannot be read, and why."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: StoreError | None = None
        self.problems: dict[str, str] = {}


async def find_runs(
    store: AbstractStore,
    experiments: Sequence[str] | None = None,
    filter_string: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    view_type: int = ViewType.ACTIVE_ONLY,
    live: bool = True,
    *,
    folder: str | None = None,
    outlines: bool = False,
) -> FoundRuns:
    """The runs of a store, those that are alive first, then the latest start first; or in the order of ``order_by``.

    ``experiments``: names or ids (default: all that are not deleted). ``filter_string`` and ``order_by``: MLflow's.
    ``limit``: so many at most. ``live``: with what spools here hold and the store does not have yet. ``folder``: one
    more folder where spools are looked for. ``outlines``: runs whose params and tags may be missing.

    Reads no more of a run's points than the store does for `search_runs`. Raises `NotFoundError` for an experiment that
    does not exist, `InvalidInputError` for a filter or an order that cannot be read, and what the store raises where no
    spool holds anything.
    """
    if limit < 1:
        raise InvalidInputError(f"limit={limit}: it must be 1 or more")
    search_for = _Search(filter_string, order_by, limit, view_type, outlines)
    found = FoundRuns()
    held = await _held(store, folder, found) if live else []
    try:
        ids = await _experiments(store, experiments, held)
        stored = await search_for.stored(store, ids)
        merged = await _merge(store, stored, held, _Place(set(ids), experiments), search_for)
    except NotFoundError:
        raise
    except StoreError as error:
        if not held:
            raise
        found.trouble = error
        place = _Place(set(experiments or ()), experiments)
        alone = [(run, run.spec.experiment_id or "") for run in held]
        merged = [FoundRun.of(None, run, id_, error) for run, id_ in alone if place.holds_new(run, id_)]
        merged = [run for run in merged if search_for.is_met_by(run)]
    found += search_for.sorted(merged)[:limit]
    return found


async def _held(store: AbstractStore, folder: str | None, found: FoundRuns) -> list[PendingRun]:
    pending = Pending(store, folder)
    try:
        await store.io.call(pending.refresh)
        await store.io.call(pending.walk)
    finally:
        pending.close()
    found.problems.update(pending.problems)
    return pending.runs()


class _Search:
    """Which runs are asked for, and in which order. Raises `InvalidInputError`."""

    def __init__(self, filter_string: str, order_by: Sequence[str], limit: int, view_type: int, outlines: bool) -> None:
        #: whether what the store finds may lack params and tags
        self.outlines = outlines
        self._filter, self._order_by = filter_string, order_by
        self._limit, self._view_type = limit, view_type
        self._clauses = search.parse_run_filter(filter_string)
        self._orders = search.parse_run_order(order_by)

    async def stored(self, store: AbstractStore, experiment_ids: list[str]) -> list[Run]:
        """What the store finds."""
        found: list[Run] = []
        token = None
        ask = store.outline_runs if self.outlines else store.search_runs
        while experiment_ids and len(found) < self._limit:
            most = min(self._limit - len(found), _PAGE)
            page = await ask(experiment_ids, self._filter, self._view_type, most, self._order_by, page_token=token)
            found += page.items
            if not page.token or page.token == token:
                break
            token = page.token
        return found

    def is_met_by(self, found: FoundRun) -> bool:
        """Whether a run is one of them, with what spools hold of it."""
        return LifecycleStage.matches_view_type(self._view_type, found.run.info.lifecycle_stage) and search.matches(
            self._clauses, search.run_getter(found.run)
        )

    def sorted(self, runs: list[FoundRun]) -> list[FoundRun]:
        """In the order that is asked for."""
        runs = sorted(runs, key=lambda found: (-found.run.info.start_time, found.run.info.run_id))
        if self._orders:
            return search.order([(found, search.run_getter(found.run)) for found in runs], self._orders)
        return sorted(runs, key=lambda found: not found.alive)


class _Place(NamedTuple):
    """The experiments that are asked for. ``given``: as the caller named them; None: all."""

    ids: set[str]
    given: Sequence[str] | None

    def holds_new(self, held: PendingRun, experiment_id: str) -> bool:
        """Whether a run that the store does not have will be in one of them."""
        if self.given is None:
            return True
        return experiment_id in self.ids or held.spec.experiment_name in self.given


async def _experiments(store: AbstractStore, given: Sequence[str] | None, held: list[PendingRun]) -> list[str]:
    """The ids of the experiments that are asked for. Raises NotFoundError."""
    if given is None:
        return [experiment.experiment_id for experiment in await all_experiments(store)]
    to_be_made = {run.spec.experiment_name for run in held}
    ids = []
    for text in given:
        named = await store.get_experiment_by_name(text)
        try:
            ids.append((named or await store.get_experiment(text)).experiment_id)
        except NotFoundError:
            if text not in to_be_made:
                raise NotFoundError(f"{store.uri} has no experiment with the name or the id {text!r}") from None
    return ids


async def _merge(
    store: AbstractStore, stored: list[Run], held: list[PendingRun], place: _Place, search_for: _Search
) -> list[FoundRun]:
    """Runs of the store and of spools, each once."""
    by_name = {name: run for run in reversed(stored) for name in names_of(run)}
    merged = {run.info.run_id: FoundRun.of(run, None) for run in stored}
    for pending in held:
        run = next((by_name[name] for name in sorted(pending.names) if name in by_name), None)
        if search_for.outlines:
            run = None  # whether it is one of them is asked of all of it
        try:
            run = run or await stored_run(store, pending.run_id or pending.uid, pending.names, pending)
        except NotFoundError:
            experiment_id = await experiment_of(store, pending)
            if not place.holds_new(pending, experiment_id):
                continue
        else:
            experiment_id = run.info.experiment_id
            if experiment_id not in place.ids:
                continue
            merged.pop(run.info.run_id, None)
        found = FoundRun.of(run, pending, experiment_id)
        if search_for.is_met_by(found):
            merged[found.run.info.run_id] = found
    return list(merged.values())

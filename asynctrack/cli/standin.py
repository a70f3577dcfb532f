"""Runs of a store, and runs by what a user calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.constants import ViewType
from asynctrack.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.series import Series
    from asynctrack.stores.base import AbstractStore

__all__ = ["Follower", "FoundRun", "find_runs", "resolve"]


class FoundRun(NamedTuple):
    """A run, and what waits of it in spools."""

    run: Run
    waiting: int
    alive: bool
    stored: bool
    last_time: int | None


async def find_runs(
    store: AbstractStore,
    experiments: Sequence[str] | None = None,
    filter_string: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    view_type: int = ViewType.ACTIVE_ONLY,
    live: bool = True,
) -> list[FoundRun]:
    """Runs that match."""
    ids = experiments
    if ids is None:
        ids = [each.experiment_id for each in (await store.search_experiments(max_results=1000)).items]
    found: list[Run] = []
    token = None
    while ids and len(found) < limit:
        page = await store.search_runs(ids, filter_string, view_type, min(limit - len(found), 1000), order_by, token)
        found += page.items
        token = page.token
        if not token:
            break
    return [
        FoundRun(run, 0, False, True, max((point.timestamp for point in run.data.latest.values()), default=None))
        for run in found
    ]


async def resolve(store: AbstractStore, text: str, live: bool = True) -> FoundRun:
    """The run that a text names."""
    found = await find_runs(store, limit=1000, live=live)
    if text.startswith("@"):
        if text == "@live":
            found = [each for each in found if each.alive]
        found.sort(key=lambda each: -each.run.info.start_time)
        try:
            return found[int(text[1:] or 0) if text != "@live" else 0]
        except (IndexError, ValueError):
            raise NotFoundError(f"no run {text}") from None
    for matches in (
        [each for each in found if each.run.info.run_id == text],
        [each for each in found if each.run.info.run_name == text],
        [each for each in found if len(text) >= 4 and each.run.info.run_id.startswith(text)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InvalidInputError(f"{text} is ambiguous")
    raise NotFoundError(f"no run {text}")


class Follower:
    """A run that is looked at again and again."""

    def __init__(self, store: AbstractStore, run_id: str, keys: Sequence[str] | None = None, live: bool = True) -> None:
        self._store, self._run_id, self._keys, self._live = store, run_id, keys, live
        self.series: dict[str, Series] = {}
        self.run: Run | None = None
        self.ended = False

    async def look(self) -> set[str]:
        """Look, and return the keys that changed."""
        from asynctrack.reading.looking import look

        self.run = await self._store.get_run(self._run_id)
        before = self.series
        self.series = await look(self._store, self._run_id, self._keys, live=self._live)
        self.ended = self.run.info.end_time is not None
        return {key for key, each in self.series.items() if key not in before or len(before[key][0]) != len(each[0])}

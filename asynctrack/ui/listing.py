"""The runs of a store as they were listed last, and when they are listed anew."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic
from asynctrack.errors import StoreError
from asynctrack.reading.runs import FoundRun, find_runs
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["FIRST_RUNS", "MOST_RUNS", "Listing"]

#: runs that are listed at most, and at first: of thousands that were never read before the newest are there in a second
MOST_RUNS, FIRST_RUNS = 10_000, 60
#: seconds between two listings; one that takes long is not repeated before it has taken a part of the time only
_LIST_EVERY, _PART = 2.0, 10
#: seconds after the first runs before all are listed: so long their charts have the processor
_FIRST_ALONE = 1.0


class Listing:
    """The runs of a store. Any thread may call its methods. ``listed`` is called when they were listed."""

    def __init__(self, store: AbstractStore, listed: Callable[[], None]) -> None:
        self.found: dict[str, FoundRun] = {}
        #: the name of each experiment by its id
        self.experiments: dict[str, str] = {}
        #: another number when the list has changed
        self.number = 0
        #: none is missing
        self.is_whole = False
        #: why the store could not be asked, in words
        self.trouble: str | None = None
        self._store, self._listed = store, listed
        self._sorted_ids: list[str] = []
        self._shape: Any = None
        self._listed_at, self._list_at = -math.inf, -math.inf
        self._lock = threading.Lock()

    def begin(self) -> None:
        """List the newest runs, in a thread of its own, if that was not done: a page is about to ask for them."""
        if self._listed_at == -math.inf and not self._lock.locked():
            threading.Thread(target=self.once, name="asynctrack-view-runs", daemon=True).start()

    def refresh(self, most: int = MOST_RUNS, *, first: bool = False) -> None:
        """List the runs anew. The store's trouble is remembered, and what was listed before stays. ``most``: at first
        so many; all others with the next `look`. ``first``: only if they were never listed."""
        with self._lock:
            if first and self._listed_at > -math.inf:
                return
            begun = monotonic()
            try:
                found = drive(find_runs(self._store, limit=most))
                if found.trouble is None:
                    self.experiments = _experiment_names(self._store)
            except StoreError as error:
                self.trouble = str(error)
                self._list_at = monotonic() + _LIST_EVERY
                return
            self.trouble = None if found.trouble is None else str(found.trouble)
            self.found = {each.run.info.run_id: each for each in found}
            self._sorted_ids = sorted(self.found)
            self._listed()
            shape = [
                (each.run.info, each.waiting, each.alive, each.last_time, len(each.run.data.metrics)) for each in found
            ]
            was_whole, self.is_whole = self.is_whole, most >= MOST_RUNS or len(found) < most
            if shape != self._shape or self.is_whole > was_whole:
                self._shape = shape
                self.number += 1
            self._listed_at = monotonic()
            pause = max(_LIST_EVERY, _PART * (self._listed_at - begun)) if self.is_whole else _FIRST_ALONE
            self._list_at = self._listed_at + pause

    def refresh_soon(self) -> None:
        """In a thread of its own: with thousands of runs it takes longer than a look at points may."""
        if monotonic() >= self._list_at and not self._lock.locked():
            self._list_at = monotonic() + _LIST_EVERY
            threading.Thread(target=self.refresh, name="asynctrack-view-runs", daemon=True).start()

    def once(self) -> None:
        """List the newest ones if that was never done, and all soon."""
        if self._listed_at == -math.inf:
            self.refresh(FIRST_RUNS, first=True)
        elif not self.is_whole:
            self.refresh_soon()

    def sought(self, ids: Iterable[str]) -> list[str]:
        """`whole_ids`, of all runs where one of these is not among the newest."""
        self.once()
        texts = list(ids)
        found = self.whole_ids(texts)
        if len(found) < len(texts) and not self.is_whole:
            self.refresh()
            found = self.whole_ids(texts)
        return found

    def whole_ids(self, ids: Iterable[str]) -> list[str]:
        """The runs whose ids begin so, each once; what no run, or several, are called is left out."""
        found: dict[str, None] = {}
        for text in ids:
            at = bisect_left(self._sorted_ids, text)
            matches = [each for each in self._sorted_ids[at : at + 2] if text and each.startswith(text)]
            if len(matches) == 1 or (matches and matches[0] == text):
                found[matches[0]] = None
        return list(found)


def _experiment_names(store: AbstractStore) -> dict[str, str]:
    names: dict[str, str] = {}
    token = None
    while True:
        page = drive(store.search_experiments(max_results=1000, page_token=token))
        names |= {each.experiment_id: each.name for each in page.items}
        token = page.token
        if not token:
            return names

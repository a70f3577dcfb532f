"""`FaultyStore`: a store that fails on demand."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import StoreIO

__all__ = ["FaultyStore"]


def _delegated(name: str) -> Any:
    async def method(self: FaultyStore, *args: Any, **kwargs: Any) -> Any:
        return await self._attempt(name, *args, **kwargs)

    method.__name__ = name
    return method


def _of_inner(name: str, doc: str) -> Any:
    """An attribute that the engine sets: it is passed on to the inner store, if that has it."""

    def get(self: FaultyStore) -> Any:
        return getattr(self.inner, name, None)

    def set_(self: FaultyStore, value: Any) -> None:
        if hasattr(self.inner, name):
            setattr(self.inner, name, value)

    return property(get, set_, doc=doc)


class FaultyStore(AbstractStore):
    """Wraps another store and adds planned failures. ``calls`` counts the
    calls of each method, failed ones too."""

    def __init__(self, store: AbstractStore) -> None:
        self.inner = store
        self.uri = store.uri
        self.limits = store.limits
        self.keys_are_paths = store.keys_are_paths
        self.chooses_run_ids = store.chooses_run_ids
        self.overlap = store.overlap
        self.most_requests = store.most_requests
        self.calls: Counter[str] = Counter()
        self._plan: dict[tuple[str, int], tuple[Exception, bool]] = {}

    def fail(self, method: str, error: Exception, *, nth: int = 1, times: int = 1, applied: bool = False) -> None:
        """Raise ``error`` in ``times`` calls of ``method``, beginning with the
        ``nth`` from now on (1: the next call).

        With ``applied``, the call is carried out before ``error`` is raised,
        as when the answer of a server is lost.
        """
        for call in range(self.calls[method] + nth, self.calls[method] + nth + times):
            self._plan[method, call] = error, applied

    async def _attempt(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.calls[method] += 1
        error, applied = self._plan.pop((method, self.calls[method]), (None, True))
        result = await getattr(self.inner, method)(*args, **kwargs) if applied else None
        if error is not None:
            raise error
        return result

    io = _of_inner("io", "The inner store's `StoreIO`, which the engine exchanges at exit.")
    patience = _of_inner("patience", "Seconds that a call may wait for an answer.")
    durable = _of_inner("durable", "Whether what `log_batch` returns from must survive the machine.")

    def over(self, io: StoreIO) -> FaultyStore:
        """A `FaultyStore` with the same plan and the same counts, around a
        copy of the inner store."""
        twin = copy.copy(self)
        twin.inner = self.inner.over(io)
        return twin

    def check_key(self, kind: str, key: str) -> None:
        self.inner.check_key(kind, key)

    def experiment_page(self, experiment_id: str) -> str | None:
        return self.inner.experiment_page(experiment_id)

    create_run = _delegated("create_run")
    find_run = _delegated("find_run")
    is_gone = _delegated("is_gone")
    probe = _delegated("probe")
    bookmark = _delegated("bookmark")
    log_batch = _delegated("log_batch")
    update_run = _delegated("update_run")
    get_run = _delegated("get_run")
    search_runs = _delegated("search_runs")
    outline_runs = _delegated("outline_runs")
    list_run_infos = _delegated("list_run_infos")
    get_metric_history = _delegated("get_metric_history")
    read_columns = _delegated("read_columns")
    summarize = _delegated("summarize")
    delete_run = _delegated("delete_run")
    restore_run = _delegated("restore_run")
    delete_tag = _delegated("delete_tag")
    create_experiment = _delegated("create_experiment")
    get_experiment = _delegated("get_experiment")
    get_experiment_by_name = _delegated("get_experiment_by_name")
    search_experiments = _delegated("search_experiments")
    rename_experiment = _delegated("rename_experiment")
    delete_experiment = _delegated("delete_experiment")
    restore_experiment = _delegated("restore_experiment")
    set_experiment_tag = _delegated("set_experiment_tag")
    delete_experiment_tag = _delegated("delete_experiment_tag")
    aclose = _delegated("aclose")

"""Reading runs: whole ones, histories, searches. Filters and orders are those of `asynctrack.stores.search`.

A search reads in two short transactions, because readers keep writers of an SQLite file from committing: first what it
asks about, of every run in the experiments; then, after filtering, the runs of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from asynctrack.constants import LifecycleStage, ViewType
from asynctrack.entities import Metric, Run, RunData, RunInfo, RunInputs, RunOutputs
from asynctrack.errors import NotFoundError
from asynctrack.stores import search
from asynctrack.stores.base import Page
from asynctrack.stores.sql.experiments import experiment_number, list_experiments
from asynctrack.stores.sql.inputs import inputs_and_outputs
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.runs import INFO, get_info, info_of
from asynctrack.stores.sql.session import Database, Session

__all__ = ["get_history", "get_run", "get_tags", "list_run_infos", "search_experiments", "search_runs"]

#: values in one statement; SQLite before 3.32 takes 999
_MOST_VALUES = 500
_NEWEST_FIRST = " ORDER BY COALESCE(start_time, 0) DESC, run_uuid"
_STAGES = {
    ViewType.ACTIVE_ONLY: f" AND lifecycle_stage = '{LifecycleStage.ACTIVE}'",
    ViewType.DELETED_ONLY: f" AND lifecycle_stage = '{LifecycleStage.DELETED}'",
}
_VALUES = {"param": "SELECT run_uuid, value FROM params", "tag": "SELECT run_uuid, value FROM tags"}
_LATEST = "SELECT run_uuid, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics"


def get_run(session: Session, run_id: str) -> Run:
    """Raises `NotFoundError`."""
    info = get_info(session, run_id)
    return _whole(session, [info])[0]


def get_tags(session: Session, run_id: str) -> dict[str, str]:
    """Raises `NotFoundError`."""
    uuid = get_info(session, run_id).run_id
    return {key: value or "" for key, value in session.rows("SELECT key, value FROM tags WHERE run_uuid = ?", (uuid,))}


def get_history(session: Session, run_id: str, key: str) -> list[Metric]:
    """Every point of one metric, as MLflow orders them. Raises `NotFoundError` for a run that is not there."""
    rows = session.rows(
        "SELECT value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ? "
        "ORDER BY timestamp, step, value",
        (storable(run_id), storable(key)),
    )
    if not rows:
        get_info(session, run_id)
    return [Metric(key, math.nan if is_nan else value, timestamp, step) for value, timestamp, step, is_nan in rows]


def list_run_infos(
    session: Session, experiment_id: str, view_type: int, max_results: int, page_token: str | None
) -> Page:
    """The newest first. An experiment that does not exist has none. Raises `InvalidInputError`."""
    start = search.page_start(max_results, page_token)
    return search.page_at(start, _infos(session, [experiment_id], view_type, max_results + 1, start), max_results)


def search_runs(
    database: Database,
    wait: float,
    experiment_ids: Sequence[str],
    filter_string: str,
    view_type: int,
    max_results: int,
    order_by: Sequence[str],
    page_token: str | None,
) -> Page:
    """Raises `InvalidInputError`. Experiments that do not exist have no runs."""
    clauses = search.parse_run_filter(filter_string)
    orders = search.parse_run_order(order_by)
    start = search.page_start(max_results, page_token)
    asked = {(clause.kind, clause.key) for clause in clauses} | {(item.kind, item.key) for item in orders}
    with database.read(wait) as session:
        if not asked and len(experiment_ids) <= _MOST_VALUES:
            page = search.page_at(
                start, _infos(session, experiment_ids, view_type, max_results + 1, start), max_results
            )
            return page._replace(items=_whole(session, page.items))
        infos = _infos(session, experiment_ids, view_type)
        known = {
            (kind, key): dict(_values(session, kind, key, experiment_ids)) for kind, key in asked if kind != "attribute"
        }
    found = [(info, get) for info in infos if search.matches(clauses, get := _getter(info, known))]
    page = search.page(search.order(found, orders), max_results, page_token)
    with database.read(wait) as session:
        return page._replace(items=_whole(session, page.items))


def search_experiments(
    session: Session, view_type: int, max_results: int, filter_string: str, order_by: Sequence[str], token: str | None
) -> Page:
    """Raises `InvalidInputError`."""
    clauses = search.parse_experiment_filter(filter_string)
    orders = search.parse_experiment_order(order_by)
    found = [
        (experiment, get)
        for experiment in list_experiments(session)
        if LifecycleStage.matches_view_type(view_type, experiment.lifecycle_stage)
        and search.matches(clauses, get := search.experiment_getter(experiment))
    ]
    return search.page(search.order(found, orders), max_results, token)


def _infos(
    session: Session, experiment_ids: Sequence[str], view_type: int, limit: int | None = None, start: int = 0
) -> list[RunInfo]:
    """The runs of some experiments, the newest first; of many experiments in any order of these."""
    found: list[RunInfo] = []
    for numbers in _numbers(experiment_ids):
        statement = f"{INFO} WHERE experiment_id IN ({_marks(numbers)}){_STAGES.get(view_type, '')}{_NEWEST_FIRST}"
        if limit is not None:
            statement += f" LIMIT {limit:d} OFFSET {start:d}"
        found += [info_of(row) for row in session.rows(statement, numbers)]
    if len(experiment_ids) > _MOST_VALUES:
        found.sort(key=lambda info: (-info.start_time, info.run_id))
    return found


def _values(session: Session, kind: str, key: str, experiment_ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The value of one key, by run: NaN where it is NaN."""
    select = _LATEST if kind == "metric" else _VALUES[kind]
    for numbers in _numbers(experiment_ids):
        runs = f"SELECT run_uuid FROM runs WHERE experiment_id IN ({_marks(numbers)})"
        for run_id, value in session.rows(
            f"{select} WHERE key = ? AND run_uuid IN ({runs})", (storable(key), *numbers)
        ):
            yield run_id, math.nan if kind == "metric" and value is None else value


def _getter(info: RunInfo, known: dict[tuple[str, str], dict[str, Any]]) -> search.Getter:
    return lambda kind, key: getattr(info, key) if kind == "attribute" else known[kind, key].get(info.run_id)


def _whole(session: Session, infos: Sequence[RunInfo]) -> list[Run]:
    latest: dict[str, list[Metric]] = {info.run_id: [] for info in infos}
    params: dict[str, dict[str, str]] = {info.run_id: {} for info in infos}
    tags: dict[str, dict[str, str]] = {info.run_id: {} for info in infos}
    used: dict[str, tuple[RunInputs, RunOutputs]] = {}
    for ids in _chunks([info.run_id for info in infos]):
        among = f"WHERE run_uuid IN ({_marks(ids)})"
        for run_id, key, value, timestamp, step, is_nan in session.rows(
            f"SELECT run_uuid, key, value, timestamp, step, is_nan FROM latest_metrics {among}", ids
        ):
            latest[run_id].append(Metric(key, math.nan if is_nan else value, timestamp or 0, step))
        for table, kept in (("params", params), ("tags", tags)):
            for run_id, key, value in session.rows(f"SELECT run_uuid, key, value FROM {table} {among}", ids):
                kept[run_id][key] = value or ""
        inputs, outputs = inputs_and_outputs(session, ids)
        used.update((run_id, (inputs[run_id], outputs[run_id])) for run_id in ids)
    return [
        Run(info, RunData.of(latest[info.run_id], params[info.run_id], tags[info.run_id]), *used[info.run_id])
        for info in infos
    ]


def _numbers(experiment_ids: Iterable[str]) -> Iterator[list[int]]:
    """The ids of experiments that can exist, each once, in pieces that fit a statement."""
    found = []
    for experiment_id in dict.fromkeys(experiment_ids):
        try:
            found.append(experiment_number(experiment_id))
        except NotFoundError:
            continue
    yield from _chunks(found)


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(items), _MOST_VALUES):
        yield items[at : at + _MOST_VALUES]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))

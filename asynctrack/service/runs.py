"""The verbs on runs.

A verb that reads or changes a run first waits until the events that this process logged to it are delivered. So a
program finds what it has just logged, and events logged before a deletion do not arrive after it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from asynctrack.arguments import (
    experiment_id_of,
    experiment_ids_of,
    moment_of,
    optional_text,
    run_id_of,
    search_of,
    source_tags,
    status_of,
    tags_of,
    terminal_status,
    text_of,
    view_of,
)
from asynctrack.constants import ViewType
from asynctrack.errors import FlushTimeoutError, InvalidInputError
from asynctrack.runs.active import detach
from asynctrack.runs.waiting import raise_refused
from asynctrack.service.creating import current_user, new_run
from asynctrack.service.pages import PAGE, all_items, paged
from asynctrack.stores.branches import latest_branch
from asynctrack.values import shortened, to_text

if TYPE_CHECKING:
    from asynctrack.entities import Metric, PagedList, Run, RunInfo
    from asynctrack.service.session import Session


async def create_run(
    session: Session,
    experiment_id: str | int,
    user_id: str | None = None,
    run_name: str | None = None,
    source_type: str | int | None = None,
    source_name: str | None = None,
    entry_point_name: str | None = None,
    start_time: int | None = None,
    source_version: str | None = None,
    tags: Mapping[str, Any] | None = None,
    parent_run_id: str | None = None,
) -> Run:
    """Create a run. It does not become the active run.

    ``user_id``: default the current user. ``start_time``: ms since the epoch,
    default now. ``source_type`` (the name or number of a `SourceType`),
    ``source_name``, ``source_version`` (a commit), ``entry_point_name`` and
    ``parent_run_id`` are stored as the tags that MLflow uses for them. Raises
    NotFoundError for an experiment that does not exist, RefusedError for a
    deleted one.
    """
    given = source_tags(source_type, source_name, entry_point_name, source_version)
    if parent_run_id is not None:
        given["mlflow.parentRunId"] = run_id_of(parent_run_id)
    given |= tags_of(tags)
    user = given.get("mlflow.user") or current_user() if user_id is None else to_text("argument", "user_id", user_id)
    labels = {"mlflow.user": user, **given}
    return await new_run(session, experiment_id, user, start_time, labels, run_name)


async def get_run(session: Session, run_id: str | int) -> Run:
    """A run with its latest metrics, params and tags, also a deleted run.
    Raises NotFoundError."""
    found = run_id_of(run_id)
    await session.settle(found)
    return await session.store.get_run(found)


async def list_runs(session: Session, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The runs of an experiment, the latest first. Only ``info`` is filled;
    ``data`` is empty. Raises NotFoundError."""
    from asynctrack.entities import Run

    return [Run(info) for info in await list_run_infos(session, experiment_id, run_view_type)]


async def list_run_infos(
    session: Session, experiment_id: str | int, run_view_type: int = ViewType.ACTIVE_ONLY
) -> list[RunInfo]:
    """The `RunInfo` of each run of an experiment, the latest first. Raises
    NotFoundError."""
    found, shown = experiment_id_of(experiment_id), view_of(run_view_type)
    store = session.store
    await session.settle_experiments([found])
    await store.get_experiment(found)  # raises if it does not exist; a search would just find no runs
    return await all_items(lambda token: store.list_run_infos(found, shown, PAGE, token))


async def search_runs(
    session: Session,
    experiment_ids: Sequence[str | int] | str | int,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = 1000,
    order_by: Sequence[str] | None = None,
    page_token: str | None = None,
) -> PagedList[Run]:
    """One page of the runs that match a filter in MLflow's syntax, like
    "metrics.loss < 0.5 and params.lr = '1'". Pass its ``token`` as
    ``page_token`` to get the next page; it is None on the last one.
    Experiments that do not exist are ignored. Raises InvalidInputError for a
    bad filter."""
    found = experiment_ids_of(experiment_ids)
    wanted = search_of(run_view_type, max_results, filter_string, order_by, page_token)
    await session.settle_experiments(found)
    return paged(
        await session.store.search_runs(
            found, wanted.filter_string, wanted.view, wanted.max_results, wanted.order_by, wanted.page_token
        )
    )


async def get_metric_history(
    session: Session, run_id: str | int, key: str, branches: Literal["all", "latest"] = "all"
) -> list[Metric]:
    """Every point of one metric, in the order of the store; an empty list if
    the run has no such metric. ``branches="latest"`` leaves out what was
    replaced when the run was taken up again with ``from_step``, and a server
    still has."""
    found, named = run_id_of(run_id), text_of("key", key)
    if not isinstance(branches, str) or branches not in ("all", "latest"):
        raise InvalidInputError(f"branches={shortened(branches)}: it must be 'all' or 'latest'")
    await session.settle(found)
    points = list(await session.store.get_metric_history(found, named))
    if branches == "all":
        return points
    return latest_branch(points, (await session.store.get_run(found)).data.tags)


async def update_run(
    session: Session, run_id: str | int, status: str | int | None = None, name: str | None = None
) -> RunInfo:
    """Set the status of a run (the name or number of a `RunStatus`) or its
    name. Raises NotFoundError."""
    found = run_id_of(run_id)
    to = None if status is None else status_of(status)
    called = optional_text("name", name)
    await session.settle(found)
    return await session.store.update_run(found, status=to, run_name=called)


async def delete_run(session: Session, run_id: str | int) -> None:
    """Mark a run deleted. Does nothing to a deleted run. Raises NotFoundError."""
    found = run_id_of(run_id)
    await session.settle(found)
    await session.store.delete_run(found)
    session.forget(found)


async def restore_run(session: Session, run_id: str | int) -> None:
    """Mark a deleted run active. Does nothing to an active run. Raises
    NotFoundError."""
    await session.store.restore_run(run_id_of(run_id))


async def delete_tag(session: Session, run_id: str | int, key: str) -> None:
    """Remove a tag of a run. Raises NotFoundError if the run or the tag does
    not exist."""
    found, named = run_id_of(run_id), text_of("key", key)
    await session.settle(found)
    await session.store.delete_tag(found, named)


async def set_terminated(
    session: Session, run_id: str | int, status: str | int | None = None, end_time: int | None = None
) -> None:
    """End a run: wait until the events that this process logged to it are
    delivered, then set its status (default FINISHED) and end time (ms since
    the epoch, default now).

    Raises FlushTimeoutError after ``close_timeout`` seconds: the events and
    the run's end stay in the spool, and delivery goes on (if a full disk has
    no room for the end, the message says so). Raises DeliveryError
    if the store refused some of the events: the run is ended, and the message
    says where the refused events are kept. Raises NotFoundError.
    """
    await ended_run(session, run_id, status, end_time)


async def ended_run(session: Session, run_id: str | int, status: str | int | None, end_time: int | None) -> RunInfo:
    """The run, after `set_terminated`."""
    found, to = run_id_of(run_id), terminal_status(status)
    ended_at = moment_of("end_time", end_time, time.time_ns() // 1_000_000)
    states = session.states(found)
    try:
        await session.deliver(states)
    except FlushTimeoutError as error:
        attached = [state for state in states if state.attached and not state.ended]
        # Time is up, and on an event loop others wait: room is there at once, or the disk is full.
        kept = [detach(state, to, ended_at, patience=0.0) for state in attached]
        behind = f". Its end, {to}, is kept with them" if any(kept) else ""
        if attached and not behind:
            behind = f". There was no room for its end: its status will not be {to}. End it again once there is room"
        raise FlushTimeoutError(f"{error}{behind}") from None
    info = await session.store.update_run(found, status=to, end_time=ended_at)
    session.forget(found)
    for state in states:
        if state.attached:
            detach(state, patience=0.0)
    for state in states:
        raise_refused(state)
    return info

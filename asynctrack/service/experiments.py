"""The verbs on experiments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import checked_name, experiment_id_of, integer_id, search_of, text_of, view_of
from asynctrack.constants import ViewType
from asynctrack.service.creating import new_experiment
from asynctrack.service.pages import PAGE, all_items, paged
from asynctrack.values import as_text, to_text

if TYPE_CHECKING:
    from asynctrack.entities import Experiment, PagedList
    from asynctrack.service.session import Session


async def create_experiment(
    session: Session,
    name: str,
    artifact_location: str | os.PathLike[str] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> int:
    """Create an experiment and return its id, an integer.
    ``artifact_location``: a URI or a path; by default the store picks one.
    Raises AlreadyExistsError, also when a deleted experiment has the name."""
    return integer_id(await new_experiment(session.store, name, artifact_location, tags), name)


async def get_experiment(session: Session, experiment_id: str | int) -> Experiment:
    """An experiment, also a deleted one. Raises NotFoundError."""
    return await session.store.get_experiment(experiment_id_of(experiment_id))


async def get_experiment_by_name(session: Session, name: str | None) -> Experiment | None:
    """An experiment, also a deleted one, or None if no experiment has that
    name; none has a blank one."""
    text = as_text(name)
    if name is None or (text is not None and not text.strip()):
        return None
    return await session.store.get_experiment_by_name(checked_name(name))


async def list_experiments(session: Session, view_type: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
    """All experiments of a `ViewType` (default: the active ones), the last
    created first."""
    shown = view_of(view_type)
    store = session.store
    return await all_items(lambda token: store.search_experiments(shown, PAGE, page_token=token))


async def search_experiments(
    session: Session,
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = 1000,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
    page_token: str | None = None,
) -> PagedList[Experiment]:
    """One page of the experiments that match a filter in MLflow's syntax. Pass
    its ``token`` as ``page_token`` to get the next page; it is None on the
    last one. Raises InvalidInputError for a bad filter."""
    wanted = search_of(view_type, PAGE if max_results is None else max_results, filter_string, order_by, page_token)
    return paged(
        await session.store.search_experiments(
            wanted.view, wanted.max_results, wanted.filter_string, wanted.order_by, wanted.page_token
        )
    )


async def rename_experiment(session: Session, experiment_id: str | int, new_name: str) -> None:
    """Give an active experiment another name. Raises NotFoundError,
    AlreadyExistsError."""
    await session.store.rename_experiment(experiment_id_of(experiment_id), checked_name(new_name))


async def set_experiment_tag(session: Session, experiment_id: str | int, key: str, value: Any) -> None:
    """Set a tag of an experiment, as ``str(value)``. Raises NotFoundError,
    InvalidInputError."""
    found, named = experiment_id_of(experiment_id), text_of("key", key)
    await session.store.set_experiment_tag(found, named, to_text("tag", key, value))


async def delete_experiment_tag(session: Session, experiment_id: str | int, key: str) -> None:
    """Remove a tag of an experiment. Raises NotFoundError, also for a tag that
    does not exist; RefusedError for a deleted experiment; WrongServerError for
    a server before MLflow 3.2, which cannot do it."""
    await session.store.delete_experiment_tag(experiment_id_of(experiment_id), text_of("key", key))


async def delete_experiment(session: Session, experiment_id: str | int) -> None:
    """Mark an experiment and its runs deleted. Its name stays taken. Raises
    NotFoundError."""
    found = experiment_id_of(experiment_id)
    await session.settle_experiments([found])
    await session.store.delete_experiment(found)


async def restore_experiment(session: Session, experiment_id: str | int) -> None:
    """Mark a deleted experiment and its runs active. Raises NotFoundError."""
    await session.store.restore_experiment(experiment_id_of(experiment_id))

"""Experiments: rows in `experiments` and `experiment_tags`. Everything here happens inside a transaction.

Names belong to a workspace since MLflow 3.10. Only the default one is looked at and written: MLflow does not open a
database with others unless workspaces are switched on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from asynctrack.constants import LifecycleStage
from asynctrack.entities import Experiment
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.file.experiments import MAX_EXPERIMENT_TAG_LENGTH, check_name
from asynctrack.stores.file.layout import DEFAULT_EXPERIMENT_NAME, append_to_uri
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.sql.places import local_place
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.session import Row, Session

__all__ = [
    "active_experiment",
    "add_default",
    "create_experiment",
    "default_experiment",
    "delete_experiment_tag",
    "experiment_number",
    "find_by_name",
    "find_or_create",
    "forget_judgements",
    "get_experiment",
    "list_experiments",
    "mark_experiment",
    "rename_experiment",
    "set_experiment_tag",
]

_DEFAULT_ID = 0
_SELECT = (
    "SELECT experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time FROM experiments"
)
_SET_TAG = (
    "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?) "
    "ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value"
)
#: how MLflow finds the judgements of traces that a run has made
_MADE_BY = '%"mlflow.assessment.sourceRunId": "{}"%'
_NUMBER = re.compile(r"[0-9]{1,18}")


def experiment_number(experiment_id: object) -> int:
    """An experiment's id as its table has it. Raises `NotFoundError` for what cannot be one."""
    if _NUMBER.fullmatch(str(experiment_id)) is None:
        raise NotFoundError(f"no experiment {shorten(experiment_id)}: in a database an id is a number")
    return int(str(experiment_id))


def in_workspace(session: Session) -> str:
    """The condition on `experiments` that leaves out other workspaces, if there are any."""
    return "workspace = 'default'" if session.schema.workspaces else "1 = 1"


def list_experiments(session: Session) -> list[Experiment]:
    """All experiments, deleted ones too."""
    tags: dict[int, dict[str, str]] = {}
    for experiment_id, key, value in session.rows("SELECT experiment_id, key, value FROM experiment_tags"):
        tags.setdefault(experiment_id, {})[key] = value or ""
    rows = session.rows(f"{_SELECT} WHERE {in_workspace(session)}")
    return [_experiment(row, tags.get(row[0], {})) for row in rows]


def get_experiment(session: Session, experiment_id: str) -> Experiment:
    """Raises `NotFoundError`."""
    rows = session.rows(f"{_SELECT} WHERE experiment_id = ?", (experiment_number(experiment_id),))
    if not rows:
        raise NotFoundError(f"no experiment {shorten(experiment_id)}")
    return _with_tags(session, rows[0])


def find_by_name(session: Session, name: str) -> Experiment | None:
    """The experiment called ``name``, also a deleted one."""
    rows = session.rows(f"{_SELECT} WHERE name = ? AND {in_workspace(session)}", (name,))
    return _with_tags(session, rows[0]) if rows else None


def active_experiment(session: Session, experiment_id: str) -> Experiment:
    """Raises `NotFoundError`, `RefusedError` for a deleted one."""
    return _active(get_experiment(session, experiment_id))


def default_experiment(session: Session, root: str) -> Experiment:
    """The experiment of id 0, whatever it is called. Where it is absent it is made, as by MLflow when that opens the
    database."""
    if not session.rows("SELECT 1 FROM experiments WHERE experiment_id = ?", (_DEFAULT_ID,)):
        add_default(session, root)
    return active_experiment(session, str(_DEFAULT_ID))


def find_or_create(session: Session, name: str, root: str) -> Experiment:
    """The active experiment called ``name``. Raises `RefusedError` for a deleted one and for a name that is none."""
    found = find_by_name(session, name)
    if found is None:
        session.lock_names()
        found = find_by_name(session, name)  # somebody may have been faster
    if found is not None:
        return _active(found)
    try:
        return get_experiment(session, create_experiment(session, name, None, {}, root))
    except InvalidInputError as error:
        raise RefusedError(str(error)) from error


def create_experiment(session: Session, name: str, location: str | None, tags: dict[str, str], root: str) -> str:
    """The new experiment's id; ``root`` is where its artifacts are, in a folder of its own, without a ``location``.
    Raises `AlreadyExistsError`, `InvalidInputError`."""
    check_name(name)
    for key, value in tags.items():
        _check_tag(key, value)
    session.lock_names()
    _refuse_taken(session, name)
    number = session.add_experiment(name, _now())
    place = local_place(location) if location else append_to_uri(root, str(number))
    session.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (place, number))
    session.many(_SET_TAG, [(key, value, number) for key, value in sorted(tags.items())])
    return str(number)


def add_default(session: Session, root: str) -> None:
    """Experiment 0, as MLflow makes it in a new database."""
    now = _now()
    session.execute(
        "INSERT INTO experiments "
        "(experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
        "VALUES (?, ?, ?, 'active', ?, ?) ON CONFLICT DO NOTHING",
        (_DEFAULT_ID, DEFAULT_EXPERIMENT_NAME, append_to_uri(root, str(_DEFAULT_ID)), now, now),
    )


def rename_experiment(session: Session, experiment_id: str, name: str) -> None:
    """Raises `NotFoundError`, `RefusedError` for a deleted one, `AlreadyExistsError`, `InvalidInputError`."""
    check_name(name)
    found = active_experiment(session, experiment_id)
    if found.name != name:
        _refuse_taken(session, name)
    session.execute(
        "UPDATE experiments SET name = ?, last_update_time = ? WHERE experiment_id = ?",
        (name, _now(), int(found.experiment_id)),
    )


def mark_experiment(session: Session, experiment_id: str, old: str, new: str) -> None:
    """Delete or restore an experiment and, as MLflow does, all of its runs. Raises `NotFoundError` unless it is
    ``old``."""
    number = experiment_number(experiment_id)
    now = _now()
    changed = session.execute(
        "UPDATE experiments SET lifecycle_stage = ?, last_update_time = ? "
        "WHERE experiment_id = ? AND lifecycle_stage = ?",
        (new, now, number, old),
    )
    if not changed:
        raise NotFoundError(f"no experiment {shorten(experiment_id)} that is {old}")
    session.execute(
        "UPDATE runs SET lifecycle_stage = ?, deleted_time = ? WHERE experiment_id = ?",
        (new, now if new == LifecycleStage.DELETED else None, number),
    )
    if new == LifecycleStage.DELETED:
        runs = session.rows("SELECT run_uuid FROM runs WHERE experiment_id = ?", (number,))
        forget_judgements(session, [run_id for (run_id,) in runs])


def forget_judgements(session: Session, run_ids: Sequence[str]) -> None:
    """Delete the judgements that these runs have made, as MLflow does when a run is deleted."""
    if not session.schema.assessments:
        return
    if session.rows("SELECT 1 FROM assessments WHERE assessment_metadata LIKE ? LIMIT 1", (_MADE_BY.format("%"),)):
        session.many(
            "DELETE FROM assessments WHERE assessment_metadata LIKE ?", [(_MADE_BY.format(run),) for run in run_ids]
        )


def set_experiment_tag(session: Session, experiment_id: str, key: str, value: str) -> None:
    """Raises `NotFoundError`, `RefusedError` for a deleted experiment, `InvalidInputError`."""
    _check_tag(key, value)
    active_experiment(session, experiment_id)
    session.execute(_SET_TAG, (key, value, experiment_number(experiment_id)))


def delete_experiment_tag(session: Session, experiment_id: str, key: str) -> None:
    """Raises `NotFoundError`, also where there is no such tag, `RefusedError` for a deleted experiment."""
    active_experiment(session, experiment_id)
    given = experiment_number(experiment_id), storable(key)
    if not session.execute("DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?", given):
        raise NotFoundError(f"experiment {experiment_id} has no tag {shorten(key)}")


def _check_tag(key: str, value: str) -> None:
    check_key("tag", key)
    if len(value) > MAX_EXPERIMENT_TAG_LENGTH:
        raise InvalidInputError(
            f"experiment tag {shorten(key)}: {len(value)} characters are more than {MAX_EXPERIMENT_TAG_LENGTH}"
        )


def _refuse_taken(session: Session, name: str) -> None:
    found = find_by_name(session, name)
    if found is not None:
        state = "exists already"
        if found.lifecycle_stage == LifecycleStage.DELETED:
            state += ", deleted: restore it, or remove it for good with `mlflow gc`"
        raise AlreadyExistsError(f"experiment {shorten(name)} {state} (id {found.experiment_id})")


def _active(found: Experiment) -> Experiment:
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"experiment {found.experiment_id} ({shorten(found.name)}) is deleted; restore it first")
    return found


def _with_tags(session: Session, row: Row) -> Experiment:
    tags = session.rows("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", (row[0],))
    return _experiment(row, {key: value or "" for key, value in tags})


def _experiment(row: Row, tags: dict[str, str]) -> Experiment:
    experiment_id, name, place, stage, created, updated = row
    return Experiment(
        experiment_id=str(experiment_id),
        name=name,
        artifact_location=place or "",
        lifecycle_stage=stage,
        tags=tags,
        creation_time=created,
        last_update_time=updated,
    )


def _now() -> int:
    return time.time_ns() // 1_000_000

"""Runs: rows in `runs` and `tags`. Everything here happens inside a transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from asynctrack.constants import LifecycleStage, RunStatus
from asynctrack.entities import Experiment, RunInfo
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.base import RunSpec
from asynctrack.stores.branches import branch_of
from asynctrack.stores.file.layout import ARTIFACTS, RUN_NAME_TAG, append_to_uri, is_run_id
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.names import random_run_name
from asynctrack.stores.sql.dropping import drop_points
from asynctrack.stores.sql.experiments import active_experiment, default_experiment, find_or_create, forget_judgements
from asynctrack.stores.sql.rows import MAX_TAG_LENGTH, storable
from asynctrack.stores.sql.session import Row, Session
from asynctrack.stores.times import check_time

__all__ = [
    "INFO",
    "check_active",
    "create_run",
    "delete_tag",
    "get_info",
    "info_of",
    "mark_run",
    "set_tags",
    "update_run",
]

logger = logging.getLogger("asynctrack")

_MAX_RUN_ID, _MAX_NAME, _MAX_USER = 32, 250, 256
#: the columns of a `RunInfo`, for `info_of`. MLflow before 1.29 kept a run's name in its tag only
INFO = (
    "SELECT run_uuid, experiment_id, user_id, status, start_time, end_time, "
    "COALESCE(NULLIF(name, ''), (SELECT tags.value FROM tags WHERE tags.run_uuid = runs.run_uuid "
    f"AND tags.key = '{RUN_NAME_TAG}')), lifecycle_stage, artifact_uri FROM runs"
)
_INSERT = (
    "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
    "end_time, source_version, lifecycle_stage, artifact_uri, experiment_id, deleted_time) "
    "VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, NULL, '', 'active', ?, ?, NULL) ON CONFLICT DO NOTHING"
)
_TAG = "SELECT value FROM tags WHERE run_uuid = ? AND key = ?"
_SET_TAG = (
    "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?) "
    "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value"
)


def info_of(row: Row) -> RunInfo:
    """A row of `INFO`."""
    run_id, experiment_id, user_id, status, start, end, name, stage, place = row
    return RunInfo(
        run_id=run_id,
        experiment_id=str(experiment_id),
        user_id=user_id or "",
        status=status,
        start_time=start or 0,
        end_time=end,
        lifecycle_stage=stage,
        artifact_uri=place,
        run_name=name,
    )


def get_info(session: Session, run_id: str) -> RunInfo:
    """Raises `NotFoundError`."""
    rows = session.rows(f"{INFO} WHERE run_uuid = ?", (storable(run_id),))
    if not rows:
        raise NotFoundError(f"no run {shorten(run_id)}")
    return info_of(rows[0])


def check_active(session: Session, run_id: str) -> None:
    """Raises `NotFoundError`; `RefusedError` for a deleted run. It stays as it is to the end of the transaction."""
    rows = session.rows(f"SELECT lifecycle_stage FROM runs WHERE run_uuid = ?{session.for_update}", (storable(run_id),))
    if not rows:
        raise NotFoundError(f"no run {shorten(run_id)}")
    if rows[0][0] != LifecycleStage.ACTIVE:
        raise RefusedError(f"run {run_id} is deleted; restore it first")


def create_run(session: Session, spec: RunSpec, root: str) -> RunInfo:
    """Make a new run, or take one up again. Where it is there already, maybe ended, it stays as it is. Raises
    `NotFoundError`, `RefusedError`."""
    if spec.run_id is not None:
        return _resume(session, spec, spec.run_id)
    if not is_run_id(spec.uid) or len(spec.uid) > _MAX_RUN_ID:
        raise RefusedError(f"{shorten(spec.uid)} cannot be a run's id")
    try:
        return get_info(session, spec.uid)
    except NotFoundError:
        pass
    experiment = _experiment(session, spec, root)
    check_time(f"run {spec.uid}: its start_time", spec.start_time)
    name = spec.run_name or spec.tags.get(RUN_NAME_TAG) or random_run_name(spec.uid)
    place = append_to_uri(
        experiment.artifact_location or append_to_uri(root, experiment.experiment_id), spec.uid, ARTIFACTS
    )
    session.execute(
        _INSERT,
        (
            spec.uid,
            _fitting(session, name, _MAX_NAME),
            _fitting(session, spec.user_id, _MAX_USER),
            spec.start_time,
            place,
            int(experiment.experiment_id),
        ),
    )
    set_tags(session, spec.uid, _good_tags(spec.uid, {**spec.tags, RUN_NAME_TAG: name}))
    return get_info(session, spec.uid)


def _experiment(session: Session, spec: RunSpec, root: str) -> Experiment:
    if spec.experiment_id is not None:
        return active_experiment(session, spec.experiment_id)
    if spec.experiment_name is None:
        return default_experiment(session, root)
    return find_or_create(session, spec.experiment_name, root)


def _resume(session: Session, spec: RunSpec, run_id: str) -> RunInfo:
    check_active(session, run_id)
    branch = branch_of(spec.uid, spec.tags)
    if branch is not None and not session.rows(_TAG, (run_id, branch.key)):
        drop_points(session, run_id, branch.from_step)
    session.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", (run_id,))
    name = spec.run_name or spec.tags.get(RUN_NAME_TAG)
    set_tags(session, run_id, _good_tags(run_id, {**spec.tags, **({RUN_NAME_TAG: name} if name else {})}))
    return get_info(session, run_id)


def _good_tags(run_id: str, tags: dict[str, str]) -> Iterable[tuple[str, str]]:
    for key, value in tags.items():
        try:
            check_key("tag", key)
        except InvalidInputError as error:
            logger.warning("run %s was created without one tag: %s", run_id, error)
        else:
            if len(value) > MAX_TAG_LENGTH:
                logger.warning(
                    "run %s: tag %s has %d characters and was cut to %d, as MLflow does",
                    run_id,
                    shorten(key),
                    len(value),
                    MAX_TAG_LENGTH,
                )
            yield key, value


def set_tags(session: Session, run_id: str, tags: Iterable[tuple[str, str]]) -> None:
    """Set tags; the last one of a key wins. The tag for the run's name sets that too; an empty name changes nothing."""
    rows = {key: storable(value)[:MAX_TAG_LENGTH] for key, value in tags if value or key != RUN_NAME_TAG}
    if RUN_NAME_TAG in rows:
        name = _fitting(session, rows[RUN_NAME_TAG], _MAX_NAME)
        session.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (name, run_id))
    if rows:
        session.many(_SET_TAG, [(key, value, run_id) for key, value in sorted(rows.items())])


def _fitting(session: Session, text: str, limit: int) -> str:
    """Text for a column of so many characters. Where no database minds, it is kept whole, as MLflow keeps it."""
    return storable(text)[:limit] if session.enforces_lengths else storable(text)


def update_run(
    session: Session, run_id: str, status: str | None, end_time: int | None, run_name: str | None
) -> RunInfo:
    """Set what is given. Raises `NotFoundError`; `RefusedError` for a deleted run, a status or a time that is none."""
    check_active(session, run_id)
    if status is not None:
        try:
            RunStatus.from_string(status)
        except ValueError as error:
            raise RefusedError(f"run {run_id}: {error}") from error
        session.execute("UPDATE runs SET status = ? WHERE run_uuid = ?", (status, run_id))
    if end_time is not None:
        check_time(f"run {run_id}: its end_time", end_time)
        session.execute("UPDATE runs SET end_time = ? WHERE run_uuid = ?", (end_time, run_id))
    if run_name:
        set_tags(session, run_id, [(RUN_NAME_TAG, run_name)])
    return get_info(session, run_id)


def mark_run(session: Session, run_id: str, stage: str) -> None:
    """Delete or restore a run; again changes nothing but the time. Raises `NotFoundError`."""
    deleted = stage == LifecycleStage.DELETED
    when = time.time_ns() // 1_000_000 if deleted else None
    if not session.execute(
        "UPDATE runs SET lifecycle_stage = ?, deleted_time = ? WHERE run_uuid = ?", (stage, when, storable(run_id))
    ):
        raise NotFoundError(f"no run {shorten(run_id)}")
    if deleted:
        forget_judgements(session, [run_id])


def delete_tag(session: Session, run_id: str, key: str) -> None:
    """Raises `NotFoundError` where there is none, `RefusedError` for a deleted run."""
    check_active(session, run_id)
    if not session.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run_id, storable(key))):
        raise NotFoundError(f"run {run_id} has no tag {shorten(key)}")

"""Creating and changing runs: everything about a run that is not an event."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, NamedTuple

from asynctrack.entities import Experiment, LifecycleStage, RunInfo, RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.base import RunSpec
from asynctrack.stores.file import layout, meta
from asynctrack.stores.file.entries import write_tag
from asynctrack.stores.file.experiments import ensure_root, find_or_create
from asynctrack.stores.file.files import KEY_ERRORS, check_inside, locked_directory
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.io import write_file_atomically
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.names import random_run_name

__all__ = ["Prepared", "change_run", "delete_run", "delete_tag", "prepare_run", "restore_run", "rewrite", "update_run"]

logger = logging.getLogger("asynctrack")


class Prepared(NamedTuple):
    """A run that `prepare_run` made ready: it exists once ``data`` is in ``path``. Both None: it exists already."""

    info: RunInfo
    path: str | None = None
    data: bytes | None = None


def prepare_run(tree: Tree, spec: RunSpec) -> Prepared:
    """Everything of a new run but its meta.yaml, which makes it visible; or take a run up again.

    Raises `NotFoundError`, `RefusedError`, OSError.
    """
    if spec.run_id is not None:
        return Prepared(_resume(tree, spec, spec.run_id))
    if not layout.is_run_id(spec.uid):
        raise RefusedError(f"{shorten(spec.uid)} cannot be a run's id")
    existing = tree.find_run(spec.uid)
    if existing is not None:
        try:
            return Prepared(tree.run_info(existing))
        except NotFoundError as error:
            raise tree.gone(existing) from error  # found just before; if it is deleted, the next attempt makes it anew
    if tree.unended and tree.is_gone():
        # Unmounted, it seems: in an empty store in its place those runs' events would be refused for good.
        tree.written_run_dir(next(iter(tree.unended)))
    ensure_root(tree)
    experiment = _experiment(tree, spec)
    run_dir = os.path.join(tree.experiment_dir(experiment.experiment_id), spec.uid)
    name = spec.run_name or spec.tags.get(layout.RUN_NAME_TAG) or random_run_name(spec.uid)
    info = RunInfo(
        run_id=spec.uid,
        experiment_id=experiment.experiment_id,
        user_id=spec.user_id,
        status=RunStatus.to_string(RunStatus.RUNNING),
        start_time=spec.start_time,
        run_name=meta.printable(name),
        artifact_uri=layout.append_to_uri(experiment.artifact_location, spec.uid, layout.ARTIFACTS),
    )
    # MLflow does not find a run without these three, wherever its artifacts are.
    for part in (layout.METRICS, layout.PARAMS, layout.ARTIFACTS):
        os.makedirs(os.path.join(run_dir, part), exist_ok=True)
    tree.guard(run_dir)
    tree.unended.add(spec.uid)
    _set_tags(run_dir, {**spec.tags, layout.RUN_NAME_TAG: name})
    return Prepared(info, os.path.join(run_dir, layout.META), meta.dump(meta.run_meta(info)))


def _experiment(tree: Tree, spec: RunSpec) -> Experiment:
    if spec.experiment_id is None:
        try:
            return find_or_create(tree, spec.experiment_name or layout.DEFAULT_EXPERIMENT_NAME)
        except InvalidInputError as error:
            raise RefusedError(str(error)) from error
    folder = tree.experiment_dir(spec.experiment_id)
    found = tree.experiment(spec.experiment_id, folder)
    if found is None:
        raise NotFoundError(f"no experiment {shorten(spec.experiment_id)} in {tree.root}")
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"experiment {spec.experiment_id} ({shorten(found.name)}) is deleted; restore it first")
    return found


def _resume(tree: Tree, spec: RunSpec, run_id: str) -> RunInfo:
    run_dir = tree.run_dir(run_id)
    name = spec.run_name or spec.tags.get(layout.RUN_NAME_TAG)
    info = change_run(tree, run_dir, status="RUNNING", run_name=name)
    _set_tags(run_dir, {**spec.tags, **({layout.RUN_NAME_TAG: name} if name else {})})
    return info


def _set_tags(run_dir: str, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        try:
            check_key("tag", key, as_path=True)
            write_tag(layout.key_path(run_dir, "tag", key), value, run_dir)
        except InvalidInputError as error:
            logger.warning("run %s was created without one tag: %s", os.path.basename(run_dir), error)
        except OSError as error:
            if error.errno not in KEY_ERRORS:
                raise
            logger.warning("run %s was created without tag %s: %s", os.path.basename(run_dir), shorten(key), error)


def update_run(tree: Tree, run_id: str, status: str | None, end_time: int | None, run_name: str | None) -> RunInfo:
    """Set what is given. Raises `NotFoundError`, `RefusedError` for a deleted run or an unknown status,
    `UnavailableError` where the whole store is gone, OSError."""
    run_dir = tree.written_run_dir(run_id)
    try:
        info = change_run(tree, run_dir, status, end_time, run_name)
    except NotFoundError as error:
        raise tree.gone(run_dir) from error  # found just before; if it is deleted, the next attempt will say so
    if status is not None and RunStatus.is_terminated(RunStatus.from_string(status)):
        tree.unended.discard(run_id)
    if run_name:
        write_tag(layout.key_path(run_dir, "tag", layout.RUN_NAME_TAG), run_name, run_dir)
    return info


def change_run(
    tree: Tree, run_dir: str, status: str | None = None, end_time: int | None = None, run_name: str | None = None
) -> RunInfo:
    """Set what is given in meta.yaml, and only there."""
    tree.guard(run_dir)
    changes: dict[str, Any] = {}
    if status is not None:
        try:
            changes["status"] = RunStatus.from_string(status)
        except ValueError as error:
            raise RefusedError(f"run {os.path.basename(run_dir)}: {error}") from error
    if end_time is not None:
        changes["end_time"] = end_time
    if run_name:
        changes["run_name"] = meta.printable(run_name)
    return rewrite(tree, run_dir, changes)


def rewrite(tree: Tree, run_dir: str, changes: dict[str, Any], *, stage_change: bool = False) -> RunInfo:
    """Write meta.yaml with ``changes``, under a lock: two ranks of one job may end one run at the same time."""
    with locked_directory(run_dir):
        info = tree.run_info(run_dir)
        if info.lifecycle_stage == LifecycleStage.DELETED and not stage_change:
            raise RefusedError(f"run {info.run_id} is deleted; restore it first")
        old = tree.meta(run_dir) or {}
        new = {key: value for key, value in old.items() if key != "deleted_time"} | changes
        if new != old:
            write_file_atomically(os.path.join(run_dir, layout.META), meta.dump(new))
        return meta.run_from_meta(new, info.run_id, info.experiment_id)


def delete_run(tree: Tree, run_id: str) -> None:
    """Mark a run deleted; again changes nothing. Raises `NotFoundError`."""
    run_dir = tree.run_dir(run_id)
    if tree.run_info(run_dir).lifecycle_stage != LifecycleStage.DELETED:
        now = time.time_ns() // 1_000_000
        tree.guard(run_dir)
        rewrite(tree, run_dir, {"lifecycle_stage": LifecycleStage.DELETED, "deleted_time": now}, stage_change=True)


def restore_run(tree: Tree, run_id: str) -> None:
    """Mark a deleted run active; an active one stays so. Raises `NotFoundError`."""
    run_dir = tree.run_dir(run_id)
    tree.guard(run_dir)
    rewrite(tree, run_dir, {"lifecycle_stage": LifecycleStage.ACTIVE}, stage_change=True)


def delete_tag(tree: Tree, run_id: str, key: str) -> None:
    """Remove a tag. Raises `NotFoundError` where there is none, `RefusedError` for a deleted run, OSError."""
    try:
        check_key("tag", key, as_path=True)
    except InvalidInputError as error:
        raise NotFoundError(str(error)) from error
    run_dir = tree.run_dir(run_id)
    tree.guard(run_dir)
    if tree.run_info(run_dir).lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"run {run_id} is deleted; restore it first")
    path = layout.key_path(run_dir, "tag", key)
    check_inside(os.path.dirname(path), os.path.realpath(tree.root))
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"run {run_id} has no tag {shorten(key)}") from error

"""Creating and changing runs: everything about a run that is not an event."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from asynctrack.entities import Experiment, LifecycleStage, RunInfo, RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.base import RunSpec
from asynctrack.stores.branches import branch_of
from asynctrack.stores.file import layout, meta
from asynctrack.stores.file.dropping import drop_points
from asynctrack.stores.file.entries import remove_tag, write_tag
from asynctrack.stores.file.experiments import ensure_root, find_or_create
from asynctrack.stores.file.files import KEY_ERRORS, check_inside, exists, locked_directory, make_one_folder
from asynctrack.stores.file.rewriting import rewrite_run
from asynctrack.stores.file.tree import DamagedError, Tree
from asynctrack.stores.io import write_file_atomically
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.names import random_run_name

__all__ = ["change_run", "create_run", "delete_run", "delete_tag", "restore_run", "update_run"]

logger = logging.getLogger("asynctrack")


def create_run(tree: Tree, spec: RunSpec, durable: bool) -> RunInfo:
    """Make a new run, or take one up again. Where it is there already, maybe ended, it stays as it is.

    Raises `NotFoundError`, `RefusedError`, OSError.
    """
    if spec.run_id is not None:
        return _resume(tree, spec, spec.run_id, durable)
    if not layout.is_run_id(spec.uid):
        raise RefusedError(f"{shorten(spec.uid)} cannot be a run's id")
    existing = tree.find_run(spec.uid)
    if existing is not None:
        try:
            return tree.run_info(existing)
        except NotFoundError as error:
            raise tree.gone(existing) from error  # found just before; if it is deleted, the next attempt makes it anew
        except DamagedError as error:
            if not error.incomplete:
                raise
            logger.warning("%s is empty, as after a power cut: written anew", os.path.join(existing, layout.META))
            return _make(tree, spec, _experiment_of(tree, existing), existing, durable)
    if tree.is_elsewhere(spec.uid):
        raise tree.gone(tree.root)  # a restarted rank has found its run: it must not make another one meanwhile
    ensure_root(tree)
    experiment = _experiment(tree, spec)
    run_dir = os.path.join(tree.written_experiment_dir(experiment.experiment_id), spec.uid)
    return _make(tree, spec, experiment, run_dir, durable)


def _make(tree: Tree, spec: RunSpec, experiment: Experiment, run_dir: str, durable: bool) -> RunInfo:
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
    try:
        data, info = meta.encoded_run(meta.run_meta(info), info.run_id, info.experiment_id)
    except ValueError as error:
        raise RefusedError(f"run {spec.uid} cannot be stored: {error}") from error
    # MLflow does not find a run without these three, wherever its artifacts are.
    # None of the folders above: they are missing where the store was taken away just now.
    for part in ("", layout.METRICS, layout.PARAMS, layout.ARTIFACTS):
        make_one_folder(os.path.join(run_dir, part) if part else run_dir)
    tree.guard(run_dir)
    tree.unended.add(spec.uid)
    # A forked child and its parent both make it: whoever comes second must not open it again when it has ended.
    with locked_directory(run_dir):
        there = _made_meanwhile(tree, run_dir)
        if there is not None:
            return there
        _set_tags(tree, run_dir, {**spec.tags, layout.RUN_NAME_TAG: name})
        write_file_atomically(os.path.join(run_dir, layout.META), data, durable)  # this makes it visible
    return info


def _made_meanwhile(tree: Tree, run_dir: str) -> RunInfo | None:
    if not os.path.exists(os.path.join(run_dir, layout.META)):
        return None
    try:
        return tree.run_info(run_dir)
    except DamagedError as error:
        if not error.incomplete:
            raise
        return None  # empty, as after a power cut: that is what is mended


def _experiment_of(tree: Tree, run_dir: str) -> Experiment:
    folder = os.path.dirname(run_dir)
    found = tree.experiment(os.path.basename(folder), folder)
    if found is None:
        raise tree.gone(folder)
    return found


def _experiment(tree: Tree, spec: RunSpec) -> Experiment:
    if spec.experiment_id is None:
        try:
            return find_or_create(tree, spec.experiment_name or layout.DEFAULT_EXPERIMENT_NAME)
        except InvalidInputError as error:
            raise RefusedError(str(error)) from error
    folder = tree.written_experiment_dir(spec.experiment_id)
    found = tree.experiment(spec.experiment_id, folder)
    if found is None:
        raise tree.gone(folder)
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"experiment {spec.experiment_id} ({shorten(found.name)}) is deleted; restore it first")
    return found


def _resume(tree: Tree, spec: RunSpec, run_id: str, durable: bool) -> RunInfo:
    run_dir = tree.written_run_dir(run_id)
    name = spec.run_name or spec.tags.get(layout.RUN_NAME_TAG)
    try:
        info = change_run(tree, run_dir, status="RUNNING", run_name=name, reopens=True)
    except NotFoundError as error:
        raise tree.gone(run_dir) from error  # found just before
    except DamagedError as error:
        if not error.incomplete:
            raise
        raise RefusedError(f"{error}. What the run was created with is not known here") from error
    branch = branch_of(spec.uid, spec.tags)
    if branch is not None and not exists(layout.key_path(run_dir, "tag", branch.key)):
        drop_points(run_dir, branch.from_step, durable)
    _set_tags(tree, run_dir, {**spec.tags, **({layout.RUN_NAME_TAG: name} if name else {})})
    return info


def _set_tags(tree: Tree, run_dir: str, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        try:
            check_key("tag", key, as_path=True)
            write_tag(layout.key_path(run_dir, "tag", key), value, run_dir)
            if ":" in key:
                tree.tell_of_colon("tag", key)
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
    tree: Tree,
    run_dir: str,
    status: str | None = None,
    end_time: int | None = None,
    run_name: str | None = None,
    *,
    reopens: bool = False,
) -> RunInfo:
    """Set what is given in meta.yaml, and only there. ``reopens``: it has no end time any more."""
    tree.guard(run_dir)
    changes: dict[str, Any] = {}
    if status is not None:
        try:
            changes["status"] = RunStatus.from_string(status)
        except ValueError as error:
            raise RefusedError(f"run {os.path.basename(run_dir)}: {error}") from error
    if end_time is not None or reopens:
        changes["end_time"] = end_time
    if run_name:
        changes["run_name"] = meta.printable(run_name)
    return rewrite_run(tree, run_dir, changes)


def delete_run(tree: Tree, run_id: str) -> None:
    """Mark a run deleted; again changes nothing. Raises `NotFoundError`."""
    run_dir = tree.run_dir(run_id)
    if tree.run_info(run_dir).lifecycle_stage != LifecycleStage.DELETED:
        now = time.time_ns() // 1_000_000
        tree.guard(run_dir)
        rewrite_run(tree, run_dir, {"lifecycle_stage": LifecycleStage.DELETED, "deleted_time": now}, stage_change=True)


def restore_run(tree: Tree, run_id: str) -> None:
    """Mark a deleted run active; an active one stays so. Raises `NotFoundError`."""
    run_dir = tree.run_dir(run_id)
    tree.guard(run_dir)
    rewrite_run(tree, run_dir, {"lifecycle_stage": LifecycleStage.ACTIVE}, stage_change=True)


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
    remove_tag(path, f"run {run_id}", key)

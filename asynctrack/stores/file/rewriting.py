"""Changing a ``meta.yaml`` that is there: under a lock, and only to what can be read again."""

from __future__ import annotations

import os
import time
from typing import Any

from asynctrack.entities import LifecycleStage, RunInfo
from asynctrack.errors import NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.file import layout, meta
from asynctrack.stores.file.files import locked_directory
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.io import write_file_atomically
from asynctrack.stores.keys import shorten

__all__ = ["rewrite_experiment", "rewrite_run"]


def rewrite_run(tree: Tree, run_dir: str, changes: dict[str, Any], *, stage_change: bool = False) -> RunInfo:
    """Write a run's meta.yaml with ``changes``. Two ranks of one job may end one run at the same time, while somebody
    deletes its experiment.

    Raises `NotFoundError`, `DamagedError`, `RefusedError` for a deleted run (unless that is what changes) and for what
    could not be read again, OSError.
    """
    with locked_directory(run_dir):
        info = tree.run_info(run_dir)
        if info.lifecycle_stage == LifecycleStage.DELETED and not stage_change:
            raise RefusedError(f"run {info.run_id} is deleted; restore it first")
        old = tree.meta(run_dir)
        if old is None:
            raise _gone(run_dir)
        # MLflow 3 and the first asynctrack wrote no run_uuid, which MLflow before 3.0 asks for.
        kept = {key: value for key, value in old.items() if key != "deleted_time"}
        new = kept | {"run_uuid": info.run_id} | changes
        try:
            data, changed = meta.encoded_run(new, info.run_id, info.experiment_id)
        except ValueError as error:
            raise RefusedError(f"run {info.run_id} was not changed: {error}") from error
        if new != old:
            write_file_atomically(os.path.join(run_dir, layout.META), data)
        return changed


def rewrite_experiment(tree: Tree, experiment_id: str, folder: str, **changes: Any) -> None:
    """Write an experiment's meta.yaml with ``changes``; whoever calls holds the lock on the store's root.

    Raises `NotFoundError`, `DamagedError`, `RefusedError` for what could not be read again, OSError.
    """
    found = tree.experiment(experiment_id, folder)
    if found is None:
        raise NotFoundError(f"no experiment {shorten(experiment_id)} in {tree.root}")
    # MLflow repeats the tags in the file whenever it rewrites it; what it reads is their own files.
    now = time.time_ns() // 1_000_000
    old = tree.meta(folder)
    if old is None:
        raise _gone(folder)
    new = dict(old) | {"tags": found.tags, "last_update_time": now} | changes
    try:
        data = meta.encoded_experiment(new, experiment_id)
    except ValueError as error:
        raise RefusedError(f"experiment {experiment_id} was not changed: {error}") from error
    write_file_atomically(os.path.join(folder, layout.META), data)


def _gone(folder: str) -> UnavailableError:
    """It was there a moment ago. That says nothing about what was to be changed: the next attempt finds it, or finds
    that it was deleted."""
    return UnavailableError(f"{folder} has gone away while it was being changed; it is tried again")

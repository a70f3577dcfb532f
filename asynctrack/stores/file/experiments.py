"""Creating, renaming, deleting experiments; each change of the set of experiments under a lock on the store's root."""

from __future__ import annotations

import os
import time

from asynctrack.entities import Experiment, LifecycleStage, ViewType
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError
from asynctrack.stores.file import layout, meta
from asynctrack.stores.file.entries import remove_tag, write_tag
from asynctrack.stores.file.files import check_inside, exists, locked_directory, make_one_folder
from asynctrack.stores.file.rewriting import rewrite_experiment, rewrite_run
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.io import write_file_atomically
from asynctrack.stores.keys import check_key, shorten

__all__ = [
    "check_name",
    "create_experiment",
    "delete_experiment",
    "delete_experiment_tag",
    "ensure_root",
    "find_by_name",
    "find_or_create",
    "get_experiment",
    "get_experiment_by_name",
    "rename_experiment",
    "restore_experiment",
    "set_experiment_tag",
    "unwritten_default",
]

#: characters
MAX_NAME_LENGTH = 500
MAX_EXPERIMENT_TAG_LENGTH = 20_000


def check_name(name: str) -> None:
    """Raise `InvalidInputError` for a name no experiment can have."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError(
            f"an experiment's name cannot be {shorten(name)}; give it at least one visible character"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidInputError(f"experiment name {shorten(name)} is longer than {MAX_NAME_LENGTH} characters")


def ensure_root(tree: Tree) -> None:
    """Create what MLflow creates in a new store: the root, the default experiment and the trash. Raises OSError,
    `UnavailableError`."""
    is_new = not tree.unended
    if is_new:
        os.makedirs(tree.root, exist_ok=True)
    elif tree.is_gone():
        # Unmounted, it seems: in an empty store in its place those runs' events would be refused for good.
        raise tree.gone(tree.root)
    if not exists(tree.trash):
        with locked_directory(tree.root):
            # A store that has experiments but no default one was made so by its owner.
            if is_new and tree.is_gone():
                _write_new(tree, layout.DEFAULT_EXPERIMENT_ID, layout.DEFAULT_EXPERIMENT_NAME, None, {})
            make_one_folder(tree.trash)


def create_experiment(tree: Tree, name: str, artifact_location: str | None, tags: dict[str, str]) -> str:
    """The new experiment's id. Raises `AlreadyExistsError`, `InvalidInputError`."""
    check_name(name)
    for key, value in tags.items():
        _check_tag(key, value)
    ensure_root(tree)
    with locked_directory(tree.root):
        _refuse_taken(tree, name)
        return _write_new(tree, layout.new_experiment_id(), name, artifact_location, tags)


def find_or_create(tree: Tree, name: str) -> Experiment:
    """The active experiment called ``name``, created if absent; one, however many processes ask at once.

    Raises `RefusedError` when a deleted experiment holds the name, `InvalidInputError`.
    """
    found = find_by_name(tree, name)
    if found is None:
        try:
            created = create_experiment(tree, name, None, {})
            return _read_in(tree, created, tree.written_experiment_dir(created))
        except AlreadyExistsError:
            found = find_by_name(tree, name)
    if found is None or found.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"experiment {shorten(name)} is deleted; restore it, or choose another name")
    return found


def find_by_name(tree: Tree, name: str) -> Experiment | None:
    """The experiment called ``name``, active ones first; None where there is none."""
    return next(tree.experiments(name=meta.printable(name)), None)


def unwritten_default(tree: Tree) -> Experiment | None:
    """The default experiment of a store to which nothing was written yet: the first write makes it. None elsewhere."""
    if exists(tree.trash) or not tree.is_gone():
        return None
    where = layout.append_to_uri(layout.local_uri(tree.root), layout.DEFAULT_EXPERIMENT_ID)
    return Experiment(layout.DEFAULT_EXPERIMENT_ID, layout.DEFAULT_EXPERIMENT_NAME, where)


def get_experiment(tree: Tree, experiment_id: str) -> Experiment:
    """Raises `NotFoundError`, `DamagedError`."""
    if experiment_id == layout.DEFAULT_EXPERIMENT_ID and (default := unwritten_default(tree)):
        return default
    return _read(tree, experiment_id)


def get_experiment_by_name(tree: Tree, name: str) -> Experiment | None:
    """The experiment called ``name``, active ones first; None where there is none."""
    if name == layout.DEFAULT_EXPERIMENT_NAME and (default := unwritten_default(tree)):
        return default
    return find_by_name(tree, name)


def _write_default(tree: Tree, experiment_id: str) -> None:
    if experiment_id == layout.DEFAULT_EXPERIMENT_ID:
        ensure_root(tree)


def rename_experiment(tree: Tree, experiment_id: str, new_name: str) -> None:
    """Raises `NotFoundError`, `RefusedError` for a deleted experiment, `AlreadyExistsError`, `InvalidInputError`."""
    check_name(new_name)
    _write_default(tree, experiment_id)
    folder = tree.experiment_dir(experiment_id)
    with locked_directory(tree.root):
        _active(tree, experiment_id)
        _refuse_taken(tree, new_name)
        rewrite_experiment(tree, experiment_id, folder, name=meta.printable(new_name))


def delete_experiment(tree: Tree, experiment_id: str) -> None:
    """Mark the experiment and its runs deleted and move it to the trash. Raises `NotFoundError`, `RefusedError`."""
    if experiment_id == layout.DEFAULT_EXPERIMENT_ID:
        raise RefusedError("the default experiment cannot be deleted from a file store")
    folder = tree.experiment_dir(experiment_id, ViewType.ACTIVE_ONLY)
    with locked_directory(tree.root):
        now = _now()
        _mark_runs(tree, folder, LifecycleStage.DELETED, now)
        rewrite_experiment(tree, experiment_id, folder, lifecycle_stage=LifecycleStage.DELETED)
        make_one_folder(tree.trash)
        os.rename(folder, os.path.join(tree.trash, experiment_id))


def restore_experiment(tree: Tree, experiment_id: str) -> None:
    """Undo `delete_experiment`, as MLflow does for all of its runs. Raises `NotFoundError`, `AlreadyExistsError`."""
    folder = tree.experiment_dir(experiment_id, ViewType.DELETED_ONLY)
    with locked_directory(tree.root):
        target = os.path.join(tree.root, experiment_id)
        if exists(target):
            raise AlreadyExistsError(f"{target} exists; move it away to restore experiment {experiment_id}")
        os.rename(folder, target)
        _mark_runs(tree, target, LifecycleStage.ACTIVE, None)
        rewrite_experiment(tree, experiment_id, target, lifecycle_stage=LifecycleStage.ACTIVE)


def set_experiment_tag(tree: Tree, experiment_id: str, key: str, value: str) -> None:
    """Raises `NotFoundError`, `RefusedError` for a deleted experiment, `InvalidInputError`."""
    _check_tag(key, value)
    _write_default(tree, experiment_id)
    folder = tree.experiment_dir(experiment_id)
    _active(tree, experiment_id)
    path = os.path.join(folder, layout.TAGS, key)
    check_inside(os.path.dirname(path), os.path.realpath(tree.root))
    write_tag(path, value, folder)


def delete_experiment_tag(tree: Tree, experiment_id: str, key: str) -> None:
    """Raises `NotFoundError`, also where there is no such tag, `RefusedError` for a deleted experiment, OSError."""
    try:
        check_key("tag", key, as_path=True)
    except InvalidInputError as error:
        raise NotFoundError(str(error)) from error
    _write_default(tree, experiment_id)
    path = os.path.join(tree.experiment_dir(experiment_id), layout.TAGS, key)
    _active(tree, experiment_id)
    check_inside(os.path.dirname(path), os.path.realpath(tree.root))
    remove_tag(path, f"experiment {experiment_id}", key)


def _check_tag(key: str, value: str) -> None:
    check_key("tag", key, as_path=True)
    if len(value) > MAX_EXPERIMENT_TAG_LENGTH:
        raise InvalidInputError(f"experiment tag {shorten(key)}: {len(value)} characters are more than 20000")


def _refuse_taken(tree: Tree, name: str) -> None:
    found = find_by_name(tree, name)
    if found is None:
        return
    state = "exists already"
    if found.lifecycle_stage == LifecycleStage.DELETED:
        state += ", deleted: restore it, or remove it from the store's .trash"
    raise AlreadyExistsError(f"experiment {shorten(name)} {state} (id {found.experiment_id})")


def _write_new(tree: Tree, experiment_id: str, name: str, location: str | None, tags: dict[str, str]) -> str:
    folder = os.path.join(tree.root, experiment_id)
    now = _now()
    where = location or layout.append_to_uri(layout.local_uri(tree.root), experiment_id)
    new = Experiment(experiment_id, meta.printable(name), where, creation_time=now, last_update_time=now)
    try:
        data = meta.encoded_experiment(meta.experiment_meta(new), experiment_id)
    except ValueError as error:
        raise InvalidInputError(f"experiment {shorten(name)} cannot be stored: {error}") from error
    make_one_folder(folder)
    for key, value in tags.items():
        write_tag(os.path.join(folder, layout.TAGS, key), value, folder)
    write_file_atomically(os.path.join(folder, layout.META), data)
    return experiment_id


def _read(tree: Tree, experiment_id: str) -> Experiment:
    return _read_in(tree, experiment_id, tree.experiment_dir(experiment_id))


def _read_in(tree: Tree, experiment_id: str, folder: str) -> Experiment:
    found = tree.experiment(experiment_id, folder)
    if found is None:
        raise tree.gone(folder)  # found just before; if it is deleted, the next attempt says so
    return found


def _active(tree: Tree, experiment_id: str) -> Experiment:
    found = _read(tree, experiment_id)
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"experiment {experiment_id} ({shorten(found.name)}) is deleted; restore it first")
    return found


def _mark_runs(tree: Tree, folder: str, stage: str, deleted_time: int | None) -> None:
    changes = {"lifecycle_stage": stage, **({} if deleted_time is None else {"deleted_time": deleted_time})}
    for run_dir, info in list(tree.runs(folder)):
        if info.lifecycle_stage == stage:
            continue
        try:
            rewrite_run(tree, run_dir, changes, stage_change=True)
        except NotFoundError:
            continue  # somebody has removed it meanwhile


def _now() -> int:
    return time.time_ns() // 1_000_000

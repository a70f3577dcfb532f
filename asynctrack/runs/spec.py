"""Turns the arguments of `start_run` into a `RunSpec`: everything a store needs to create the run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from asynctrack.arguments import optional_text, refuse_contradiction, refuse_long_value, run_id_of, tags_of
from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.current import choose_experiment
from asynctrack.runs.context import automatic_tags
from asynctrack.stores.base import RunSpec
from asynctrack.stores.branches import Branch
from asynctrack.stores.keys import check_key

__all__ = ["attached_spec", "new_spec"]


def new_spec(
    *,
    run_id: str | None,
    experiment_id: str | int | None,
    experiment_name: str | None,
    run_name: str | None,
    parent_run_id: str | None,
    description: str | None,
    tags: Mapping[str, Any] | None,
    from_step: int | None = None,
) -> RunSpec:
    """The spec of a new run, or of the existing run ``run_id``. Raises InvalidInputError.

    ``parent_run_id``: the parent's id. If the server has not created the parent yet, it is the parent's uid, which is
    replaced by the id when this run is created. ``from_step``: what an existing run has at this step and behind is
    replaced.
    """
    given = tags_of(tags)
    for key, value in given.items():
        check_key("tag", key)
        refuse_long_value("tag", key, value)
    name = optional_text("run_name", run_name)
    refuse_contradiction("run_name", name, "mlflow.runName", given)
    text = optional_text("description", description)
    refuse_contradiction("description", text, "mlflow.note.content", given)
    automatic = automatic_tags() if run_id is None else {}
    if text:
        automatic["mlflow.note.content"] = text
    if parent_run_id is not None:
        automatic[PARENT_RUN_TAG] = run_id_of(parent_run_id)
    chosen = (None, None) if run_id is not None else choose_experiment(experiment_id, experiment_name)
    uid, now = _new_uid(), time.time_ns() // 1_000_000
    if from_step is not None and run_id is not None:
        automatic |= Branch.begun(uid, from_step, now).tag
    return RunSpec(
        uid=uid,
        run_id=None if run_id is None else run_id_of(run_id),
        experiment_id=chosen[0],
        experiment_name=chosen[1],
        run_name=name,
        user_id=automatic.get("mlflow.user", ""),
        start_time=now,
        tags=automatic | given,
    )


def attached_spec(run_id: str) -> RunSpec:
    """The spec of a run that is only logged to from here, and was started elsewhere. Raises InvalidInputError."""
    return RunSpec(uid=_new_uid(), run_id=run_id_of(run_id))


def _new_uid() -> str:
    return os.urandom(16).hex()

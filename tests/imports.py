"""A file store with everything in it that can be imported, and what a store holds of it, read through its own verbs."""

from __future__ import annotations

import math
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from asynctrack.constants import UID_TAGS, ViewType
from asynctrack.entities import Run
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive

MAX = sys.float_info.max


class Made(NamedTuple):
    """Names and ids in a store that `make_source` has made."""

    root: Path
    vision: str
    gone: str
    parent: str
    child: str
    running: str
    deleted: str
    buried: str


def make_source(root: Path, points: int = 700) -> Made:
    """Two experiments, one of them deleted; runs of several ends, nested, deleted; odd values, artifacts."""
    store = FileStore(root, InlineIO())
    marker = uuid.uuid4().hex[:8]
    names = f"vision-{marker}", f"gone-{marker}"
    ids = [drive(store.create_experiment(name, None, {"team": "cv", "note": "ü"})) for name in names]

    def run(experiment: str, name: str, end: str | None, **tags: str) -> str:
        # The id of a nested run comes before that of its parent: the order in the folder is not the order of birth.
        uid = ("0" if tags else "f") + uuid.uuid4().hex[1:]
        given = {key.replace("__", "."): value for key, value in tags.items()}
        spec = RunSpec(uid, None, experiment, None, name, "ann", 1_700_000_000_000, given)
        drive(store.create_run(spec))
        metrics: dict[str, Any] = {
            "loss": [(1_700_000_000_000 + step, step, step / 7) for step in range(points)],
            "deep/er": [(5, step, -1.0) for step in range(-3, 3)],
            "odd": [(1, 1, math.nan), (2, 2, math.inf), (3, 3, -math.inf), (4, -4, 5e-324), (4, -4, 0.1)],
        }
        drive(store.log_batch(uid, Batch(metrics, [("lr", "0.1"), ("text", "a\r\n é")], [("phase", "late")])))
        if end is not None:
            drive(store.update_run(uid, status=end, end_time=1_700_000_009_999))
        return uid

    parent = run(ids[0], "parent é", "FAILED")
    child = run(ids[0], "child", "KILLED", mlflow__parentRunId=parent)
    running = run(ids[0], "running", None)
    deleted = run(ids[0], "deleted", "FINISHED")
    buried = run(ids[1], "buried", "FINISHED")
    artifacts = root / ids[0] / parent / "artifacts"
    (artifacts / "plots").mkdir()
    (artifacts / "plots" / "a b.txt").write_text("hello")
    (artifacts / "empty.bin").touch()
    drive(store.delete_run(deleted))
    drive(store.delete_experiment(ids[1]))
    return Made(root, *names, parent, child, running, deleted, buried)


def contents(store: AbstractStore, *names: str) -> dict[str, Any]:
    """Everything that a store holds in experiments of these names, by the ids that the runs had first; as a database
    holds it."""
    found: dict[str, Any] = {}
    for name in names:
        experiment = drive(store.get_experiment_by_name(name))
        assert experiment is not None
        runs: list[Run] = drive(store.search_runs([experiment.experiment_id], "", ViewType.ALL)).items
        by_id = {run.info.run_id: _first_id(run) for run in runs}
        assert len(set(by_id.values())) == len(runs), "a run is there twice"
        found[name] = experiment.lifecycle_stage, experiment.tags, {
            _first_id(run): _run(store, run, by_id) for run in runs
        }  # fmt: skip
    return found


def _first_id(run: Run) -> str:
    return next((run.data.tags[tag] for tag in UID_TAGS if tag in run.data.tags), run.info.run_id)


def _run(store: AbstractStore, run: Run, ids: dict[str, str]) -> dict[str, Any]:
    info = run.info
    tags = {key: value for key, value in run.data.tags.items() if key not in UID_TAGS}
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = ids[tags["mlflow.parentRunId"]]
    return {
        "info": (info.run_name, info.user_id, info.status, info.start_time, info.end_time, info.lifecycle_stage),
        "params": run.data.params,
        "tags": tags,
        "latest": {key: repr(as_stored(value)) for key, value in run.data.metrics.items()},
        "history": {
            key: sorted(
                (point.timestamp, point.step, repr(as_stored(point.value)))
                for point in drive(store.get_metric_history(info.run_id, key))
            )
            for key in run.data.metrics
        },
    }


def as_stored(value: float) -> float:
    """Infinities as a database has them."""
    return math.copysign(MAX, value) if math.isinf(value) else value

"""One run in full, and the change of its note and tags."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import refuse_long_value, text_of
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.stores.batch import Batch
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Summary

__all__ = ["NOTE", "change_tag", "described_in_full"]

#: MLflow's tag for the description of a run
NOTE = "mlflow.note.content"
#: metrics whose extremes are looked up at once
_MOST_METRICS = 1000


def described_in_full(store: AbstractStore, found: FoundRun) -> dict[str, Any]:
    """Tags, and of each metric the last value, the smallest and the largest, with their steps. Raises `StoreError`."""
    run_id, metrics = found.run.info.run_id, found.run.data.metrics
    keys = sorted(metrics)
    try:
        summaries = drive(store.summarize(run_id, keys[:_MOST_METRICS]))
    except NotFoundError:
        summaries = {}  # the store has not heard of it yet
    rows = [[key, _plain(metrics[key]), *_extremes(summaries.get(key))] for key in keys]
    return {"tags": found.run.data.tags, "metrics": rows}


def _extremes(summary: Summary | None) -> list[Any]:
    if summary is None:
        return [None] * 4
    return [
        part
        for spot in (summary.min, summary.max)
        for part in ([None, None] if spot is None else [_plain(spot.value), spot.step])
    ]


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def change_tag(store: AbstractStore, run_id: str, key: object, value: object) -> None:
    """Set a tag of a run, or delete it where ``value`` is None. Raises InvalidInputError for a tag that is not the
    user's own, or that the store does not take; `StoreError`."""
    name = text_of("key", key)
    if name != NOTE and name.startswith(("mlflow.", "asynctrack.")):
        raise InvalidInputError(f"tag {name!r}: MLflow and asynctrack keep tags of this name")
    store.check_key("tag", name)
    if value is None:
        drive(store.delete_tag(run_id, name))
        return
    text = text_of("value", value)
    refuse_long_value("tag", name, text)
    for refusal in drive(store.log_batch(run_id, Batch(tags=[(name, text)]))):
        raise InvalidInputError(f"tag {name!r} of run {run_id} was refused: {refusal.reason}")

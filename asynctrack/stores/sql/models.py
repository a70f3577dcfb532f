"""Points that are about logged models (MLflow 3): rows of `logged_model_metrics`, beside those of the run's metrics.

MLflow's store keeps a metric's dataset in this table only. The first point with a key, time and step of a model's run
stays, so a batch may be sent again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from asynctrack.stores.base import Batch, Refusal
from asynctrack.stores.keys import shorten
from asynctrack.stores.points import MeasuredOn, Point, measured_on
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.session import Row, Session

__all__ = ["write_model_points"]

_INSERT = (
    "INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, "
    "experiment_id, run_id, dataset_uuid, dataset_name, dataset_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_MOST = sys.float_info.max
#: the longest name and digest of a dataset
_NAME, _DIGEST = 500, 36


def write_model_points(session: Session, run_id: str, batch: Batch, left_out: Iterable[Refusal]) -> list[Refusal]:
    """Store what the logged models get of a batch, but for the points ``left_out``, which no column takes. Refused are
    points of models that are not there: only the run has these."""
    refused = {(refusal.key, refusal.value[:3]) for refusal in left_out if refusal.kind == "metric"}
    found: dict[str, list[tuple[MeasuredOn, Point]]] = {}
    for key, points in batch.decoded.items():
        for point in points:
            on = measured_on(point)
            if on is not None and on.model_id is not None and (key, point[:3]) not in refused:
                found.setdefault(on.model_id, []).append((on, point))
    if not found:
        return []
    refusals, rows = [], []
    [(experiment_id,)] = session.rows("SELECT experiment_id FROM runs WHERE run_uuid = ?", (run_id,))
    for model_id, measured in sorted(found.items()):
        if not _is_there(session, model_id):
            reason = f"there is no logged model {shorten(model_id)} in this database; only the run has the value"
            refusals += [
                Refusal("metric", on.key, point, f"metric {shorten(on.key)}: {reason}") for on, point in measured
            ]
            continue
        rows += [_row(on, point, experiment_id, run_id) for on, point in measured]
    session.many(_INSERT, sorted(rows, key=lambda row: tuple(row[:4])))
    return refusals


def _is_there(session: Session, model_id: str) -> bool:
    if not session.schema.models:
        return False
    return bool(session.rows("SELECT 1 FROM logged_models WHERE model_id = ?", (storable(model_id),)))


def _row(on: MeasuredOn, point: Point, experiment_id: int, run_id: str) -> Row:
    timestamp, step, value = point[:3]
    number = 0.0 if value != value else min(max(value, -_MOST), _MOST)
    name, digest = on.dataset_name, on.dataset_digest
    dataset = (None, None) if name is None or digest is None else (storable(name)[:_NAME], storable(digest)[:_DIGEST])
    return (on.model_id, on.key, timestamp, step, number, experiment_id, run_id, None, *dataset)

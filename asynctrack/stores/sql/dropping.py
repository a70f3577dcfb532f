"""Taking the points of an abandoned branch out of a run: in the transaction that takes the run up again."""

from __future__ import annotations

from asynctrack.stores.sql.session import Session

__all__ = ["drop_points"]

_LAST = (
    "SELECT value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ? "
    "ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1"
)
_SET_LATEST = "UPDATE latest_metrics SET value = ?, timestamp = ?, step = ?, is_nan = ? WHERE run_uuid = ? AND key = ?"


def drop_points(session: Session, run_id: str, from_step: int) -> None:
    """Delete every point of a run at ``from_step`` and behind, also those of logged models. What stands in
    `latest_metrics` is the largest of the points that are left."""
    # A key has such points where its latest point, which has the largest step, is one.
    keys = [
        key
        for (key,) in session.rows(
            "SELECT key FROM latest_metrics WHERE run_uuid = ? AND step >= ?", (run_id, from_step)
        )
    ]
    for key in sorted(keys):
        session.execute("DELETE FROM metrics WHERE run_uuid = ? AND key = ? AND step >= ?", (run_id, key, from_step))
        last = session.rows(_LAST, (run_id, key))
        if last:
            session.execute(_SET_LATEST, (*last[0], run_id, key))
        else:
            session.execute("DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ?", (run_id, key))
    if session.schema.models:
        session.execute("DELETE FROM logged_model_metrics WHERE run_id = ? AND metric_step >= ?", (run_id, from_step))

"""A history row by row, for loops: one dictionary for each step of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrack.reading.table import History

__all__ = ["scanned"]


def scanned(history: History) -> Iterator[dict[str, Any]]:
    """For each step of each run, rising, a dictionary with "step", "time" (ms since the epoch, of the newest of its
    points) and the value of each key that was logged there. A key that was logged more often at one step has its other
    values in further dictionaries, in order: no point is lost."""
    for run_id in history.run_ids:
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for piece in history.pieces:
            if piece.run.info.run_id != run_id:
                continue
            times: dict[int, int] = {}  # so often this step was met
            for step, time, value in piece.series.columns.rows():
                nth = times[step] = times.get(step, -1) + 1
                row = rows.setdefault((step, nth), {"step": step, "time": time})
                row["time"] = max(row["time"], time)
                row[piece.key] = value
        for place in sorted(rows):
            yield rows.pop(place)

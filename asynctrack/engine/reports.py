"""What a consumer in a process of its own tells the program about its runs: written into the cursor, and read there."""

from __future__ import annotations

from collections import deque
from typing import Any

from asynctrack import errors
from asynctrack.engine.batcher import Lane

__all__ = ["report_of", "take_counts", "take_report"]

_COUNTS = ("accepted", "delivered", "rejected", "retries", "attempts")
#: of each run, the reasons for the refusals that came last
_REFUSALS = 3


def report_of(lane: Lane) -> list[Any]:
    """What becomes of a run and its artifacts, in plain values."""
    import dataclasses

    lanes = [lane, lane.uploads] if lane.uploads is not None else [lane]
    return [
        lane.run_id,
        dataclasses.astuple(lane.info) if lane.info is not None else None,
        lane.ended,
        [sum(getattr(one, name) for one in lanes) for name in _COUNTS],
        next((one.last_error for one in lanes if one.last_error), None),
        _told(lane.refused),
        _told(lane.held),
        [refusal for one in lanes for refusal in list(one.refusals)[-_REFUSALS:]],
        {name: reason for one in lanes for name, reason in one.failed.items()},
    ]


def take_report(lane: Lane, report: list[Any]) -> None:
    """Believe it."""
    from asynctrack.entities import RunInfo

    lane.run_id, info, lane.ended, counts, lane.last_error, refused, held, refusals, failed = report
    lane.info = RunInfo(*info) if info is not None else None
    for name, count in zip(_COUNTS, counts, strict=True):
        setattr(lane, name, count)
    lane.refused, lane.held = _heard(refused), _heard(held)
    lane.refusals, lane.failed = deque(refusals, maxlen=20), failed


def take_counts(lane: Lane, report: list[Any]) -> None:
    """Go on counting where the consumer before this one has stopped."""
    _, lane.delivered, lane.rejected, lane.retries, _ = report[3]
    lane.refusals.extend(report[7])
    lane.failed.update(report[8])


def _told(error: errors.StoreError | None) -> list[str] | None:
    return None if error is None else [type(error).__name__, str(error)]


def _heard(told: list[str] | None) -> errors.StoreError | None:
    if told is None:
        return None
    kind = getattr(errors, told[0], errors.StoreError)
    return kind(told[1]) if issubclass(kind, errors.StoreError) else errors.StoreError(told[1])

"""What a consumer in a process of its own tells the program about its runs: written into the cursor, and read there."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Any

from asynctrack import errors
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.progress import Stage
from asynctrack.stores.base import Refusal
from asynctrack.stores.points import measured_on

__all__ = ["rejected_lines", "report_of", "take_report", "take_report_over"]

_COUNTS = tuple(map(attrgetter, ("accepted", "delivered", "rejected", "retries", "backoff.attempts")))
#: of each run, the reasons for the refusals that came last
_REFUSALS = 3


def report_of(lane: Lane, *, ended: bool) -> list[Any]:
    """What becomes of a run and its artifacts, in plain values."""
    import dataclasses

    lanes = [lane, lane.uploads] if lane.uploads is not None else [lane]
    return [
        lane.run_id,
        dataclasses.astuple(lane.info) if lane.info is not None else None,
        ended,
        [sum(read(one) for one in lanes) for read in _COUNTS],
        next((one.last_error for one in lanes if one.last_error), None),
        _told(lane.refused),
        _told(lane.held),
        [refusal for one in lanes for refusal in list(one.refusals)[-_REFUSALS:]],
        {name: reason for one in lanes for name, reason in one.failed.items()},
    ]


def take_report(lane: Lane, report: list[Any]) -> None:
    """Believe it."""
    from asynctrack.entities import RunInfo

    lane.run_id, info, ended, counts, lane.last_error, refused, held, refusals, failed = report
    if ended:
        lane.progress.advance(Stage.ENDED)
    lane.info = RunInfo(*info) if info is not None else None
    lane.accepted, lane.delivered, lane.rejected, lane.retries, lane.backoff.attempts = counts
    lane.refused, lane.held = _heard(refused), _heard(held)
    lane.refusals, lane.failed = deque(refusals, maxlen=20), failed


def take_report_over(lane: Lane, report: list[Any]) -> None:
    """Go on where the consumer before this one has stopped. What it had loaded and not delivered is loaded again."""
    told = Lane(lane.run, lane.spec, attached=lane.attached)
    take_report(told, report)
    lane.run_id, lane.info, lane.refused, lane.held = told.run_id, told.info, told.refused, told.held
    lane.accepted, lane.delivered, lane.rejected = told.delivered + told.rejected, told.delivered, told.rejected
    lane.retries, lane.last_error = told.retries, told.last_error
    lane.refusals, lane.failed = told.refusals, told.failed


def rejected_lines(lane: Lane, refusals: list[Refusal], start: int, now: int, to: str | None) -> list[dict[str, Any]]:
    """What is kept of events that the store has refused, for ``rejected.jsonl``; ``now`` is in ms, ``to`` the store, if
    it is not the spool's own.

    Of a run that could not be created, the first line has all that is needed to create it after all.
    """
    place = {} if to is None else {"to": to}
    lines = [_rejected_line(lane, refusal, start, now) | place for refusal in refusals]
    main = lane.uploads_of or lane
    if lines and main.refused is not None and main.run_id is None:
        lines[0]["spec"] = main.spec._asdict()
    return lines


def _rejected_line(lane: Lane, refusal: Refusal, start: int, now: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "run_id": lane.name,
        "kind": refusal.kind,
        "key": refusal.key,
        "reason": refusal.reason,
        "refused_at": now,
        "slots_from": start,
    }
    if refusal.kind == "metric":
        timestamp, step, value = refusal.value[:3]
        line |= {"value": repr(value), "timestamp": timestamp, "step": step}
        on = measured_on(refusal.value)
        if on is not None:
            line |= {name: field for name, field in on._asdict().items() if field is not None}
    else:
        line["value"] = refusal.value
    return line


def _told(error: errors.StoreError | None) -> list[str] | None:
    return None if error is None else [type(error).__name__, str(error)]


def _heard(told: list[str] | None) -> errors.StoreError | None:
    if told is None:
        return None
    kind = getattr(errors, told[0], errors.StoreError)
    return kind(told[1]) if issubclass(kind, errors.StoreError) else errors.StoreError(told[1])

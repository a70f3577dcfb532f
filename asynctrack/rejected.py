"""Trying refused events again, once what they were refused for is mended: ``asynctrack spool retry``."""

from __future__ import annotations

from typing import NamedTuple

from asynctrack.engine.spools import RejectedEvent, drop_rejected, read_rejected
from asynctrack.errors import AsynctrackError, DeliveryError, InvalidInputError
from asynctrack.journal.spool import read_owner
from asynctrack.run import attached_run, detach, raise_refused, timed_out, wait_blocking
from asynctrack.runlog import RunLog

__all__ = ["Retried", "retry_rejected"]


class Retried(NamedTuple):
    """``accepted`` events are in the store now; ``problems`` say what was refused again, and is kept in a new spool."""

    accepted: int
    problems: list[str]


def retry_rejected(path: str, *, to: str | None = None, timeout: float = 60.0) -> Retried:
    """Log the refused events of a spool once more, to the store it was meant for (or ``to`` another), and wait.

    Whatever is refused again is kept in a spool of this process's, and `asynctrack spool rejected` lists it there.
    Raises InvalidInputError where ``path`` is no spool, FlushTimeoutError with everything left as it was.
    """
    owner = read_owner(path)
    if owner is None:
        raise InvalidInputError(f"{path} is no spool; `asynctrack spool` lists them")
    events = list(read_rejected([path]))
    accepted, problems = 0, []
    for run_id in dict.fromkeys(event.run_id for event in events):
        found = _retry_run(run_id, to or owner.store, [event for event in events if event.run_id == run_id], timeout)
        accepted += found.accepted
        problems += found.problems
    drop_rejected(path)
    return Retried(accepted, problems)


def _retry_run(run_id: str, store: str, events: list[RejectedEvent], timeout: float) -> Retried:
    log = attached_run(run_id, store)
    state = log._state
    before = log.stats().rejected
    problems = []
    for event in events:
        try:
            _log_again(log, event)
        except AsynctrackError as error:
            problems.append(str(error))
    ends = [event for event in events if event.kind == "end"]
    detach(state, *((ends[-1].key, int(ends[-1].value)) if ends else ()))
    receipt = state.engine.flush(state.number)
    if not wait_blocking(state, receipt, timeout):
        raise timed_out(state, timeout)
    receipt.result()
    accepted = len(events) - len(problems) - (log.stats().rejected - before)
    try:
        raise_refused(state)
    except DeliveryError as error:
        problems.append(str(error))
    return Retried(accepted, problems)


def _log_again(log: RunLog, event: RejectedEvent) -> None:
    if event.kind == "metric":
        log.log_metric(event.key, float(event.value), event.step, event.timestamp)
    elif event.kind == "param":
        log.log_param(event.key, event.value)
    elif event.kind == "tag":
        log.set_tag(event.key, event.value)
    elif event.kind == "artifact":
        log._log_path(event.value, event.key, "copy")

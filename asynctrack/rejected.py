"""Trying refused events again, once what they were refused for is mended: ``asynctrack spool retry``."""

from __future__ import annotations

import os
from typing import NamedTuple

from asynctrack.engine.spools import RejectedEvent, drop_rejected, read_lines
from asynctrack.errors import AsynctrackError, DeliveryError, InvalidInputError
from asynctrack.journal.spool import read_owner
from asynctrack.run import attached_run, detach, raise_refused, timed_out, wait_blocking
from asynctrack.runlog import RunLog

__all__ = ["Retried", "retry_rejected"]


class Retried(NamedTuple):
    """``accepted`` events are in the store now; ``problems`` say what was refused again, and where it is kept."""

    accepted: int
    problems: list[str]


def retry_rejected(path: str, *, to: str | None = None, timeout: float = 60.0) -> Retried:
    """Log the refused events of a spool once more, to the store it was meant for (or ``to`` another), and wait.

    Whatever the store refuses again is kept in a spool of this process's, what cannot even be logged stays where it
    was. Raises InvalidInputError where ``path`` is no spool, FlushTimeoutError where the store does not answer: nothing
    is deleted then, and to try once more changes nothing in the store for what has arrived after all.
    """
    owner = read_owner(path)
    if owner is None:
        raise InvalidInputError(f"{path} is no spool; `asynctrack spool` lists them")
    found = read_lines(path)
    accepted, problems = 0, []
    for run_id in dict.fromkeys(event.run_id for event in found.values()):
        lines = {line: event for line, event in found.items() if event.run_id == run_id}
        retried, logged = _retry_run(run_id, to or owner.store, lines, timeout)
        drop_rejected(path, logged)
        accepted += retried.accepted
        problems += retried.problems
    return Retried(accepted, problems)


def _retry_run(
    run_id: str, store: str, lines: dict[bytes, RejectedEvent], timeout: float
) -> tuple[Retried, set[bytes]]:
    """What became of a run's events, and the lines that need not be kept."""
    log = attached_run(run_id, store)
    state = log._state
    before = log.stats().rejected
    logged, problems = set(), []
    for line, event in lines.items():
        try:
            _log_again(log, event)
            logged.add(line)
        except AsynctrackError as error:
            problems.append(f"{error}. It stays in {event.spool}.")
    ends = [event for event in lines.values() if event.kind == "end"]
    detach(state, *((ends[-1].key, int(ends[-1].value)) if ends else ()))
    receipt = state.engine.flush(state.number)
    if not wait_blocking(state, receipt, timeout):
        state.engine.gave_up = True
        raise timed_out(state, timeout)
    receipt.result()
    accepted = len(logged) - (log.stats().rejected - before)
    try:
        raise_refused(state)
    except DeliveryError as error:
        problems.append(str(error))
    return Retried(max(accepted, 0), problems), logged


def _log_again(log: RunLog, event: RejectedEvent) -> None:
    if event.kind == "metric":
        log.log_metric(event.key, float(event.value), event.step, event.timestamp)
    elif event.kind == "param":
        log.log_param(event.key, event.value)
    elif event.kind == "tag":
        log.set_tag(event.key, event.value)
    elif event.kind == "artifact":
        # Wherever its spool is now.
        log._log_path(os.path.join(event.spool, "artifacts", os.path.basename(event.value)), event.key, "copy")

"""Refused events: try them again after their cause is mended, or delete them."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from asynctrack.artifacts.snapshot import remove_snapshots
from asynctrack.current import store_for
from asynctrack.delivery.missing import living_owner_below
from asynctrack.errors import AsynctrackError, DeliveryError, InvalidInputError
from asynctrack.journal.homes import homes_in_use, spool_homes
from asynctrack.journal.locks import locked_file
from asynctrack.journal.owner import read_owner
from asynctrack.journal.survey import RejectedEvent, read_lines
from asynctrack.recovery.standing import snapshot_of, standing
from asynctrack.runs.active import attached_run, begun_run, detach
from asynctrack.runs.log import RunLog
from asynctrack.runs.state import RunState
from asynctrack.runs.waiting import raise_refused, timed_out, wait_blocking
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import drive

__all__ = ["Retried", "drop_rejected", "retry_rejected"]

_REJECTED = "rejected.jsonl"
#: the share of the refused events that are deleted together, after they have been logged again
_DROPPED_AT_ONCE = 0.1


class Retried(NamedTuple):
    """``accepted``: number of events that the store accepted. ``problems``: a
    message for each group of events that was refused again, with the place
    where they are kept."""

    accepted: int
    problems: list[str]


def retry_rejected(path: str, *, to: str | None = None, timeout: float = 60.0, overwrite: bool = False) -> Retried:
    """Log the refused events of the spool ``path`` again, to the store that has
    refused them or to the store ``to``, and wait for delivery.

    Events that the store refuses again are kept in a spool of this process.
    Events that cannot be logged stay in ``path``, and so do tags and artifacts
    in whose place the store has others, which may be newer; unless they are to
    ``overwrite`` these. Raises InvalidInputError if ``path`` is not a spool,
    and UnavailableError if the store is away: nothing is changed then. Raises
    FlushTimeoutError if it does not answer within ``timeout`` seconds: what was
    logged waits in a spool of this process, and is delivered by the next one.
    """
    owner = read_owner(path)
    if owner is None:
        raise InvalidInputError(f"{path} is not a spool; `asynctrack spool` lists them")
    runs: dict[tuple[str, str], dict[bytes, RejectedEvent]] = {}
    for line, event in read_lines(path).items():
        runs.setdefault((event.run_id, to or event.to or owner.store), {})[line] = event
    left = sum(map(len, runs.values()))
    accepted, problems = 0, []
    logged: set[bytes] = set()
    try:
        for (run_id, store), lines in runs.items():
            retried = _retry_run(run_id, store, lines, timeout, overwrite, logged)
            accepted += retried.accepted
            problems += retried.problems
            # Each time the whole file is written again: with thousands of runs, not after each.
            if len(logged) > left * _DROPPED_AT_ONCE:
                drop_rejected(path, logged)
                left, logged = left - len(logged), set()
    finally:
        if logged:
            drop_rejected(path, logged)
    return Retried(accepted, problems)


def _retry_run(
    run_id: str, store: str, lines: dict[bytes, RejectedEvent], timeout: float, overwrite: bool, logged: set[bytes]
) -> Retried:
    """Log the refused events of one run again. The lines of those that were logged are added to ``logged``, also where
    the wait for their delivery is interrupted."""
    try:
        spec = _spec_of(lines.values())
    except TypeError:  # damaged, or of a later version
        return Retried(0, [f"run {run_id}: what it was to be created with cannot be read. Its events stay."])
    found = drive(standing(store_for(store), run_id, spec, lines))
    others = {} if overwrite else found.others
    # With a spec, the events were refused because the run could not be created. It is created now and ended below.
    log = attached_run(run_id, store) if spec is None else begun_run(spec, store)
    state = log._state
    before = log.stats().rejected
    again, problems = 0, []
    for line, event in lines.items():
        if line in others:
            problems.append(
                f"run {run_id}: {others[line]}; it may be newer. Ours stays in {event.spool} (--overwrite)."
            )
            continue
        try:
            _log_again(log, event)
            logged.add(line)
            again += 1
        except AsynctrackError as error:
            problems.append(f"{error}. It stays in {event.spool}.")
    status, end_time = _end_of(spec, list(lines.values()))
    if not detach(state, *((status, end_time) if end_time > found.ended and not _goes_on(state, run_id) else ())):
        without = {line for line, event in lines.items() if event.kind == "end"}  # there was no room
        logged -= without
        again -= len(without)
    receipt = state.engine.flush(state.number)
    if not wait_blocking(state, receipt, timeout):
        state.engine.gave_up = True
        raise timed_out(state, timeout)
    receipt.result()
    accepted = again - (log.stats().rejected - before)
    try:
        raise_refused(state)
    except DeliveryError as error:
        problems.append(str(error))
    return Retried(max(accepted, 0), problems)


def _spec_of(events: Iterable[RejectedEvent]) -> RunSpec | None:
    """What the run was to be created with, if that was refused. Raises TypeError for what can be none."""
    specs = [RunSpec(**event.spec) for event in events if event.spec is not None]
    if not all(isinstance(spec.tags, dict) for spec in specs):
        raise TypeError("tags are a dict")
    return specs[-1] if specs else None


def _end_of(spec: RunSpec | None, events: Sequence[RejectedEvent]) -> tuple[str, int]:
    """The status and end time, in ms since the epoch, that the run is to be given; 0: none."""
    for event in reversed(events):
        if event.kind == "end":
            return event.key, int(event.value)
    # How a run ended that could not be created is not known without that.
    return ("", 0) if spec is None else ("KILLED", max(event.refused_at for event in events))


def _goes_on(state: RunState, run_id: str) -> bool:
    """Whether a living program here has taken the run up since, and will end it."""
    homes = {*homes_in_use(), *spool_homes(None, state.engine.store.uri)}
    with suppress(OSError):
        return any(living_owner_below(home, {run_id, state.run_id}) for home in homes)
    return False


def _log_again(log: RunLog, event: RejectedEvent) -> None:
    if event.kind == "metric":
        metric: Any = event.on or event.key
        log.log_metric(metric, float(event.value), event.step, event.timestamp)
    elif event.kind == "param":
        log.log_param(event.key, event.value)
    elif event.kind == "tag":
        log.set_tag(event.key, event.value)
    elif event.kind == "input":
        log._state.frame("inputs", {event.key: event.value})
    elif event.kind == "artifact":
        log._log_path(snapshot_of(event), event.key, "copy")


# ── delete


def drop_rejected(path: str, lines: Container[bytes] | None = None) -> int:
    """Delete the refused events of a spool (all, or only those in ``lines``)
    and their artifacts. Returns their number.

    If nothing else is left in the spool, its folder is deleted too. A program
    that writes to the file at the same time loses nothing. Raises
    InvalidInputError if ``path`` is not a spool, and OSError.
    """
    if read_owner(path) is None:
        raise InvalidInputError(f"{path} is not a spool; `asynctrack spool` lists them")
    where = os.path.join(path, _REJECTED)
    dropped: list[RejectedEvent] = []
    with ExitStack() as locked:
        try:
            locked.enter_context(locked_file(where, create=False))
        except FileNotFoundError:
            return 0  # nothing was refused
        found = read_lines(path)
        kept = {line: event for line, event in found.items() if lines is not None and line not in lines}
        dropped = [event for line, event in found.items() if line not in kept]
        _drop_artifacts(path, dropped, kept.values())
        if kept:
            with open(f"{where}.new", "wb", opener=_private) as file:
                file.writelines(line + b"\n" for line in kept)
            os.replace(f"{where}.new", where)
        else:
            os.unlink(where)
            _remove_delivered(path)
    return len(dropped)


def _private(path: str, flags: int) -> int:
    """An opener for `open`: only the file's owner may read it."""
    return os.open(path, flags, 0o600)


def _drop_artifacts(path: str, dropped: Iterable[RejectedEvent], kept: Iterable[RejectedEvent]) -> None:
    names, needed = (
        {os.path.basename(str(event.value)) for event in events if event.kind == "artifact"}
        for events in (dropped, kept)
    )
    for name in names - needed:
        remove_snapshots(os.path.join(path, "artifacts", name))


def _remove_delivered(path: str) -> None:
    """Delete a spool's folder if nothing but refused events was left in it."""
    if os.path.exists(os.path.join(path, "registry")):
        return
    remove_snapshots(os.path.join(path, "artifacts"))  # snapshots whose line in rejected.jsonl is damaged
    with suppress(FileNotFoundError):  # the engine of this very process may have found it empty
        if os.listdir(path) == ["owner"]:
            os.unlink(os.path.join(path, "owner"))
            os.rmdir(path)

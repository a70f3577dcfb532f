"""Logging params, which never change; what is said of those that are others, in a run that goes on from an earlier
step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import refuse_long_value
from asynctrack.constants import PARAM_CHANGED
from asynctrack.errors import InvalidInputError
from asynctrack.runs.invalid import leave_out
from asynctrack.stores.branches import branch_of
from asynctrack.values import is_stored_as, shortened, to_text

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["log_params"]

logger = logging.getLogger("asynctrack")


def log_params(state: RunState, params: Iterable[tuple[str, Any]]) -> None:
    """Log params of a run, once all are checked. Raises InvalidInputError, RunEndedError, SpoolFullError."""
    texts: list[tuple[str, str]] = []
    for key, value in params:
        try:
            texts.append((key, _text(state, key, value)))
        except InvalidInputError as error:
            leave_out(state, "param", key, error)
    if texts:
        state.when_there_is_room(lambda: _log(state, texts))


def _text(state: RunState, key: str, value: Any) -> str:
    """The text of a param that a store can hold. Raises InvalidInputError."""
    text = to_text("param", key, value)
    state.check_key("param", key)
    refuse_long_value("param", key, text)
    return text


def _log(state: RunState, texts: Iterable[tuple[str, str]]) -> None:
    """Log those that are new, under the run's lock: of two threads that log one param, the other meets what it is.
    What is dropped for want of room was not logged. Raises NoRoomNow; called again then, it goes on."""
    entries: dict[str, str] = {}
    changed: dict[str, str] = {}
    for key, text in texts:
        try:
            _refuse_another(state, key, text, entries)
        except InvalidInputError as error:
            leave_out(state, "param", key, error)
            continue
        if is_stored_as(text, state.stored_params.get(key, text)):
            entries[key] = text
        elif key not in state.params:
            changed[key] = text
    if changed and _tell_changed(state, changed):
        state.params.update(changed)
    if entries and state.write_now(["params", state.number, entries]):
        state.params.update(entries)


def _refuse_another(state: RunState, key: str, text: str, entries: Mapping[str, str]) -> None:
    """Raise InvalidInputError for a param that is another already, also by the ``entries`` of the same call."""
    logged = state.params.get(key, entries.get(key))
    if logged is None and not is_stored_as(text, state.stored_params.get(key, text)) and not _may_change(state):
        logged = state.stored_params[key]
    if logged is not None and logged != text:
        raise InvalidInputError(
            f"param {key!r} is {shortened(logged)} already and cannot become {shortened(text)}; log it under "
            "another name, or use set_tag for what changes"
        )


def _may_change(state: RunState) -> bool:
    """Whether a param may be another one than the store has: the run goes on from an earlier step."""
    return branch_of(state.spec.uid, state.spec.tags) is not None


def _tell_changed(state: RunState, changed: Mapping[str, str]) -> bool:
    """Say that params are others than the store has, which keeps its own: by a tag each, and in the log. False where
    the tags are dropped for want of room."""
    changes = {key: f"{state.stored_params[key]} -> {text}" for key, text in changed.items()}
    entries = {PARAM_CHANGED + key: change for key, change in changes.items()}
    tags = {key: change for key, change in entries.items() if state.keys.allows("tag", key)}
    if tags and not state.write_now(["tags", state.number, tags]):
        return False
    logger.warning(
        "asynctrack: run %s: other params than before: %s. A param never changes: the tags %s* say so",
        state.run_id, "; ".join(f"{key}: {change}"[:200] for key, change in list(changes.items())[:10]), PARAM_CHANGED,
    )  # fmt: skip
    return True

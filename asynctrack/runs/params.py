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
    entries: dict[str, str] = {}
    changed: dict[str, str] = {}
    with state.lock:
        for key, value in params:
            try:
                text = _checked(state, key, value, entries)
            except InvalidInputError as error:
                leave_out(state, "param", key, error)
                continue
            if is_stored_as(text, state.stored_params.get(key, text)):
                entries[key] = text
            elif key not in state.params:
                changed[key] = text
        if changed:
            _tell_changed(state, changed)
        if entries:
            state.frame("params", entries)
        state.params.update(entries | changed)


def _checked(state: RunState, key: str, value: Any, entries: Mapping[str, str]) -> str:
    """The text of a param that may be logged beside the ``entries`` of the same call. Raises InvalidInputError."""
    text = to_text("param", key, value)
    state.check_key("param", key)
    refuse_long_value("param", key, text)
    logged = state.params.get(key, entries.get(key))
    if logged is None and not is_stored_as(text, state.stored_params.get(key, text)) and not _may_change(state):
        logged = state.stored_params[key]
    if logged is not None and logged != text:
        raise InvalidInputError(
            f"param {key!r} is {shortened(logged)} already and cannot become {shortened(text)}; log it under "
            "another name, or use set_tag for what changes"
        )
    return text


def _may_change(state: RunState) -> bool:
    """Whether a param may be another one than the store has: the run goes on from an earlier step."""
    return branch_of(state.spec.uid, state.spec.tags) is not None


def _tell_changed(state: RunState, changed: Mapping[str, str]) -> None:
    """Say that params are others than the store has, which keeps its own: by a tag each, and in the log."""
    changes = {key: f"{state.stored_params[key]} -> {text}" for key, text in changed.items()}
    entries = {PARAM_CHANGED + key: change for key, change in changes.items()}
    logger.warning(
        "asynctrack: run %s: other params than before: %s. A param never changes: the tags %s* say so",
        state.run_id, "; ".join(f"{key}: {change}"[:200] for key, change in list(changes.items())[:10]), PARAM_CHANGED,
    )  # fmt: skip
    tags = {key: change for key, change in entries.items() if state.keys.allows("tag", key)}
    if tags:
        state.frame("tags", tags)

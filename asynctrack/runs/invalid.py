"""What becomes of an event that can never be stored: see `Settings.on_invalid`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.errors import InvalidInputError
from asynctrack.settings import ON_INVALID, OnInvalid
from asynctrack.values import shortened, to_float, to_step, to_timestamp

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["leave_out", "log_what_is_valid"]

logger = logging.getLogger("asynctrack")

#: keys of one run that are remembered as reported
_REMEMBERED = 1000


def _policy(state: RunState, on_invalid: OnInvalid | None) -> OnInvalid:
    """The policy of one call: its own argument, else the run's setting. Raises InvalidInputError for any other."""
    if on_invalid is None:
        return state.engine.settings.on_invalid
    if not isinstance(on_invalid, str) or on_invalid not in ON_INVALID:
        raise InvalidInputError(f"on_invalid={shortened(on_invalid)}: it must be one of {', '.join(ON_INVALID)}")
    return on_invalid


def _named(state: RunState, error: InvalidInputError) -> InvalidInputError:
    """The same error, with the run named."""
    run, text = f"run {state.run_id}: ", str(error)
    return error if text.startswith(run) else InvalidInputError(run + text)


def leave_out(
    state: RunState, kind: str, key: object, error: InvalidInputError, policy: OnInvalid | None = None
) -> None:
    """Raise the error, or go on without this event. ``kind``: "metric", "param" or "tag"."""
    policy = policy or state.engine.settings.on_invalid
    if policy == "raise":
        raise _named(state, error) from None
    event = (kind, shortened(key))
    if policy == "warn" and event not in state.reported and len(state.reported) < _REMEMBERED:
        state.reported.add(event)
        logger.warning("asynctrack: left out: %s. More of this key is left out without a word", _named(state, error))


def log_what_is_valid(
    log: Callable[[str, float, int, int], None],
    state: RunState,
    metrics: object,
    step: Any,
    timestamp: Any,
    on_invalid: OnInvalid | None,
) -> None:
    """Called where an InvalidInputError is handled that some point of a call has raised: raise it, or ``log`` the other
    points."""
    error = sys.exception()
    assert isinstance(error, InvalidInputError)
    policy = _policy(state, on_invalid)
    if policy == "raise" or not isinstance(metrics, Mapping):
        raise _named(state, error) from None
    if timestamp is None:
        timestamp = time.time_ns() // 1_000_000
    for key, value in metrics.items():
        try:
            state.check_key("metric", key)
            point = to_float(key, value), to_step(key, 0 if step is None else step), to_timestamp(key, timestamp)
        except InvalidInputError as problem:
            leave_out(state, "metric", key, problem, policy)
        else:
            log(key, *point)

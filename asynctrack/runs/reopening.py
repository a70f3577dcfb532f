"""Taking a run up again that has ended in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrack.arguments import step_of
from asynctrack.errors import InvalidInputError
from asynctrack.runs.active import activate, opened
from asynctrack.runs.sharing import again
from asynctrack.runs.spec import new_spec

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["reopen"]


def reopen(state: RunState, from_step: int | None) -> None:
    """Take a run up again that has ended, and make it the active one. Raises InvalidInputError, SpoolError."""
    step = None if from_step is None else step_of("from_step", from_step)
    if not state.ended:
        if step is not None:
            raise InvalidInputError(f"run {state.run_id} is open: from_step= is for a run that has ended")
    else:
        spec = new_spec(
            run_id=state.run_id,
            experiment_id=None,
            experiment_name=None,
            run_name=None,
            parent_run_id=None,
            description=None,
            tags=None,
            from_step=step,
        )
        state.reopen(again(state.spec, spec))
        opened(state)
    activate(state)

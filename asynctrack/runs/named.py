"""The open runs of a process by the names that they go by: a service may log to thousands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.runs.state import RunState

__all__ = ["NamedRuns"]


class NamedRuns:
    """Run id or uid → open runs. Any thread and any signal handler may call, in the middle of another call too: each
    change is one step on a dictionary, and there is no lock."""

    def __init__(self) -> None:
        self._first: dict[str, RunState] = {}
        #: those that do not stand there under both their names: the store has not given an id yet, or the same run is
        #: open twice
        self._others: dict[int, RunState] = {}

    def add(self, state: RunState) -> None:
        """A run is open from now on."""
        if not self._enter(state):
            self._others[id(state)] = state

    def remove(self, state: RunState) -> None:
        """It has ended."""
        self._others.pop(id(state), None)
        for name in (state.spec.uid, state.run_id):
            if self._first.get(name) is state:
                gone = self._first.pop(name, state)
                if gone is not state:  # another thread has removed it in between, and one more has taken its place
                    self._others[id(gone)] = gone

    def find(self, name: str) -> list[RunState]:
        """The open runs with this id or uid."""
        others = list(self._others.values())
        for state in others:
            if self._enter(state):
                self._others.pop(id(state), None)
        first = self._first.get(name)
        found = [] if first is None else [first]
        return found + [state for state in others if state is not first and name in (state.run_id, state.spec.uid)]

    @property
    def is_empty(self) -> bool:
        """No run is open."""
        return not (self._first or self._others)

    def _enter(self, state: RunState) -> bool:
        """Whether it stands under both its names."""
        names = (state.spec.uid, state.run_id) if state.knows_id else (state.spec.uid,)
        entered = [self._first.setdefault(name, state) is state for name in names]
        return state.knows_id and all(entered)

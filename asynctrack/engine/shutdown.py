"""How everything that logs here comes to an end, step by step, by one deadline.

First the open runs are ended, while log calls still work; then the engines deliver what is there; then those are let
go that only made things easier, such as connections for blocking calls. What belongs to which step says so when it is
registered, and not by when that happens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

from asynctrack.clock import monotonic
from asynctrack.engine.left import count_left, say_what_is_left
from asynctrack.engine.progress import Waiting
from asynctrack.engine.table import EngineTable

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine

__all__ = ["Phase", "Shutdown", "at_shutdown"]

logger = logging.getLogger("asynctrack")

#: seconds beyond an engine's deadline, which it keeps itself, for one step that is just under way
_GRACE = 1.0


class Phase(IntEnum):
    """Where a `Shutdown` is."""

    RUNNING = 0
    ENDING_RUNS = 1
    DRAINING = 2
    LEAVING = 3
    GONE = 4


#: what is done in a phase, for messages
_DOES = {
    Phase.ENDING_RUNS: "ending open runs",
    Phase.DRAINING: "delivering what is left",
    Phase.LEAVING: "closing stores",
    Phase.GONE: "stopping",
}


class Shutdown:
    """One ending: of the process, or of what it has logged so far. Its phase only goes forward."""

    def __init__(self, table: EngineTable, status: str, patience: Callable[[Engine], float], signal: str = "") -> None:
        self._table = table
        self._patience = patience
        self._begun = monotonic()
        self.phase = Phase.RUNNING
        #: of the runs that are open
        self.status = status
        #: the name of the signal in whose handler this happens; what it has interrupted is never gone on with
        self.signal = signal
        self.seconds = max(map(patience, table.engines()), default=0.0)

    def deadline(self, engine: Engine) -> float:
        """When an engine gives up (monotonic seconds)."""
        return self._begun + min(self._patience(engine), self.seconds)

    def enter(self, phase: Phase) -> None:
        """Go on to a phase and call its hooks."""
        if phase <= self.phase:
            raise RuntimeError(f"asynctrack is {self.phase.name} already, and cannot be {phase.name} any more")
        self.phase = phase
        for hook in _hooks[phase]:
            try:
                hook(self)
            except Exception:
                logger.exception("asynctrack: unexpected failure while %s; going on", _DOES[phase])

    def carry_out(self) -> None:
        """From the first phase to the last. Waits for what is delivered, and says what is not."""
        try:
            self.enter(Phase.ENDING_RUNS)
        except KeyboardInterrupt:
            self.seconds = 0.0  # the user will not wait: what is left is said below
        deadlines = self._drain()
        try:
            for engine, deadline in deadlines.items():
                engine.shut_down(deadline)
            for engine, deadline in deadlines.items():
                with Waiting(engine.pending, engine.pending_artifact_bytes) as waiting:
                    waiting.until(engine.finished.wait, deadline + _GRACE - monotonic())
        except KeyboardInterrupt:
            pass  # as above
        self.enter(Phase.LEAVING)
        for engine in self._not_through(deadlines):
            say_what_is_left(engine, count_left(engine))
        self.enter(Phase.GONE)

    def carry_out_in_a_handler(self) -> None:
        """The same for a signal handler, which draws nothing, and delivers nothing in its own thread: the call that it
        has interrupted may hold what is needed for that. Conveniences are not let go: the process is about to die."""
        self.enter(Phase.ENDING_RUNS)
        deadlines = self._drain()
        for engine, deadline in deadlines.items():
            # Here, in the thread whose locks are held for ever from now on, and not in the engine's.
            engine.journal.close()
            engine.leave_by(deadline)
        for engine, deadline in deadlines.items():
            if engine.delivering:
                engine.finished.wait(max(deadline + _GRACE - monotonic(), 0.0))
        for engine in self._not_through(deadlines):
            say_what_is_left(engine)
        self.enter(Phase.GONE)

    def _drain(self) -> dict[Engine, float]:
        """The engines, and by when each has to be finished; the runs that are started from now on get others."""
        self.enter(Phase.DRAINING)
        return {engine: self._table.close(engine, self.deadline(engine)) for engine in self._table.engines()}

    def _not_through(self, engines: Iterable[Engine]) -> list[Engine]:
        """The engines that leave something, but for those of which somebody else says so."""
        mine = [engine for engine in engines if self._table.closed(engine)]
        return [engine for engine in mine if not engine.finished.is_set() or engine.left_behind]


Hook = Callable[[Shutdown], None]
_hooks: dict[Phase, list[Hook]] = {phase: [] for phase in Phase}


def at_shutdown(phase: Phase, hook: Hook) -> None:
    """Have ``hook`` called when a `Shutdown` enters a phase. The hooks of ENDING_RUNS are called in signal handlers,
    too: they take no lock that other code holds while it imports, or waits for a disk or a server; those of LEAVING are
    not."""
    _hooks[phase].append(hook)

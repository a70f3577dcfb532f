"""Ctrl-C in the middle of a run's end: whatever it comes between, the run is not RUNNING for ever."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import asynctrack
from asynctrack.runs import ending, state


class Interrupt:
    """Ctrl-C at the ``nth`` line that is executed in the modules that end a run."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in (ending.__file__, state.__file__):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def interrupted(run: asynctrack.ActiveRun, nth: int) -> bool:
    """End the run; whether it was interrupted."""
    before = sys.gettrace()
    sys.settrace(Interrupt(nth))
    try:
        run.terminate()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_run_whose_end_was_interrupted_is_ended_at_the_interpreters_end() -> None:
    runs = []
    places = 0
    while True:
        run = asynctrack.start_run(nested=True)  # one that Ctrl-C kept open may be active still
        runs.append(run)
        if not interrupted(run, places):
            break
        places += 1
    assert places > 15, "Ctrl-C came nowhere near the run's end"
    asynctrack.shutdown("KILLED")
    statuses = {asynctrack.get_run(run.run_id).info.status for run in runs}
    assert statuses <= {"FINISHED", "KILLED"}
    assert asynctrack.get_run(runs[-1].run_id).info.status == "FINISHED"

"""`spool_full="block"`: a log call that waits for room holds nobody else up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import asynctrack
from asynctrack.errors import RunEndedError
from asynctrack.journal.segment import Segment

_append_frame = Segment.append_frame

#: seconds after which what a test waits for counts as never coming
LIMIT = 30


def text(run: asynctrack.ActiveRun) -> None:
    run.set_tag("late", "x" * 4000)


def metric(run: asynctrack.ActiveRun) -> None:
    run.log_metric("a metric that is new", 0.5)


@pytest.mark.parametrize("log", [text, metric])
def test_a_run_is_ended_while_another_thread_waits_for_room(
    log: Callable[[asynctrack.ActiveRun], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the run's patience; the call that has waited is told that nothing was logged."""
    asynctrack.configure(spool_full="block", flush_interval=600, close_timeout=2)
    run = asynctrack.start_run()
    journal = run._state.engine.journal
    waits, may_go_on = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def full(*some: object, **more: object) -> int:
        raise OSError(28, "No space left on device")

    def work() -> None:
        try:
            log(run)
        except RunEndedError as error:
            errors.append(error)

    def wait() -> None:
        waits.set()
        assert may_go_on.wait(LIMIT)

    with monkeypatch.context() as patched:
        patched.setattr(journal._room, "wait", wait)
        patched.setattr("asynctrack.journal.registry.Registry.add_stream", full)
        patched.setattr("asynctrack.journal.segment.Segment.append_frame", full)
        patched.setattr("asynctrack.journal.chain.Chain.roll_early", lambda *_, **more: False)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert waits.wait(LIMIT)
        patched.setattr("asynctrack.journal.segment.Segment.append_frame", _append_frame)
        run.terminate()
        may_go_on.set()
        thread.join(LIMIT)
    assert len(errors) == 1
    assert asynctrack.get_run(run.run_id).info.status == "FINISHED"

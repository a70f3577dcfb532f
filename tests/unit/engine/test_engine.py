"""The engine's thread as the program sees it."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

import asynctrack
from asynctrack.clock import monotonic
from asynctrack.delivery.pump import Pump
from asynctrack.engine.local import LocalConsumer, Rounds
from asynctrack.engine.thread import EngineThread
from asynctrack.errors import AsynctrackError, RunEndedError, SpoolError
from tests.mlruns import only_run

LIMIT = 30


def test_a_signal_handler_may_wake_the_engine_while_the_program_does() -> None:
    """Neither waits for a lock that the other, in the same thread, holds."""
    inside = False
    handled = 0
    with asynctrack.start_run() as run:
        engine = run._state.engine

        def handler(_number: int, _frame: FrameType | None) -> None:
            nonlocal inside, handled
            if not inside:
                inside = True
                engine.wake()
                handled += 1
                inside = False

        previous = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(100_000):
                engine.wake()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)
    assert handled


def test_trouble_with_what_others_have_left_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """No lock to be had, a disk that fails: one's own events are delivered, and nothing is raised into the program."""

    def adopt(_self: Pump, _homes: list[str]) -> NoReturn:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Pump, "adopt_orphans", adopt)
    with asynctrack.start_run() as run:
        run.log_metric("mine", 1.0)
        run.flush(LIMIT)
    assert only_run(tmp_path / "mlruns").metrics["mine"][0][1] == 1.0
    assert "cannot look for what others have left" in caplog.text


def test_an_engine_that_is_thrown_out_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Whatever it was that nobody had expected."""
    look, failures = Rounds.look, iter([RuntimeError("nobody knows"), RuntimeError("nobody knows")])

    def look_and_fail(self: Rounds) -> bool:
        for error in failures:
            raise error
        return look(self)

    monkeypatch.setattr("asynctrack.engine.thread._PAUSE", 0.01)
    monkeypatch.setattr(Rounds, "look", look_and_fail)
    with asynctrack.start_run() as run:
        run.log_metric("mine", 1.0)
        run.flush(LIMIT)
    assert (len(only_run(tmp_path / "mlruns").metrics["mine"]), only_run(tmp_path / "mlruns").status) == (1, "FINISHED")
    assert caplog.text.count("the background thread was thrown out by RuntimeError('nobody knows')") == 1


def test_what_was_under_way_when_the_engine_was_thrown_out_is_done_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Begun or not, it is not waited for."""
    answer, failures = Rounds.answer, iter([RuntimeError("nobody knows")])

    def answer_and_fail(self: Rounds) -> None:
        # Called when the first works are due and no task of theirs has run.
        for error in failures:
            raise error
        answer(self)

    monkeypatch.setattr("asynctrack.engine.thread._PAUSE", 0.01)
    monkeypatch.setattr(Rounds, "answer", answer_and_fail)
    with asynctrack.start_run() as run:
        run.log_metric("mine", 1.0)
        run.flush(LIMIT)
    assert len(only_run(tmp_path / "mlruns").metrics["mine"]) == 1


def test_who_waits_for_an_engine_that_is_dead_gets_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not a bare OSError."""

    def die(_self: LocalConsumer) -> NoReturn:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(LocalConsumer, "finish", die)
        patched.setattr(Rounds, "answer", lambda _self: None)
        run = asynctrack.start_run()
        receipts: list[Any] = [run._state.engine.created(run._state.number)]
        asynctrack.shutdown()
        receipts.append(run._state.engine.flush(run._state.number))
    for receipt in receipts:
        assert receipt.wait(LIMIT)
        with pytest.raises(AsynctrackError, match=r"has died.*Too many open files"):
            receipt.result()


def test_a_receipt_asked_for_after_the_engine_has_ended_is_settled() -> None:
    """At once: everything was delivered. Waiting for an answer that nobody gives would have no end."""
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    asynctrack.shutdown()
    run.flush()
    assert run.info.run_id == run.run_id


def test_an_end_asked_for_while_the_thread_is_just_leaving_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks still sees the thread, and waits for its answer; the thread has looked a moment before."""
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 0.0)
    monkeypatch.setattr("asynctrack.engine.local._SLEEPS_AFTER", 0.0)
    may_leave, idle = EngineThread._may_leave, vars(LocalConsumer)["idle"].fget
    leaving = threading.local()

    def leave(self: EngineThread) -> bool:
        leaving.now = True
        return may_leave(self)

    def is_idle(self: LocalConsumer) -> bool:
        if getattr(leaving, "now", False):
            engine.leave_by(monotonic() + LIMIT)
        return bool(idle(self))

    monkeypatch.setattr(EngineThread, "_may_leave", leave)
    monkeypatch.setattr(LocalConsumer, "idle", property(is_idle))
    with asynctrack.start_run() as run:
        engine = run._state.engine
    assert engine.finished.wait(LIMIT)


def test_an_end_that_comes_while_the_thread_is_just_being_started_leaves_delivery_to_one_of_the_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the interpreter's exit, while a thread of the program starts a run."""
    start, finish = threading.Thread.start, LocalConsumer.finish
    ends: list[threading.Thread] = []
    inside, both = [0], threading.Event()

    def end_first(self: threading.Thread) -> None:
        if self.name == "asynctrack" and not ends:
            ends.append(threading.Thread(target=asynctrack.shutdown))
            start(ends[0])
            both.wait(0.5)  # in the old code the other one delivers now
        start(self)

    def count(self: LocalConsumer) -> None:
        inside[0] += 1
        if inside[0] == 1:
            both.wait(0.5)
        else:
            both.set()
        finish(self)
        inside[0] -= 1

    monkeypatch.setattr(threading.Thread, "start", end_first)
    monkeypatch.setattr(LocalConsumer, "finish", count)
    with suppress(SpoolError, RunEndedError):  # too late: its start is refused
        asynctrack.start_run()
    ends[0].join(LIMIT)
    assert not ends[0].is_alive()
    assert inside == [0]
    assert not both.is_set(), "two threads deliver at the same time"

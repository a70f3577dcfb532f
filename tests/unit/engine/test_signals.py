"""When a signal is put off: while the interrupted thread holds what others would wait for."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from asynctrack import forks
from asynctrack.engine import signals
from asynctrack.journal.frames import FrameFile


def in_the_way() -> bool:
    return signals._others_would_wait_for(sys._getframe())


def test_an_ordinary_call_does_not_put_a_signal_off() -> None:
    assert not in_the_way()


def test_a_journals_work_puts_a_signal_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("asynctrack.journal.frames.write_all", lambda *_: seen.append(in_the_way()))
    file = FrameFile(str(tmp_path / "frames"), create=True)
    file.append(b"frame")
    file.close()
    assert seen == [True]


def test_a_log_handlers_lock_puts_a_signal_off() -> None:
    """The engine's thread would wait for it with its next log record."""
    seen: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(in_the_way())

    log = logging.getLogger("tests.signals")
    log.addHandler(Handler())
    log.error("now")
    assert seen == [True]


def test_an_import_puts_a_signal_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asks_while_imported.py").write_text(
        "from tests.unit.engine.test_signals import in_the_way\nANSWER = in_the_way()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert __import__("asks_while_imported").ANSWER


def test_a_fork_puts_a_signal_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can import anything meanwhile."""
    seen: list[bool] = []

    def under_way() -> frozenset[int]:
        seen.append(in_the_way())
        return frozenset()

    monkeypatch.setattr(forks, "_under_way", under_way)
    forks._before()
    forks._after_in_parent()
    assert seen == [True]


def test_the_start_of_a_thread_puts_a_signal_off_and_waiting_for_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Started(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(in_the_way())
            return super().wait(timeout)

    thread = threading.Thread(target=lambda: None)
    monkeypatch.setattr(thread, "_started", Started())
    thread.start()
    thread.join()
    assert seen == [True]
    waits = Started()
    waits.set()
    assert waits.wait(1.0)
    assert seen == [True, False]


def test_a_signal_that_is_not_heard_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes just when the main thread begins to wait does not interrupt it."""
    sent: list[int] = []
    threads = len(sys._current_frames())

    def pthread_kill(_: int, number: int) -> None:
        sent.append(number)
        if len(sent) == 2:
            signals._heard_at = time.monotonic() + 60.0  # as the handler does

    monkeypatch.setattr(signals, "_heard_at", 0.0)
    monkeypatch.setattr(signal, "pthread_kill", pthread_kill)
    assert signals._again(signal.SIGTERM, 0.0)
    deadline = time.monotonic() + 30.0
    while not sent or len(sys._current_frames()) > threads:  # the thread ends once it is heard
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sent == [signal.SIGTERM, signal.SIGTERM]

"""Who ends, in which order, and by when."""

from __future__ import annotations

import logging
import time

import pytest

import asynctrack.engine.shutdown as module
from asynctrack.engine.engine import Engine
from asynctrack.engine.shutdown import Phase, Shutdown, at_shutdown
from asynctrack.engine.table import EngineTable
from asynctrack.settings import Settings
from asynctrack.stores.io import ThreadedIO
from asynctrack.testing import MemoryStore


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but the test's own."""
    monkeypatch.setattr(module, "_hooks", {phase: [] for phase in Phase})


def shutdown(table: EngineTable | None = None) -> Shutdown:
    return Shutdown(table or EngineTable(), "FINISHED", lambda engine: engine.settings.close_timeout)


def engine(**settings: float) -> Engine:
    store = MemoryStore()
    return Engine(store.uri, Settings()._replace(**settings), store.over(ThreadedIO()))  # type: ignore[arg-type]


def test_what_belongs_to_a_phase_is_called_in_it_whenever_it_was_registered() -> None:
    called: list[str] = []
    at_shutdown(Phase.LEAVING, lambda ending: called.append(ending.phase.name))
    at_shutdown(Phase.ENDING_RUNS, lambda ending: called.append(ending.phase.name))
    ending = shutdown()
    ending.carry_out()
    assert called == ["ENDING_RUNS", "LEAVING"]
    assert ending.phase == Phase.GONE


def test_a_signal_handler_lets_conveniences_be() -> None:
    called: list[str] = []
    for phase in (Phase.LEAVING, Phase.ENDING_RUNS):
        at_shutdown(phase, lambda ending: called.append(ending.phase.name))
    shutdown().carry_out_in_a_handler()
    assert called == ["ENDING_RUNS"]


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.ENDING_RUNS, Phase.DRAINING])
def test_a_phase_never_comes_back(phase: Phase) -> None:
    ending = shutdown()
    ending.enter(Phase.DRAINING)
    with pytest.raises(RuntimeError, match="DRAINING already"):
        ending.enter(phase)


def test_one_hook_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    def fails(_: Shutdown) -> None:
        raise ValueError("mine")

    at_shutdown(Phase.ENDING_RUNS, fails)
    at_shutdown(Phase.ENDING_RUNS, lambda ending: called.append(ending.phase.name))
    with caplog.at_level(logging.ERROR):
        shutdown().carry_out()
    assert called == ["ENDING_RUNS"]
    assert "mine" in caplog.text


def test_ctrl_c_while_runs_are_ended_leaves_the_rest_and_waits_for_nothing() -> None:
    def interrupted(_: Shutdown) -> None:
        raise KeyboardInterrupt

    at_shutdown(Phase.ENDING_RUNS, interrupted)
    table = EngineTable()
    table.find((MemoryStore(), Settings()), engine)
    [one] = table.engines()
    ending = shutdown(table)
    ending.carry_out()
    assert ending.phase == Phase.GONE
    assert ending.deadline(one) <= time.monotonic()
    assert table.engines() == []


def test_an_engine_that_is_being_closed_is_found_until_it_is() -> None:
    """By a signal that comes meanwhile; whoever asks for its store gets another one. The nearer deadline holds."""
    table = EngineTable()
    store, settings = MemoryStore(), Settings()
    first = table.find((store, settings), engine)
    assert table.find((store, settings), engine) is first
    assert table.close(first, 10.0) == 10.0
    assert table.close(first, 5.0) == table.close(first, 7.0) == 5.0
    assert table.engines() == [first]
    second = table.find((store, settings), engine)
    assert second is not first
    assert table.engines() == [second, first]
    assert [table.closed(first), table.closed(first)] == [True, False]
    assert table.engines() == [second]
    for one in (first, second):
        one.shut_down(0.0)


def test_each_engine_has_its_own_time_within_that_of_the_whole() -> None:
    table = EngineTable()
    for seconds in (1.0, 3.0):
        store, settings = MemoryStore(), Settings()._replace(close_timeout=seconds)
        table.find((store, settings), lambda seconds=seconds: engine(close_timeout=seconds))  # type: ignore[misc]
    ending = shutdown(table)
    first, second = table.engines()
    assert ending.deadline(second) - ending.deadline(first) == pytest.approx(2.0)
    assert ending.seconds == 3.0
    ending.carry_out()

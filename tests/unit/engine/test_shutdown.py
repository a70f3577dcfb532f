"""Who ends, in which order, and by when."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

import asynctrack
import asynctrack.engine.shutdown as module
from asynctrack.engine.engine import Engine
from asynctrack.engine.lifecycle import engine_for
from asynctrack.engine.local import LocalConsumer
from asynctrack.engine.shutdown import Phase, Shutdown, at_shutdown
from asynctrack.engine.table import EngineTable
from asynctrack.errors import RunEndedError
from asynctrack.journal.registry import Registry
from asynctrack.runs.state import RunState
from asynctrack.settings import Settings
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import ThreadedIO
from asynctrack.testing import MemoryStore
from tests.mlruns import only_run


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


def test_a_run_that_another_thread_shuts_down_under_while_it_is_opened_gets_another_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has found the one that is gone by now."""
    found: list[Engine] = []

    def find(uri: str) -> Engine:
        found.append(engine_for(uri))
        if len(found) == 1:
            asynctrack.shutdown()
        return found[-1]

    monkeypatch.setattr("asynctrack.runs.run.engine_for", find)
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    assert len(found) == 2
    stored = only_run(tmp_path / "mlruns")
    assert (stored.status, len(stored.metrics["loss"])) == ("FINISHED", 1)


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_run_opened_on_an_engine_that_ends_in_this_moment_says_so(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that some file is closed."""
    engine = engine_for(str(tmp_path / "mlruns"))
    opens, registers = LocalConsumer.open, Registry.add_run

    def open_late(consumer: LocalConsumer) -> None:
        opens(consumer)
        if moment == "before":
            asynctrack.shutdown()

    def register_late(registry: Registry, spec: dict[str, Any]) -> int:
        if moment == "while":
            asynctrack.shutdown()
        return registers(registry, spec)

    monkeypatch.setattr(LocalConsumer, "open", open_late)
    monkeypatch.setattr(Registry, "add_run", register_late)
    with pytest.raises(RunEndedError, match="cannot start a run: asynctrack is just being shut down"):
        RunState(engine, RunSpec("ab" * 16), strict=False)


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

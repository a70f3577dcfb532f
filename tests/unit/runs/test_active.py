"""Which run is active where context variables do not reach: notebook cells, callbacks, other loops, dead threads."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio

import asynctrack
from asynctrack.errors import RunEndedError
from tests.fault.programs import PACKAGE
from tests.mlruns import only_run, read_runs

Cell = Callable[[], Coroutine[Any, Any, Any]]


def on_asyncio(*cells: Cell) -> None:
    """As a notebook does: each in a task of its own, one after the other."""

    async def kernel() -> None:
        for cell in cells:
            await asyncio.create_task(cell())

    asyncio.run(kernel())


def on_trio(*cells: Cell) -> None:
    async def kernel() -> None:
        for cell in cells:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cell)

    trio.run(kernel)


def in_new_loops(*cells: Cell) -> None:
    for cell in cells:
        asyncio.run(cell())


def in_callbacks(*cells: Cell) -> None:
    """As ``python -m asyncio`` runs what does not await: in no task, each in a copy of the loop's context."""

    async def loop() -> None:
        for cell in cells:
            done = asyncio.get_running_loop().create_future()

            def call(cell: Cell = cell, done: asyncio.Future[None] = done) -> None:
                try:
                    cell().send(None)
                except StopIteration:
                    done.set_result(None)
                except BaseException as error:
                    done.set_exception(error)

            asyncio.get_running_loop().call_soon(call, context=contextvars.Context())
            await done

    asyncio.run(loop())


def in_threads(*cells: Cell) -> None:
    """As tools do that start a thread for each thing that a person clicks on."""
    for cell in cells:
        thread = threading.Thread(target=lambda cell=cell: asyncio.run(cell()))
        thread.start()
        thread.join()


def in_copied_contexts(*cells: Cell) -> None:
    for cell in cells:
        contextvars.copy_context().run(asyncio.run, cell())


@pytest.fixture(params=[False, True], ids=["program", "notebook"])
def interactive(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    if not request.param:
        monkeypatch.delattr(sys, "ps1")
    return bool(request.param)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


@pytest.mark.parametrize("run_cells", [on_asyncio, on_trio, in_new_loops, in_callbacks, in_threads, in_copied_contexts])
def test_a_run_that_a_task_or_thread_has_left_open_is_found_by_the_next(
    run_cells: Callable[..., None], interactive: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[asynctrack.ActiveRun] = []

    async def starts() -> None:
        runs.append(asynctrack.start_run())

    async def logs() -> None:
        asynctrack.log_metric("loss", 0.5)
        for found in (asynctrack.active_run(), asynctrack.last_active_run()):
            assert found is not None
            assert found.info.run_id == runs[0].run_id

    async def ends() -> None:
        asynctrack.end_run()

    run_cells(starts, logs, ends)
    assert repr(runs[0]).endswith("ended>")
    stored = only_run(tmp_path / "mlruns")
    assert (stored.status, len(stored.metrics["loss"])) == ("FINISHED", 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("run_cells", [on_asyncio, in_callbacks])
def test_a_cell_that_is_run_twice_ends_the_run_it_has_left_open(
    run_cells: Callable[..., None], notebook: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so. Inside a block, or in a program, a second run is a mistake."""
    runs: list[asynctrack.ActiveRun] = []

    async def starts() -> None:
        runs.append(asynctrack.start_run())
        runs[-1].log_metric("loss", 0.5)

    run_cells(starts, starts)
    runs.append(asynctrack.start_run())
    with pytest.raises(RunEndedError):
        runs[1].log_metric("loss", 0.5)
    assert asynctrack.active_run() is runs[2]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message.split(", because")[0] for message in said] == [
        f"asynctrack: run {run.run_id} was still open and is ended as FINISHED" for run in runs[:2]
    ]
    with runs[2], pytest.raises(asynctrack.AsynctrackError, match="is active already; end it first"):
        asynctrack.start_run()
    stored = read_runs(tmp_path / "mlruns")
    assert [stored[run.run_id].status for run in runs] == ["FINISHED"] * 3


def test_in_a_program_a_second_run_is_told_that_one_is_active() -> None:
    with pytest.raises(asynctrack.AsynctrackError, match="is active already; end it first"):  # noqa: SIM117
        with asynctrack.start_run():
            asynctrack.start_run()


def test_requests_of_a_server_may_each_leave_a_run_open() -> None:
    """Tasks that hand their runs on: what one has started keeps no other from starting one."""
    runs: list[asynctrack.ActiveRun] = []

    async def handler() -> None:
        runs.append(asynctrack.start_run())

    async def without() -> None:
        with pytest.raises(asynctrack.AmbiguousRunError, match="in this task"):
            asynctrack.log_metric("loss", 0.5)

    on_asyncio(handler, handler, without)
    for run in runs:
        run.terminate()


def test_nested_runs_of_cells_are_a_stack(notebook: None, tmp_path: Path) -> None:
    """Whether their cells await or not: here the second does, in a task of its own, in the context of the first."""

    async def nests() -> None:
        asynctrack.start_run(run_name="inner", nested=True)

    async def kernel() -> None:
        asynctrack.start_run(run_name="outer")
        await asyncio.create_task(nests())
        asynctrack.log_metric("of inner", 1.0)
        asynctrack.end_run()
        asynctrack.log_metric("of outer", 1.0)
        asynctrack.end_run()

    asyncio.run(kernel())
    stored = {run.tags["mlflow.runName"]: run for run in read_runs(tmp_path / "mlruns").values()}
    assert {name: list(run.metrics) for name, run in stored.items()} == {"inner": ["of inner"], "outer": ["of outer"]}
    assert stored["inner"].tags["mlflow.parentRunId"] == stored["outer"].run_id


def test_a_task_in_the_background_keeps_its_run_to_itself(interactive: bool, tmp_path: Path) -> None:
    """A training that goes on while other cells are run: neither logs to the other's run."""

    async def kernel() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def trains() -> None:
            asynctrack.start_run(run_name="training")
            begun.set()
            await go_on.wait()
            asynctrack.log_metric("of training", 1.0)
            asynctrack.end_run()

        async def starts() -> None:
            with pytest.raises(asynctrack.NoActiveRunError, match="task"):
                asynctrack.log_metric("of nobody", 1.0)
            assert asynctrack.active_run() is None
            asynctrack.start_run(run_name="cell")

        training = asyncio.create_task(trains())
        await begun.wait()
        await asyncio.create_task(starts())
        go_on.set()
        await training

    asyncio.run(kernel())
    asynctrack.end_run()
    stored = {run.tags["mlflow.runName"]: list(run.metrics) for run in read_runs(tmp_path / "mlruns").values()}
    assert stored == {"training": ["of training"], "cell": []}


def test_the_run_of_a_thread_is_found_in_another_thread_s_loop(tmp_path: Path) -> None:
    """A server in a thread of its own, beside the program's run."""

    async def handler() -> None:
        asynctrack.log_metric("loss", 0.5)
        assert asynctrack.active_run() is None

    with asynctrack.start_run():
        thread = threading.Thread(target=lambda: asyncio.run(handler()))
        thread.start()
        thread.join()
    assert len(only_run(tmp_path / "mlruns").metrics["loss"]) == 1


def test_end_run_says_when_it_has_ended_nothing(caplog: pytest.LogCaptureFixture) -> None:
    asynctrack.end_run()
    assert not caplog.records, "nothing was open"
    with asynctrack.start_run() as run:
        thread = threading.Thread(target=asynctrack.end_run)
        thread.start()
        thread.join()
        run.log_metric("loss", 0.5)
    [record] = caplog.records
    assert f"end_run() has ended nothing: no run is active in this thread, but open in this process: {run.run_id}" in (
        record.getMessage()
    )


PROMPT = """\
import asyncio, asynctrack
await asyncio.sleep(0); run = asynctrack.start_run()
asynctrack.log_metric("loss", 0.5, 0)
await asyncio.sleep(0); asynctrack.log_metric("loss", 0.5, 1)
asynctrack.end_run()
print("ended", run)
again = asynctrack.start_run()
asynctrack.log_metric("loss", 0.5, 2)
await asyncio.sleep(0); asynctrack.end_run()
print("ended", again)
"""


def test_lines_at_the_prompt_of_python_m_asyncio(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asyncio"],
        input=PROMPT,
        env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHON_BASIC_REPL": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Error" not in done.stderr, done.stderr
    assert done.stdout.count(", ended>") == 2, done.stderr
    runs = read_runs(tmp_path / "mlruns").values()
    assert sorted(([step for *_, step in run.metrics["loss"]], run.status) for run in runs) == [
        ([0, 1], "FINISHED"),
        ([2], "FINISHED"),
    ]


def test_a_block_ends_its_run_that_was_taken_up_again_inside_it() -> None:
    """By its id, as in MLflow; blocking and on a loop."""
    with asynctrack.start_run() as run:
        asynctrack.end_run()
        asynctrack.start_run(run.run_id).set_tag("again", "1")
    assert asynctrack.active_run() is None
    assert asynctrack.get_run(run.run_id).info.status == "FINISHED"

    async def on_loop() -> str:
        async with asynctrack.start_run() as run:
            await run.terminate()
            asynctrack.start_run(run.run_id)
        assert asynctrack.active_run() is None
        return run.run_id

    assert asynctrack.get_run(asyncio.run(on_loop())).info.status == "FINISHED"

"""A forked child asks about what its parent has logged: there is nobody here to answer, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import AsynctrackError, FlushTimeoutError
from tests.fault.programs import spools
from tests.mlruns import read_runs
from tests.unit.engine.test_own import engine_threads
from tests.unit.engine.test_shipped import in_a_fork

LIMIT = 30


@pytest.fixture(params=["thread", "process"], autouse=True)
def shipper(request: pytest.FixtureRequest) -> None:
    asynctrack.configure(shipper=request.param, flush_interval=0.05)


def _await(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import anyio

    anyio.run(work)


ASKS: dict[str, Callable[[asynctrack.ActiveRun], object]] = {
    "flush": lambda run: run.flush(),
    "flush of workers": lambda run: run.flush(workers=True),
    "flush, awaited": lambda run: _await(asynctrack.AsyncActiveRun(run._state).flush),
    "id": lambda run: run.run_id,
    "info": lambda run: run.info.status,
    "data": lambda run: run.data.metrics["loss"],
    "history": lambda run: run.history(format="columns"),
    "stats": lambda run: run.stats(),
}


@pytest.mark.parametrize("what", ASKS)
def test_a_child_that_has_logged_nothing_gets_its_answer_at_once(what: str, tmp_path: Path) -> None:
    """Nothing of its own is on its way; and for the answer it makes no spool and no thread."""

    def child(run: asynctrack.ActiveRun, before: list[Path]) -> None:
        begun = time.monotonic()
        ASKS[what](run)
        assert time.monotonic() < begun + 5.0
        if what != "flush of workers":  # for what dead ones may have left there is somebody to deliver it
            assert spools(tmp_path) == before
            assert not engine_threads()
        run.log_metric("child", 1.0)
        run.flush(LIMIT)

    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
        run.flush()
        in_a_fork(child, run, spools(tmp_path))
    (stored,) = read_runs(tmp_path / "mlruns").values()
    assert (stored.status, sorted(stored.metrics)) == ("FINISHED", ["child", "loss"])


def test_a_child_that_logs_to_a_run_of_its_own_knows_its_parent_s(tmp_path: Path) -> None:
    def child(run: asynctrack.ActiveRun) -> None:
        with asynctrack.start_run(nested=True) as own:
            own.log_metric("loss", 2.0)
            assert run.info.run_id == run.run_id
            run.flush(LIMIT)
            assert own.data.tags["mlflow.parentRunId"] == run.run_id
        in_a_fork(lambda: (own.info.run_id, run.info.run_id))

    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
        in_a_fork(child, run)
    assert [stored.status for stored in read_runs(tmp_path / "mlruns").values()] == ["FINISHED"] * 2


def test_a_receipt_of_the_parent_s_says_so_in_a_child(tmp_path: Path) -> None:
    """It does not count as settled, and nobody waits for it: asked for already, or not; and after the child has logged,
    too."""
    asynctrack.configure(flush_interval=1000)

    def child(run: asynctrack.ActiveRun, receipts: list[Any]) -> None:
        for _ in range(2):
            for receipt in receipts:
                with pytest.raises(AsynctrackError, match="forked this one"):
                    receipt.wait()
            run.log_metric("child", 1.0)
            run.flush(LIMIT)

    (tmp_path / "disk").write_text("")
    with asynctrack.start_run(wait=False, tracking_uri=str(tmp_path / "disk" / "mlruns")) as run:
        asked = run.log_text("a", "asked.txt")
        assert not asked.done
        receipts = [asked, run.log_text("b", "b.txt")]
        (tmp_path / "disk").unlink()
        in_a_fork(child, run, receipts)
        for receipt in receipts:
            receipt.wait(LIMIT)


def test_a_child_waits_for_what_its_parent_has_logged_where_it_says_so(tmp_path: Path) -> None:
    """To it the parent is one of the other processes."""

    def child(run: asynctrack.ActiveRun) -> None:
        (spool,) = spools(tmp_path)
        with pytest.raises(FlushTimeoutError, match=spool.name):
            run.flush(0.3, workers=True)

    (tmp_path / "disk").write_text("")
    with asynctrack.start_run(wait=False, tracking_uri=str(tmp_path / "disk" / "mlruns")) as run:
        run.log_metric("loss", 1.0)
        in_a_fork(child, run)
        (tmp_path / "disk").unlink()


def test_a_child_that_waits_for_others_delivers_what_dead_ones_have_left(tmp_path: Path) -> None:
    def dies(run: asynctrack.ActiveRun) -> None:
        run.log_metric("dead", 1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    def waits(run: asynctrack.ActiveRun) -> None:
        run.flush(LIMIT, workers=True)
        assert run.data.metrics["dead"] == 1.0

    (tmp_path / "disk").write_text("")
    with asynctrack.start_run(wait=False, tracking_uri=str(tmp_path / "disk" / "mlruns")) as run:
        in_a_fork(dies, run, exitcode=-signal.SIGKILL)
        (tmp_path / "disk").unlink()
        in_a_fork(waits, run)

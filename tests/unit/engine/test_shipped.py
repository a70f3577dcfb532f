"""A spool that a shipper process delivers is given back, with the shipper, once all of its runs have ended."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import asynctrack
from asynctrack.engine import lifecycle
from asynctrack.engine.keeper import Farewell
from asynctrack.engine.reported import ShipperReports
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from tests.fault.programs import run as run_program
from tests.fault.programs import spools
from tests.mlruns import read_runs
from tests.unit.engine.test_own import LIMIT, engine_threads, until

#: processes that were there before the test: servers of other tests
_earlier: set[int] = set()


@pytest.fixture(autouse=True)
def rests_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.engine.remote._RESTS_AFTER", 0.1)
    asynctrack.configure(shipper="process", flush_interval=0.02)
    _earlier.clear()
    _earlier.update(children())


def children() -> list[int]:
    """The processes that the test has started, those that nobody has waited for too."""
    text = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text()
    for task in os.listdir("/proc/self/task"):
        try:
            text += Path(f"/proc/self/task/{task}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            pass  # that thread has just ended
    return sorted({int(pid) for pid in text.split()} - _earlier)


def log(run: asynctrack.ActiveRun, *steps: int) -> None:
    for step in steps:
        run.log_metric("loss", step * 0.5, step)


def stored(store: Path) -> dict[str, tuple[str, list[int]]]:
    """Status and steps of each run, by name."""
    return {
        run.tags["mlflow.runName"]: (run.status, sorted(step for _, _, step in run.metrics["loss"]))
        for run in read_runs(store).values()
    }


def rests(home: Path) -> Callable[[], bool]:
    return lambda: not spools(home) and not engine_threads() and not children()


def test_a_program_that_uses_one_store_after_another_keeps_no_shipper_for_each(tmp_path: Path) -> None:
    """Nor a thread, nor files: a test suite with a store per test, say."""
    for number in range(3):
        with asynctrack.start_run(tracking_uri=str(tmp_path / f"store{number}"), run_name="a") as run:
            log(run, *range(10))
        until(rests(tmp_path), "the spool is given back")
        if number == 0:
            files = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) <= files
    assert [stored(tmp_path / f"store{number}") for number in range(3)] == [{"a": ("FINISHED", list(range(10)))}] * 3


def test_it_comes_again_with_the_next_run_and_knows_the_earlier_ones(tmp_path: Path) -> None:
    with asynctrack.start_run(run_name="first") as first:
        log(first, 0, 1)
    until(rests(tmp_path), "the spool is given back")
    asked = time.monotonic()
    first.flush()
    assert first.stats().delivered == 2
    with asynctrack.start_run(run_name="second") as second:
        log(second, 5, 6)
        second.flush()
        first.flush()
        assert stored(tmp_path / "mlruns")["second"] == ("RUNNING", [5, 6])
    assert time.monotonic() < asked + LIMIT
    until(rests(tmp_path), "the second spool is given back")
    assert stored(tmp_path / "mlruns") == {"first": ("FINISHED", [0, 1]), "second": ("FINISHED", [5, 6])}


def test_what_is_open_stays(tmp_path: Path) -> None:
    """However long nothing is logged."""
    with asynctrack.start_run(run_name="a") as run:
        log(run, 0)
        run.flush()
        (shipper,) = children()
        time.sleep(0.5)  # far longer than a spool without open runs stays
        assert children() == [shipper]
        log(run, 1)
    assert stored(tmp_path / "mlruns") == {"a": ("FINISHED", [0, 1])}


def test_a_run_that_begins_while_the_last_spool_is_on_its_way_out_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shipper is killed before it has deleted that, so that another has to; and the program ends."""
    goes_on = Farewell.go_on
    killed = threading.Event()

    def kill_first(farewell: Farewell) -> None:
        if not killed.is_set():
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            killed.set()
            return
        goes_on(farewell)

    monkeypatch.setattr(Farewell, "go_on", kill_first)
    monkeypatch.setattr("asynctrack.engine.keeper._RESTART", 0.0)
    with asynctrack.start_run(run_name="first") as first:
        log(first, 0)
    until(killed.is_set, "the spool is being given back")
    with asynctrack.start_run(run_name="second") as second:
        log(second, 1)
    lifecycle.shutdown()
    assert not spools(tmp_path)
    assert stored(tmp_path / "mlruns") == {"first": ("FINISHED", [0]), "second": ("FINISHED", [1])}


def test_where_the_next_spool_is_deleted_this_process_still_knows_the_runs_of_the_one_before(tmp_path: Path) -> None:
    with asynctrack.start_run(run_name="first") as first:
        log(first, 0, 1)
    until(rests(tmp_path), "the spool is given back")
    with asynctrack.start_run(run_name="second") as second:
        log(second, 5)
        second.flush()
        (spool,) = spools(tmp_path)
        shutil.rmtree(spool)
        log(second, 6)
        second.flush()
        first.flush()
        assert first.stats().delivered == 2
    assert stored(tmp_path / "mlruns") == {"first": ("FINISHED", [0, 1]), "second": ("FINISHED", [5, 6])}


def test_runs_begun_and_ended_by_many_threads_all_the_while_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes between the last look and the closing of the spool."""
    monkeypatch.setattr("asynctrack.engine.remote._RESTS_AFTER", 0.0)

    def work(name: int) -> None:
        for number in range(4):
            with asynctrack.start_run(run_name=f"{name}.{number}") as run:
                log(run, *range(20))
            time.sleep(0.03 * name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(rests(tmp_path), "everything is given back")
    assert stored(tmp_path / "mlruns") == {
        f"{name}.{number}": ("FINISHED", list(range(20))) for name in range(3) for number in range(4)
    }


def test_a_fork_after_it_was_given_back_has_a_shipper_of_its_own(tmp_path: Path) -> None:
    with asynctrack.start_run(run_name="parent") as run:
        log(run, 0)
    until(rests(tmp_path), "the spool is given back")

    def child() -> None:
        with asynctrack.start_run(run_name="child") as own:
            log(own, 1)

    in_a_fork(child)
    assert stored(tmp_path / "mlruns") == {"parent": ("FINISHED", [0]), "child": ("FINISHED", [1])}
    assert not spools(tmp_path)


def test_the_spool_is_let_go_only_when_nobody_is_in_the_middle_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is a system call, as on NFS, takes time. Whoever finds the lock free takes what is empty for lost."""
    seals, releases = Segment.seal, Spool.release
    writes = [False, False]
    let_go: list[bool] = []

    def seal(segment: Segment) -> bool:
        return writes.pop() if writes and not segment.sealed else seals(segment)

    def release(spool: Spool) -> None:
        let_go.append(not writes)
        releases(spool)

    asynctrack.configure(mode="offline")
    with asynctrack.start_run() as run:
        log(run, 0)
    monkeypatch.setattr(Segment, "seal", seal)
    monkeypatch.setattr(Spool, "release", release)
    lifecycle.shutdown()
    assert let_go[0]


# ── where there can be no spool: nobody else can read what is in memory


def memory_only(home: Path) -> None:
    """No folder for a spool can be made from now on."""
    shutil.rmtree(home, ignore_errors=True)
    home.write_text("")


def refuse(*_arguments: object, **_more: object) -> Spool:
    raise OSError(28, "No space left on device")


def test_where_the_first_spool_cannot_be_made_this_process_delivers(tmp_path: Path) -> None:
    memory_only(tmp_path / "spools")
    asynctrack.configure(spool_dir=str(tmp_path / "spools"))
    with asynctrack.start_run(run_name="a") as run:
        log(run, *range(10))
        run.flush(LIMIT)
        assert run.stats().delivered == 10
        assert not children()
    assert stored(tmp_path / "mlruns") == {"a": ("FINISHED", list(range(10)))}


@pytest.mark.parametrize("wait", [True, False])
def test_where_the_next_spool_cannot_be_made_this_process_delivers(
    wait: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk has run full since. One warning says what is no longer promised, and nobody waits for a shipper."""
    asynctrack.configure(spool_dir=str(tmp_path / "spools"))
    with asynctrack.start_run(run_name="first") as first:
        log(first, 0, 1)
    until(lambda: not engine_threads() and not children(), "the spool is given back")
    memory_only(tmp_path / "spools")
    second = asynctrack.start_run(run_name="second", wait=wait)
    log(second, *range(100))
    if wait:
        second.flush(LIMIT)
        first.flush(LIMIT)
        assert (first.stats().delivered, second.stats().delivered) == (2, 100)
    second.terminate()
    with asynctrack.start_run(run_name="third", wait=wait) as third:
        log(third, 5)
    lifecycle.shutdown()
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "keeps events in memory only" in warning
    assert stored(tmp_path / "mlruns") == {
        "first": ("FINISHED", [0, 1]),
        "second": ("FINISHED", list(range(100))),
        "third": ("FINISHED", [5]),
    }


def test_a_forked_child_that_can_make_no_spool_delivers_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has become another user, say. And its own child, which can, has a shipper again."""

    def grandchild() -> None:
        with asynctrack.start_run(run_name="grandchild", nested=True) as own:
            log(own, 2)
            assert children()

    def child(run: asynctrack.ActiveRun) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "create", refuse)
            log(run, 1)
            run.flush(LIMIT)
            assert not children()
        _earlier.clear()
        in_a_fork(grandchild)

    with asynctrack.start_run(run_name="parent") as run:
        log(run, 0)
        run.flush()
        in_a_fork(child, run)
    assert stored(tmp_path / "mlruns") == {"parent": ("FINISHED", [0, 1]), "grandchild": ("FINISHED", [2])}
    until(rests(tmp_path), "the parent's spool is given back")


def in_a_fork(work: Callable[..., object], *arguments: object, exitcode: int = 0) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(LIMIT)
    assert process.exitcode == exitcode


def test_a_worker_of_root_s_that_becomes_another_user_has_what_it_delivers_with(tmp_path: Path) -> None:
    """It may not read Python's library any more, nor make a spool."""
    program = """
        import asynctrack, os, sys
        os.geteuid = lambda: 0
        with asynctrack.start_run() as run:
            run.log_metric("loss", 1.0)
            run.flush()
            print("anyio._backends._asyncio" in sys.modules)
    """
    result = run_program(program, tmp_path, ASYNCTRACK_SHIPPER="process")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "True"), result.stderr


def test_the_spool_before_one_in_memory_is_seen_off_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shipper is killed before it has deleted it; another is started while the next run is open."""
    goes_on = Farewell.go_on
    killed, goes = threading.Event(), threading.Event()

    def kill_first(farewell: Farewell) -> None:
        if not killed.is_set():
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            killed.set()
        if goes.is_set():
            goes_on(farewell)

    monkeypatch.setattr(Farewell, "go_on", kill_first)
    monkeypatch.setattr("asynctrack.engine.keeper._RESTART", 0.0)
    with asynctrack.start_run(run_name="first") as first:
        log(first, 0)
    until(killed.is_set, "the spool is being given back")
    monkeypatch.setattr(Spool, "create", refuse)
    with asynctrack.start_run(run_name="second") as second:
        log(second, 1)
        goes.set()
        until(lambda: not spools(tmp_path), "the first spool is delivered and deleted")
    assert stored(tmp_path / "mlruns") == {"first": ("FINISHED", [0]), "second": ("FINISHED", [1])}


def test_what_is_in_memory_no_shipper_has_delivered(tmp_path: Path) -> None:
    """Whatever lies in the working directory."""
    reports = ShipperReports(Spool.in_memory("file:///store"), Segment.create(None, 0, 8))
    assert not reports.delivered
    (tmp_path / "registry").write_text("")
    assert not reports.delivered

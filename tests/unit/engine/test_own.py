"""A spool, its files and the engine's thread are there while there is something to do, and no longer."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import asynctrack
from asynctrack.engine import lifecycle, own
from asynctrack.engine.local import Rounds
from asynctrack.errors import FlushTimeoutError
from asynctrack.stores.base import Limits
from tests.fault.programs import run as run_program
from tests.fault.programs import spools
from tests.mlruns import read_runs

LIMIT = 30


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has nothing to do goes at once."""
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 0.0)
    monkeypatch.setattr("asynctrack.engine.own._RESTS_AFTER", 0.0)
    monkeypatch.setattr("asynctrack.engine.local._SLEEPS_AFTER", 0.0)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)


def engine_threads() -> int:
    return sum(thread.name == "asynctrack" for thread in threading.enumerate())


def test_when_the_last_run_has_ended_nothing_is_left_whatever_the_process_dies_of(tmp_path: Path) -> None:
    """As under a server that raises SIGTERM again when its own end is over: no `atexit` is called."""
    program = """
        import asynctrack, os, signal, time
        from asynctrack.engine import own
        with asynctrack.start_run() as run:
            run.log_metric("loss", 1.0)
            time.sleep(own._LEAST)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = run_program(program, tmp_path)
    assert (result.returncode, result.stderr) == (-9, "")
    assert spools(tmp_path) == []
    (run,) = read_runs(tmp_path / "mlruns").values()
    assert (run.status, len(run.metrics["loss"])) == ("FINISHED", 1)


@pytest.mark.usefixtures("at_once")
def test_an_end_is_answered_wherever_in_the_journal_the_last_event_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the last segment is read in pieces that end at multiples of a batch: here there are two."""
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "3600")
    with asynctrack.start_run(tracking_uri=str(tmp_path / "mlruns")) as run:
        for step in range(65_400):
            run.log_metric("loss", 1.0, step)
        run.flush(timeout=LIMIT)
        begun = time.monotonic()
    assert time.monotonic() < begun + LIMIT
    until(lambda: not spools(tmp_path), "the spool is deleted")


def test_a_spool_outlives_the_first_of_runs_that_follow_one_another_fast(tmp_path: Path) -> None:
    """Making one for each would cost them milliseconds."""
    folders = set()
    for _ in range(3):
        with asynctrack.start_run() as run:
            folders.update(spools(tmp_path))
            run.log_metric("loss", 1.0)
    assert len(folders) == 1
    until(lambda: not spools(tmp_path), "the spool is gone although nothing more happens")


def test_a_spool_whose_time_is_over_just_at_the_end_of_the_program_is_deleted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """With a store that takes a part of a segment at a time, as servers do: the unused rest is several parts."""
    monkeypatch.setattr("asynctrack.stores.file.store.FileStore.limits", Limits())
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 1e9)
    asynctrack.configure(flush_interval=LIMIT)
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    assert len(spools(tmp_path)) == 1
    monkeypatch.setattr("asynctrack.engine.own._LEAST", 0.0)
    asynctrack.shutdown()
    assert spools(tmp_path) == []
    assert caplog.text == ""


def test_a_run_that_has_ended_can_be_asked_when_its_spool_is_gone(at_once: None, tmp_path: Path) -> None:
    """And is not taken for one that was started later."""
    with asynctrack.start_run() as first:
        first.log_metrics({"a": 1.0, "b": 2.0})
        receipt = first.log_text("text", "a.txt")
    assert spools(tmp_path) == []
    asked = first.stats(), first.info
    assert asked[0].spool_bytes == 0
    with asynctrack.start_run() as second:
        second.log_metric("a", 3.0)
        second.flush(LIMIT)
        first.flush(LIMIT)
        receipt.wait(LIMIT)
        assert (first.stats()._replace(spool_bytes=0), first.info) == asked
        assert first.info.run_id != second.info.run_id
        assert (first.stats().delivered, second.stats().delivered) == (3, 1)
    assert {len(run.metrics["a"]) for run in read_runs(tmp_path / "mlruns").values()} == {1}


def test_an_ended_run_says_so_and_opens_no_spool(at_once: None, tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        run.log_metric("a", 1.0)
    with pytest.raises(asynctrack.RunEndedError):
        run.log_metric("a", 2.0)
    assert spools(tmp_path) == []


def test_a_store_that_nothing_is_logged_to_any_more_costs_no_thread_and_no_file(at_once: None, tmp_path: Path) -> None:
    """As in a test suite with a store for each test."""
    # The first loads what is loaded once a process.
    with asynctrack.start_run():
        pass
    until(lambda: not engine_threads(), "the thread has ended")
    files = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        with asynctrack.start_run(tracking_uri=str(tmp_path / f"store{number}")) as run:
            run.log_metric("loss", 1.0)
    until(lambda: not engine_threads(), "the threads have ended")
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    for number in range(20):
        with asynctrack.start_run(tracking_uri=str(tmp_path / f"store{number}")) as run:
            run.log_metric("loss", 2.0)
    for number in range(20):
        found = read_runs(tmp_path / f"store{number}").values()
        assert sorted(point[1] for run in found for point in run.metrics["loss"]) == [1.0, 2.0]


def test_runs_that_open_while_others_give_the_spool_back_lose_nothing(at_once: None, tmp_path: Path) -> None:
    """Threads that open, log and end without a pause, each in step with none of the others."""

    def work(number: int) -> None:
        for turn in range(15):
            with asynctrack.start_run(run_name=f"{number}-{turn}", nested=True) as run:
                for step in range(number * 3 + 1):
                    run.log_metric("loss", float(step), step)
                run.log_param("turn", turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    found = {run.tags["mlflow.runName"]: run for run in read_runs(tmp_path / "mlruns").values()}
    assert len(found) == 60
    for name, run in found.items():
        number, turn = map(int, name.split("-"))
        assert (len(run.metrics["loss"]), run.params, run.status) == (number * 3 + 1, {"turn": str(turn)}, "FINISHED")
    until(lambda: not spools(tmp_path), "the spools are gone")


def test_a_forked_child_logs_after_its_parent_gave_the_spool_back(at_once: None, tmp_path: Path) -> None:
    program = """
        import asynctrack, os, warnings
        from asynctrack.engine import own
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: of a fork beside a thread
        own._LEAST = 0.0
        with asynctrack.start_run(run_name="parent") as run:
            run.log_metric("loss", 1.0)
        child = os.fork()
        with asynctrack.start_run(run_name="parent" if child else "child") as run:
            run.log_metric("loss", 2.0)
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    result = run_program(program, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert spools(tmp_path) == []
    assert sorted(run.tags["mlflow.runName"] for run in read_runs(tmp_path / "mlruns").values()) == [
        "child", "parent", "parent",
    ]  # fmt: skip


def test_engines_of_settings_that_are_used_once_do_not_pile_up(
    at_once: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A function of its own for each run, as a lambda is: the settings differ each time."""
    monkeypatch.setattr("asynctrack.engine.table._KEPT", 0.0)
    for number in range(10):
        asynctrack.configure(on_error=lambda _run_id, _refusal: None)
        with asynctrack.start_run() as run:
            run.log_metric("loss", float(number))
        until(lambda: not engine_threads(), "the thread has ended")
    del run
    gc.collect()
    assert len(lifecycle._table.engines()) <= 2
    assert len(read_runs(tmp_path / "mlruns")) == 10


@pytest.mark.parametrize(
    ("shipper", "way"), [("thread", "end"), ("thread", "again"), ("thread", "signal"), ("process", "end")]
)
def test_a_run_that_is_reopened_after_its_engine_was_let_go_is_delivered_at_the_end(
    shipper: str, way: str, tmp_path: Path
) -> None:
    program = """
        import asynctrack, os, signal, time
        from asynctrack.engine import lifecycle, local, own, table
        own._LEAST = local._SLEEPS_AFTER = table._KEPT = 0.0
        with asynctrack.start_run(tracking_uri="first") as run:
            run.log_metric("loss", 0.0, 0)
        engine = run._state.engine
        while not engine.idle:
            time.sleep(0.01)
        with asynctrack.start_run(tracking_uri="second") as other:
            other.log_metric("loss", 0.0)
        assert engine not in lifecycle._table._open.values()
        run.reopen()
        for step in range(1, 1000):
            run.log_metric("loss", 1.0, step)
        if os.environ["WAY"] == "again":
            # Who begins a run there finds the engine that is there.
            with asynctrack.start_run(tracking_uri="first", run_name="again", nested=True) as again:
                assert again._state.engine is engine
        elif os.environ["WAY"] == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
    """
    result = run_program(program, tmp_path, WAY=way, ASYNCTRACK_SHIPPER=shipper)
    assert result.returncode == (-signal.SIGTERM if way == "signal" else 0)
    assert result.stderr == "" or (way == "signal" and "20 s" in result.stderr and result.stderr.count("\n") == 1)
    [run] = [run for run in read_runs(tmp_path / "first").values() if run.tags["mlflow.runName"] != "again"]
    assert sorted(step for _, _, step in run.metrics["loss"]) == list(range(1000))
    assert run.status == ("KILLED" if way == "signal" else "FINISHED")
    assert spools(tmp_path) == []


def test_an_engine_that_was_let_go_is_the_one_of_its_store_for_as_long_as_a_run_holds_it(
    at_once: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("asynctrack.engine.table._KEPT", 0.0)
    with asynctrack.start_run(tracking_uri=str(tmp_path / "first")) as run:
        run.log_metric("loss", 0.0, 0)
    engine = run._state.engine
    until(lambda: engine.idle, "nobody uses it")
    for turn in range(3):
        with asynctrack.start_run(tracking_uri=str(tmp_path / f"other{turn}")):
            assert engine not in lifecycle._table._open.values()
        with asynctrack.start_run(tracking_uri=str(tmp_path / "first")) as other:
            assert other._state.engine is engine
            assert engine in lifecycle._table._open.values()
        until(lambda: engine.idle, "nobody uses it")
    with asynctrack.start_run(tracking_uri=str(tmp_path / "another")):
        assert engine not in lifecycle._table._open.values()
    assert lifecycle._table.engines().count(engine) == 1
    asynctrack.shutdown()
    with pytest.raises(asynctrack.RunEndedError):
        run.reopen()  # nobody would deliver what is logged
    assert len(read_runs(tmp_path / "first")) == 4


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_receipt_knows_of_its_refused_artifact_however_many_runs_have_ended_since(
    shipper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine remembers ended runs for a while only."""
    asynctrack.configure(shipper=shipper)
    monkeypatch.setattr("asynctrack.delivery.directory.RunDirectory.remembered", 2)
    monkeypatch.setattr("asynctrack.engine.own._REMEMBERED", 2)
    with asynctrack.start_run() as run:
        run.log_text("a file", "a")
        receipt = run.log_text("below a file", "a/b")
    for _ in range(4):
        with asynctrack.start_run():
            pass
    with pytest.raises(asynctrack.DeliveryError, match="a/b was refused"):
        receipt.wait(LIMIT)


def test_many_stores_one_after_another_need_no_more_files_than_a_few(tmp_path: Path) -> None:
    """Beyond a few, none is kept for what may come next: not even until its thread's next look at the journal."""
    asynctrack.configure(flush_interval=10 * LIMIT)
    least = len(os.listdir("/proc/self/fd"))
    for number in range(3 * own._FEW):
        with asynctrack.start_run(tracking_uri=str(tmp_path / f"store{number}")) as run:
            run.log_metric("loss", 1.0)
        until(lambda: len(own._in_use) <= own._FEW, "the others have given back what they had")
    until(lambda: engine_threads() <= own._FEW, "their threads have ended")
    # A spool has six, and a thread's event loop three.
    assert len(os.listdir("/proc/self/fd")) <= least + own._FEW * 9 + 9


# ── what cannot be read of one's own spool is said, as of a dead program's


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("ends", ["the run", "the program", "early"])
def test_what_somebody_has_damaged_in_a_living_program_s_spool_is_said(
    ends: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the run ends and the spool goes; or when the program ends, be all else delivered or not."""
    damaged, look = threading.Event(), Rounds.look
    monkeypatch.setattr(Rounds, "look", lambda rounds: damaged.is_set() and look(rounds))
    asynctrack.configure(flush_interval=1000, close_timeout=LIMIT if ends != "early" else 1.0)
    (tmp_path / "disk").write_text("")
    run = asynctrack.start_run(tracking_uri=str(tmp_path / "disk" / "mlruns"), wait=False)
    for step in range(100):
        run.log_metric("loss", step * 0.5, step)
    run.log_param("lr", "a value that is long enough to be found")
    (spool,) = spools(tmp_path)
    flip(spool / "000001.slots", (spool / "000001.slots").read_bytes().index(struct.pack("<qd", 50, 25.0)))
    flip(spool / "000001.frames", (spool / "000001.frames").read_bytes().index(b"long enough"))
    damaged.set()
    if ends == "early":
        with suppress(FlushTimeoutError):
            run.flush(1.0)
    else:
        (tmp_path / "disk").unlink()
    if ends == "the run":
        run.terminate()
        while spools(tmp_path):
            run._state.engine.wake()
            time.sleep(0.01)
    lifecycle.shutdown()
    said = [record.getMessage() for record in caplog.records if ": damaged" in record.getMessage()]
    rest = "" if ends == "early" else "; all else is delivered"
    assert said[0] == f"asynctrack: {spool}: damaged frames beside {spool}/000001.slots (1){rest}"
    # The record may still have been in the making when it was looked at last: who delivers the rest says so.
    assert said[1:] == ([] if ends == "early" else [f"asynctrack: {spool}: damaged records (1){rest}"])
    if ends != "early":
        (stored,) = read_runs(tmp_path / "disk" / "mlruns").values()
        assert (len(stored.metrics["loss"]), stored.params) == (99, {})


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0] ^ 1
        file.seek(at)
        file.write(bytes([byte]))


def test_how_much_of_a_deleted_spool_is_lost_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a backlog of many segments the first ones are open, and are delivered."""
    deleted, look = threading.Event(), Rounds.look
    monkeypatch.setattr(Rounds, "look", lambda rounds: deleted.is_set() and look(rounds))
    asynctrack.configure(flush_interval=1000, segment_bytes=4096)
    with asynctrack.start_run(wait=False) as run:
        for step in range(20_000):
            run.log_metric("loss", step * 0.5, step)
        (spool,) = spools(tmp_path)
        gone = spool.rename(tmp_path / "gone")  # in one step: the next segment may just be being made
        shutil.rmtree(gone)
        run.log_metric("loss", 10_000.0, 20_000)
        deleted.set()
    lifecycle.shutdown()
    (stored,) = read_runs(tmp_path / "mlruns").values()
    lost = 20_001 - len(stored.metrics["loss"])
    said = [record.getMessage() for record in caplog.records if "all else is delivered" in record.getMessage()]
    assert len(said) == 11
    told = sum(int(re.findall(r"\((\d+)\); all else", line)[0]) for line in said)
    assert 0 < lost <= told <= lost + 64

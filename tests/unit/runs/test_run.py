"""What a training loop holds: runs, their blocks and their verbs."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asynctrack
from asynctrack.errors import (
    AsynctrackError,
    AuthenticationError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    NotFoundError,
    RunEndedError,
)
from asynctrack.stores.base import Batch
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import drive
from asynctrack.tracking import store_for
from tests.mlruns import only_run, read_runs


def block(folder: Path) -> None:
    """A store that cannot be reached: a file stands where one of its folders would have to be made."""
    (folder / "disk").write_text("in the way")
    asynctrack.set_tracking_uri(folder / "disk" / "mlruns")


def unblock(folder: Path) -> None:
    (folder / "disk").unlink()


def test_a_run_from_block_to_disk(tmp_path: Path) -> None:
    """Metrics, params, tags, name, description and times stand in the store when the block is left."""
    with asynctrack.start_run(run_name="baseline", tags={"team": "cv", "n": 3}, description="a *note*") as run:
        run.log_metric("loss", 0.5, step=1, timestamp=1_700_000_000_000)
        run.log_metrics({"acc": 1, "lr": np.float32(0.25)}, step=2)
        run.log_param("lr", 0.1)
        run.log_params({"opt": {"name": "sgd", "betas": (0.9, 0.99)}}, flatten=".")
        run.set_tag("phase", "late")
        run.set_tags({"a b": None})
        assert run.info.run_id == run.run_id
        assert run.info.run_name == "baseline"
    stored = only_run(tmp_path / "mlruns")
    assert stored.run_id == run.run_id
    assert stored.metrics["loss"] == [(1_700_000_000_000, 0.5, 1)]
    assert [point[1:] for point in stored.metrics["acc"] + stored.metrics["lr"]] == [(1.0, 2), (0.25, 2)]
    assert stored.params == {"lr": "0.1", "opt.name": "sgd", "opt.betas": "(0.9, 0.99)"}
    assert stored.tags["mlflow.note.content"] == "a *note*"
    assert {key: stored.tags[key] for key in ("team", "n", "phase", "a b")} == {
        "team": "cv", "n": "3", "phase": "late", "a b": "None",
    }  # fmt: skip
    assert stored.tags["mlflow.runName"] == "baseline"
    assert stored.tags["mlflow.source.type"] == "LOCAL"
    assert stored.status == "FINISHED"
    assert stored.meta["end_time"] >= stored.meta["start_time"] > 1_700_000_000_000


@pytest.mark.parametrize("value", ["abc", None, [1.0, 2.0], np.array([1.0, 2.0]), 10**400])
def test_a_bad_value_is_an_error_at_the_call_and_the_run_goes_on(value: Any, tmp_path: Path) -> None:
    """The error names run, key and value; what was logged before and after is there."""
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0, 0)
        with pytest.raises(InvalidInputError, match=f"(?s){run.run_id}.*'loss'"):
            run.log_metric("loss", value)
        with pytest.raises(InvalidInputError, match=run.run_id):
            run.log_metrics({"fine": 1.0, "loss": value})
        run.log_metric("loss", 2.0, 1)
    stored = only_run(tmp_path / "mlruns").metrics
    assert {name: [point[1:] for point in points] for name, points in stored.items()} == {"loss": [(1.0, 0), (2.0, 1)]}


@pytest.mark.parametrize(
    "key", ["", "x" * 300, "../x", "/x", "a//b", "a/", ".", "a\0b", "tab\t", "emoji 🎉", 5, None, ["a"], "a/../b"]
)
def test_a_bad_key_is_an_error_at_the_call(key: Any, tmp_path: Path) -> None:
    """For metrics, params and tags alike; nothing is written, least of all outside the store."""
    with asynctrack.start_run() as run:
        for log in (run.log_metric, run.log_param, run.set_tag):
            with pytest.raises(InvalidInputError, match=run.run_id):
                log(key, 1.0)
        with pytest.raises(InvalidInputError):
            run.log_metrics({"fine": 1.0, key if not isinstance(key, list) else "": 2.0})
        run.log_metric("fine", 1.0)
    stored = only_run(tmp_path / "mlruns")
    assert list(stored.metrics) == ["fine"]
    assert stored.params == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".asynctrack", "mlruns"]


def test_a_key_cannot_be_a_file_and_a_folder(tmp_path: Path) -> None:
    """`a` against `a/b`, either order, is known in the caller."""
    with asynctrack.start_run() as run:
        run.log_metric("a/b/c", 1.0)
        run.log_metric("x", 1.0)
        for clash in ("a", "a/b", "x/y"):
            with pytest.raises(InvalidInputError, match="clashes"):
                run.log_metric(clash, 1.0)
        run.log_metric("a/b/d", 1.0)
    assert sorted(only_run(tmp_path / "mlruns").metrics) == ["a/b/c", "a/b/d", "x"]


def test_a_bad_step_leaves_no_trace(tmp_path: Path) -> None:
    """A step that fits no 64 bits, or is no integer, is refused at the call; whole floats are taken."""
    with asynctrack.start_run() as run:
        for step in (1.5, "1", 1 << 63):
            with pytest.raises(InvalidInputError, match="step="):
                run.log_metric("loss", 1.0, step)  # type: ignore[arg-type]  # the mistake under test
        run.log_metric("loss", 1.0, 3.0)  # type: ignore[arg-type]  # forgiven
        run.log_metric("loss", 1.0, np.int64(4))
        run.log_metric("loss", 1.0, -5)
        for timestamp in (-1, 0.5, "now", 1 << 63):
            with pytest.raises(InvalidInputError, match="timestamp="):
                run.log_metric("loss", 1.0, 1, timestamp)  # type: ignore[arg-type]  # the mistake under test
    assert [step for _, _, step in only_run(tmp_path / "mlruns").metrics["loss"]] == [3, 4, -5]


def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    """NaN and both infinities are legal values."""
    with asynctrack.start_run() as run:
        for step, value in enumerate((math.nan, math.inf, -math.inf, -0.0, 5e-324)):
            run.log_metric("m", value, step)
    values = [value for _, value, _ in only_run(tmp_path / "mlruns").metrics["m"]]
    assert [repr(value) for value in values] == ["nan", "inf", "-inf", "-0.0", "5e-324"]


def test_a_param_never_changes(tmp_path: Path) -> None:
    """The same value again is fine; another is refused at the call and the first stays."""
    with asynctrack.start_run() as run:
        run.log_param("lr", 0.1)
        run.log_param("lr", 0.1)
        with pytest.raises(InvalidInputError, match=r"'lr' is '0\.1' already"):
            run.log_params({"other": 1, "lr": 0.2})
    assert only_run(tmp_path / "mlruns").params == {"lr": "0.1"}


def test_a_param_that_an_earlier_process_logged_differently_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing was asked, only the store knows: the event is refused, kept with its reason, and told."""
    with asynctrack.start_run() as run:
        run.log_param("lr", 0.1)
    with asynctrack.start_run(run_id=run.run_id, wait=False) as again:
        again.log_param("lr", 0.2)
        again.log_metric("loss", 1.0)
        with pytest.raises(DeliveryError, match=r"(?s)refused 1 events.*lr"):
            again.flush()
        assert again.stats().rejected == 1
    stored = only_run(tmp_path / "mlruns")
    assert (stored.params, list(stored.metrics)) == ({"lr": "0.1"}, ["loss"])
    (rejected,) = tmp_path.glob(".asynctrack/*/rejected.jsonl")
    assert '"key": "lr"' in rejected.read_text()
    assert "refused param 'lr'" in caplog.text


def test_strict_raises_what_otherwise_only_warns(tmp_path: Path) -> None:
    """`strict=True`: leaving the block raises when an event was refused."""
    with asynctrack.start_run() as run:
        run.log_param("lr", 0.1)

    def again() -> None:
        with asynctrack.start_run(run_id=run.run_id, strict=True) as second:
            drive(store_for().log_batch(run.run_id, Batch(params=[("new", "1")])))  # another program
            second.log_param("new", 2)

    with pytest.raises(DeliveryError, match="refused 1 events"):
        again()


def test_flush_makes_everything_readable(tmp_path: Path) -> None:
    """After flush() the store holds all that was logged before, while the run goes on."""
    with asynctrack.start_run() as run:
        for step in range(1000):
            run.log_metric("loss", float(step), step)
        run.flush()
        assert len(only_run(tmp_path / "mlruns").metrics["loss"]) == 1000
        stats = run.stats()
        assert (stats.accepted, stats.delivered, stats.pending, stats.rejected) == (1000, 1000, 0, 0)
        assert only_run(tmp_path / "mlruns").status == "RUNNING"


def test_flush_keeps_to_its_timeout(tmp_path: Path) -> None:
    """With the store out of reach flush(timeout) raises in time, says what is pending and where, and loses nothing."""
    block(tmp_path)
    asynctrack.configure(close_timeout=0.3, flush_interval=0.05)
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0)
    with pytest.raises(FlushTimeoutError, match=r"1 of 1 events are not in .* \.asynctrack|1 of 1 events") as caught:
        run.flush(timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert ".asynctrack" in str(caught.value)
    unblock(tmp_path)
    run.flush(timeout=20)
    assert only_run(tmp_path / "disk" / "mlruns").metrics["loss"][0][1] == 1.0
    run.terminate()


def test_a_store_out_of_reach_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on; one warning when it begins, one line when it is over."""
    block(tmp_path)
    asynctrack.configure(flush_interval=0.02)
    with asynctrack.start_run() as run:
        for step in range(100):
            run.log_metric("loss", 1.0, step)
        with pytest.raises(FlushTimeoutError):
            run.flush(timeout=0.5)
        unblock(tmp_path)
    assert sum("trying again" in record.message for record in caplog.records) == 1
    assert sum("takes events again" in record.message for record in caplog.records) == 1
    assert len(only_run(tmp_path / "disk" / "mlruns").metrics["loss"]) == 100


def test_on_unreachable_raise(tmp_path: Path) -> None:
    """`on_unreachable="raise"`: entering the block raises after `connect_timeout`."""
    block(tmp_path)
    asynctrack.configure(on_unreachable="raise", connect_timeout=0.3, flush_interval=0.05, close_timeout=0.3)
    with pytest.raises(asynctrack.UnavailableError, match="could not be created"), asynctrack.start_run():
        pass
    assert asynctrack.active_run() is None
    unblock(tmp_path)


def test_a_run_or_experiment_that_does_not_exist_is_an_error_on_entering() -> None:
    """A wrong id is never spooled away where there is a store that could know it."""
    with asynctrack.start_run():
        pass
    with pytest.raises(NotFoundError, match="0" * 32), asynctrack.start_run(run_id="0" * 32):
        pass
    with pytest.raises(NotFoundError, match="12345"), asynctrack.start_run(experiment_id="12345"):
        pass
    assert asynctrack.active_run() is None


def test_a_run_is_taken_up_again_while_its_files_are_away(tmp_path: Path) -> None:
    """As while a server is away: it goes on, and all is delivered when they are back."""
    asynctrack.configure(connect_timeout=0.2, flush_interval=0.05)
    with asynctrack.start_run() as first:
        first.log_metric("loss", 1.0, 0)
    (tmp_path / "mlruns").rename(tmp_path / "elsewhere")
    with asynctrack.start_run(run_id=first.run_id) as second:
        second.log_metric("loss", 2.0, 1)
        (tmp_path / "elsewhere").rename(tmp_path / "mlruns")
    assert [point.value for point in asynctrack.get_metric_history(first.run_id, "loss")] == [1.0, 2.0]
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


def test_a_run_whose_file_a_power_cut_has_emptied_is_completed_from_its_spool(tmp_path: Path) -> None:
    """Two seconds after it was first seen: until then somebody may be writing it."""
    asynctrack.configure(flush_interval=0.05)
    with asynctrack.start_run(run_name="r", tags={"team": "cv"}) as run:
        run.log_metric("loss", 1.0, 0)
        run.flush()
        (meta,) = tmp_path.glob(f"mlruns/*/{run.run_id}/meta.yaml")
        meta.write_bytes(b"")
        run.log_metric("loss", 2.0, 1)
    stored = asynctrack.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name, stored.data.tags["team"]) == ("FINISHED", "r", "cv")
    assert [point.value for point in asynctrack.get_metric_history(run.run_id, "loss")] == [1.0, 2.0]
    assert run.stats().rejected == 0


def test_a_run_is_taken_up_again(tmp_path: Path) -> None:
    """Resume by id: status RUNNING meanwhile, new points behind the old ones, new tags set, FINISHED at the end."""
    with asynctrack.start_run(run_name="long") as first:
        first.log_metric("loss", 1.0, 0)
    with asynctrack.start_run(run_id=first.run_id, tags={"round": "2"}) as second:
        assert second.run_id == first.run_id
        assert only_run(tmp_path / "mlruns").status == "RUNNING"
        second.log_metric("loss", 2.0, 1)
    stored = only_run(tmp_path / "mlruns")
    assert [step for _, _, step in stored.metrics["loss"]] == [0, 1]
    assert (stored.status, stored.tags["round"], stored.tags["mlflow.runName"]) == ("FINISHED", "2", "long")


def test_MLFLOW_RUN_ID_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in MLflow: the variable names the run to take up, and is gone afterwards."""
    with asynctrack.start_run() as first:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", first.run_id)
    with asynctrack.start_run() as second:
        assert second.run_id == first.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


def test_nested_runs(tmp_path: Path) -> None:
    """nested=True hangs the inner run below the outer; without it a second run is an error."""
    with asynctrack.start_run() as outer:
        with pytest.raises(AsynctrackError, match="nested=True"):
            asynctrack.start_run()
        with asynctrack.start_run(nested=True) as inner:
            assert asynctrack.active_run().run_id == inner.run_id  # type: ignore[union-attr]  # one is active
            with asynctrack.start_run(nested=True) as innermost:
                innermost.log_metric("x", 1.0)
        assert asynctrack.active_run().run_id == outer.run_id  # type: ignore[union-attr]  # as above
    runs = read_runs(tmp_path / "mlruns")
    assert runs[inner.run_id].tags["mlflow.parentRunId"] == outer.run_id
    assert runs[innermost.run_id].tags["mlflow.parentRunId"] == inner.run_id
    assert "mlflow.parentRunId" not in runs[outer.run_id].tags


def test_logging_after_the_end_is_an_error() -> None:
    """Every verb says that the run has ended and how to go on; ending twice is fine."""
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    for log in (run.log_metric, run.log_param, run.set_tag):
        with pytest.raises(RunEndedError, match="start_run"):
            log("loss", 1.0)
    with pytest.raises(RunEndedError):
        run.log_metrics({"loss": 1.0})
    run.terminate()
    with pytest.raises(RunEndedError):
        run.__enter__()


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "DONE", "finished"])
def test_only_an_end_ends_a_run(status: str, tmp_path: Path) -> None:
    """terminate() takes the statuses that are an end, and refuses others without ending anything."""
    run = asynctrack.start_run()
    with pytest.raises(InvalidInputError, match=status):
        run.terminate(status)
    run.log_metric("loss", 1.0)
    run.terminate("KILLED", end_time=1_700_000_000_123)
    stored = only_run(tmp_path / "mlruns")
    assert (stored.status, stored.meta["end_time"]) == ("KILLED", 1_700_000_000_123)


def test_async_with_on_asyncio_keeps_tasks_apart(tmp_path: Path) -> None:
    """100 concurrent tasks, each with its own active run: none sees another's, all are delivered."""

    async def one(number: int) -> str:
        async with asynctrack.start_run(run_name=f"task {number}") as run:
            await asyncio.sleep(0)
            asynctrack.log_metric("mine", number)
            await asyncio.sleep(0.001)
            active = asynctrack.active_run()
            assert active is not None
            assert active.run_id == run.run_id
            run.log_metric("mine", number, 1)
            await run.flush()
            assert (await run.info()).run_name == f"task {number}"
        return run.run_id

    async def everything() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(100)))

    ids = asyncio.run(everything())
    runs = read_runs(tmp_path / "mlruns")
    assert len(runs) == 100
    for number, run_id in enumerate(ids):
        assert [(value, step) for _, value, step in runs[run_id].metrics["mine"]] == [(number, 0), (number, 1)]
        assert runs[run_id].status == "FINISHED"


def test_async_with_on_trio(tmp_path: Path) -> None:
    """The same face on trio."""
    import trio

    async def main() -> None:
        async with asynctrack.start_run() as run:
            run.log_metric("loss", 1.0)
            await run.flush(timeout=30)
            assert run.stats().delivered == 1

    trio.run(main)
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


def test_an_exception_in_an_async_block_fails_the_run(tmp_path: Path) -> None:
    """FAILED, and the exception goes on."""

    async def main() -> None:
        async with asynctrack.start_run():
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(main())
    assert only_run(tmp_path / "mlruns").status == "FAILED"


def test_a_slow_store_never_blocks_the_loop(tmp_path: Path) -> None:
    """While async flush waits, other tasks run."""
    block(tmp_path)
    asynctrack.configure(flush_interval=0.05, close_timeout=0.5)
    ticks = 0

    async def main() -> None:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        async with asynctrack.start_run() as run:
            with pytest.raises(FlushTimeoutError):
                await run.flush(timeout=0.3)
        ticking.cancel()

    asyncio.run(main())
    assert ticks > 20
    unblock(tmp_path)


def test_stats_count_what_is_not_loaded_yet(tmp_path: Path) -> None:
    """accepted = delivered + pending + rejected, also before the engine has looked."""
    asynctrack.configure(flush_interval=30)
    with asynctrack.start_run() as run:
        for step in range(20_000):
            run.log_metric("loss", 1.0, step)
        stats = run.stats()
        assert stats.accepted == 20_000 == stats.delivered + stats.pending
        run.flush()
        assert run.stats().delivered == 20_000
        assert run.stats().spool_bytes > 0


def test_a_spool_folder_that_cannot_be_made_costs_durability_not_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning that says what is no longer promised; everything else works."""
    (tmp_path / "file").write_text("")
    asynctrack.configure(spool_dir=str(tmp_path / "file" / "spool"))
    with caplog.at_level(logging.WARNING), asynctrack.start_run() as run:
        for step in range(30_000):
            run.log_metric("loss", 1.0, step)
        run.log_param("lr", 1)
    assert [record.message for record in caplog.records if "memory only" in record.message] != []
    stored = only_run(tmp_path / "mlruns")
    assert (len(stored.metrics["loss"]), stored.params) == (30_000, {"lr": "1"})


def test_durability_system_syncs_before_it_acknowledges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`durability="system"`: journal, cursor and every file that a delivered event stands in are handed to the disk."""
    synced: set[str] = set()

    def record(name: str) -> None:
        real = getattr(os, name)

        def sync(fd: int) -> None:
            synced.add(os.readlink(f"/proc/self/fd/{fd}"))
            real(fd)

        monkeypatch.setattr(os, name, sync)

    record("fsync")
    record("fdatasync")
    asynctrack.configure(durability="system")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
        run.log_param("lr", 1)
        run.flush()
        stored = {str(path) for kind in ("metrics", "params") for path in tmp_path.glob(f"mlruns/*/*/{kind}/*")}
        assert len(stored) == 2
        assert stored <= synced
        names = {os.path.basename(path) for path in synced}
        assert names >= {"registry", "000001.slots", "000001.frames", "cursor"}
        assert any(name.startswith("meta.yaml.") and name.endswith(".tmp") for name in names)


def test_by_default_the_start_of_a_run_does_not_wait_for_the_disk_but_has_it_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fsync takes ten times as long as the rest of a run's creation where the disk is busy."""
    with asynctrack.start_run():
        pass  # the experiment is created once, with fsync
    begun: list[str] = []
    waited_for: list[int] = []
    advise = os.posix_fadvise

    def advised(fd: int, offset: int, length: int, advice: int) -> None:
        begun.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        advise(fd, offset, length, advice)

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fadvise", advised)
        patched.setattr(os, "fsync", waited_for.append)
        run = asynctrack.start_run()
        run.flush()
    asynctrack.end_run()
    assert [name.startswith("meta.yaml.") and name.endswith(".tmp") for name in begun] == [True]
    assert not waited_for


def test_threads_without_a_run_use_the_only_open_one(tmp_path: Path) -> None:
    """A thread falls back to the process's only open run; with two open, a clear error."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            asynctrack.log_metric("from thread", 1.0)
        except AsynctrackError as error:
            errors.append(error)

    def in_thread() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with asynctrack.start_run() as run:
        in_thread()
        assert errors == []
        with asynctrack.start_run(nested=True):
            in_thread()
    assert len(errors) == 1
    assert isinstance(errors[0], asynctrack.AmbiguousRunError)
    assert run.run_id in str(errors[0])
    assert len(read_runs(tmp_path / "mlruns")[run.run_id].metrics["from thread"]) == 1


def test_a_task_never_falls_back_to_another_tasks_run() -> None:
    """In a task without a run of its own a fluent call is an error, although one run is open in the process."""

    async def main() -> None:
        started, done = asyncio.Event(), asyncio.Event()

        async def with_run() -> None:
            async with asynctrack.start_run():
                started.set()
                await done.wait()

        async def without() -> None:
            await started.wait()
            with pytest.raises(asynctrack.NoActiveRunError, match="task"):
                asynctrack.log_metric("loss", 1.0)
            done.set()

        await asyncio.gather(without(), with_run())

    asyncio.run(main())


def test_repr_says_what_a_person_wants_to_know() -> None:
    """Class, id, store, state."""
    run = asynctrack.start_run()
    assert run.run_id in repr(run)
    assert "open" in repr(run)
    run.terminate()
    assert "ended" in repr(run)


def test_a_segment_sealed_under_a_log_call_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread between claim and write, whose segment is sealed just then, logs its event anew, from the first instant
    at which the mapping is closed."""
    from asynctrack.journal.disk import write_all
    from asynctrack.journal.slots import PACK, PackError

    asynctrack.configure(segment_bytes=4096)
    seen: list[bool] = []
    with asynctrack.start_run() as run:
        journal = run._journal
        run.log_metric("loss", 0.0, 0)
        claim, slots, old = journal.current
        at = claim()

        def sealing(fd: int, data: bytes, offset: int) -> None:
            if len(data) == 20 and not seen:  # the mark of sealing, and nothing else
                seen.append(True)
                with pytest.raises((ValueError, TypeError, PackError)):
                    PACK(slots, at, 1, 1, 1.0, 1, 1, 1, 1.0, 1, at)
                assert not old.holds(at), "a closed mapping would be taken for a fault of the arguments"
                run._write_slowly("loss", 1, 1, 1.0, run._streams["loss"], old, at)
            write_all(fd, data, offset)

        monkeypatch.setattr("asynctrack.journal.segment.write_all", sealing)
        for step in range(2, 200):
            run.log_metric("loss", float(step), step)
    assert seen
    assert sorted(step for _, _, step in only_run(tmp_path / "mlruns").metrics["loss"]) == list(range(200))


def test_while_another_thread_imports_asyncio_a_run_is_ended_and_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The module is there, and half of what is in it is not."""
    half = types.ModuleType("asyncio")
    with pytest.raises(KeyboardInterrupt), asynctrack.start_run() as run:  # noqa: PT012  # what a block does
        monkeypatch.setitem(sys.modules, "asyncio", half)
        monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))
        thread = threading.Thread(target=asynctrack.log_metric, args=("loss", 1.0))
        thread.start()
        thread.join()
        raise KeyboardInterrupt
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run_ = only_run(tmp_path / "mlruns")
    assert (run_.run_id, run_.status, len(run_.metrics["loss"])) == (run.run_id, "KILLED", 1)


def test_on_error_can_neither_wait_for_its_own_thread_nor_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that flushes gets an error at once, one that exits ends nothing: what comes later is delivered."""
    told = []

    def on_error(run_id: str, refusal: object) -> None:
        told.append(run_id)
        if len(told) == 1:
            run.flush()
        sys.exit(1)

    asynctrack.configure(on_error=on_error)
    with asynctrack.start_run() as run:
        run.flush()
        for name in ("first", "second"):
            (tmp_path / "mlruns" / "0" / run.run_id / "params" / name).mkdir(parents=True)
            run.log_param(name, 1)
            with pytest.raises(asynctrack.DeliveryError):
                run.flush()
        run.log_metric("loss", 1.0)
    assert told == [run.run_id] * 2
    assert "it cannot wait for delivery" in caplog.text
    assert len(only_run(tmp_path / "mlruns").metrics["loss"]) == 1


def test_a_thread_that_cannot_be_started_now_is_started_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of processes is reached for a moment: said once, and whoever waits next starts the thread."""
    asynctrack.configure(connect_timeout=0.2)
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "asynctrack":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0)
    with pytest.raises(FlushTimeoutError):
        run.flush(0.1)
    monkeypatch.setattr(threading.Thread, "start", start)
    run.flush(20)
    assert len(only_run(tmp_path / "mlruns").metrics["loss"]) == 1
    assert caplog.text.count("can't start new thread") == 1
    run.terminate()


def test_the_info_of_a_run_is_known_although_its_events_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has created the run, and then forbids to write to it: ``info`` says what it has created."""

    async def forbidden(*_: object) -> list[Any]:
        raise AuthenticationError("403: may not do this")

    asynctrack.configure(flush_interval=0.05, close_timeout=0.2)
    with asynctrack.start_run() as run, monkeypatch.context() as patched:
        created = run.info
        patched.setattr(FileStore, "log_batch", forbidden)
        run.log_metric("loss", 1.0)
        with pytest.raises(FlushTimeoutError, match="403"):
            run.flush(0.5)
        assert run.info == created

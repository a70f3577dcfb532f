"""`asynctrack.sync` from Python: what it delivers where, and what it says became of each spool."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
from asynctrack.delivery.intake import TakenError
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Source
from asynctrack.errors import AuthenticationError, InvalidInputError, UnavailableError
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import find_spools, read_spool
from asynctrack.recovery import sync as module
from asynctrack.recovery.job import Job
from asynctrack.settings import current_settings
from asynctrack.stores.file.store import FileStore
from tests.journals import die, journal_in, register
from tests.mlruns import StoredRun, only_run, read_runs

PACKAGE = str(Path(asynctrack.__file__).parents[1])

#: leaves 500 points, a param and a finished run in its spool
LEAVES = """
import asynctrack
with asynctrack.start_run(run_name="left") as run:
    run.log_param("lr", 0.1)
    for step in range(500):
        run.log_metric("loss", step * 0.25, step)
"""


def leave(folder: Path, code: str = LEAVES, *, arguments: Sequence[str] = (), **environment: str) -> Path:
    """Run an offline program; its spool."""
    before = set((folder / ".asynctrack").glob("*-*"))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": PACKAGE, "ASYNCTRACK_MODE": "offline", **environment},
    )  # fmt: skip
    assert done.returncode in (0, 9), done.stderr
    (spool,) = set((folder / ".asynctrack").glob("*-*")) - before
    return spool


def assert_complete(run: StoredRun) -> None:
    assert [(value, step) for _, value, step in run.metrics["loss"]] == [(step * 0.25, step) for step in range(500)]
    assert (run.params, run.status) == ({"lr": "0.1"}, "FINISHED")


def test_everything_found_goes_to_the_store_that_its_program_meant(tmp_path: Path) -> None:
    """Each spool to its own; nothing is left, and there is nothing to do the second time."""
    first = leave(tmp_path)
    second = leave(tmp_path, MLFLOW_TRACKING_URI=str(tmp_path / "other"))
    results = asynctrack.sync()
    assert [(result.spool, result.store) for result in sorted(results)] == sorted(
        [(str(first), f"file://{tmp_path}/mlruns"), (str(second), f"file://{tmp_path}/other")]
    )
    assert {(result.state, result.delivered, result.rejected, result.left) for result in results} == {
        ("delivered", 501, 0, 0)
    }
    assert_complete(only_run(tmp_path / "mlruns"))
    assert_complete(only_run(tmp_path / "other"))
    assert not first.exists()
    assert asynctrack.sync() == []


def test_one_spool_alone(tmp_path: Path) -> None:
    first, second = leave(tmp_path), leave(tmp_path)
    (result,) = asynctrack.sync([second, second])
    assert (result.spool, result.state) == (str(second), "delivered")
    assert first.exists()
    assert_complete(only_run(tmp_path / "mlruns"))


HALVES = (
    "import asynctrack\nwith asynctrack.start_run() as run:\n    run.log_metric('a', 1)\n    print(1, flush=True)\n"
    "    input()\n    run.log_metric('a', 2)\n    run.log_param('late', 1)\n"
)


def test_what_was_begun_at_another_store_is_no_prey_of_the_next_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An offline program is delivered elsewhere while it runs, and goes on. The next one, which logs to the store that
    it meant, had the rest refused there."""
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "ASYNCTRACK_MODE": "offline"}
    command, pipe = [sys.executable, "-c", HALVES], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        (first,) = asynctrack.sync(to="elsewhere")
        program.communicate("\n", timeout=60)
    assert first.delivered == 1
    for _ in range(2):
        with asynctrack.start_run() as own:
            own.log_metric("own", 1.0)
        asynctrack.shutdown()
    assert caplog.text.count(f"Deliver the rest with `asynctrack sync --to file://{tmp_path}/elsewhere`") == 1
    assert "delivering what process" not in caplog.text
    assert asynctrack.sync(to="elsewhere")[0].state == "delivered"
    run = only_run(tmp_path / "elsewhere")
    assert ([value for _, value, _ in run.metrics["a"]], run.params, run.status) == ([1, 2], {"late": "1"}, "FINISHED")


def test_to_another_store_and_into_another_experiment(tmp_path: Path) -> None:
    """Whatever the program chose."""
    leave(tmp_path, MLFLOW_EXPERIMENT_ID="999")
    (result,) = asynctrack.sync(to="elsewhere", experiment="rescued")
    assert (result.store, result.state) == (f"file://{tmp_path}/elsewhere", "delivered")
    assert_complete(only_run(tmp_path / "elsewhere"))
    asynctrack.set_tracking_uri("elsewhere")
    experiment = asynctrack.get_experiment_by_name("rescued")
    assert experiment is not None
    assert (tmp_path / "elsewhere" / experiment.experiment_id).is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_what_was_begun_at_one_store_is_not_continued_at_another(tmp_path: Path) -> None:
    """Half of a run here and half of it there would be of use to nobody."""
    code = """
import asynctrack, os
asynctrack.configure(mode="online", flush_interval=0.05)
run = asynctrack.start_run()
run.log_metric("loss", 0.0)
run.flush()
asynctrack.configure(flush_interval=1000)
run.log_metric("loss", 0.25, 1)
os._exit(9)
"""
    spool = leave(tmp_path, code)
    (result,) = asynctrack.sync(to="elsewhere")
    assert result.state == "failed"
    assert f"a part of it is in file://{tmp_path}/mlruns already" in (result.problem or "")
    assert spool.exists()
    assert asynctrack.sync()[0].state == "delivered"
    assert [value for _, value, _ in only_run(tmp_path / "mlruns").metrics["loss"]] == [0.0, 0.25]


def test_a_spool_that_could_not_be_delivered_at_all_may_go_elsewhere(tmp_path: Path) -> None:
    """It was tried for nothing at the store that its program meant."""
    (tmp_path / "disk").write_text("a file where a folder should be")
    code = "import asynctrack\nasynctrack.configure(mode='online', close_timeout=0.5, connect_timeout=0.5)\n" + LEAVES
    leave(tmp_path, code, MLFLOW_TRACKING_URI="disk/mlruns")
    (result,) = asynctrack.sync(timeout=0.5)
    assert result.state == "partly"
    assert "disk/mlruns" in (result.problem or "")
    assert result.left > 0
    assert asynctrack.sync(to="elsewhere")[0].state == "delivered"
    assert_complete(only_run(tmp_path / "elsewhere"))


def test_refused_events_are_counted_and_kept(tmp_path: Path) -> None:
    with asynctrack.start_run():
        pass  # the default experiment is there
    asynctrack.shutdown()
    spool = leave(tmp_path)
    info = read_spool(str(spool))
    assert info is not None
    (tmp_path / "mlruns" / "0" / info.runs[0].run_id / "metrics" / "loss").mkdir(parents=True)
    (result,) = asynctrack.sync()
    assert (result.state, result.delivered, result.rejected) == ("delivered", 1, 500)
    assert (spool / "rejected.jsonl").exists()


def test_a_run_that_cannot_be_created_is_refused_in_full(tmp_path: Path) -> None:
    """Counted without its start and its end, which are no events of the user's."""
    leave(tmp_path, MLFLOW_EXPERIMENT_ID="999")
    (result,) = asynctrack.sync()
    assert (result.state, result.delivered, result.rejected) == ("delivered", 0, 501)


def test_what_was_logged_to_a_run_that_is_nowhere_to_be_seen_is_kept(tmp_path: Path) -> None:
    """Its start may lie on another machine: nothing is refused, and it is said what is missing."""
    run_id = "a" * 32
    spool = leave(tmp_path, f"import asynctrack\nasynctrack.start_run(run_id={run_id!r}).log_metric('loss', 1.0)")
    (result,) = asynctrack.sync(timeout=0.5)
    assert (result.state, result.rejected) == ("partly", 0)
    assert run_id in (result.problem or "")
    assert "another machine" in (result.problem or "")
    assert spool.exists()


RANK = """
import asynctrack, os
with asynctrack.start_run(shared=True, run_name="ranks") as run:
    run.log_metric("loss", float(os.environ["RANK"]))
"""


def test_missing_runs_are_created_only_by_order_and_only_where_nobody_else_will(tmp_path: Path) -> None:
    """The spool of the rank that creates the run may be in another folder."""
    where = {"WORLD_SIZE": "2", "ASYNCTRACK_JOB": "job", "ASYNCTRACK_SPOOL_DIR": str(tmp_path / ".asynctrack")}
    second = leave(tmp_path, RANK, RANK="1", **where)
    first = leave(tmp_path, RANK, RANK="0", **where)
    first = first.rename(tmp_path / first.name)
    with pytest.raises(InvalidInputError, match=r"create_missing= .* watch="):
        asynctrack.sync(create_missing=True, watch=True)
    done = asynctrack.sync([second, first], create_missing=True, owner_gone=True)
    assert [result.state for result in done] == ["delivered", "delivered"]
    run = only_run(tmp_path / "mlruns")
    assert (run.status, sorted(value for _, value, _ in run.metrics["loss"])) == ("FINISHED", [0.0, 1.0])


def test_a_missing_run_is_not_created_at_a_store_that_a_living_program_does_not_mean(tmp_path: Path) -> None:
    """With ``to``, its spool is left to it."""
    spool = leave(tmp_path, RANK, RANK="1", WORLD_SIZE="2", ASYNCTRACK_JOB="job")
    held = Spool.adopt(str(spool))
    assert held is not None
    (result,) = asynctrack.sync(create_missing=True, to=tmp_path / "elsewhere")
    held.leave()
    assert result.state == "busy"
    assert not (tmp_path / "elsewhere").exists()
    (result,) = asynctrack.sync(create_missing=True, to=tmp_path / "elsewhere", experiment="rescued")
    assert result.state == "delivered"
    assert only_run(tmp_path / "elsewhere").status == "KILLED"


def test_what_this_very_program_logs_is_left_to_its_own_engine(tmp_path: Path) -> None:
    """It is busy; other spools beside it are delivered, once, although the engine adopts orphans too."""
    asynctrack.configure(flush_interval=0.05)
    with asynctrack.start_run(run_name="mine") as run:
        run.log_metric("loss", 1.0)
        spool = leave(tmp_path)
        results = {result.spool: result for result in asynctrack.sync()}
        assert results.pop(str(spool)).state == "delivered"
        (own,) = results.values()
        assert (own.state, own.delivered) == ("busy", 0)
        run.log_metric("loss", 2.0, 1)
        run.flush()
    runs = {run.tags["mlflow.runName"]: run for run in read_runs(tmp_path / "mlruns").values()}
    assert [value for _, value, _ in runs["mine"].metrics["loss"]] == [1.0, 2.0]
    assert_complete(runs["left"])


def test_what_somebody_else_delivers_is_busy(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    code = (
        f"from asynctrack.journal.spool import Spool\nSpool.follow({str(spool)!r})\nprint('held', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PACKAGE},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert asynctrack.sync()[0].state == "busy"
        process.communicate("go on\n")
    assert asynctrack.sync()[0].state == "delivered"


def test_one_that_was_put_back_is_asked_for_again_where_another_has_taken_it(tmp_path: Path) -> None:
    """What is younger waits for it: that other one may leave it undelivered."""
    path = str(leave(tmp_path))
    store = FileStore(str(tmp_path / "mlruns"))
    job = Job(store, current_settings(), redirected=False, experiment=None, timeout=60.0, owner_gone=False, watch=False)
    job.add(path)
    source = job.take()
    assert source is not None
    job.put_back(source)
    job.pump.let_go(source)
    other = Spool.adopt(path)
    assert other is not None
    with pytest.raises(TakenError):
        job.take()
    assert job.close()[path].state == "busy"
    other.leave()
    job.take_again(path)
    assert job.take() is not None
    assert job.close()[path].state == "partly"


def test_a_copy_made_of_links_is_a_copy(tmp_path: Path) -> None:
    """``cp -al``: its files are the same, and so is the owner's lock. The folder is another."""
    spool = leave(tmp_path)
    links = tmp_path / "links" / spool.name
    shutil.copytree(spool, links, copy_function=os.link)
    (refused,) = asynctrack.sync([links])
    assert refused.state == "failed"
    assert f"it is a copy of {spool}" in str(refused.problem)
    assert asynctrack.sync([spool])[0].state == "delivered"
    assert_complete(only_run(tmp_path / "mlruns"))


def test_a_spool_that_was_moved_is_no_copy(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    moved = spool.rename(tmp_path / spool.name)
    assert asynctrack.sync([moved])[0].state == "delivered"
    assert_complete(only_run(tmp_path / "mlruns"))


def test_what_is_no_spool_is_said_to_be_none(tmp_path: Path) -> None:
    (result,) = asynctrack.sync([tmp_path / "nothing"])
    assert (result.state, result.problem) == ("failed", "it is not a spool; `asynctrack spool` lists them")


def test_a_spool_without_its_owner_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    """It is not passed over. Whether its program runs cannot be seen, so a person has to say so; then it is delivered,
    from the copy in the registry."""
    spool = leave(tmp_path)
    (spool / "owner").unlink()
    for result in [*asynctrack.sync(), *asynctrack.sync([spool])]:
        assert (result.spool, result.state) == (str(spool), "failed")
        assert "its owner file is missing" in str(result.problem)
        assert f"make an empty file {spool / 'owner'} " in str(result.problem)
    (spool / "owner").touch()
    (result,) = asynctrack.sync()
    assert (result.state, result.delivered) == ("delivered", 501)
    assert_complete(only_run(tmp_path / "mlruns"))
    assert not spool.exists()


def test_a_spool_that_has_lost_both_copies_of_its_owner_is_named_too(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    (spool / "owner").unlink()
    (spool / "registry").write_bytes(b"")
    (result,) = asynctrack.sync()
    assert result.state == "failed"
    assert "put the file back from a backup" in str(result.problem)


def test_a_spool_both_of_whose_owners_are_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    spool = leave(tmp_path)
    (spool / "owner").write_bytes(b"rubbish")
    (spool / "registry").write_bytes(b"")
    (result,) = asynctrack.sync()
    assert (result.spool, result.state) == (str(spool), "failed")
    assert "both copies of the spool's owner are damaged" in str(result.problem)
    assert f"put the file back from a backup, or delete {spool}" in str(result.problem)


def test_a_folder_in_which_a_spool_is_being_made_is_no_lost_one(tmp_path: Path) -> None:
    """Its owner file comes before its segments."""
    spool = leave(tmp_path)
    for path in [spool / "owner", *spool.glob("*.slots")]:
        path.unlink()
    assert asynctrack.sync() == []


def test_a_target_of_no_known_kind_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    leave(tmp_path)
    with pytest.raises(asynctrack.InvalidInputError, match="mysql"):
        asynctrack.sync(to="mysql://host/mlflow")
    assert asynctrack.sync()[0].state == "delivered"


def test_progress_is_told(tmp_path: Path) -> None:
    """The last call says that all is done."""
    leave(tmp_path)
    told: list[tuple[int, int]] = []
    asynctrack.sync(progress=lambda done, left: told.append((done, left)))
    assert told[-1] == (501, 0)
    assert told[0][1] >= 500


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_where_an_event_loop_is_running(backend: str, tmp_path: Path) -> None:
    """In a notebook there is one always."""
    leave(tmp_path)

    async def cell() -> None:
        assert asynctrack.sync()[0].state == "delivered"

    anyio.run(cell, backend=backend)
    assert_complete(only_run(tmp_path / "mlruns"))


def test_nothing_is_kept_open(tmp_path: Path) -> None:
    """A long-lived program may call it for ever."""
    leave(tmp_path)
    asynctrack.sync()
    leave(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    asynctrack.sync()
    held = leave(tmp_path)
    other = Spool.follow(str(held))
    assert other is not None
    asynctrack.sync()
    other.leave()
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_spools_than_there_are_descriptors_are_delivered_a_few_at_a_time(tmp_path: Path) -> None:
    """Each has some files open while it is delivered."""
    for number in range(40):
        with journal_in(tmp_path / "home", slots=64) as journal:
            run = register(journal, number + 1)
            journal.write_frame(["start", run])
            stream = journal.register_stream(run, "m")
            assert stream is not None
            assert journal.write(1, 0, 1.0, stream)
            journal.write_frame(["end", run, "FINISHED", 2])
            die(journal, tmp_path / "left" / f"spool-{number}")
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 100; {sys.executable} -m asynctrack sync --dir left --to mlruns"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": PACKAGE},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 delivered" in done.stdout
    assert len(read_runs(tmp_path / "mlruns")) == 40
    assert not list((tmp_path / "left").iterdir())


#: a run with some points, in it one with an artifact, both ended
NESTED = """
import asynctrack, sys
with asynctrack.start_run(run_name="outer") as outer:
    for step in range(int(sys.argv[1])):
        outer.log_metric("loss", step, step)
    with asynctrack.start_run(run_name="inner", nested=True) as inner:
        inner.log_text("hello", "a.txt")
"""


def ends(**options: Any) -> list[asynctrack.Shipment]:
    """What `sync` returns, which it does in time."""
    results: list[list[asynctrack.Shipment]] = []
    thread = threading.Thread(target=lambda: results.append(asynctrack.sync(**options)), daemon=True)
    thread.start()
    thread.join(60)
    assert results, "it never returns"
    return results[0]


@pytest.mark.parametrize("points", ["0", "1", "100000", "300000"])
def test_it_ends_and_everything_is_delivered(tmp_path: Path, points: str) -> None:
    """However much stands between a run's end and the end of what it is nested in."""
    spool = leave(tmp_path, NESTED, arguments=[points])
    (result,) = ends(timeout=5.0)
    assert (result.state, result.delivered, result.problem) == ("delivered", int(points) + 1, None)
    assert not spool.exists()


@pytest.mark.parametrize("held", ["outer", "inner"])
@pytest.mark.parametrize("points", ["1", "300000"])
@pytest.mark.parametrize("error", [AuthenticationError("403"), UnavailableError("503"), KeyError("a bug")])
def test_it_ends_whatever_one_run_is_held_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str, points: str, error: Exception
) -> None:
    """Nothing moves any more: that is said, with the reason, and the rest stays."""
    spool = leave(tmp_path, NESTED, arguments=[points])

    class Holding(FileStore):
        async def update_run(self, run_id: str, **given: Any) -> Any:
            if (await self.get_run_info(run_id)).run_name == held:
                raise error
            return await super().update_run(run_id, **given)

    monkeypatch.setattr(module, "open_store", lambda uri, io, **_: Holding(str(tmp_path / "mlruns"), io))
    started = time.monotonic()
    (result,) = ends(timeout=3.0 if points == "300000" else 0.5)  # reading so many is no progress
    if isinstance(error, KeyError):
        assert result.state in ("partly", "delivered"), "after some attempts such an event is refused"
    else:
        assert result.state == "partly"
        assert str(error) in str(result.problem)
    assert time.monotonic() - started < 30
    assert spool.exists()


@pytest.mark.parametrize("watch", ["asynctrack.sync(watch=True)", "asynctrack.cli.main()"])
def test_spools_that_appear_while_it_watches_are_delivered_too(watch: str, tmp_path: Path) -> None:
    """A program that starts later than `sync --watch`, however shortly before the one that is watched ends."""
    code = "import asynctrack, sys\nwith asynctrack.start_run():\n    print('on', flush=True)\n    sys.stdin.read()\n"
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "ASYNCTRACK_MODE": "offline"}

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        return process

    first = start()
    watching = subprocess.Popen(
        [sys.executable, "-c", f"import asynctrack, asynctrack.cli\n{watch}", "sync", "--watch"],
        cwd=tmp_path, env={**environment, "ASYNCTRACK_MODE": ""}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(read_runs(tmp_path / "mlruns")) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    second = start()
    first.communicate("", timeout=30)
    while len(read_runs(tmp_path / "mlruns")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert watching.poll() is None
    second.communicate("", timeout=30)
    assert watching.wait(60) == 0
    assert not list(find_spools(str(tmp_path / ".asynctrack")))
    assert [run.status for run in read_runs(tmp_path / "mlruns").values()] == ["FINISHED", "FINISHED"]


def test_a_watch_keeps_nothing_of_a_spool_but_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run for weeks beside thousands of short programs; nor of a store for which nothing is left to do."""
    seen: dict[str, weakref.ref[object]] = {}
    add = Pump.add

    def noted(pump: Pump, spool: Spool, *, followed: bool = False) -> Source | None:
        source = add(pump, spool, followed=followed)
        if source is not None and not followed:
            seen[f"source of {spool.path}"] = weakref.ref(source)
            if pump.store.uri.endswith("other"):
                seen["pump"] = weakref.ref(pump)
        return source

    monkeypatch.setattr(Pump, "add", noted)
    left = [leave(tmp_path) for _ in range(3)]
    left.append(leave(tmp_path, MLFLOW_TRACKING_URI=str(tmp_path / "other")))
    code = "import asynctrack, sys\nwith asynctrack.start_run():\n    print('on', flush=True)\n    sys.stdin.read()\n"
    living = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, stderr=subprocess.DEVNULL,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": PACKAGE, "ASYNCTRACK_MODE": "offline"},
    )  # fmt: skip
    assert living.stdout is not None
    assert living.stdout.readline() == "on\n"
    deadline, kept = time.monotonic() + 60, ["not looked", "not at all"]

    def progress(done: int, _left: int) -> None:
        if living.poll() is None and (done >= 4 * 501 or time.monotonic() > deadline):
            gc.collect()
            kept[:] = [what for what, reference in seen.items() if reference() is not None]
            if len(kept) < 2 or time.monotonic() > deadline:
                living.communicate("", timeout=30)

    results = asynctrack.sync(watch=True, progress=progress)
    assert len(kept) < 2, "of the last one something is on the stack"
    assert "pump" not in kept
    assert len(seen) == 5
    delivered = {result.spool: (result.state, result.delivered) for result in results}
    assert [delivered[str(path)] for path in left] == [("delivered", 501)] * 4
    assert len(results) == 5


def test_what_a_program_killed_while_it_deleted_its_spool_has_left_is_cleared_away(tmp_path: Path) -> None:
    emptied, refused, going = leave(tmp_path), leave(tmp_path), leave(tmp_path)
    for spool in (emptied, refused, going):
        for path in spool.iterdir():
            if path.name != "owner":
                path.unlink()
    (refused / "rejected.jsonl").write_text("{}\n")
    going = going.rename(f"{going}.deleted")
    living = Spool.create(str(tmp_path / ".asynctrack"), "file:///x")
    assert [shipment.state for shipment in asynctrack.sync()] == ["busy"]
    assert not emptied.exists()
    assert not going.exists()
    assert (refused / "owner").exists()
    assert (Path(str(living.path)) / "owner").exists()
    living.remove()


def test_a_deletion_that_was_interrupted_anywhere_is_finished_by_the_next_sync(tmp_path: Path) -> None:
    """By the death of a program. What is left says nothing about the run, and goes."""
    leaves = "import asynctrack\nwith asynctrack.start_run() as run:\n    run.log_metric('a', 1)"
    dies = (
        "import os, sys, asynctrack\nfrom asynctrack.journal.removal import SpoolRemoval as Removal\n"
        "really, left = Removal._unlink, list(range(int(sys.argv[1])))\n"
        "Removal._unlink = lambda self, name: (left or os._exit(9), left.pop(), really(self, name))\n"
        "asynctrack.sync()\n"
    )
    count, died = 0, 9
    while died:
        home = tmp_path / str(count)
        home.mkdir()
        leave(home, leaves)
        died = subprocess.run([sys.executable, "-c", dies, str(count)], cwd=home, timeout=60, check=False).returncode
        asynctrack.sync(spool_dir=home / ".asynctrack")
        assert not list(find_spools(str(home / ".asynctrack"))), count
        run = only_run(home / "mlruns")
        assert (run.status, len(run.metrics["a"])) == ("FINISHED", 1)
        count += 1
    assert count > 5

"""Ranks that share one run: real processes, as a launcher starts them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from asynctrack.current import store_for
from asynctrack.reading.looking import Look, look
from asynctrack.reading.runs import find_runs
from asynctrack.stores.io import drive
from tests.fault.programs import LIMIT, Lab, file_lab, finish, recover, spools, start
from tests.mlruns import StoredRun, only_run, read_runs

#: logs 500 points, says so, waits for a line and ends
RANK = """
import asynctrack, os, sys
rank = int(os.environ["RANK"])
with asynctrack.start_run(shared=True, per_rank=os.environ.get("PER_RANK"), run_name="together") as run:
    for step in range(500):
        run.log_metric("loss", rank + step / 512, step)
    run.log_param("ranks", os.environ["WORLD_SIZE"])
    run.flush()
    print("logged", flush=True)
    if sys.stdin.readline() == "raise\\n":
        raise ValueError("as told")
"""


class Ranks:
    """Some ranks of one job."""

    def __init__(self, folder: Path, count: int = 4, job: str = "job", **environment: str) -> None:
        self.folder = folder
        common = {"MLFLOW_TRACKING_URI": "mlruns", "WORLD_SIZE": str(count), "ASYNCTRACK_JOB": job, **environment}
        self.programs = [start(RANK, folder, RANK=str(rank), **common) for rank in range(count)]

    def wait(self) -> Ranks:
        """Until each has logged."""
        for program in self.programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "logged\n"
        return self

    def end(self, rank: int, line: str = "end\n") -> subprocess.CompletedProcess[str]:
        program = self.programs[rank]
        assert program.stdin is not None
        program.stdin.write(line)
        program.stdin.flush()
        return finish(program)

    def run(self) -> StoredRun:
        return only_run(self.folder / "mlruns")


def steps_by_rank(run: StoredRun) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for _, value, step in run.metrics["loss"]:
        found.setdefault(int(value), []).append(step)
    return {rank: sorted(steps) for rank, steps in sorted(found.items())}


def every_step_of(ranks: int) -> dict[int, list[int]]:
    return {rank: list(range(500)) for rank in range(ranks)}


def test_the_run_ends_with_the_last_rank(tmp_path: Path) -> None:
    """Whichever that is: the rank that has created it ends first."""
    ranks = Ranks(tmp_path).wait()
    for rank in range(4):
        assert ranks.run().status == "RUNNING"
        result = ranks.end(rank)
        assert (result.returncode, result.stderr) == (0, "")
    run = ranks.run()
    assert (run.status, run.params, run.meta["run_name"]) == ("FINISHED", {"ranks": "4"}, "together")
    assert steps_by_rank(run) == every_step_of(4)
    ends = [int(run.tags[f"mlflow.asynctrack.rank.{rank}"].split(" ")[4]) for rank in range(4)]
    assert run.meta["end_time"] == ends[3] == max(ends)
    assert not spools(tmp_path)


@pytest.mark.parametrize(
    ("how", "expected"), [("raise", "FAILED"), ("kill", "KILLED"), ("terminate", "KILLED")], ids=str
)
def test_the_status_is_that_of_the_rank_that_ended_worst(how: str, expected: str, tmp_path: Path) -> None:
    """A killed rank's spool is delivered, and its end noted, by one that ends later."""
    ranks = Ranks(tmp_path, 3).wait()
    if how == "raise":
        assert ranks.end(1, "raise\n").returncode == 1
    else:
        ranks.programs[1].send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        finish(ranks.programs[1])
    assert ranks.run().status == "RUNNING"
    for rank in (0, 2):
        assert ranks.end(rank).returncode == 0
    run = ranks.run()
    assert run.status == expected
    assert steps_by_rank(run) == every_step_of(3)
    assert not spools(tmp_path)


def test_ranks_that_are_started_again_take_up_the_same_run(tmp_path: Path) -> None:
    first = Ranks(tmp_path, 2).wait()
    for program in first.programs:
        program.kill()
        finish(program)
    again = Ranks(tmp_path, 2, TORCHELASTIC_RESTART_COUNT="1").wait()
    assert again.run().status == "RUNNING"
    for rank in range(2):
        assert again.end(rank).returncode == 0
    assert again.run().status == "FINISHED"
    assert not spools(tmp_path)


def test_a_job_that_is_begun_again_by_another_launcher_takes_up_the_same_run(tmp_path: Path) -> None:
    """The last one had started its ranks again; this one counts from 0, as a launcher does."""
    first = Ranks(tmp_path, 2, TORCHELASTIC_RESTART_COUNT="1").wait()
    for rank in range(2):
        assert first.end(rank).returncode == 0
    assert first.run().status == "FINISHED"
    again = Ranks(tmp_path, 2).wait()
    assert again.run().status == "RUNNING"
    assert again.end(1, "raise\n").returncode == 1
    assert again.run().status == "RUNNING", "the other rank goes on"
    assert again.end(0).returncode == 0
    run = again.run()
    assert run.status == "FAILED"
    assert run.meta["end_time"] == max(int(run.tags[f"mlflow.asynctrack.rank.{rank}"].split(" ")[4]) for rank in (0, 1))


def test_a_job_that_is_begun_again_with_fewer_ranks_waits_for_no_other(tmp_path: Path) -> None:
    """The last one had started its ranks again; this one counts from 0, as a launcher does."""
    first = Ranks(tmp_path, 2, TORCHELASTIC_RESTART_COUNT="1").wait()
    for rank in range(2):
        assert first.end(rank).returncode == 0
    code = RANK.replace("    run.log_param", "    #")
    alone = start(code, tmp_path, RANK="0", WORLD_SIZE="1", ASYNCTRACK_JOB="job", MLFLOW_TRACKING_URI="mlruns")
    assert finish_with(alone, "end\n").returncode == 0
    assert first.run().status == "FINISHED"


def test_two_jobs_have_two_runs(tmp_path: Path) -> None:
    for job in ("one", "two"):
        ranks = Ranks(tmp_path, 1, job).wait()
        assert ranks.end(0).returncode == 0
    assert len(read_runs(tmp_path / "mlruns")) == 2


def test_metrics_of_each_rank_have_keys_of_their_own_on_request(tmp_path: Path) -> None:
    """So that identical points of several ranks stay apart."""
    ranks = Ranks(tmp_path, 2, PER_RANK="prefix").wait()
    for rank in range(2):
        assert ranks.end(rank).returncode == 0
    metrics = ranks.run().metrics
    assert {key: len(points) for key, points in metrics.items()} == {"rank/0/loss": 500, "rank/1/loss": 500}


WORKER = """
import asynctrack, multiprocessing
def work(run):
    run.log_metric("loss", 1.0)
    run.flush()
if __name__ == "__main__":
    with asynctrack.start_run(shared=True, per_rank="prefix") as run:
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(run,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
"""


def test_a_worker_of_a_rank_logs_as_that_rank(tmp_path: Path) -> None:
    """A pickled run keeps the prefix of its rank."""
    (tmp_path / "program.py").write_text(WORKER)
    environment = {"MLFLOW_TRACKING_URI": "mlruns", "ASYNCTRACK_JOB": "job", "RANK": "0", "WORLD_SIZE": "1"}
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'program.py']))"
    result = finish(start(code, tmp_path, **environment))
    assert (result.returncode, result.stderr) == (0, "")
    run = only_run(tmp_path / "mlruns")
    assert (run.status, list(run.metrics)) == ("FINISHED", ["rank/0/loss"])


def test_ranks_that_begin_before_the_first_wait_for_nothing(tmp_path: Path) -> None:
    """What they log waits in their spools until the run is there."""
    environment = {"MLFLOW_TRACKING_URI": "mlruns", "WORLD_SIZE": "2", "ASYNCTRACK_JOB": "job"}
    code = RANK.replace("    run.flush()\n", "")
    late = start(code, tmp_path, RANK="1", **environment)
    assert late.stdout is not None
    assert late.stdout.readline() == "logged\n"
    assert not read_runs(tmp_path / "mlruns")
    first = start(code, tmp_path, RANK="0", **environment)
    for program in (late, first):
        result = finish_with(program, "end\n")
        assert (result.returncode, result.stderr) == (0, "")
    run = only_run(tmp_path / "mlruns")
    assert run.status == "FINISHED"
    assert steps_by_rank(run) == every_step_of(2)


def finish_with(program: subprocess.Popen[str], line: str) -> subprocess.CompletedProcess[str]:
    output, errors = program.communicate(line, timeout=LIMIT)
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def test_ranks_that_all_die_are_ended_by_the_next_program(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2).wait()
    for program in ranks.programs:
        program.kill()
        finish(program)
    recover(tmp_path, MLFLOW_TRACKING_URI="mlruns")
    (run,) = [run for run in read_runs(tmp_path / "mlruns").values() if run.tags["mlflow.runName"] == "together"]
    assert run.status == "KILLED"
    assert steps_by_rank(run) == every_step_of(2)


#: offline; rank 0 may be missing
LEFT = """
import asynctrack, os
rank = os.environ["RANK"]
with asynctrack.start_run(shared=True, run_name="together", tags={"team": "cv", "from": rank}) as run:
    for step in range(50):
        run.log_metric("loss", int(rank) + step / 512, step)
    run.set_tag("by" + rank, "hand")
    if rank == os.environ.get("RAISES"):
        raise ValueError("as told")
"""


def leave_ranks(lab: Lab, *ranks: int, **environment: str) -> None:
    """Ranks of a job of three, whose spools are left."""
    common = {"WORLD_SIZE": "3", "ASYNCTRACK_JOB": lab.folder.name, "ASYNCTRACK_MODE": "offline", **environment}
    for program in [lab.start(LEFT, RANK=str(rank), **common) for rank in ranks]:
        finish(program)


def sync(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a person does about it."""
    command = f"import sys; from asynctrack.cli import main; sys.argv = {['asynctrack', 'sync', *arguments]!r}; main()"
    return finish(start(command, lab.folder, **lab.environment))


def points_by_rank(run: StoredRun) -> dict[int, int]:
    return {rank: len(found) for rank, found in steps_by_rank(run).items()}


def test_a_run_whose_first_rank_is_gone_for_good_is_created_by_order(lab: Lab) -> None:
    """The others describe the run as the first would have done, and that one counts as killed. Should it only have been
    late, what it says counts."""
    leave_ranks(lab, 1, 2)
    assert sync(lab, "--create-missing").returncode == 0
    run = lab.only_run()
    assert (run.status, points_by_rank(run)) == ("KILLED", {1: 50, 2: 50})
    assert (run.tags["mlflow.runName"], run.tags["team"], run.tags["from"] in "12") == ("together", "cv", True)
    assert (run.tags["by1"], run.tags["by2"]) == ("hand", "hand")
    standings = {rank: run.tags[f"mlflow.asynctrack.rank.{rank}"].split(" ") for rank in range(3)}
    assert [standing[0] for standing in standings.values()] == ["KILLED", "FINISHED", "FINISHED"]
    assert run.meta["end_time"] == max(int(standing[4]) for standing in standings.values())
    assert not lab.spools()
    assert sync(lab, "--create-missing").stdout == "Nothing waits: there are no spools here.\n"
    leave_ranks(lab, 0)  # it was only late
    assert sync(lab).returncode == 0
    run = lab.only_run()
    assert (run.status, points_by_rank(run)) == ("FINISHED", {0: 50, 1: 50, 2: 50})


def test_a_rank_that_has_failed_counts_for_more_than_one_that_never_began(tmp_path: Path) -> None:
    lab = file_lab(tmp_path)
    leave_ranks(lab, 1, 2, RAISES="2")
    left = sync(lab, "--timeout", "0.2")
    assert (left.returncode, lab.runs()) == (1, {}), "nothing tells it from one that begins late"
    assert left.stdout.count("If it is gone for good, `asynctrack sync --create-missing` creates the run") == 2
    assert sync(lab, "--create-missing").returncode == 0
    assert lab.only_run().status == "FAILED"


def test_a_first_rank_that_is_only_to_be_delivered_is_not_missing(tmp_path: Path) -> None:
    lab = file_lab(tmp_path)
    leave_ranks(lab, 1, 0, 2)
    assert sync(lab, "--create-missing").returncode == 0
    run = lab.only_run()
    assert (run.status, run.tags["from"], points_by_rank(run)) == ("FINISHED", "0", {0: 50, 1: 50, 2: 50})


def test_the_other_ranks_may_be_alive_when_the_order_comes(tmp_path: Path) -> None:
    """They deliver by themselves what has waited; the first may begin after all, and describes the run then."""
    code = RANK.replace("    run.flush()\n", "").replace('run_name="together"', 'run_name=f"by {rank}"')
    where = {"MLFLOW_TRACKING_URI": "mlruns", "WORLD_SIZE": "2", "ASYNCTRACK_JOB": "job"}
    ranks = [start(code, tmp_path, RANK="1", **where)]
    assert ranks[0].stdout is not None
    assert ranks[0].stdout.readline() == "logged\n"
    assert sync(file_lab(tmp_path), "--create-missing").returncode == 0
    run = only_run(tmp_path / "mlruns")
    assert (run.status, run.meta["run_name"]) == ("RUNNING", "by 1")
    ranks.append(start(code, tmp_path, RANK="0", **where))
    for program in ranks:
        assert finish_with(program, "end\n").returncode == 0
    run = only_run(tmp_path / "mlruns")
    assert (run.status, run.meta["run_name"], steps_by_rank(run)) == ("FINISHED", "by 0", every_step_of(2))


#: its worker's spool is left, and its own is lost with the machine that it was on, say
WORKER_LEFT = """
import asynctrack, os, shutil
run = asynctrack.start_run(run_name="parent")
if os.fork() == 0:
    run.log_metric("loss", 1.0)
    os._exit(0)
os.wait()
shutil.rmtree(run._state.engine.journal.spool.path)
os._exit(0)
"""


@pytest.mark.parametrize("lab", ["server"], indirect=True)
def test_a_worker_whose_program_is_lost_with_its_spool_is_delivered_by_order(lab: Lab) -> None:
    """To a server, which gives runs their ids: a folder, or a database, takes the run as the worker knows it."""
    lab.run(WORKER_LEFT, ASYNCTRACK_MODE="offline")
    assert sync(lab, "--timeout", "0.2").returncode == 1
    assert sync(lab, "--create-missing").returncode == 0
    run = lab.only_run()
    assert (run.status, len(run.metrics["loss"]), run.tags["mlflow.runName"]) == ("KILLED", 1, "parent")
    assert run.meta["end_time"] >= run.meta["start_time"]
    assert not lab.spools()


BY_ID = """
import asynctrack, os
with asynctrack.start_run(shared=True) as run:
    run.flush()
    print(run.run_id, flush=True)
    input()
"""


def test_processes_without_a_launcher_share_the_run_that_is_named(tmp_path: Path) -> None:
    """How many there are nobody knows: the run ends with the last that has begun."""
    first = start(BY_ID, tmp_path, MLFLOW_TRACKING_URI="mlruns")
    assert first.stdout is not None
    run_id = first.stdout.readline().strip()
    code = BY_ID.replace("shared=True", f"{run_id!r}, shared=True")
    second = start(code, tmp_path, MLFLOW_TRACKING_URI="mlruns")
    assert second.stdout is not None
    assert second.stdout.readline().strip() == run_id
    assert finish_with(first, "\n").returncode == 0
    assert only_run(tmp_path / "mlruns").status == "RUNNING"
    assert finish_with(second, "\n").returncode == 0
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


#: logs 100 points, says so, and ends after a line
READ = """
import asynctrack, os, sys
asynctrack.configure(flush_interval=1000)
with asynctrack.start_run(shared=True, run_name="together") as run:
    for step in range(100):
        run.log_metric("loss", float(os.environ["RANK"]), step)
    if os.environ.get("FLUSH"):
        run.flush()
    print(run.run_id, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_ranks_are_read_as_one_run(tmp_path: Path, mode: str) -> None:
    """Some of it is in the store, or none; the rest waits in the spools of three processes."""
    where = {"MLFLOW_TRACKING_URI": "mlruns", "WORLD_SIZE": "3", "ASYNCTRACK_JOB": "job", "ASYNCTRACK_MODE": mode}
    flush = {"FLUSH": "1"} if mode == "online" else {}
    ranks = [start(READ, tmp_path, RANK=str(rank), **where, **({} if rank else flush)) for rank in range(3)]
    (run_id,) = {rank.stdout.readline().strip() for rank in ranks if rank.stdout is not None}
    store = store_for(str(tmp_path / "mlruns"))

    def check(stored: int) -> Look:
        found = drive(look(store, run_id))
        points = sorted((value, step) for step, _, value in found["loss"].columns.rows())
        assert points == [(float(rank), step) for rank in range(3) for step in range(100)]
        assert found["loss"].stored == stored
        return found

    found = check(100 if flush else 0)
    assert (found.run.info.status, found.run.info.run_name, found.ended) == ("RUNNING", "together", False)
    (listed,) = drive(find_runs(store))
    assert (listed.run.info.run_id, listed.alive, listed.stored) == (run_id, True, bool(flush))
    finish(ranks[1])
    assert not check(200 if flush else 0).ended, "the others go on"
    for rank in (ranks[0], ranks[2]):
        finish(rank)
    recover(tmp_path)
    found = check(300)
    assert (found.run.info.status, found.ended) == ("FINISHED", True)

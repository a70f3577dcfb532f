"""What programs do to the folders that their spools are in: read them, copy them, leave them, delete them."""

from __future__ import annotations

import json
import os
import shutil
import textwrap

import pytest

from tests.fault.programs import Lab, finish, line_for, steps
from tests.fault.shipping import start_command

SHIPPERS = pytest.mark.parametrize("shipper", ["thread", "process"])
RANGE = """
def log_range(run, start, stop):
    for step in range(start, stop):
        run.log_metric("loss", step * 0.25, step)
"""


@SHIPPERS
def test_a_program_that_reads_its_own_working_directory_stays_alive(shipper: str, lab: Lab) -> None:
    """A snapshot of the code, a checksum of everything: the spool's lock is not lost with the file that is closed."""
    program = """
        import shutil
        with asynctrack.start_run() as run:
            run.flush()
            log_range(run, 0, 3000)
            shutil.copytree(".asynctrack", "backup")
            print("copied", flush=True)
            sys.stdin.readline()
            log_range(run, 3000, 4000)
    """
    process = lab.start(RANGE + textwrap.dedent(program), ASYNCTRACK_SHIPPER=shipper, ASYNCTRACK_FLUSH_INTERVAL="2")
    line_for(process)
    assert "delivering" not in lab.recover().stderr
    output, errors = process.communicate("go on\n", timeout=60)
    assert (process.returncode, errors) == (0, ""), output + errors
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(4000)), "FINISHED")
    assert lab.spools() == []


def test_a_copied_spool_is_nobody_s_orphan(lab: Lab) -> None:
    """`cp -r experiment another` beside a running program: a program in the copy leaves the copied spool alone, and so
    does `sync` until it is told that the owner is gone."""
    process = lab.start(
        """
        with asynctrack.start_run() as run:
            log_some(run, 3000)
            print("logged", flush=True)
            sys.stdin.readline()
        """,
        ASYNCTRACK_FLUSH_INTERVAL="2",
    )
    line_for(process)
    other = lab.folder / "copy"
    shutil.copytree(lab.folder / ".asynctrack", other / ".asynctrack")
    environment = lab.environment | {"ASYNCTRACK_SPOOL_DIR": str(other / ".asynctrack")}
    if lab.environment["MLFLOW_TRACKING_URI"] == "mlruns":
        environment["MLFLOW_TRACKING_URI"] = str(lab.folder / "mlruns")
    beside = Lab(other, environment, lab.runs, lab.folder, lab.out_of_order)
    assert "delivering" not in beside.recover().stderr
    refused = finish(start_command(other, "sync", **environment))
    assert refused.returncode != 0
    assert "--owner-gone" in refused.stdout + refused.stderr
    assert finish(process, limit=60).returncode == 0
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(3000)), "FINISHED")
    delivered = finish(start_command(other, "sync", "--owner-gone", **environment))
    assert delivered.returncode == 0, delivered.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(3000)), "FINISHED")


def test_a_run_that_was_taken_up_elsewhere_and_ended_keeps_its_status(lab: Lab) -> None:
    """Killed on one node, resumed on another with a spool folder of its own, finished; then the first node's spool is
    delivered: its events arrive, and nobody says KILLED."""
    first = lab.run(
        """
        run = asynctrack.start_run()
        run.flush()
        print(run.run_id, flush=True)
        log_some(run, 500)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        ASYNCTRACK_SPOOL_DIR="first", ASYNCTRACK_FLUSH_INTERVAL="30",
    )  # fmt: skip
    resumed = f"with asynctrack.start_run(run_id={first.stdout.strip()!r}) as run:\n    log_some(run, 10, 'second')"
    second = lab.run(resumed, ASYNCTRACK_SPOOL_DIR="second")
    assert second.returncode == 0, second.stderr
    sync = finish(start_command(lab.folder, "sync", "--dir", "first", **lab.environment))
    assert sync.returncode == 0, sync.stderr
    run = lab.only_run()
    assert (steps(run), steps(run, "second"), run.status) == (list(range(500)), list(range(10)), "FINISHED")


def test_sync_leaves_a_program_alone_whose_shipper_is_just_starting(lab: Lab) -> None:
    """Nobody delivers yet, and somebody is about to."""
    process = lab.start(
        """
        from asynctrack.journal.spool import Spool
        from asynctrack.stores.uri import resolve_store_uri
        store = resolve_store_uri(os.environ["MLFLOW_TRACKING_URI"])
        spool = Spool.create(os.path.abspath(".asynctrack"), store, consumed=False, ships=True)
        print("made", flush=True)
        sys.stdin.readline()
        """
    )
    line_for(process)
    result = finish(start_command(lab.folder, "sync", "--json", **lab.environment))
    assert [entry["state"] for entry in json.loads(result.stdout)] == ["busy"], result.stderr
    process.communicate("end\n", timeout=60)


def test_a_child_that_logs_elsewhere_leaves_its_events_where_they_are_found(lab: Lab) -> None:
    """The program has changed its directory since: a killed child's spool lies beside its parent's."""
    program = """
        run = asynctrack.start_run()
        run.flush()
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        child = os.fork()
        if child == 0:
            log_some(run, 500)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    """
    result = lab.run(program, ASYNCTRACK_FLUSH_INTERVAL="30")
    assert result.returncode == 0, result.stderr
    lab.recover()
    assert steps(lab.only_run()) == list(range(500))
    assert lab.spools() == []


@SHIPPERS
def test_a_program_that_gives_up_its_rights(shipper: str, lab: Lab) -> None:
    """A service that becomes another user: what it cannot reach any more is left, truthfully, to the next program."""
    if os.geteuid():
        pytest.skip("needs to be root")
    lab.folder.chmod(0o755)
    program = """
        import shlex, asynctrack.engine.spools  # the interpreter may lie where only root can read it
        run = asynctrack.start_run()
        run.flush()
        os.setgid(65534); os.setuid(65534)
        for number in range(4):
            log_some(run, 10_000, f"loss{number}")
    """
    result = lab.run(program, ASYNCTRACK_SHIPPER=shipper, ASYNCTRACK_CLOSE_TIMEOUT="3")
    assert result.returncode == 0, result.stderr
    assert "deleted" not in result.stderr
    assert len(result.stderr.splitlines()) < 10, result.stderr
    lab.recover()
    for number in range(4):
        stored = steps(lab.only_run(), f"loss{number}")
        assert stored == list(range(len(stored)))


def test_a_working_directory_that_is_gone(lab: Lab) -> None:
    """The spool goes where it still can, for a forked child too; nobody sees a traceback."""
    program = """
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(os.getcwd())
        with asynctrack.start_run() as run:
            log_some(run, 100)
            child = os.fork()
            if child == 0:
                log_some(run, 100, "child")
                asynctrack.shutdown()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    uri = lab.environment["MLFLOW_TRACKING_URI"]
    absolute = uri if "://" in uri else str(lab.folder / uri)
    result = lab.run(program, MLFLOW_TRACKING_URI=absolute, XDG_STATE_HOME=str(lab.folder / "state"))
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(lab.only_run()) == steps(lab.only_run(), "child") == list(range(100))

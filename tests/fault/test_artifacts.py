"""Processes killed while they log artifacts: what was accepted is stored, whole, by the next program, and nothing is
left lying about."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.fault import programs
from tests.fault.programs import ON_FILES, Lab
from tests.fault.test_fork import FORK
from tests.fault.test_progress import on_a_terminal

#: kills this very process in the middle of something of asynctrack's
KILLING = """
from asynctrack.artifacts import files, snapshot
from asynctrack.delivery.source import Source
from asynctrack.runs.state import RunState
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
copy_piece = files.copy_piece
def copy_some(source, target):
    if threading.current_thread() is threading.main_thread():
        return copy_piece(source, target)
    os.write(target, os.read(source, 1000))
    die()
"""
#: where, and how many of the two artifacts below have been accepted by then
MOMENTS = {
    "while a snapshot is being taken": (
        "snapshot._copy = lambda source, target, durable: open(target, 'wb') and die()",
        1,
    ),
    "between snapshot and frame": ("RunState.artifact = die", 1),
    "in the middle of an upload": ("files.copy_piece = copy_some", 2),
    "between a whole upload and its name": ("files.StagedFile.publish = die", 2),
    "between upload and acknowledgement": ("Source.done = die", 2),
    "between acknowledgement and tidying up": ("snapshot.remove_snapshot = die", 2),
}


def until_delivered(lab: Lab) -> None:
    """Somebody is delivering."""
    deadline = time.monotonic() + programs.LIMIT
    while lab.spools():
        assert time.monotonic() < deadline, lab.spools()
        time.sleep(0.02)


@ON_FILES
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(moment: str, lab: Lab) -> None:
    """At every step on the way: the next program stores what was accepted, and nothing else is anywhere."""
    patch, accepted = MOMENTS[moment]
    program = f"""
        {KILLING.replace(chr(10), chr(10) + "        ")}
        open("file", "wb").write(bytes(300_000))
        run = asynctrack.start_run()
        run.log_text("first", "first.txt").wait(30)
        {patch}
        run.log_artifact("file", "folder")
        time.sleep(60)
    """
    result = lab.run(program)
    assert result.returncode == -signal.SIGKILL, result.stderr
    recovered = lab.recover()
    assert "refused" not in recovered.stderr
    second = {"file": bytes(300_000)} if accepted == 2 else {}
    assert lab.artifacts() == {"first.txt": b"first", **second}
    assert lab.only_run().status == "KILLED"
    assert lab.spools() == []


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_killed_at_random_moments(shipper: str, lab: Lab) -> None:
    """While it logs as fast as it can: each file whose call had returned is there, whole, and none is torn."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    program = """
        asynctrack.configure(flush_interval=0.01)
        returned = counted()
        run = asynctrack.start_run()
        run.log_text("ready", "ready.txt").wait(30)
        print("ready", flush=True)
        number = 0
        while True:
            run.log_text(f"{number}\\n" * 20_000, f"{number}.txt")
            number += 1
            returned[0] = number
    """
    for _ in range(4):
        before = set(lab.artifacts())
        process = lab.start(
            program.replace("{number}.txt", f"{moments.random()}-{{number}}.txt"), ASYNCTRACK_SHIPPER=shipper
        )
        programs.line_for(process)
        time.sleep(moments.uniform(0.0, 0.5))  # the random moment, not a wait for something
        process.kill()
        process.communicate()
        count = lab.acknowledged()
        if shipper == "process":
            until_delivered(lab)
        else:
            lab.recover()
        assert lab.spools() == [], f"seed {seed}"
        new = {name: data for name, data in lab.artifacts().items() if name not in before and name != "ready.txt"}
        for name, data in new.items():
            number = name.partition("-")[2].removesuffix(".txt")
            assert data == f"{number}\n".encode() * 20_000, f"seed {seed}: {name}"
        assert len(new) in (count, count + 1), f"seed {seed}: {len(new)} stored, {count} returned"
    assert {run.status for run in lab.runs().values()} == {"KILLED"}


def test_a_torn_cursor_refuses_nothing_that_is_stored(lab: Lab) -> None:
    """Killed while it wrote down how far it is: then the snapshots that are gone are those that are stored."""
    program = """
        run = asynctrack.start_run()
        for number in range(5):
            run.log_text(str(number), f"{number}.txt")
        run.log_text("waited", "waited.txt").wait(30)
        path = run._state.engine.journal.spool.path
        while os.listdir(f"{path}/artifacts"): time.sleep(0.01)
        with open(f"{path}/cursor", "ab") as file:
            file.write(b"torn")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = lab.run(program)
    assert result.returncode == -signal.SIGKILL, result.stderr
    recovered = lab.recover()
    assert "refused" not in recovered.stderr, recovered.stderr
    assert lab.artifacts() == {
        "waited.txt": b"waited",
        **{f"{number}.txt": str(number).encode() for number in range(5)},
    }
    assert lab.spools() == []


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_forked_child_logs_artifacts_too(ending: str, lab: Lab) -> None:
    """To the parent's run, through a spool of its own, which is gone in the end however the child died."""
    program = f"""
        with asynctrack.start_run() as run:
            run.log_text("parent", "parent.txt")
            child = os.fork()
            if child == 0:
                receipt = run.log_text("child", "child.txt")
                if {"_exit" in ending}:
                    receipt.wait()
                {ending}
            os.waitpid(child, 0)
            run.log_text("after", "after.txt")
    """
    result = lab.run(program, **FORK)
    assert result.returncode == 0, result.stderr
    lab.recover()
    assert lab.artifacts() == {f"{name}.txt": name.encode() for name in ("parent", "child", "after")}
    assert lab.only_run().status == "FINISHED"
    assert lab.spools() == []


def test_what_nobody_logged_is_not_kept_with_what_was_refused(lab: Lab) -> None:
    """The snapshot of a refused artifact stays; the one that a kill has left half of goes."""
    program = f"""
        {KILLING.replace(chr(10), chr(10) + "        ")}
        run = asynctrack.start_run()
        run.log_text("a file", "a").wait()
        try:
            run.log_text("below a file", "a/b").wait()
        except asynctrack.DeliveryError:
            pass
        RunState.artifact = die
        run.log_text("half", "half")
    """
    assert lab.run(program).returncode == -signal.SIGKILL
    lab.recover()
    (spool,) = lab.spools()
    (kept,) = (spool / "artifacts").iterdir()
    assert kept.read_text() == "below a file"
    assert sorted(path.name for path in spool.iterdir()) == ["artifacts", "owner", "rejected.jsonl"]


def test_an_artifact_is_stored_at_the_interpreters_end(lab: Lab) -> None:
    """Of a run that nobody ended, on every Python version, where no thread can be started any more."""
    result = lab.run("""
        open("file", "wb").write(bytes(300_000))
        run = asynctrack.start_run()
        run.log_artifact("file")
        run.log_text("text", "text")
    """)
    assert (result.returncode, result.stderr) == (0, "")
    assert lab.artifacts() == {"file": bytes(300_000), "text": b"text"}
    assert (lab.only_run().status, lab.spools()) == ("FINISHED", [])


def test_waiting_for_artifacts_shows_how_much_is_left(tmp_path: Path) -> None:
    """In a unit that says something of files."""
    program = """
import asynctrack, subprocess
open("disk", "w").close()
asynctrack.set_tracking_uri("disk/mlruns")
mending = subprocess.Popen(["sh", "-c", "sleep 3; rm disk"])
run = asynctrack.start_run()
run.log_text("x" * 5_000_000, "text").wait()
"""
    shown = on_a_terminal(program, tmp_path)
    assert "5.0 MB of artifacts" in shown
    assert "Traceback" not in shown

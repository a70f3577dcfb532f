"""Disks that are full, broken, read-only or gone: training goes on, the user is told, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.fault.failing import EVENTS, KINDS
from tests.fault.programs import ON_FILES, PACKAGE, Lab, file_lab, steps
from tests.mlruns import StoredRun, read_runs


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_call_fails_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    """The n-th call of each kind fails, for n = 1, 2, 3 … until none does (from the second on a random choice of them;
    `python -m tests.fault.failing` does all): the program goes on to its natural end, and either it or the next one
    delivers every event, once. A run that could not be started has said so."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    swept = subprocess.run(
        [sys.executable, "-m", "tests.fault.failing", str(tmp_path), kind, "--some", str(seed)],
        env={**os.environ, "PYTHONPATH": f"{PACKAGE}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    lines = [json.loads(line) for line in swept.stdout.splitlines()]
    assert any(line["hit"] for line in lines), "nothing failed"
    assert not lines[-1]["hit"]
    for line in lines:
        check_program(Path(line["folder"]), line)


def check_program(folder: Path, line: dict[str, Any]) -> None:
    told = (folder / "stderr").read_text(), (folder / "stderr of the next").read_text()
    assert (line["code"], line["next"]) == (0, 0), (line, told)
    assert "Traceback" not in told[0] + told[1], (line, told)
    # The failure, that it is over, and what the close said: whatever fails, the log is not flooded.
    assert len(told[0].splitlines()) <= 5, (line, told)
    runs = {run.tags["mlflow.runName"]: run for run in read_runs(folder / "mlruns").values()}
    for name in ("first", "second"):
        if not (folder / f"{name} was refused").exists():
            check_run(runs[name], (line, told))
    home = folder / ".asynctrack"
    left = [path for path in home.iterdir() if (path / "owner").exists()] if home.exists() else []
    assert left == [], (line, told)


def check_run(run: StoredRun, about: object) -> None:
    points = sorted((step, value, name) for name, lines in run.metrics.items() for _, value, step in lines)
    assert points == [(step, step * 0.25, f"m{step % 3}") for step in range(EVENTS)], about
    assert run.params == {f"p{step}": str(step) for step in range(0, EVENTS, 40)}, about
    assert run.tags["last"] == str((EVENTS - 1) // 40 * 40), about
    assert run.status == "FINISHED", about


SLOWLY = """
asynctrack.configure(flush_interval=0.05, segment_bytes=65536)
def log_slowly(run, start, stop):
    for step in range(start, stop):
        run.log_metric("loss", step * 0.25, step)
        if step % 100 == 0:
            time.sleep(0.001)
"""


def test_a_full_disk_drops_new_events_and_says_so(lab: Lab) -> None:
    """No file can grow (RLIMIT_FSIZE), a file store's neither: what was accepted is kept, what was not is counted, and
    the close says how many. (Files of 4,000 bytes would do for small segments.)"""
    program = """
        import resource
        run = asynctrack.start_run()
        run.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        log_some(run, 60_000)
        run.terminate()
        stats = run.stats()
        print(stats.accepted, stats.delivered, stats.dropped)
    """
    result = lab.run(program, ASYNCTRACK_CLOSE_TIMEOUT="3")
    assert result.returncode == 0, result.stderr
    accepted, delivered, dropped = map(int, result.stdout.split())
    assert accepted + dropped == 60_000, result.stderr
    assert dropped > 0
    assert f"{dropped} events" in result.stderr
    lab.recover()
    assert len(steps(lab.only_run())) == accepted >= delivered
    # Its end could be kept in memory only: there while the program could deliver it, and gone with the program.
    assert lab.only_run().status == ("FINISHED" if delivered == accepted else "KILLED")
    assert lab.spools() == []


def test_a_disk_without_room_for_large_segments_is_used_to_its_end(lab: Lab) -> None:
    """Segments grow fourfold; where that does not fit, smaller ones do, and nothing is dropped."""
    program = """
        import resource
        run = asynctrack.start_run()
        run.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        for number in range(10):
            log_some(run, 5_000, f"loss{number}")
    """
    result = lab.run(program)
    assert (result.returncode, result.stderr) == (0, "")
    for number in range(10):
        assert steps(lab.only_run(), f"loss{number}") == list(range(5_000))
    assert lab.only_run().status == "FINISHED"


@ON_FILES
@pytest.mark.parametrize("what", ["spool", "store"])
def test_a_small_file_system_that_fills_up(what: str, lab: Lab) -> None:
    """A tmpfs of 1 MiB: a spool there drops and counts new events; a store there keeps the rest in the spool until
    there is room."""
    small = lab.folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        if what == "store":
            lab = file_lab(lab.folder, "small/mlruns")
        environment = {"ASYNCTRACK_SPOOL_DIR": "small/spools"} if what == "spool" else {}
        program = """
            run = asynctrack.start_run()
            log_some(run, 60_000)
            run.terminate()
            print(run.stats().dropped)
        """
        result = lab.run(program, ASYNCTRACK_CLOSE_TIMEOUT="2", **environment)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        dropped = int(result.stdout)
        assert (dropped > 0) == (what == "spool")
        if what == "store":
            assert "No space left" in result.stderr
            subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
            lab.recover()
        assert len(steps(lab.only_run())) == 60_000 - dropped
        assert lab.only_run().status == "FINISHED"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@ON_FILES
@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_spool_on_a_full_disk_goes_on(shipper: str, lab: Lab) -> None:
    """Somebody else fills the disk to its last block: what is delivered makes room for what waits to be logged, and
    noting that takes none."""
    small = lab.folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        program = """
            asynctrack.configure(spool_dir="small/spools", spool_full="block", segment_bytes=16384, flush_interval=0.05)
            run = asynctrack.start_run()
            run.log_metric("first", 0.0)
            run.flush()
            fill = open("small/fill", "wb", buffering=0)
            try:
                while True:
                    fill.write(bytes(4096))
            except OSError:
                pass
            log_some(run, 20_000)
            run.terminate()
            print(run.stats().dropped)
        """
        result = lab.run(program, ASYNCTRACK_SHIPPER=shipper)
        assert result.returncode == 0, result.stderr
        assert int(result.stdout) == 0
        assert len(result.stderr.splitlines()) <= 2, result.stderr
        assert steps(lab.only_run()) == list(range(20_000))
        assert lab.only_run().status == "FINISHED"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@ON_FILES
@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_disk_without_room_for_the_next_spool(shipper: str, lab: Lab) -> None:
    """The first run's was given back, and the disk is full when the second begins: what is in memory is delivered."""
    small = lab.folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        program = """
            from asynctrack.engine import own, remote
            own._LEAST = remote._RESTS_AFTER = 0.1
            asynctrack.configure(spool_dir="small/spools", flush_interval=0.05)
            with asynctrack.start_run(run_name="first") as run:
                log_some(run, 1)
            deadline = time.monotonic() + 30
            while any(name[0] != "." for name in os.listdir("small/spools")) and time.monotonic() < deadline:
                time.sleep(0.05)
            with open("small/fill", "wb", buffering=0) as fill:
                try:
                    while True:
                        fill.write(bytes(4096))
                except OSError:
                    pass
            with asynctrack.start_run(run_name="second") as run:
                log_some(run, 1000)
                run.flush()
        """
        result = lab.run(program, ASYNCTRACK_SHIPPER=shipper)
        assert result.returncode == 0, result.stderr
        (line,) = result.stderr.splitlines()
        assert "keeps events in memory only" in line
        found = {run.tags["mlflow.runName"]: run for run in lab.runs().values()}
        assert [(len(steps(found[name])), found[name].status) for name in ("first", "second")] == [
            (1, "FINISHED"), (1000, "FINISHED"),
        ]  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_spool_deleted_under_a_live_run(shipper: str, lab: Lab) -> None:
    """Somebody tidies up: the files are gone from the folder and not from the program, which says once that it goes on
    in memory, and delivers everything."""
    program = """
        import shutil
        with asynctrack.start_run() as run:
            log_slowly(run, 0, 5000)
            while os.path.exists(".asynctrack"):  # its deliverer deletes files, too
                shutil.rmtree(".asynctrack", ignore_errors=True)
            log_slowly(run, 5000, 40_000)
            run.log_param("after", 1)
    """
    result = lab.run(SLOWLY + textwrap.dedent(program), ASYNCTRACK_CLOSE_TIMEOUT="40", ASYNCTRACK_SHIPPER=shipper)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert "events are not in" not in result.stderr, result.stderr  # in memory, they do not survive the program
    lab.recover()
    assert steps(lab.only_run()) == list(range(40_000)), result.stderr
    assert (lab.only_run().params, lab.only_run().status) == ({"after": "1"}, "FINISHED")
    assert result.stderr.count("was deleted") == 1
    assert lab.spools() == []


@pytest.mark.parametrize("shipper", ["thread", "process"])
@ON_FILES
def test_a_spool_deleted_with_a_backlog(shipper: str, lab: Lab) -> None:
    """The store is away, and what waits for it stands in files that are deleted one by one, the owner's last."""
    program = """
        with asynctrack.start_run(run_name="ended") as run:
            log_slowly(run, 0, 1000)
        with asynctrack.start_run(run_name="live") as run:
            log_slowly(run, 0, 5000)
            run.flush()
            os.rename("mlruns", "away")
            run.log_param("before", 1)
            log_slowly(run, 5000, 30_000)
            time.sleep(0.3)
            own = run._state.engine.journal.spool.path
            os.rename("away", "mlruns")
            for name in sorted(os.listdir(own), key=lambda name: (name == "owner", name)):
                try:
                    os.unlink(os.path.join(own, name))
                except FileNotFoundError:
                    pass
                time.sleep(0.02)
            while os.path.exists(own):
                for name in os.listdir(own):
                    os.unlink(os.path.join(own, name))
                os.rmdir(own)
            log_slowly(run, 30_000, 40_000)
            run.flush()
            log_slowly(run, 40_000, 50_000)
        with asynctrack.start_run(run_name="later") as run:
            log_slowly(run, 0, 1000)
    """
    result = lab.run(SLOWLY + textwrap.dedent(program), ASYNCTRACK_CLOSE_TIMEOUT="10", ASYNCTRACK_SHIPPER=shipper)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lab.recover()
    runs = read_runs(lab.folder / "mlruns").values()
    found = {run.tags["mlflow.runName"]: run for run in runs if run.tags["mlflow.runName"] != "next"}
    assert {name: run.status for name, run in found.items()} == dict.fromkeys(("ended", "live", "later"), "FINISHED")
    assert [steps(found[name]) for name in ("ended", "later")] == [list(range(1000))] * 2
    assert steps(found["live"]) == list(range(50_000)), result.stderr
    assert found["live"].params == {"before": "1"}
    assert lab.spools() == []


@ON_FILES
def test_a_store_folder_moved_away_and_back(lab: Lab) -> None:
    """Its disk is unmounted for a while, with an empty mount point in its place: told once, all delivered later."""
    program = """
        with asynctrack.start_run() as run:
            log_slowly(run, 0, 5000)
            run.flush()
            os.rename("mlruns", "away")
            run.log_text("hello", "folder/a.txt")
            log_slowly(run, 5000, 20_000)
            time.sleep(0.5)
            os.rename("away", "mlruns")
            log_slowly(run, 20_000, 30_000)
    """
    result = lab.run(SLOWLY + textwrap.dedent(program))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert 1 <= len(result.stderr.splitlines()) <= 3, result.stderr
    (text,) = lab.folder.glob("mlruns/0/*/artifacts/folder/a.txt")
    assert text.read_text() == "hello"
    assert steps(lab.only_run()) == list(range(30_000))
    assert lab.only_run().status == "FINISHED"
    assert lab.spools() == []


@ON_FILES
def test_a_run_folder_deleted_for_good(lab: Lab) -> None:
    """The store is there and the run is not: what is logged to it is refused at once, an artifact as well."""
    program = """
        import shutil
        run = asynctrack.start_run()
        run.flush()
        shutil.rmtree(os.path.join("mlruns", "0", run.run_id))
        run.log_text("hello", "a.txt")
        run.log_metric("m", 1.0)
        began = time.monotonic()
        run.terminate()
        assert time.monotonic() - began < 20
    """
    result = lab.run(textwrap.dedent(program), ASYNCTRACK_CLOSE_TIMEOUT="60")
    assert result.returncode == 0, result.stderr
    assert "no run" in result.stderr
    (rejected,) = lab.folder.glob(".asynctrack/*/rejected.jsonl")
    assert {line["kind"] for line in map(json.loads, rejected.read_text().splitlines())} >= {"artifact", "metric"}
    assert not [path for path in lab.folder.glob("mlruns/0/*") if path.is_dir() and path.name != "tags"]


@ON_FILES
def test_a_store_folder_deleted_for_good(lab: Lab) -> None:
    """Nobody brings it back: the program ends in time, says so, and what was not in the store before is kept."""
    program = """
        import shutil
        run = asynctrack.start_run()
        log_slowly(run, 0, 5000)
        run.flush()
        shutil.rmtree("mlruns")
        log_slowly(run, 5000, 10_000)
    """
    result = lab.run(SLOWLY + textwrap.dedent(program), ASYNCTRACK_CLOSE_TIMEOUT="2")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "mlruns" in result.stderr
    lab.recover()
    (spool,) = lab.spools()
    refused = [json.loads(line) for line in (spool / "rejected.jsonl").read_text().splitlines()]
    assert [event["step"] for event in refused if event["kind"] == "metric"] == list(range(5000, 10_000))


@ON_FILES
def test_a_store_that_becomes_unwritable(lab: Lab) -> None:
    """An immutable folder (chattr +i), as a read-only remount would make it: kept, and delivered afterwards."""
    root = lab.folder / "mlruns"
    root.mkdir()
    if subprocess.run(["chattr", "+i", str(root)], capture_output=True).returncode:
        pytest.skip("needs the right to make a folder immutable")
    try:
        program = "run = asynctrack.start_run()\nlog_slowly(run, 0, 5000)"
        result = lab.run(SLOWLY + program, ASYNCTRACK_CLOSE_TIMEOUT="2")
    finally:
        subprocess.run(["chattr", "-i", str(root)], check=True)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    lab.recover()
    assert steps(lab.only_run()) == list(range(5000))
    assert lab.only_run().status == "FINISHED"


@pytest.mark.parametrize("back", [True, False], ids=["for a while", "to the end"])
def test_too_many_open_files(back: bool, lab: Lab) -> None:
    """The program leaks file descriptors up to its limit: no log call fails; all is delivered once there are some
    again, here or in the next program."""
    program = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        run = asynctrack.start_run()
        log_slowly(run, 0, 5000)
        run.flush()
        leaked = []
        try:
            while True:
                leaked.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        log_slowly(run, 5000, 5500)
        time.sleep(0.3)
        if {back}:
            for fd in leaked: os.close(fd)
        log_slowly(run, 5500, 6000)
    """
    result = lab.run(SLOWLY + textwrap.dedent(program), ASYNCTRACK_CLOSE_TIMEOUT="2")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lab.recover()
    assert steps(lab.only_run()) == list(range(6000))
    assert lab.only_run().status == "FINISHED"
    assert lab.spools() == []

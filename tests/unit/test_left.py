"""Who reads a store is told that spools here hold more for it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import asynctrack
from asynctrack.errors import NotFoundError
from asynctrack.journal.homes import left_alone, spool_homes
from asynctrack.journal.survey import holds_events
from asynctrack.service import left

_OFFLINE = "import asynctrack\nasynctrack.configure(mode='offline')\nwith asynctrack.start_run(): pass\n"


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left, "_asked", set())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "has more to come" in record.message]


def test_a_reader_is_told_once_of_what_dead_programs_have_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _OFFLINE], check=True, cwd=tmp_path, timeout=120, capture_output=True)
    with pytest.raises(NotFoundError):
        asynctrack.get_run("f" * 32)
    asynctrack.search_runs(output_format="list")
    [said] = warnings(caplog)
    assert "each of 2 programs that has ended left events in" in said
    assert str(tmp_path / ".asynctrack") in said
    assert len(left_alone(spool_homes(None), asynctrack.get_service().tracking_uri)) == 2

    asynctrack.sync()
    caplog.clear()
    monkeypatch.setattr(left, "_asked", set())
    assert len(asynctrack.search_runs(output_format="list")) == 2
    assert not warnings(caplog)


def test_nothing_is_said_of_another_store_or_of_living_programs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = f"{_OFFLINE}\nprint(flush=True)\ninput()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, **pipes) as alive:  # type: ignore[call-overload]
        assert alive.stdout.readline()
        asynctrack.search_runs(output_format="list")
        asynctrack.search_runs(output_format="list")
        asynctrack.set_tracking_uri(tmp_path / "other")
        asynctrack.search_runs(output_format="list")
        alive.communicate(b"\n", timeout=120)
    assert not warnings(caplog)


def test_refused_events_alone_do_not_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A spool of which everything is delivered stays for what the store has refused."""
    program = """
import asynctrack
with asynctrack.start_run() as run:
    run.log_param("a", 1)
with asynctrack.start_run(run_id=run.run_id, wait=False) as run:
    run.log_param("a", 2)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120, capture_output=True)
    assert list((tmp_path / ".asynctrack").glob("*/rejected.jsonl"))
    asynctrack.search_runs(output_format="list")
    assert not warnings(caplog)


@pytest.mark.parametrize("more", [False, True])
def test_a_spool_of_which_all_is_delivered_holds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: bool
) -> None:
    """Its program was killed before it could take it away."""
    service = asynctrack.get_service()
    run_id = service.create_run(service.create_experiment("shared")).info.run_id
    program = f"""
import os, signal, asynctrack
asynctrack.configure(flush_interval=60)
run = asynctrack.attach({run_id!r})
run.log_metric("loss", 0.5)
run.flush()
if {more}:
    run.log_metric("loss", 0.25)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=120, capture_output=True)
    [path] = left_alone(spool_homes(None), asynctrack.get_service().tracking_uri)
    assert holds_events(path) is more
    asynctrack.get_run(run_id)
    assert bool(warnings(caplog)) is more


def test_a_spool_that_cannot_be_read_may_hold_events(tmp_path: Path) -> None:
    assert not holds_events(str(tmp_path / "gone"))
    subprocess.run([sys.executable, "-c", _OFFLINE], check=True, cwd=tmp_path, timeout=120, capture_output=True)
    [path] = left_alone(spool_homes(None), asynctrack.get_service().tracking_uri)
    assert holds_events(path)
    (Path(path) / "registry").unlink()
    assert holds_events(path)


def test_what_lies_beside_spools_is_no_spool(tmp_path: Path) -> None:
    home = tmp_path / ".asynctrack"
    (home / "folder").mkdir(parents=True)
    (home / "file").write_text("x")
    (home / "bad").mkdir()
    (home / "bad" / "owner").write_bytes(b"\xff")
    assert left_alone([str(home), str(tmp_path / "none")], "file:///x") == []

"""The command `asynctrack spool`, as a user in a shell meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from asynctrack.journal.locks import is_held
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import find_spools, read_spool

PACKAGE = str(Path(asynctrack.__file__).parents[1])

#: leaves 1000 points, 2 params and 1 tag
DIES = """
import asynctrack, os
asynctrack.configure(flush_interval=1000)
run = asynctrack.start_run(run_name="baseline", tags={"team": "vision"})
run.log_params({"a": 1, "b": 2})
run.set_tag("c", 3)
for step in range(1000):
    run.log_metric("loss", 0.5, step)
print(run.run_id, flush=True)
os._exit(1)
"""


def run_program(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": PACKAGE, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """The environment of programs whose store is out of order."""
    (tmp_path / "disk").write_text("a file where a folder should be")
    return {"MLFLOW_TRACKING_URI": str(tmp_path / "disk" / "mlruns")}


def call(*arguments: str, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(app, list(arguments), input=answer, env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result.output


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call("spool", *arguments, "--json"))
    return found


def test_nothing_waits() -> None:
    assert "Nothing waits" in call("spool")
    assert listed() == []
    assert "No event was refused" in call("spool", "rejected")


def test_what_a_dead_process_left(tmp_path: Path, broken: dict[str, str]) -> None:
    """Run, store, events, bytes, age, and that its owner is dead; and looking changes nothing."""
    run_id = run_program(DIES, tmp_path, **broken)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (spool,) = listed()
    assert spool["store"] == broken["MLFLOW_TRACKING_URI"] or spool["store"].endswith("/disk/mlruns")
    assert (spool["owner"], spool["delivering"]) == ("dead", False)
    assert spool["runs"] == [{"run_id": run_id, "name": "baseline", "events": 1003}]
    assert spool["events"] == 1003
    assert 64_000 < spool["bytes"] < 10_000_000
    assert 0 <= spool["age"] < 60
    assert (spool["rejected"], spool["problems"]) == (0, [])
    table = call("spool")
    assert run_id in table
    assert "1,003" in table
    assert "dead" in table
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_living_owner_is_left_alone(tmp_path: Path, broken: dict[str, str]) -> None:
    """It is shown as alive, its events are counted, and it still holds its spool afterwards."""
    program = DIES.replace("os._exit(1)", "input()\nos._exit(0)")
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PACKAGE, **broken},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        for _ in range(2):
            (spool,) = listed()
            assert (spool["owner"], spool["delivering"], spool["pid"]) == ("alive", True, process.pid)
            assert spool["runs"] == [{"run_id": run_id, "name": "baseline", "events": 1003}]
            assert Spool.adopt(spool["path"]) is None
        process.communicate("go on\n")
    (spool,) = listed()
    assert spool["owner"] == "dead"


def test_a_spool_of_this_very_process_keeps_its_lock(tmp_path: Path) -> None:
    """Opening one's own owner file would drop the lock on it."""
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
        run.flush()
        (path,) = find_spools()
        info = read_spool(path)
        assert info is not None
        assert (info.owner, info.pid, info.events) == ("alive", os.getpid(), 0)
        seen = run_program(f"from asynctrack.journal.locks import is_held; print(is_held({path!r}))", tmp_path)
        assert seen == "(True, True)"
        assert is_held(path) == (True, True)


def test_what_is_delivered_does_not_wait(tmp_path: Path) -> None:
    """The cursor is heeded: only what came behind it is counted."""
    program = """
import asynctrack, os
asynctrack.configure(flush_interval=1000)
run = asynctrack.start_run()
for step in range(500):
    run.log_metric("loss", 0.5, step)
run.flush()
for step in range(7):
    run.log_metric("acc", 0.5, step)
os._exit(1)
"""
    run_program(program, tmp_path)
    (spool,) = listed()
    assert spool["events"] == 7


REFUSED = """
import asynctrack
asynctrack.configure(flush_interval=0.05)
with asynctrack.start_run() as run:
    run.flush()
    os.makedirs(f"mlruns/0/{run.run_id}/metrics/taken")
    for step in range(3):
        run.log_metric("taken", step * 0.5, step)
    run.log_metric("fine", 1.0)
"""


def test_refused_events_are_listed_with_their_reasons_and_dropped(tmp_path: Path) -> None:
    """Everything else is delivered; the folder with the refused ones stays until they are dropped."""
    run_program("import os" + REFUSED, tmp_path)
    (spool,) = listed()
    assert (spool["events"], spool["rejected"], spool["owner"]) == (0, 3, "dead")
    events = json.loads(call("spool", "rejected", "--json"))
    assert [(event["kind"], event["key"], event["value"], event["step"]) for event in events] == [
        ("metric", "taken", "0.0", 0),
        ("metric", "taken", "0.5", 1),
        ("metric", "taken", "1.0", 2),
    ]
    assert all("taken" in event["reason"] for event in events)
    assert "taken" in call("spool", "rejected", os.path.basename(spool["path"]))
    call("spool", "drop", code=1, answer="n\n")
    assert len(json.loads(call("spool", "rejected", "--json"))) == 3
    assert "3 refused events deleted" in call("spool", "drop", "--yes")
    assert listed() == []
    assert not os.path.exists(spool["path"])


def test_dropping_refused_events_keeps_what_waits(tmp_path: Path, broken: dict[str, str]) -> None:
    """Only rejected.jsonl goes."""
    run_program(DIES, tmp_path, **broken)
    (spool,) = listed()
    line = {"run_id": "r", "kind": "tag", "key": "k", "value": "v", "reason": "why", "refused_at": 1}
    Path(spool["path"], "rejected.jsonl").write_text(json.dumps(line) + "\n{torn")
    assert listed()[0]["rejected"] == 1
    call("spool", "drop", spool["path"], "--yes")
    (spool,) = listed()
    assert (spool["events"], spool["rejected"]) == (1003, 0)


def test_another_folder(tmp_path: Path) -> None:
    """`--dir`, and ASYNCTRACK_SPOOL_DIR; the default places are not looked at then."""
    run_program(DIES, tmp_path, ASYNCTRACK_SPOOL_DIR="elsewhere")
    assert listed() == []
    (spool,) = listed("--dir", str(tmp_path / "elsewhere"))
    asynctrack.configure(spool_dir=str(tmp_path / "elsewhere"))
    assert listed()[0]["path"] == spool["path"]


def test_damage_is_shown_and_no_traceback(tmp_path: Path, broken: dict[str, str]) -> None:
    """A damaged segment is said to be damaged; the rest is counted."""
    run_program(DIES, tmp_path, **broken)
    (spool,) = listed()
    path = next(Path(spool["path"]).glob("*.slots"))
    data = bytearray(path.read_bytes())
    data[128 + 64 * 500] ^= 0xFF
    path.write_bytes(data)
    (spool,) = listed()
    assert spool["events"] == 1002
    assert any("damaged records (1)" in problem for problem in spool["problems"])
    assert "damaged" in call("spool")


def test_what_is_no_spool_is_an_error() -> None:
    assert "no-such is not a spool" in call("spool", "rejected", "no-such", code=3)


def test_the_command_is_installed_and_runs_as_a_module(tmp_path: Path) -> None:
    """`python -m asynctrack` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "asynctrack", "spool"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PACKAGE},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "Nothing waits" in done.stdout


def test_the_list_is_readable_on_a_narrow_terminal(tmp_path: Path, broken: dict[str, str]) -> None:
    """Nothing that one would copy (spool, run, store) is broken into pieces, and the folder stands there once."""
    run_id = run_program(DIES, tmp_path, **broken)
    (spool,) = listed()
    result = CliRunner().invoke(app, ["spool"], env={"COLUMNS": "40"})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == str(tmp_path / ".asynctrack")
    assert lines[1].strip() == os.path.basename(spool["path"])
    assert lines[2].strip().startswith("1,003 events · ")
    assert lines[2].endswith(f"owner dead, pid {spool['pid']}")
    assert lines[3].strip() == f"to {spool['store']}"
    assert lines[4].strip() == f"run {run_id} baseline: 1,003 events"
    assert result.output.count(str(tmp_path / ".asynctrack")) == 1
    assert "1 spool, 1,003 events to deliver. `asynctrack sync` delivers them." in " ".join(lines[-2:])


def test_retry_tells_what_was_accepted_and_keeps_what_was_not_in_the_same_folder(tmp_path: Path) -> None:
    """Exit status 1 as long as something is refused; offline mode, or another spool folder, change nothing."""
    run_program("import os" + REFUSED, tmp_path, ASYNCTRACK_SPOOL_DIR="elsewhere")
    here = ("--dir", str(tmp_path / "elsewhere"))
    os.environ["ASYNCTRACK_MODE"] = "offline"
    try:
        assert "0 events accepted" in call("spool", "retry", *here, code=1)
        asynctrack.shutdown()
        assert len(json.loads(call("spool", "rejected", *here, "--json"))) == 3
        (taken,) = (tmp_path / "mlruns").glob("0/*/metrics/taken")
        taken.rmdir()
        assert "3 events accepted" in call("spool", "retry", *here)
    finally:
        del os.environ["ASYNCTRACK_MODE"]
    asynctrack.shutdown()
    assert len(taken.read_text().splitlines()) == 3
    assert listed(*here) == []


def test_json_has_the_fields_that_are_asked_for(tmp_path: Path) -> None:
    """As of the other verbs; times are RFC 3339, and what was done is said as well."""
    run_program("import os" + REFUSED, tmp_path)
    assert json.loads(call("spool", "--json", "rejected,events")) == [{"rejected": 3, "events": 0}]
    assert json.loads(call("spool", "--dir", ".asynctrack", "--json=owner")) == [{"owner": "dead"}]
    assert listed()[0]["created"].endswith("Z")
    first, *_ = json.loads(call("spool", "rejected", "--json", "key,value,step,time"))
    assert (first["key"], first["value"], first["step"]) == ("taken", "0.0", 0)
    assert first["time"].endswith("Z")
    assert "the fields are path, store" in call("spool", "--json", "path,nonsense", code=2)
    (taken,) = (tmp_path / "mlruns").glob("0/*/metrics/taken")
    again = json.loads(call("spool", "retry", "--json", code=1).splitlines()[-1])
    assert again["accepted"] == 0
    assert any("taken" in problem for problem in again["problems"])
    asynctrack.shutdown()
    assert "give --yes as well" in call("spool", "drop", "--json", code=2)
    assert json.loads(call("spool", "drop", "--yes", "--json")) == {"dropped": 3}
    assert json.loads(call("spool", "retry", "--json", "accepted")) == {"accepted": 0}
    assert taken.is_dir()


def test_a_name_from_a_spool_reaches_no_terminal_as_an_order(tmp_path: Path, broken: dict[str, str]) -> None:
    run_program(DIES.replace('"baseline"', '"\\x1b]0;title\\x07"'), tmp_path, **broken)
    assert "\\x1b]0;title\\x07" in call("spool")
    assert "\x1b" not in call("spool")


def test_help_says_what_the_exit_status_means() -> None:
    for command in (("spool",), ("spool", "rejected"), ("spool", "retry"), ("spool", "drop"), ("sync",)):
        assert "Exit status: 0" in call(*command, "--help"), command


def test_a_wrong_setting_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asynctrack", "spool"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": PACKAGE, "ASYNCTRACK_MODE": "sometimes"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("asynctrack: mode='sometimes': it must be one of")

"""A person at a terminal who waits for delivery sees that it goes on; nobody else is shown anything."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault import programs

#: the store is out of reach for 3 s
PROGRAM = """
import asynctrack, subprocess
open("disk", "w").close()
asynctrack.set_tracking_uri("disk/mlruns")
asynctrack.configure(flush_interval=0.1)
mending = subprocess.Popen(["sh", "-c", "sleep 3; rm disk"])
run = asynctrack.start_run()
for step in range(1000):
    run.log_metric("loss", 1.0, step)
{ending}
"""


def on_a_terminal(program: str, folder: Path) -> str:
    """What a program writes to a terminal as its standard error."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": programs.PACKAGE, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", program], cwd=folder, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break  # the other end is closed: the program has ended
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize(
    "ending", ["run.terminate()", "run.flush()", ""], ids=["terminate", "flush", "interpreter exit"]
)
def test_waiting_longer_than_two_seconds_shows_progress(ending: str, tmp_path: Path) -> None:
    """At a run's end, in flush() and at the interpreter's end, on every Python version."""
    shown = on_a_terminal(PROGRAM.format(ending=ending), tmp_path)
    assert "delivering" in shown
    assert "Traceback" not in shown


def test_a_short_wait_shows_nothing(tmp_path: Path) -> None:
    """The common case stays silent."""
    program = "import asynctrack\nwith asynctrack.start_run() as run:\n    run.log_metric('loss', 1.0)"
    assert on_a_terminal(program, tmp_path) == ""


def test_a_log_file_gets_no_progress(tmp_path: Path) -> None:
    """Where standard error is no terminal there are only the log lines."""
    result = programs.run(PROGRAM.format(ending=""), tmp_path)
    assert result.returncode == 0
    assert "delivering" not in result.stderr
    assert "takes events again" in result.stderr

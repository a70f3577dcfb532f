"""Runs to look at, ``asynctrack view`` as a program, and a program that logs while it looks."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asynctrack

__all__ = ["WAIT", "Writer", "two_runs", "viewer"]

#: seconds that anything may take on a machine that does much else
WAIT = 90

_WRITER = """
import sys
import asynctrack
run = asynctrack.start_run(run_name=sys.argv[1])
print(run.run_id, flush=True)
for line in sys.stdin:
    key, step, value = line.split()
    run.log_metric(key, float(value), int(step))
asynctrack.end_run()
"""


def _line_of(process: subprocess.Popen[str], needle: str) -> str:
    """The next line that holds a text."""
    assert process.stdout is not None
    while True:
        line = process.stdout.readline()
        assert line, f"the program has not said {needle!r}"
        if needle in line:
            return line.strip()


@contextmanager
def viewer(*arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a page, and its process. It ends as with Ctrl-C, and its status is looked at."""
    command = [sys.executable, "-m", "asynctrack", "view", *map(str, arguments), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield _line_of(process, "?token="), process
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()


class Writer:
    """A program with a run that logs what it is told, and keeps it in its spool until then."""

    def __init__(self, name: str = "live", /, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **environment},
        )
        self.run_id = _line_of(self._process, "")

    def log(self, key: str, step: int, value: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{key} {step} {value!r}\n")

    def close(self) -> None:
        """End the run, and wait for that."""
        self._process.communicate(timeout=WAIT)

    def kill(self) -> None:
        """End at once; nothing more is delivered."""
        self._process.kill()
        self._process.communicate(timeout=WAIT)


def two_runs() -> list[str]:
    """The ids of two runs of an experiment: 10,000 points of ``loss`` with one spike, and another with odd values."""
    asynctrack.set_experiment("vision")
    ids = []
    for name, lr in (("spiky", "0.1"), ("odd", "0.3")):
        run = asynctrack.start_run(run_name=name)
        ids.append(run.run_id)
        run.log_params({"lr": lr, "seed": 1})
        if name == "spiky":
            for step in range(10_000):
                run.log_metric("loss", 1000.0 if step == 4_321 else 1 / (step + 1), step)
        else:
            for step, value in enumerate([1.0, math.nan, -2.0, math.inf, 0.5]):
                run.log_metrics({"loss": value, "val/acc": step / 10}, step)
        asynctrack.end_run()
    asynctrack.shutdown()
    return ids

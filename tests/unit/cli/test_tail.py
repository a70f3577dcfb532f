"""`asynctrack tail` and `wait`, also beside a program that goes on logging."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import asynctrack
from tests.unit.cli.conftest import Call

PACKAGE = str(Path(asynctrack.__file__).parents[1])

#: logs three steps at a time, each time a line comes in; ends when no more do
PROGRAM = """
import asynctrack, sys
asynctrack.configure(flush_interval=0.05)
with asynctrack.start_run(run_name="growing") as run:
    step = 0
    run.flush()
    print(run.run_id, flush=True)
    for line in sys.stdin:
        for _ in range(3):
            run.log_metrics({"loss": 1 / (1 + step), "acc": step / 10}, step=step)
            step += 1
        run.flush()
        print(step, flush=True)
"""


class Program:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.run_id = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        """Log three steps more, and wait until the store has them."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert int(self._line()) % 3 == 0

    def end(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": PACKAGE, **more}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield Program(process)


@contextmanager
def asynctrack_command(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "asynctrack", *arguments], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def test_the_last_steps_one_a_line(call: Call, trials: list[str]) -> None:
    lines = [line.split("\t") for line in call("tail", "good", "-n", "5").out.splitlines()]
    assert [line[0] for line in lines] == ["15", "16", "17", "18", "19"]
    assert lines[0][2:] == ["loss=0.0625", f"val/acc={1 - 0.0625 / 10}"]
    assert lines[4][2:] == ["loss=0.05"]
    assert lines[0][1].endswith("Z")
    assert len(call("tail", "good").out.splitlines()) == 10


def test_json_lines_of_some_keys(call: Call, trials: list[str]) -> None:
    lines = [
        json.loads(line) for line in call("tail", "diverged", "val/acc", "--json", "step,metrics").out.splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 5, 10, 15]
    assert lines[3] == {"step": 15, "metrics": {"val/acc": 1 - (1 / 16 + 2) / 10}}


def test_since_is_about_when_it_was_logged(call: Call, trials: list[str]) -> None:
    assert len(call("tail", "good", "--since", "1h").out.splitlines()) == 20
    assert "length of time" in call("tail", "good", "--since", "soon", status=2).err


def test_following_shows_each_step_once_and_ends_with_the_run(program: Program, tmp_path: Path) -> None:
    program.go_on()
    with asynctrack_command("tail", "growing", "-f", "--json", folder=tmp_path) as tail:
        assert tail.stdout is not None
        seen = [json.loads(tail.stdout.readline()) for _ in range(3)]
        for _ in range(3):
            program.go_on()
            seen += [json.loads(tail.stdout.readline()) for _ in range(3)]
        program.end()
        rest, error = tail.communicate(timeout=60)
    assert (rest, error, tail.returncode) == ("", "", 0)
    assert [each["step"] for each in seen] == list(range(12))
    assert seen[9]["metrics"] == {"acc": 0.9, "loss": 0.1}


def test_a_reader_that_has_enough_ends_it_quietly(call: Call, trials: list[str], tmp_path: Path) -> None:
    for verb in ("tail @ -n 1000", "runs", "export", "show @", "runs --json"):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m asynctrack {verb} | head -1; exit ${{PIPESTATUS[0]}}"],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), verb
        assert len(done.stdout.splitlines()) == 1


def test_waiting_ends_when_the_condition_is_met(program: Program, tmp_path: Path) -> None:
    with asynctrack_command("wait", "@", "loss<0.2 and step>=6", "--timeout", "5m", "--json", folder=tmp_path) as wait:
        for _ in range(3):
            program.go_on()
        out, error = wait.communicate(timeout=60)
    assert (error, wait.returncode) == ("", 0)
    said = json.loads(out)
    assert said["met"] is True
    assert said["ended"] is False
    assert said["values"]["step"] >= 6
    program.end()


def test_waiting_for_what_never_comes_ends_with_the_run(program: Program, tmp_path: Path) -> None:
    with asynctrack_command("wait", "@", "loss < 0", folder=tmp_path) as wait:
        program.go_on()
        program.end()
        _, error = wait.communicate(timeout=60)
    assert wait.returncode == 1
    assert "FINISHED" in error
    assert "loss is 0.3333" in error


def test_time_that_is_up_is_status_124(program: Program, call: Call) -> None:
    program.go_on()
    assert "loss is 0.3333" in call("wait", "growing", "loss < 0", "--timeout", "0.1s", status=124).err
    assert "not logged" in call("wait", "growing", "absent < 0", "--timeout", "0s", status=124).err
    program.end()


def test_what_is_met_already_is_not_waited_for(call: Call, trials: list[str]) -> None:
    call("wait", "good", "ended")
    call("wait", "good", "loss.min <= 0.05 and val/acc > 0.9 and step == 19")
    call("wait", "diverged", "loss == nan")
    call("wait", "good", "loss > 5", status=1)
    assert "write it like" in call("wait", "good", "loss", status=2).err


def test_ctrl_c_is_status_130(program: Program, tmp_path: Path) -> None:
    import signal

    program.go_on()
    with asynctrack_command("tail", "growing", "-f", folder=tmp_path) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline().startswith("0\t")
        tail.send_signal(signal.SIGINT)
        _, error = tail.communicate(timeout=60)
    assert tail.returncode == 130
    assert "Traceback" not in error
    program.end()


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_tail_says_that_a_metric_is_not_there(options: tuple[str, ...], trials: list[str], call: Call) -> None:
    said = call("tail", "good", "loss", "los", *options, status=3)
    assert "'los'; there are loss" in said.err

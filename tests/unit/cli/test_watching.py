"""Views that are drawn anew, and what a shell offers behind Tab."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.cli import watching
from asynctrack.cli.completing import complete_keys, complete_runs
from asynctrack.cli.terminal import Terminal
from asynctrack.errors import UnavailableError

PACKAGE = str(Path(asynctrack.__file__).parents[1])


def test_a_view_in_a_pipe_is_one_picture_after_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also over a time in which the store does not answer."""
    monkeypatch.setattr(watching, "_EVERY", 0.0)
    pictures: Iterator[str | UnavailableError] = iter(["one\n", UnavailableError("the store is away\x1b"), "two\n"])
    left = [3]

    def draw(_: Terminal) -> str:
        left[0] -= 1
        picture = next(pictures)
        if isinstance(picture, UnavailableError):
            raise picture
        return picture

    watching.watch(draw, lambda: left[0] == 0)
    said = capsys.readouterr()
    assert said.out.split() == ["one", "two"]
    assert said.err == "asynctrack: the store is away\\x1b; trying again\n"


def in_a_terminal(*arguments: str, **environment: str) -> tuple[str, int]:
    """What a verb writes to a terminal of 80 columns, and its status."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "asynctrack", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "PYTHONPATH": PACKAGE, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environment},
    ) as process:  # fmt: skip
        os.close(theirs)
        parts: list[bytes] = []

        def read() -> None:
            try:
                while part := os.read(ours, 65536):
                    parts.append(part)
            except OSError:
                pass  # so Linux tells the end of a terminal

        reader = threading.Thread(target=read)
        reader.start()
        status = process.wait(timeout=60)
        reader.join(timeout=60)
    os.close(ours)
    return b"".join(parts).decode(), status


def test_a_terminal_gets_a_table_in_colour_unless_it_is_dumb(trials: list[str]) -> None:
    shown, status = in_a_terminal("runs", LANG="C.UTF-8")
    assert status == 0
    assert "NAME" in shown
    assert "\x1b[31mFAILED" in shown
    assert trials[0] not in shown
    for environment in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        shown, _ = in_a_terminal("runs", **environment)
        assert "NAME" in shown
        assert "\x1b" not in shown


def test_what_is_longer_than_the_screen_goes_through_the_pager(trials: list[str], tmp_path: Path) -> None:
    pager = f"tee {tmp_path}/paged"
    in_a_terminal("runs", PAGER=pager)
    assert not (tmp_path / "paged").exists()
    shown, _ = in_a_terminal("show", "good", PAGER=pager, LINES="5")
    assert "PARAMS" in shown
    assert "PARAMS" in (tmp_path / "paged").read_text()
    (tmp_path / "paged").unlink()
    in_a_terminal("show", "good", "--no-pager", PAGER=pager, LINES="5")
    assert not (tmp_path / "paged").exists()
    shown, status = in_a_terminal("show", "good", PAGER="/no/such/pager", LINES="5")
    assert (status, "PARAMS" in shown) == (0, True)


def test_a_view_ends_when_all_its_runs_have(trials: list[str]) -> None:
    shown, status = in_a_terminal("plot", "good", "-k", "loss", "-w", LANG="C.UTF-8")
    assert status == 0
    assert shown.endswith("━━\x1b[0m good\r\n")
    assert "\x1b[?1049h" in shown
    assert "\x1b[?1049l" in shown


def test_the_shell_is_offered_runs_and_keys(trials: list[str]) -> None:
    assert complete_runs(None, "go") == [("good", "FINISHED")]
    assert complete_runs(None, trials[1][:6]) == [(trials[1], "failed FAILED")]
    assert complete_keys(None, "v") == ["val/acc"]
    assert complete_runs("sqlite:///gone.db", "") == []


def test_a_name_that_a_shell_would_take_apart_is_offered_by_its_id() -> None:
    with asynctrack.start_run(run_name="x; rm -rf $HOME") as run:
        pass
    asynctrack.shutdown()
    assert complete_runs(None, "x") == []
    assert complete_runs(None, run.run_id[:4])[0][0] == run.run_id


def test_completion_speaks_through_the_shells_variables(trials: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from asynctrack.cli import main; import sys; sys.argv[0] = 'asynctrack'; main()"],
        env={
            **os.environ, "PYTHONPATH": PACKAGE, "_ASYNCTRACK_COMPLETE": "complete_bash",
            "COMP_WORDS": "asynctrack show go", "COMP_CWORD": "2",
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["good"], done.stderr

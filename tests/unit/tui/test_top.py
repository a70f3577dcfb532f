"""`asynctrack top` on a screen: what is drawn, what hands reach, and what comes while it looks."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from asynctrack.current import store_for
from asynctrack.stores.base import AbstractStore
from asynctrack.tui.app import Top
from asynctrack.tui.panes import Pen
from asynctrack.tui.picture import Picture
from asynctrack.tui.watcher import Watcher
from asynctrack.ui.board import Board
from tests.unit.ui.viewing import WAIT, Writer

PACKAGE = str(Path(asynctrack.__file__).parents[1])
EVIL = "evil\x1b]0;owned\x07\x1b[2J\u202ename"


@pytest.fixture
def runs() -> list[str]:
    """The ids of two runs: 5,000 points of ``loss`` with one spike, and one with odd values and hostile names."""
    ids = []
    for name in ("spiky", EVIL):
        run = asynctrack.start_run(run_name=name)
        ids.append(run.run_id)
        if name == "spiky":
            run.log_param("lr", "\x1b[31mred")
            for step in range(5_000):
                run.log_metric("loss", 1000.0 if step == 4_321 else 1 / (step + 1), step)
        else:
            for step, value in enumerate([1.0, math.nan, -2.0, math.inf, 0.5]):
                run.log_metrics({"loss": value, "acc": step / 10, "system/gpu": 50.0}, step)
        asynctrack.end_run()
    asynctrack.shutdown()
    return ids


class Screen:
    """A `Top` without a terminal."""

    def __init__(self, top: Top, pilot: Any) -> None:
        self.top, self._pilot = top, pilot

    @property
    def text(self) -> str:
        return self.top.query_one(Picture).text

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def until(self, holds: Callable[[str], object]) -> str:
        """The text, as soon as it fulfils a condition."""
        end = time.monotonic() + WAIT
        while not holds(self.text):
            assert time.monotonic() < end, self.text
            await self._pilot.pause(0.02)
        return self.text


@asynccontextmanager
async def screen(
    store: AbstractStore, size: tuple[int, int] = (80, 24), pen: Pen | None = None
) -> AsyncIterator[Screen]:
    """`asynctrack top` on a store."""
    top = Top(Watcher(Board(store)), store.uri, pen or Pen(colour=False))
    async with top.run_test(size=size) as pilot:
        yield Screen(top, pilot)


def upper_row(text: str, key: str) -> str:
    """The upper row of a metric's chart."""
    lines = text.split("\n")
    return lines[1 + next(index for index, line in enumerate(lines) if f" {key}" in line[26:60])]


def columns_of_a_peak(text: str, key: str) -> list[int]:
    """In which columns something is drawn in the upper row of a metric's chart."""
    return [column for column, character in enumerate(upper_row(text, key)) if "\u2800" < character <= "\u28ff"]


def test_the_spike_among_five_thousand_points_is_drawn(runs: list[str]) -> None:
    async def looked() -> None:
        async with screen(store_for()) as shown:
            await shown.until(lambda text: "spiky" in text)
            await shown.press("j", "enter")  # the older run alone
            text = await shown.until(lambda text: "0.0002" in text)  # its last value
            assert all(len(line) == 80 for line in text.split("\n"))
            assert len(text.split("\n")) == 24
            [peak] = columns_of_a_peak(text, "loss")
            axis = re.search("[│┤]", upper_row(text, "loss")[27:])
            assert axis is not None
            left = 27 + axis.start()
            assert 0.8 < (peak - left) / (80 - left) < 0.92
            await shown.press("+", "+", "+")
            await shown.until(lambda text: "zoom 4374 to 4999" in text)
            assert "no points" not in shown.text

    asyncio.run(looked())


def test_names_that_would_command_the_terminal_are_text(runs: list[str]) -> None:
    async def looked() -> None:
        async with screen(store_for(), (150, 40), Pen(colour=True)) as shown:
            await shown.press("right_square_bracket")
            text = await shown.until(lambda text: "3 NaN" in text or "1 NaN" in text)
            assert "evil\\x1b]0" in text
            await shown.press("j")
            text = await shown.until(lambda text: "\\x1b[31mred" in text)
            assert "1 NaN" in text
            assert "1 Inf" in text
            for strip in shown.top.query_one(Picture)._strips:
                for segment in strip:
                    assert not set(segment.text) & set("\x1b\x07\u202e\n\r"), segment

    asyncio.run(looked())


def test_what_is_still_to_come_while_the_app_closes_is_no_error(runs: list[str]) -> None:
    """Its timer and its keys: the widgets are gone from the screen by then."""

    async def looked() -> None:
        async with screen(store_for()) as shown:
            await shown.until(lambda text: "spiky" in text)
            await shown.top.screen.query("*").remove()
            shown.top._drawn = None
            shown.top.redraw()
            await shown.press("j", "slash", "escape")

    asyncio.run(looked())


def test_filters_are_typed_and_escape_closes_the_prompt(runs: list[str]) -> None:
    async def looked() -> None:
        async with screen(store_for(), (110, 40)) as shown:
            await shown.until(lambda text: "system/gpu" in text)
            await shown.press("slash", *"^lo")
            await shown.until(lambda text: "loss" in text and "system/gpu" not in text)
            await shown.press("q")
            await shown.until(lambda text: "no metric is called so" in text)  # q is a letter here
            await shown.press("backspace", "enter")
            await shown.until(lambda text: "/^lo " in text)
            await shown.press("f", *"params.lr != ''", "escape")
            await shown.until(lambda text: "(1 of 2 runs)" in text)
            assert "evil" not in shown.text
            await shown.press("ctrl+f", "ctrl+l", "2")
            await shown.until(lambda text: "evil" in text and "acc" in text)
            assert "system/gpu" not in shown.text
            await shown.press("question_mark")
            await shown.until(lambda text: "this help; quit" in text)
            await shown.press("escape", "e")
            await shown.until(lambda text: f"asynctrack export {runs[1][:8]} {runs[0][:8]}" in text)
            await shown.press("g", "x", "s", "y", "c", "1")
            await shown.until(lambda text: "mean of 2" in text and "smooth 0.5" in text and "log y" in text)
            await shown.press("g")
            await shown.until(lambda text: "mean of 2 by lr" in text)
            await shown.press("G", "G")
            await shown.until(lambda text: "mean of" not in text)

    asyncio.run(looked())


def test_a_point_is_drawn_before_it_is_delivered_and_the_header_says_what_troubles_the_store() -> None:
    uri = "http://127.0.0.1:9"  # nothing listens there
    writer = Writer(MLFLOW_TRACKING_URI=uri)
    try:
        writer.log("loss", 0, 1.0)

        async def looked() -> None:
            async with screen(store_for(uri), pen=Pen(colour=False, plain=True)) as shown:
                text = await shown.until(lambda text: "live" in text and " loss " in text and "refused" in text)
                assert text.isascii()
                assert "1 live" in text
                writer.log("loss", 1, 2.5)
                await shown.until(lambda text: " 2.5" in text.split("\n")[2])
                await shown.until(lambda text: "undelivered" in text and "0 undelivered" not in text)

        asyncio.run(looked())
    finally:
        writer.kill()


def test_a_mistake_in_the_looking_thread_ends_the_screen_and_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Board, "look", broken)
    watcher = Watcher(Board(store_for()))
    asyncio.run(Top(watcher, "", Pen()).run_async(headless=True))
    assert isinstance(watcher.failure, ZeroDivisionError)


def test_without_a_terminal_it_says_so() -> None:
    result = CliRunner().invoke(app, ["top"])
    assert result.exit_code == 1
    assert "needs a terminal" in result.output


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Commands to a tmux of its own, with a window of 80 by 24."""
    if shutil.which("tmux") is None:
        pytest.skip("no tmux is installed here: apt-get install tmux")
    socket = str(tmp_path / "tmux")

    def command(*arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", socket, *arguments], check=True, capture_output=True, text=True, timeout=WAIT
        ).stdout

    yield command
    subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, timeout=WAIT)


def test_in_tmux_it_draws_takes_keys_and_leaves_the_shell_as_it_was(
    tmux: Callable[..., str], runs: list[str], tmp_path: Path
) -> None:
    def until(holds: Callable[[str], object]) -> str:
        end = time.monotonic() + WAIT
        while not holds(text := tmux("capture-pane", "-p")):
            assert time.monotonic() < end, text
            time.sleep(0.05)
        return text

    settings = {"PYTHONPATH": PACKAGE, "LANG": "C.UTF-8", "NO_COLOR": ""}
    settings |= {name: value for name, value in os.environ.items() if name.startswith(("ASYNCTRACK_", "XDG_"))}
    command = shlex.join([sys.executable, "-m", "asynctrack", "top", os.path.abspath("mlruns")])
    before = {path: path.stat().st_mtime_ns for path in Path("mlruns").rglob("*")}
    options = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
    shell = f"echo before; {command}; echo status $?; read _"
    tmux("new-session", "-d", "-x", "80", "-y", "24", "-c", str(tmp_path), *options, shell)
    until(lambda text: "loss" in text and "? help" in text)
    tmux("send-keys", "?")
    until(lambda text: "logarithmic y axis" in text)
    tmux("send-keys", "Escape")
    until(lambda text: "logarithmic y axis" not in text)
    tmux("send-keys", "Down", "Enter")
    text = until(lambda text: "0.0002" in text)
    assert any("\u2800" < character <= "\u28ff" for character in text)
    tmux("resize-window", "-x", "60", "-y", "15")
    until(lambda text: "loss" in text and len(text.rstrip("\n").split("\n")) == 15)
    tmux("send-keys", "q")
    text = until(lambda text: "status 0" in text)
    assert text.split() == ["before", "status", "0"]
    assert {path: path.stat().st_mtime_ns for path in Path("mlruns").rglob("*")} == before

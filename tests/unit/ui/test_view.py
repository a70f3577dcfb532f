"""``asynctrack view``: what it prints, that a stream is news, and that Ctrl-C ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from asynctrack.cli.command import app
from tests.unit.ui.viewing import WAIT, Writer, viewer


def events(lines: Any) -> Any:
    """The events of a stream, as they come."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_the_address_that_is_printed_shows_the_page_and_another_shows_nothing(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), httpx.Client(timeout=WAIT) as browser:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", address)
        base = address.partition("?")[0]
        assert browser.get(f"{base}api/runs").status_code == 403
        assert browser.get(f"{base}?token=x").status_code == 403
        assert browser.get(address).status_code == 200
        assert "app.js" in browser.get(base).text
        assert len(browser.get(f"{base}api/runs").json()["runs"]) == 2
        assert browser.get(f"{base}api/runs", headers={"host": "evil.example"}).status_code == 403


def test_a_point_is_news_before_it_is_delivered_and_ctrl_c_ends_an_open_stream(tmp_path: Path) -> None:
    writer = Writer(MLFLOW_TRACKING_URI="http://127.0.0.1:9")  # nothing listens there
    try:
        writer.log("loss", 0, 1.0)
        with viewer("http://127.0.0.1:9") as (address, process), httpx.Client(timeout=WAIT) as browser:
            base = address.partition("?")[0]
            browser.get(address)
            listed: list[Any] = []
            while not listed:  # until the writer's spool is there
                listed = browser.get(f"{base}api/runs").json()["runs"]
            run_id = listed[0]["id"]
            assert listed[0]["alive"]
            browser.get(f"{base}api/charts", params={"key": "loss", "runs": run_id})
            with browser.stream("GET", f"{base}api/events", params={"runs": run_id}) as stream:
                news = events(stream.iter_lines())
                assert "refused" in next(news)["trouble"]
                writer.log("loss", 1, 2.0)
                assert any("loss" in each["keys"] for each in news)
                assert next(each for each in news if each["waiting"])["alive"] == 1
                process.send_signal(signal.SIGINT)
                assert process.wait(WAIT) == 0
    finally:
        writer.kill()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["view", "mlruns", "--no-browser", "--port", port])
    assert result.exit_code == 1
    assert f"port {port} cannot be used" in result.output


def test_a_store_that_is_not_there_is_said() -> None:
    result = CliRunner().invoke(app, ["view", "sqlite:///none.db", "--no-browser"])
    assert result.exit_code == 3
    assert "none.db" in result.output
    assert not Path("none.db").exists()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("asynctrack.ui.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["view", "mlruns", "--no-browser"])
    assert result.exit_code == 1
    assert "needs uvicorn: pip install 'asynctrack[view]'" in result.output

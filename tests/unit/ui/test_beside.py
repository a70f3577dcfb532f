"""`asynctrack.view`, and `start_run(view=True)`: the page beside a program, and behind a proxy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import asynctrack
from asynctrack.runs import viewer as viewers
from tests.unit.ui.viewing import WAIT


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_page_of_a_store_is_served_until_it_is_stopped() -> None:
    with asynctrack.start_run(run_name="seen") as run:
        run.log_metric("loss", 1.0)
    with asynctrack.view() as page, httpx.Client(timeout=WAIT) as browser:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", page.url)
        base = page.url.partition("?")[0]
        assert browser.get(f"{base}api/runs").status_code == 403
        assert browser.get(page.url).status_code == 200
        [listed] = browser.get(f"{base}api/runs").json()["runs"]
        assert listed["name"] == "seen"
        assert page.running
        assert page.url in page._repr_html_()
        assert page.store_uri in repr(page)
    assert repr(page).endswith("ended>")
    assert "href" not in page._repr_html_()
    page.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(base)


def test_it_is_told_at_a_runs_start_once_for_each_store(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with asynctrack.start_run(view=True), asynctrack.start_run(nested=True, view=True):
        pass
    said = capsys.readouterr().out
    [first, second] = re.findall(r"asynctrack: watch it at (http://\S+)", said)
    assert first == second
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    with asynctrack.start_run(view=True):
        pass
    assert "watch" not in capsys.readouterr().out, "the first rank's is enough"
    [page] = [each for each in viewers._viewers if each.url == first]
    page.stop()


def test_a_run_goes_on_without_the_page_where_it_cannot_be_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(viewers, "find_spec", lambda name: None if name == "uvicorn" else object())
    with asynctrack.start_run(view=True) as run:
        run.log_metric("loss", 1.0)
    assert "the page needs uvicorn: pip install 'asynctrack[view]'; the run goes on without" in caplog.text
    with pytest.raises(ImportError, match="needs uvicorn"):
        asynctrack.view()


def test_wrong_arguments_are_named() -> None:
    with asynctrack.view() as page:
        port = int(page.url.partition("1:")[2].partition("/")[0])
        with pytest.raises(asynctrack.InvalidInputError, match=f"port={port} cannot be used: Address already in use"):
            asynctrack.view(port=port)
    with pytest.raises(asynctrack.InvalidInputError, match="port=True"):
        asynctrack.view(port=True)
    with pytest.raises(asynctrack.InvalidInputError, match="allowed_hosts"):
        asynctrack.view(allowed_hosts=5)  # type: ignore[arg-type]  # that is tried


_PROGRAM = """
import os, sys, time
import asynctrack
page = asynctrack.view()
print(page.url, page._process.pid, flush=True)
if os.fork() == 0:
    page.stop()  # not the child's
    assert asynctrack.view is not None
    time.sleep(600)
sys.stdin.read()
"""


def test_it_ends_with_the_program_however_that_ends_and_not_with_a_fork() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        try:
            url, pid = program.stdout.readline().split()
            assert httpx.get(url, timeout=WAIT).status_code == 200
            program.send_signal(signal.SIGKILL)
            program.wait(WAIT)
            until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())
        finally:
            os.killpg(program.pid, signal.SIGKILL)


def test_behind_a_proxy_it_is_seen_under_names_that_were_allowed_and_no_others() -> None:
    with asynctrack.view(allowed_hosts=["hub.example"]) as page, httpx.Client(timeout=WAIT) as browser:
        assert browser.get(page.url, headers={"host": "hub.example"}).status_code == 200
        assert browser.get(page.url, headers={"host": "hub.example:8000"}).status_code == 200
        refused = browser.get(page.url, headers={"host": "evil.example"})
        assert refused.status_code == 403
        assert "--allowed-host evil.example" in refused.text


def test_in_a_notebook_on_a_hub_the_link_goes_through_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    with asynctrack.view() as page:
        port, _, token = page.url.partition("1:")[2].partition("/")
        assert f'href="/user/ann/proxy/{port}/{token}"' in page._repr_html_()
        monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX")
        assert "/proxy/" not in page._repr_html_()


def test_everything_that_the_page_loads_is_relative_to_it() -> None:
    """So that it works under whatever path a proxy shows it."""
    static = Path(asynctrack.__file__).parent / "ui/static"
    for path in [*static.glob("*.html"), *static.glob("*.js"), *static.glob("*.css")]:
        text = path.read_text("utf-8")
        assert not re.search(
            r"""(?:src|href)\s*=\s*["']/|fetch\(\s*["'`]/|EventSource\(\s*["'`]/|url\(["']?/""", text
        ), path
        assert not re.search(r"""(?:import|from)\s*["']/""", text), path

"""A real Jupyter kernel: what a notebook shows of runs and histories, and the live view while a cell logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

#: seconds; the kernel's start takes some on a busy machine
PATIENCE = 120


class Cell:
    """What a cell has shown: its displays by MIME type, and what widgets were told meanwhile."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []


class Notebook:
    """A kernel, and cells to run in it."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client

    def run(self, code: str) -> Cell:
        """Run a cell and wait until it has ended. Raises AssertionError with the traceback of one that fails."""
        asked = self._client.execute(code)
        cell = Cell()
        while True:
            message = self._client.get_iopub_msg(timeout=PATIENCE)
            kind, content = message["msg_type"], message["content"]
            if kind in ("comm_open", "comm_msg"):
                cell.told.append(content["data"])
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind in ("display_data", "execute_result"):
                cell.shown.append(content["data"])
            elif kind == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return cell


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    manager = KernelManager()
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


BEGIN = """
import asynctrack
asynctrack.set_tracking_uri("runs")
run = asynctrack.start_run(run_name="<b>baseline</b>")
run.log_param("lr", 0.1)
for step in range(100):
    run.log_metric("loss", 1000.0 if step == 50 else 1 / (step + 1), step=step)
run.flush()
"""


def test_runs_histories_and_charts_show_themselves(notebook: Notebook) -> None:
    notebook.run(BEGIN)
    for code, expected in (
        ("run", ("&lt;b&gt;baseline", "<svg", "lr")),
        ("run.plot('loss')", ("<svg", "1000", "&lt;b&gt;baseline")),
        ("asynctrack.history(run)", ("<table>", "100 rows, the first 10 of them shown")),
        ("asynctrack.MlflowClient().search_runs(['0'])", ("<table>", "RUNNING", "&lt;b&gt;baseline")),
        ("asynctrack.get_run(run.run_id)", ("&lt;b&gt;baseline", "0.1")),
    ):
        (shown,) = notebook.run(code).shown
        for text in expected:
            assert text in shown["text/html"], code
        assert "<b>baseline" not in shown["text/html"], code
        assert "<script" not in shown["text/html"], code


def test_a_live_view_is_told_what_a_cell_logs_while_the_cell_runs(notebook: Notebook) -> None:
    notebook.run(BEGIN)
    (shown,) = notebook.run("view = asynctrack.live(run); view").shown
    assert "application/vnd.jupyter.widget-view+json" in shown

    # The cell keeps the kernel's own thread, as training does, until the view has drawn what it logs.
    cell = notebook.run(
        """
import time
run.log_metric("loss", 7.0, step=200)
deadline = time.monotonic() + 60
while view.payload["charts"][0]["x1"] < 200 and time.monotonic() < deadline:
    time.sleep(0.05)
print(view.payload["charts"][0]["x1"])
"""
    )

    payloads = [told["state"]["payload"] for told in cell.told if "payload" in told.get("state", {})]
    assert payloads, json.dumps(cell.told)[:2000]
    assert payloads[-1]["charts"][0]["x1"] == 200
    assert "baseline" in payloads[-1]["said"]
    notebook.run("run.terminate(); view._thread.join(60); assert not view._thread.is_alive()")


def test_without_anywidget_it_says_what_to_install(notebook: Notebook) -> None:
    notebook.run(BEGIN)
    with pytest.raises(AssertionError, match=r"pip install 'asynctrack\[notebook\]'"):
        notebook.run("import sys; sys.modules['anywidget'] = None; asynctrack.live(run)")

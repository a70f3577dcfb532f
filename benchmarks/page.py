"""A page in Chromium over a server, for benchmarks: when it has drawn, what it takes."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import peers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = [
    *("Tool", "asked", "browser", "browser_seconds", "heap", "ours", "processor_seconds", "resident", "serving"),
    *("until_drawn", "until_there", "window"),
]

#: seconds for one page
_LIMIT = 120.0
_SIZE: Any = {"width": 1600, "height": 1000}
#: the part of a chart that is in colour when lines are there
_COLOURED = 0.003


class Tool(NamedTuple):
    """A server with a page. ``command``: but for the port, which replaces PORT. ``ready``: whether it has read what it
    shows. ``address``: of its page, by what it has printed and the port. ``chart``: a CSS selector."""

    name: str
    command: list[str]
    ready: Callable[[int], bool]
    address: Callable[[str, int], str]
    chart: str


def ours(work: Path, run_ids: list[str], root: str = "mlruns") -> Tool:
    chosen = f"&runs={'.'.join(each[:8] for each in run_ids)}" if run_ids else ""
    command = [
        sys.executable,
        "-m",
        "asynctrack",
        "view",
        root if "://" in root else str(work / root),
        "--no-browser",
        "--port",
        "PORT",
    ]

    def address(printed: str, port: int) -> str:
        return str(re.findall(rf"http://\S+:{port}\S*", printed)[0]) + chosen

    return Tool("asynctrack", command, lambda port: asked(port, "/") is not None, address, ".card canvas")


def processor_seconds(root: int, name: str = "") -> float:
    """What a process and those below it have used so far, those that have ended included; only those whose name holds
    a text."""
    children: dict[int, list[int]] = {}
    used: dict[int, tuple[str, float]] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                text = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it has just ended
            head, _, rest = text.rpartition(")")
            fields = rest.split()
            children.setdefault(int(fields[1]), []).append(int(entry))
            used[int(entry)] = head.partition("(")[2], sum(map(int, fields[11:15])) / tick
    total, pending = 0.0, [root]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        if pid in used and name in used[pid][0]:
            total += used[pid][1]
    return total


def browser_seconds() -> float:
    return processor_seconds(os.getpid(), "chrom")


def resident(pid: int) -> float:
    """MB of memory of a process."""
    text = Path("/proc", str(pid), "status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1e3


@contextmanager
def serving(tool: Tool, work: Path) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Its page's address, its process, and when that was started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (work / f"{tool.name}.log").open("w+")
    own = {"XDG_CACHE_HOME": str(work / "cache"), "ASYNCTRACK_SPOOL_DIR": str(work / "spool")}
    environment = {**peers.environment(), **own, "PYTHONUNBUFFERED": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in tool.command], stdout=log, stderr=log, text=True,
        env=environment, cwd=work,
    )  # fmt: skip
    try:
        while not tool.ready(port):
            if process.poll() is not None or time.perf_counter() > begun + _LIMIT:
                raise RuntimeError(f"{tool.name} did not start: {Path(log.name).read_text()[-500:]}")
            time.sleep(0.05)
        yield tool.address(Path(log.name).read_text(), port), process, begun
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def asked(port: int, path: str) -> Any:
    """What a server answers, as JSON or else as text; None where it does not."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
    except (OSError, http.client.HTTPException):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, of which nothing is known but what it shows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def window(opened: Browser) -> Iterator[Page]:
    """A window with caches of its own."""
    context = opened.new_context(viewport=_SIZE)
    page = context.new_page()
    page.goto("about:blank")
    time.sleep(0.5)
    yield page
    context.close()


def until_drawn(page: Page, chart: str) -> None:
    """Wait until a chart has lines. Raises RuntimeError."""
    from PIL import Image
    from playwright.sync_api import Error

    end = time.perf_counter() + _LIMIT
    while time.perf_counter() < end:
        try:
            box = page.evaluate(
                "chart => { const box = document.querySelector(chart)?.getBoundingClientRect();"
                " return box ? [box.x, box.y, box.width, box.height] : null }",
                chart,
            )
        except Error:
            box = None  # the page has just become another
        if box is not None and min(box[2:]) > 20:
            clip: Any = dict(zip(("x", "y", "width", "height"), box, strict=True))
            picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("HSV")
            saturation = picture.getchannel("S").tobytes()
            if sum(value > 80 for value in saturation) > _COLOURED * len(saturation):
                return
        time.sleep(0.1)
    raise RuntimeError(f"{page.url}: no lines after {_LIMIT:.0f} s")


def until_there(page: Page) -> None:
    """Wait until a chart of asynctrack's page has lines, which may be grey."""
    page.wait_for_selector(".card .canvas[data-x]", timeout=_LIMIT * 1000)


def heap(page: Page) -> float:
    """MB that the page's JavaScript holds."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return float(next(each["value"] for each in found if each["name"] == "JSHeapUsedSize")) / 1e6

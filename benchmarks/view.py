"""The page: from its address to the first chart, its memory, and a log call while it looks.

The first table has 100 runs with 10,000 points of one metric: the same points for asynctrack (MLflow's files),
TensorBoard (event files) and MLflow (SQLite). "Cold" is from the start of the server, whose files are in the system's
cache; "warm" is a second browser window, with empty caches, on the server that runs already. Time ends when lines are
on the screen, by screenshot; processor seconds are those of the server with its children, and of Chromium, which has no
GPU. TensorBoard draws 1,000 sampled points of each run; MLflow draws 10 of the runs, and 320 sampled points of each;
asynctrack draws the smallest and the largest of all points for each pixel of all runs. Each figure is the least of
some rounds, in which they take turns; MLflow, which takes minutes, is in the first one only.

The second table has the page over 2,000 runs, and over a run with 10,000 metrics: the server's resident memory, and
what the page's JavaScript holds after a collection of garbage. The third is a page over a run that logs 500 points a
second.

The last one has the log call's latency at 5,000 calls a second, with a page open and without, in turn.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asynctrack
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import Tails, clean_settings, work_folder
from benchmarks.read import new_run, paced, write_points
from benchmarks.report import Report, Table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RUNS, POINTS, ROUNDS = 100, 10_000, 3
MANY_RUNS, MANY_KEYS = 2000, 10_000
#: seconds of live data, and points a second
SOAK, SOAK_RATE = 120.0, 500
#: log calls a second while the page looks
RATE = 5000
#: seconds for one page
_LIMIT = 120.0
_SIZE: Any = {"width": 1600, "height": 1000}
#: the part of a chart that is in colour when lines are there
_COLOURED = 0.003

#: run with TensorBoard's interpreter: the same points as event files
_EVENTS = """
import glob, os, struct, sys
import crc32c
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
def masked(data):
    crc = crc32c.crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
def record(event):
    data = event.SerializeToString()
    size = struct.pack("<Q", len(data))
    return size + masked(size) + data + masked(data)
source, target = sys.argv[1:]
for number, path in enumerate(sorted(glob.glob(source + "/0/*/metrics/loss"))):
    folder = os.path.join(target, f"run-{number:03d}")
    os.makedirs(folder)
    with open(os.path.join(folder, "events.out.tfevents.1700000000.host"), "wb") as file:
        file.write(record(Event(wall_time=1.7e9, file_version="brain.Event:2")))
        for line in open(path):
            at, value, step = line.split()
            summary = Summary(value=[Summary.Value(tag="loss", simple_value=float(value))])
            file.write(record(Event(wall_time=int(at) / 1000, step=int(step), summary=summary)))
"""
_WRITER = """
import sys, time
import asynctrack
run = asynctrack.start_run(tracking_uri=sys.argv[1], run_name="live")
print(run.run_id, flush=True)
rate, step, due = int(sys.argv[2]), 0, time.monotonic()
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(rate // 100):
        run.log_metrics({"loss": 1 / (step + 1)}, step)
        step += 1
    due += 0.01
    time.sleep(max(due - time.monotonic(), 0))
asynctrack.end_run()
print(step, flush=True)
"""


class Tool(NamedTuple):
    """A server with a page. ``command``: but for the port, which replaces PORT. ``ready``: whether it has read what it
    shows. ``address``: of its page, by what it has printed and the port. ``chart``: a CSS selector."""

    name: str
    command: list[str]
    ready: Callable[[int], bool]
    address: Callable[[str, int], str]
    chart: str


class Figures(NamedTuple):
    """Seconds from the start (of the server, or of the navigation) to the chart, and processor seconds of the server
    and of the browser meanwhile."""

    wall: float
    server: float
    browser: float

    @property
    def cpu(self) -> float:
        """Of both."""
        return self.server + self.browser


# ── what is measured


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


def _browser_seconds() -> float:
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
    begun = time.perf_counter()
    process = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in tool.command], stdout=log, stderr=log, text=True,
        env={**peers.environment(), "XDG_CACHE_HOME": str(work / "cache"), "PYTHONUNBUFFERED": "1"}, cwd=work,
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


def _asked(port: int, path: str) -> Any:
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


def _heap(page: Page) -> float:
    """MB that the page's JavaScript holds."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return float(next(each["value"] for each in found if each["name"] == "JSHeapUsedSize")) / 1e6


# ── beside TensorBoard and MLflow


def first_chart(options: Options, report: Report, work: Path) -> None:
    """Time and processor time until lines are on the screen."""
    runs, points, rounds = (10, 1000, 1) if options.quick else (RUNS, POINTS, ROUNDS)
    tools = [_ours(work, _hundred(work, runs, points)), *_others(options, report, work, runs)]
    cold: dict[str, list[Figures]] = {tool.name: [] for tool in tools}
    warm: dict[str, list[Figures]] = {tool.name: [] for tool in tools}
    for number in range(rounds):
        taking_part = [tool for tool in tools if number == 0 or tool.name != "MLflow"]
        for place in range(len(taking_part)):
            tool = taking_part[(place + number) % len(taking_part)]
            first, second = _shown(tool, work)
            cold[tool.name].append(first)
            warm[tool.name].append(second)
            print(f"{tool.name}: cold {first}, warm {second}", flush=True)
    table = Table(
        f"{runs} runs with {points:,} points: the first chart",
        ["", "cold, s", "CPU s", "of the server", "warm, s", "CPU s", "of the server"],
    )
    for tool in tools:
        cells = []
        for found in (cold[tool.name], warm[tool.name]):
            least = min(found, key=lambda each: each.cpu)
            cells += [f"{min(each.wall for each in found):.2f}", f"{least.cpu:.2f}", f"{least.server:.2f}"]
        table.add(tool.name, *cells)
    report.tables.append(table)
    if "TensorBoard" in warm:
        for name, figures in (("cpu", warm), ("cpu_cold", cold)):
            ours, theirs = ([each.cpu for each in figures[tool]] for tool in ("asynctrack", "TensorBoard"))
            what = f"{name.partition('_')[2] or 'warm'} start: processor time to the first chart, of TensorBoard's"
            report.goal(name, what, min(ours) / min(theirs), 0.25)


def _hundred(work: Path, runs: int, points: int) -> list[str]:
    store = FileStore(work / "mlruns", InlineIO())
    found = []
    for number in range(runs):
        folder = new_run(store, number)
        write_points(folder / "metrics" / "loss", points)
        drive(store.update_run(folder.name, status="FINISHED", end_time=10**12 + number + 1))
        found.append(folder.name)
    return found


def _ours(work: Path, run_ids: list[str], root: str = "mlruns") -> Tool:
    chosen = f"&runs={'.'.join(each[:8] for each in run_ids)}" if run_ids else ""
    command = [sys.executable, "-m", "asynctrack", "view", str(work / root), "--no-browser", "--port", "PORT"]

    def address(printed: str, _: int) -> str:
        return str(re.findall(r"http://\S+", printed)[0]) + chosen

    return Tool("asynctrack", command, lambda port: _asked(port, "/") is not None, address, ".card canvas")


def _others(options: Options, report: Report, work: Path, runs: int) -> list[Tool]:
    found = []
    for subject in peers.viewers(options, report.notes):
        report.versions[subject.name] = subject.version
        folder = Path(subject.python).parent
        if subject.name == "TensorBoard":
            subprocess.run([subject.python, "-c", _EVENTS, str(work / "mlruns"), str(work / "events")], check=True)
            command = [str(folder / "tensorboard"), "--logdir", str(work / "events"), "--port", "PORT"]

            def has_all(port: int) -> bool:
                return len(_asked(port, "/data/runs") or []) == runs

            tool = Tool(
                "TensorBoard", [*command, "--host", "127.0.0.1"], has_all,
                lambda _, port: f"http://127.0.0.1:{port}/#timeseries", "scalar-card .chart-container",
            )  # fmt: skip
        else:
            asynctrack.import_runs(str(work / "mlruns"), to=f"sqlite:///{work}/mlflow.db")
            command = [str(folder / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{work}/mlflow.db"]
            tool = Tool(
                "MLflow", [*command, "--port", "PORT", "--host", "127.0.0.1", "--workers", "1"],
                lambda port: _asked(port, "/health") == "OK",
                lambda _, port: f"http://127.0.0.1:{port}/#/experiments/0/runs?compareRunsMode=CHART",
                ".js-plotly-plot .plot-container",
            )  # fmt: skip
        found.append(tool)
    return found


def _shown(tool: Tool, work: Path) -> tuple[Figures, Figures]:
    """Cold and warm."""
    with browser() as opened, window(opened) as page:
        before = _browser_seconds()
        with serving(tool, work) as (address, process, begun):
            page.goto(address, wait_until="commit")
            until_drawn(page, tool.chart)
            cold = Figures(time.perf_counter() - begun, processor_seconds(process.pid), _browser_seconds() - before)
            with window(opened) as other:
                before, used = _browser_seconds(), processor_seconds(process.pid)
                begun = time.perf_counter()
                other.goto(address, wait_until="commit")
                until_drawn(other, tool.chart)
                wall = time.perf_counter() - begun
                warm = Figures(wall, processor_seconds(process.pid) - used, _browser_seconds() - before)
    return cold, warm


# ── memory


def memory(options: Options, report: Report, work: Path) -> None:
    """Of the server and of the page, with many runs and many keys."""
    runs, keys = (50, 200) if options.quick else (MANY_RUNS, MANY_KEYS)
    many = FileStore(work / "many-runs", InlineIO())
    for number in range(runs):
        folder = new_run(many, number)
        for index in range(20):
            (folder / "params" / f"param{index}").write_text(f"{number % (index + 2)}")
        for index in range(3):
            write_points(folder / "metrics" / f"metric{index}", 100)
        drive(many.update_run(folder.name, status="FINISHED", end_time=10**12 + number + 1))
    wide = new_run(FileStore(work / "many-keys", InlineIO()))
    for index in range(keys):
        path = wide / "metrics" / f"group{index % 50}" / f"metric{index}"
        path.parent.mkdir(exist_ok=True)
        write_points(path, 10)
    table = Table("memory", ["", "server, MB", "page, MB", "first chart, s"])
    for name, root in ((f"{runs:,} runs", "many-runs"), (f"{keys:,} metrics", "many-keys")):
        tool = _ours(work, [], root)
        with browser() as opened, window(opened) as page, serving(tool, work) as (address, process, begun):
            page.goto(address, wait_until="commit")
            until_there(page)
            wall = time.perf_counter() - begun
            time.sleep(3)  # until it has listed the runs once more
            server, heap = resident(process.pid), _heap(page)
        table.add(name, f"{server:.0f}", f"{heap:.0f}", f"{wall:.1f}")
        report.goal(f"memory_{root.partition('-')[2]}", f"server with {name}", server, 300.0, "MB")
        report.goal(f"page_{root.partition('-')[2]}", f"page with {name}", heap, 60.0, "MB")
    report.tables.append(table)


def soak(options: Options, report: Report, work: Path) -> None:
    """A page over a run that goes on."""
    length, root = (8.0 if options.quick else SOAK), str(work / "soak")
    table = Table(
        f"a page over a run that logs {SOAK_RATE} points a second", ["after, s", "points", "server, MB", "page, MB"]
    )
    marks = []
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, root, str(SOAK_RATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**peers.environment(), "ASYNCTRACK_SPOOL_DIR": str(work / "spool")},
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        with browser() as opened, window(opened) as page, serving(_ours(work, [], "soak"), work) as served:
            page.goto(served[0], wait_until="commit")
            until_there(page)
            time.sleep(3)
            server, begun = served[1].pid, time.perf_counter()
            used = processor_seconds(server), _browser_seconds()
            for part in range(5):
                time.sleep(max(begun + part * length / 4 - time.perf_counter(), 0))
                after = time.perf_counter() - begun
                marks.append((after, resident(server), _heap(page)))
                table.add(f"{after:.0f}", f"{after * SOAK_RATE:,.0f} more", *(f"{mark:.1f}" for mark in marks[-1][1:]))
            spent = processor_seconds(server) - used[0], _browser_seconds() - used[1]
        logged = int(writer.communicate("\n")[0])
    report.tables.append(table)
    report.notes.append(
        f"Soak: {logged:,} points were logged; the server used {spent[0] / length:.1%} of a processor, the browser "
        f"{spent[1] / length:.1%}."
    )
    seconds, grown = marks[-1][0] - marks[1][0], marks[-1][1] - marks[1][1]
    kept = seconds * SOAK_RATE * 48 / 1e6
    report.goal("soak_server", "growth of the server beyond 48 bytes a point, in an hour",
                (grown - kept) / seconds * 3600, 100.0, "MB")  # fmt: skip
    report.goal("soak_page", "growth of the page in an hour", (marks[-1][2] - marks[1][2]) / seconds * 3600, 20.0, "MB")


# ── the log call


def beside(options: Options, report: Report, work: Path) -> None:
    """The log call while a page looks."""
    length, rounds = (0.5, 1) if options.quick else (6.0, 5)
    alone: list[int] = []
    seen: list[int] = []
    ratios = []
    tool = _ours(work, [], "live")
    with clean_settings(work), asynctrack.start_run(tracking_uri=str(work / "live")) as active:
        paced(active, 1.0, RATE)
        active.flush()
        with browser() as opened, serving(tool, work) as (address, _, _):
            for _ in range(rounds):
                quiet = paced(active, length, RATE)
                with window(opened) as page:
                    page.goto(address, wait_until="commit")
                    until_there(page)
                    watched = paced(active, length, RATE)
                alone += quiet
                seen += watched
                ratios.append(Tails.of(watched).p99 / Tails.of(quiet).p99)
    table = Table(
        f"log_metric at {RATE:,} calls a second", ["", "p50 µs", "p99 µs", "p99.9 µs", "most µs", "over 1 ms"]
    )
    table.add("nobody looks", *Tails.of(alone).cells())
    table.add("a page looks", *Tails.of(seen).cells())
    report.tables.append(table)
    report.goal("beside", "p99 of the log call while a page looks, against nobody looking (median of rounds)",
                statistics.median(ratios), 1.25)  # fmt: skip


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("view", "The page", __doc__ or "")
    if shutil.which("chromium") is None:
        report.notes.append("Left out: there is no chromium here.")
        return report
    with work_folder() as work:
        first_chart(options, report, work)
        memory(options, report, work)
        soak(options, report, work)
        beside(options, report, work)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

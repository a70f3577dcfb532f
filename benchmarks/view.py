"""The page: from its address to the first chart, its memory, and a log call while it looks.

The first table has 100 runs with 10,000 points of one metric: the same points for asynctrack (MLflow's files),
TensorBoard (event files) and MLflow (SQLite). "Cold" is from the start of the server, whose files are in the system's
cache; "warm" is a second browser window, with empty caches, on the server that runs already. Time ends when lines are
on the screen, by screenshot; processor seconds are those of the server with its children, and of Chromium, which has no
GPU. TensorBoard draws 1,000 sampled points of each run; MLflow draws 10 of the runs, and 320 sampled points of each;
asynctrack draws the smallest and the largest of all points for each pixel of all runs. Each figure is the least of
some rounds, in which they take turns; MLflow, which takes minutes, is in the first one only.

The second table has the page over 2,000 runs, and over a run with 10,000 metrics: the server's resident memory, and
what the page's JavaScript holds after a collection of garbage. (Over a long run: benchmarks.soak.)

The third has the time from a log call to the frame of the page that shows its point, of single points at random
moments: on files, and with a store that cannot be reached, where the point is in the spool only.

The last one has the log call's latency at 5,000 calls a second, with a page open and without, in turn.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asynctrack
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from benchmarks import peers
from benchmarks.command import Options, run
from benchmarks.measuring import Tails, clean_settings, work_folder
from benchmarks.page import (
    Tool,
    asked,
    browser,
    browser_seconds,
    heap,
    ours,
    processor_seconds,
    resident,
    serving,
    until_drawn,
    until_there,
    window,
)
from benchmarks.read import new_run, paced, write_points
from benchmarks.report import Report, Table

if TYPE_CHECKING:
    pass

RUNS, POINTS, ROUNDS = 100, 10_000, 3
MANY_RUNS, MANY_KEYS = 2000, 10_000
#: log calls a second while the page looks
RATE = 5000

#: notes when the last step of the chart that is drawn becomes another, in each frame
_WATCH = """() => {
    window.seen = {};
    const look = () => {
        const last = document.querySelector(".card .canvas[data-x]")?.dataset.x.split(" ")[1];
        if (last !== undefined) seen[last] ??= Date.now();
        requestAnimationFrame(look);
    };
    look();
}"""

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


# ── beside TensorBoard and MLflow


def first_chart(options: Options, report: Report, work: Path) -> None:
    """Time and processor time until lines are on the screen."""
    runs, points, rounds = (10, 1000, 1) if options.quick else (RUNS, POINTS, ROUNDS)
    tools = [ours(work, _hundred(work, runs, points)), *_others(options, report, work, runs)]
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
            mine, theirs = ([each.cpu for each in figures[tool]] for tool in ("asynctrack", "TensorBoard"))
            what = f"{name.partition('_')[2] or 'warm'} start: processor time to the first chart, of TensorBoard's"
            report.goal(name, what, min(mine) / min(theirs), 0.25)


def _hundred(work: Path, runs: int, points: int) -> list[str]:
    store = FileStore(work / "mlruns", InlineIO())
    found = []
    for number in range(runs):
        folder = new_run(store, number)
        write_points(folder / "metrics" / "loss", points)
        drive(store.update_run(folder.name, status="FINISHED", end_time=10**12 + number + 1))
        found.append(folder.name)
    return found


def _others(options: Options, report: Report, work: Path, runs: int) -> list[Tool]:
    found = []
    for subject in peers.viewers(options, report.notes):
        report.versions[subject.name] = subject.version
        folder = Path(subject.python).parent
        if subject.name == "TensorBoard":
            subprocess.run([subject.python, "-c", _EVENTS, str(work / "mlruns"), str(work / "events")], check=True)
            command = [str(folder / "tensorboard"), "--logdir", str(work / "events"), "--port", "PORT"]

            def has_all(port: int) -> bool:
                return len(asked(port, "/data/runs") or []) == runs

            tool = Tool(
                "TensorBoard", [*command, "--host", "127.0.0.1"], has_all,
                lambda _, port: f"http://127.0.0.1:{port}/#timeseries", "scalar-card .chart-container",
            )  # fmt: skip
        else:
            asynctrack.import_runs(str(work / "mlruns"), to=f"sqlite:///{work}/mlflow.db")
            command = [str(folder / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{work}/mlflow.db"]
            tool = Tool(
                "MLflow", [*command, "--port", "PORT", "--host", "127.0.0.1", "--workers", "1"],
                lambda port: asked(port, "/health") == "OK",
                lambda _, port: f"http://127.0.0.1:{port}/#/experiments/0/runs?compareRunsMode=CHART",
                ".js-plotly-plot .plot-container",
            )  # fmt: skip
        found.append(tool)
    return found


def _shown(tool: Tool, work: Path) -> tuple[Figures, Figures]:
    """Cold and warm."""
    with browser() as opened, window(opened) as page:
        before = browser_seconds()
        with serving(tool, work) as (address, process, begun):
            page.goto(address, wait_until="commit")
            until_drawn(page, tool.chart)
            cold = Figures(time.perf_counter() - begun, processor_seconds(process.pid), browser_seconds() - before)
            with window(opened) as other:
                before, used = browser_seconds(), processor_seconds(process.pid)
                begun = time.perf_counter()
                other.goto(address, wait_until="commit")
                until_drawn(other, tool.chart)
                wall = time.perf_counter() - begun
                warm = Figures(wall, processor_seconds(process.pid) - used, browser_seconds() - before)
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
        tool = ours(work, [], root)
        with browser() as opened, window(opened) as page, serving(tool, work) as (address, process, begun):
            page.goto(address, wait_until="commit")
            until_there(page)
            wall = time.perf_counter() - begun
            time.sleep(3)  # until it has listed the runs once more
            server, held = resident(process.pid), heap(page)
        table.add(name, f"{server:.0f}", f"{held:.0f}", f"{wall:.1f}")
        report.goal(f"memory_{root.partition('-')[2]}", f"server with {name}", server, 300.0, "MB")
        report.goal(f"page_{root.partition('-')[2]}", f"page with {name}", held, 60.0, "MB")
    report.tables.append(table)


# ── from the call to the screen


def on_screen(options: Options, report: Report, work: Path) -> None:
    """From a log call to the frame that shows its point."""
    count = 3 if options.quick else 40
    table = Table("from the log call to the screen", ["", "points", "median ms", "p90 ms", "most ms"])
    for name, uri in (("files", str(work / "shown")), ("a store that is down", "http://127.0.0.1:9")):
        found = sorted(_waits(uri, count, work))
        cells = (statistics.median(found), found[int(0.9 * count)], found[-1])
        table.add(name, str(count), *(f"{each:.0f}" for each in cells))
        report.goal(
            f"on_screen_{name.split()[-1]}", f"from a log call to the screen, {name}, the latest", cells[2], 500.0, "ms"
        )
    report.tables.append(table)


def _waits(uri: str, count: int, work: Path) -> list[float]:
    """ms from each log call to its point on the screen."""
    chance, found = random.Random(count), []
    patience = {"connect_timeout": 0.1, "close_timeout": 0.1}
    with clean_settings(work, **patience), browser() as opened, window(opened) as page:
        run = asynctrack.start_run(tracking_uri=uri)
        for step in range(200):
            run.log_metric("loss", step % 7, step)
        with serving(ours(work, [], uri), work) as (address, _, _):
            page.goto(address, wait_until="commit")
            until_there(page)
            page.evaluate(_WATCH)
            time.sleep(5)
            for step in range(200, 200 + count):
                time.sleep(chance.uniform(0.3, 1.3))
                logged = time.time()
                run.log_metric("loss", step % 7, step)
                page.wait_for_function("step => seen[step] !== undefined", arg=step)
                found.append(page.evaluate("step => seen[step]", step) - logged * 1000)
        run.terminate()
    return found


# ── the log call


def beside(options: Options, report: Report, work: Path) -> None:
    """The log call while a page looks."""
    length, rounds = (0.5, 1) if options.quick else (6.0, 5)
    alone: list[int] = []
    seen: list[int] = []
    ratios = []
    tool = ours(work, [], "live")
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
        on_screen(options, report, work)
        beside(options, report, work)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

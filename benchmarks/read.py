"""Reading back: the points of one metric as columns, a list of runs, and logging while somebody reads.

Each figure is of a program of its own. Columns are read from one metric file of a million points (``<time> <value>
<step>``): processor seconds from the open store to the arrays, and how much the process grew at most meanwhile, NumPy
being loaded before; without NumPy, too. Beside it pandas' C parser on the same file, and a history through
``MlflowClient``, asynctrack's and MLflow's own.

MLflow's own client is given a tenth of the points: it takes minutes for all.

Lists are ``search_runs`` over runs with 10 metrics of 100 points, 20 params and 4 tags each, all on one page: cold,
with an empty cache folder, and warm, by another program. The files themselves are in the system's cache both times.

The next table has the start of each verb of the command line over three runs: the least processor time and the least
time of ten starts, beyond those of an interpreter that does nothing. Another has ``asynctrack runs`` over 1,000 runs,
warm, with its start.

The last table has the log call's latency at 50,000 calls a second, alone and while another process reads the same
metric file in a loop, in turn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import asynctrack
from asynctrack.stores.base import RunSpec
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from benchmarks.command import Options, run
from benchmarks.measuring import Tails, clean_settings, work_folder
from benchmarks.report import Report, Table

POINTS, RUNS, RATE = 1_000_000, (100, 1000, 2000), 50_000
#: runs that ``asynctrack runs`` lists
LISTED = 1000
_BEGIN = """
import gc, json, resource, sys, time
def peak(): return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
def now(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
root, run_id, path = sys.argv[1:]
"""
_END = """
open("/proc/self/clear_refs", "w").write("5")
before, began = now(), time.process_time()
found = work()
print(json.dumps([time.process_time() - began, peak() - before, found]))
"""
_STORE = """
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
store = FileStore(root, InlineIO())
def work(): return len(drive(store.read_columns(run_id)).columns["loss"])
"""
#: each is a program; ``work`` returns the number of points
READERS = {
    "columns, with NumPy": "import numpy\n" + _STORE,
    "columns, without NumPy": "sys.modules['numpy'] = None\n" + _STORE,
    "asynctrack's MlflowClient.get_metric_history": """
from asynctrack import MlflowClient
client = MlflowClient(root)
def work(): return len(client.get_metric_history(run_id, "loss"))
""",
    "pandas.read_csv (C), the file alone": """
import pandas
def work(): return len(pandas.read_csv(path, sep=" ", header=None, engine="c"))
""",
    "MLflow's MlflowClient.get_metric_history": """
import os
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
from mlflow import MlflowClient
client = MlflowClient(root)
def work(): return len(client.get_metric_history(run_id, "loss"))
""",
}
NEEDS = {"pandas.read_csv (C), the file alone": "pandas", "MLflow's MlflowClient.get_metric_history": "mlflow"}
_LIST = """
import json, sys, time
began = time.process_time(), time.perf_counter()
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
loaded = time.process_time(), time.perf_counter()
found = drive(FileStore(sys.argv[1], InlineIO()).search_runs(["0"], max_results=10_000)).items
ended = time.process_time(), time.perf_counter()
heavy = [name for name in ("numpy", "asynctrack.engine.engine", "asynctrack.journal.writer") if name in sys.modules]
print(json.dumps([ended[0] - loaded[0], ended[1] - loaded[1], loaded[0] - began[0], len(found), heavy]))
"""
_LOOP = """
import sys
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
store, run_id, looks, cursor = FileStore(sys.argv[1], InlineIO()), sys.argv[2], 0, None
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        cursor = drive(store.read_columns(run_id, after=cursor)).cursor if looks % 10 else None
        drive(store.get_run(run_id))
        looks += 1
    except Exception as error:
        print(repr(error), file=sys.stderr)
        raise
print(looks)
"""


def program(code: str, *arguments: object, cache: Path) -> Any:
    """What a program prints as JSON. Raises RuntimeError."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return json.loads(done.stdout)


def new_run(store: FileStore, number: int = 0) -> Path:
    """The folder of a new run, with the folders of its parts."""
    tags = {"mlflow.user": "ann", "mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL"}
    spec = RunSpec(uuid.uuid4().hex, run_name=f"run {number}", user_id="ann", start_time=10**12 + number, tags=tags)
    folder = Path(store.root, "0", drive(store.create_run(spec)).run_id)
    for name in ("metrics", "params", "tags"):
        (folder / name).mkdir(exist_ok=True)
    return folder


def write_points(path: Path, points: int) -> None:
    """A metric file as a training loop leaves it: about one point a millisecond, values of all digits."""
    at = 1_700_000_000_000
    with path.open("w") as file:
        for step in range(points):
            at += random.randrange(3)
            file.write(f"{at} {random.gauss(0.0, 1.0)!r} {step}\n")


def columns(options: Options, report: Report, work: Path) -> None:
    """Points of one metric."""
    points = 50_000 if options.quick else POINTS
    folder = new_run(FileStore(work / "points", InlineIO()))
    path = folder / "metrics" / "loss"
    write_points(path, points)
    fewer = new_run(FileStore(work / "fewer", InlineIO()))
    write_points(fewer / "metrics" / "loss", points // 10)
    table = Table(f"{points:,} points of one metric", ["", "CPU s", "of columns", "MB more"])
    spent: dict[str, float] = {}
    for name, code in READERS.items():
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            report.notes.append(f"Left out: {name}: {NEEDS[name]} is not installed.")
            continue
        slow = NEEDS.get(name) == "mlflow"
        read = fewer if slow else folder
        there = [read.parent.parent, read.name, read / "metrics" / "loss"]
        try:
            rounds = [
                program(_BEGIN + code + _END, *there, cache=work / "cache")
                for _ in range(1 if options.quick or slow else 3)
            ]
        except RuntimeError as error:
            report.notes.append(f"Left out: {name}: {error}.")
            continue
        expected = points // 10 if slow else points
        if any(found[2] != expected for found in rounds):
            raise RuntimeError(f"{name} found {rounds[0][2]} of {expected} points")
        spent[name] = statistics.median(found[0] for found in rounds)
        grown = statistics.median(found[1] for found in rounds)
        times = spent[name] / next(iter(spent.values())) * (10 if slow else 1)
        shown = f"{name}, {expected:,} points" if slow else name
        table.add(shown, f"{spent[name]:.2f}", f"{times:.1f}×", f"{grown:.0f}")
        if len(spent) == 1:
            report.goal("columns", "columns of the points, with NumPy", spent[name], 0.5, "CPU s")
            report.goal("memory", "growth of the process meanwhile", grown, 60.0, "MB")
    report.tables.append(table)


def lists(options: Options, report: Report, work: Path) -> None:
    """Lists of runs."""
    table = Table("search_runs, all runs on one page", ["runs", "cache", "CPU s", "wall s", "CPU s of the import"])
    for number in (10, 50) if options.quick else RUNS:
        store = FileStore(work / f"runs-{number}", InlineIO())
        for each in range(number):
            folder = new_run(store, each)
            for key in range(20):
                (folder / "params" / f"param{key}").write_text(repr(random.random()))
            for key in range(10):
                write_points(folder / "metrics" / f"metric{key}", 100)
        time.sleep(2.5)  # younger files are not remembered
        cache = work / f"cache-{number}"
        for state in ("cold", "warm"):
            cpu, wall, loading, found, heavy = program(_LIST, store.root, cache=cache)
            if found != number:
                raise RuntimeError(f"{found} of {number} runs were found")
            table.add(f"{number:,}", state, f"{cpu:.2f}", f"{wall:.2f}", f"{loading:.2f}")
            if state == "warm":
                report.goal(f"runs_{number}", f"search_runs over {number:,} runs, warm", cpu, number * 0.5e-3, "CPU s")
                if heavy:
                    report.notes.append(f"A warm search has loaded {', '.join(heavy)}.")
    report.tables.append(table)


#: each with what it needs to end by itself
VERBS = {
    "runs": [], "show": ["@"], "tail": ["@"], "plot": ["@"], "compare": ["@", "@1"], "diff": ["@", "@1"],
    "export": ["@", "-o", "-"], "wait": ["@", "ended"], "doctor": [], "spool": [], "sync": [],
    "import": ["one", "--to", "other"], "--help": [],
}  # fmt: skip
_WITHOUT_STORE = ("spool", "sync", "import", "--help")


def starts(options: Options, report: Report, work: Path) -> None:
    """The start of each verb."""
    store = FileStore(work / "small", InlineIO())
    for each in range(3):
        folder = new_run(store, each)
        drive(store.update_run(folder.name, status="FINISHED", end_time=10**12 + each + 1))
        write_points(folder / "metrics" / "loss", 100)
    one = FileStore(work / "one", InlineIO())
    drive(one.update_run(new_run(one).name, status="FINISHED", end_time=10**12 + 1))
    time.sleep(2.5)
    rounds = 2 if options.quick else 10
    nothing = _least(["-c", "pass"], work, rounds)
    own = f"{nothing[0] * 1000:.0f} CPU ms"
    table = Table(f"start of a verb, beyond Python's own ({own})", ["verb", "CPU ms", "wall ms"])
    slowest = 0.0
    for verb, arguments in VERBS.items():
        where = [] if verb in _WITHOUT_STORE else ["--store", store.root]
        cpu, wall = _least(["-m", "asynctrack", verb, *arguments, *where], work, rounds)
        table.add(verb, f"{(cpu - nothing[0]) * 1000:.0f}", f"{(wall - nothing[1]) * 1000:.0f}")
        slowest = max(slowest, cpu - nothing[0])
    report.tables.append(table)
    report.goal("start", "start of the slowest verb, beyond Python's own", slowest * 1000, 150.0, "CPU ms")
    many = work / f"runs-{LISTED}"
    if many.exists():
        command = ["-m", "asynctrack", "runs", "--store", str(many), "-n", str(LISTED), "-o", "tsv"]
        cpu, wall = _least(command, work, rounds)
        listed = Table(f"asynctrack runs over {LISTED:,} runs, warm", ["", "CPU s", "wall s"])
        listed.add("with its start", f"{cpu:.2f}", f"{wall:.2f}")
        report.tables.append(listed)
        report.goal("listing", f"asynctrack runs over {LISTED:,} runs, warm, with its start", wall, 0.5, "s")


def _least(command: list[str], work: Path, rounds: int) -> tuple[float, float]:
    """The least processor time and the least time of so many programs, in s, after one that compiles and fills caches.
    Raises RuntimeError for one that fails; ``diff`` has status 1 where it finds a difference."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(work / "pyc"), "XDG_CACHE_HOME": str(work / "cache")}
    environment["XDG_STATE_HOME"] = str(work / "state")  # `sync` is not to deliver what waits on this machine
    found = []
    for _ in range(rounds + 1):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=work)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode > ("diff" in command):
            raise RuntimeError(f"{command}: {done.stderr[-500:]}")
        found.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return min(cpu for cpu, _ in found[1:]), min(wall for _, wall in found[1:])


def beside(options: Options, report: Report, work: Path) -> None:
    """The log call while somebody reads."""
    length = 0.5 if options.quick else 5.0
    alone: list[int] = []
    read: list[int] = []
    looks = 0
    with clean_settings(work), asynctrack.start_run(tracking_uri=str(work / "live")) as active:
        paced(active, 0.5)
        active.flush()
        for _ in range(1 if options.quick else 3):
            alone += paced(active, length)
            reader = subprocess.Popen(
                [sys.executable, "-c", _LOOP, str(work / "live"), active.run_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert reader.stdout is not None
            reader.stdout.readline()
            read += paced(active, length)
            looks += int(reader.communicate("\n")[0])
    table = Table(
        f"log_metric at {RATE:,} calls a second", ["", "p50 µs", "p99 µs", "p99.9 µs", "most µs", "over 1 ms"]
    )
    first, second = Tails.of(alone), Tails.of(read)
    table.add("alone", *first.cells())
    table.add(f"while another process reads ({looks} looks)", *second.cells())
    report.tables.append(table)
    report.goal("beside", "p99 of the log call while somebody reads, against alone", second.p99 / first.p99, 1.25)


def paced(active: Any, length: float, rate: int = RATE) -> list[int]:
    """The durations of log calls in ns, ``rate`` a second, some every millisecond."""
    laps = []
    clock = time.perf_counter_ns
    log = active.log_metric
    due, end = clock(), clock() + int(length * 1e9)
    step = 0
    while due < end:
        for _ in range(rate // 1000):
            begun = clock()
            log("loss", 0.5 * step, step)
            laps.append(clock() - begun)
            step += 1
        due += 1_000_000
        if (left := due - clock()) > 0:
            time.sleep(left / 1e9)
    return laps


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("read", "Reading back", __doc__ or "")
    random.seed(1)
    with work_folder() as work:
        columns(options, report, work)
        lists(options, report, work)
        starts(options, report, work)
        beside(options, report, work)
    return report


if __name__ == "__main__":
    run(__doc__, measure)

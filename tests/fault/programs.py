"""Runs a user's program in a process of its own, as a user would, with a limit on how long it may take."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asynctrack
from tests.mlflow_store import Tables
from tests.mlruns import StoredRun, read_runs
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

if TYPE_CHECKING:
    from tests.postgres import Postgres

#: the programs use the very asynctrack that is under test, installed or not
PACKAGE = str(Path(asynctrack.__file__).parents[1])
#: seconds after which a program that should have ended counts as hanging
LIMIT = 60

#: logs as fast as it can and keeps, in a shared file, the number of calls that have returned
COUNTING = """
import asynctrack, mmap, os, signal, sys, threading, time
def counted(name="acknowledged"):
    with open(name, "w+b") as file:
        file.truncate(8)
        # One machine word, stored in one instruction: a kill finds the old number or the new one. (struct.pack_into
        # clears the bytes first.)
        return memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
def log_for_ever(run, returned, keys=("m0", "m1", "m2", "m3")):
    log, step = run.log_metric, 0
    while True:
        log(keys[step % len(keys)], step * 0.25, step)
        step += 1
        returned[0] = step
        if step in rest:
            time.sleep(0.02)
# For a store that takes less than a loop logs: after these steps it computes for a while, as a training loop does.
rest = range(0, 1 << 40, int(os.environ["LOG_AND_REST"])) if "LOG_AND_REST" in os.environ else ()
def log_some(run, count=5000, key="loss"):
    for step in range(count):
        run.log_metric(key, step * 0.25, step)
"""


def heed_signals() -> None:
    """In the background of a script, or under nohup, these are ignored, and so in every program that is started here:
    not from now on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``code`` in ``folder``; its standard input and output are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """Wait for a program to end by itself."""
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _kill_with_children(process)
        output, errors = process.communicate()
        raise AssertionError(f"the program hangs; it wrote:\n{output}\n{errors}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _kill_with_children(process: subprocess.Popen[str]) -> None:
    """The children too: they hold its output open. (No process group of its own: the terminal's signals are tested.)"""
    found = [process.pid]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` to its end."""
    return finish(start(code, folder, **environment))


#: It is busy for as long as something moves in the spools that it found: its own end does not wait for these.
NEXT = """
import asynctrack, os, time

def others(own):
    home = os.path.dirname(own)
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if path != own and os.path.exists(os.path.join(path, "registry")):
            try:
                yield path, [(entry.name, entry.stat().st_size) for entry in os.scandir(path)]
            except OSError:
                pass  # deleted just now

with asynctrack.start_run(run_name="next") as run:
    own = run._state.engine.journal.spool.path
    seen, moved = None, time.monotonic()
    while own and (found := sorted(others(own))) and time.monotonic() < moved + 5.0:
        if found != seen:
            seen, moved = found, time.monotonic()
        time.sleep(0.05)
"""


def recover(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The next program a user starts there: it delivers what the last one left."""
    result = run(NEXT, folder, **environment)
    assert result.returncode == 0, result.stderr
    return result


def spools(folder: Path) -> list[Path]:
    """The spool directories that are left."""
    home = folder / ".asynctrack"
    return [path for path in home.iterdir() if path.is_dir()] if home.exists() else []


class Lab:
    """A folder to run programs in, and the store that they log to."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        read: Callable[[], dict[str, StoredRun]],
        artifacts: Path,
        out_of_order: Callable[[], tuple[Lab, Callable[[], None]]],
    ) -> None:
        self.folder = folder
        self.environment = environment
        self._read = read
        self._artifacts = artifacts
        #: the same folder with a store of the same kind that is out of order, and the function that mends that store
        self.out_of_order = out_of_order

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program; what it has at hand is in `COUNTING`."""
        return start(COUNTING + textwrap.dedent(code), self.folder, **(self.environment | environment))

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return finish(self.start(code, **environment))

    def recover(self) -> subprocess.CompletedProcess[str]:
        """Run the next program that a user starts there."""
        return recover(self.folder, **self.environment)

    def spools(self) -> list[Path]:
        """The spool directories that are left."""
        return spools(self.folder)

    def acknowledged(self, name: str = "acknowledged") -> int:
        """How many log calls of the last program have returned."""
        (count,) = struct.unpack("=q", (self.folder / name).read_bytes())
        return int(count)

    def runs(self) -> dict[str, StoredRun]:
        """What is in the store, without the runs that `recover` made."""
        return {key: run for key, run in self._read().items() if run.tags.get("mlflow.runName") != "next"}

    def artifacts(self) -> dict[str, bytes]:
        """Every file in the artifacts of these runs, hidden ones too."""
        paths = [path for run_id in self.runs() for path in self._artifacts.glob(f"*/{run_id}/artifacts/**/*")]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def only_run(self) -> StoredRun:
        """The one run in the store, apart from those that `recover` made."""
        (run,) = self.runs().values()
        return run


#: for tests of what only a file store has
ON_FILES = pytest.mark.parametrize("lab", ["file"], indirect=True)
#: for tests that databases as stores have to pass in the gate, too; the variable FAULT_STORES has all of them do so
ON_ALL = pytest.mark.parametrize("lab", ["file", "server", "sqlite", "postgres"], indirect=True)


def file_lab(folder: Path, root: str = "mlruns") -> Lab:
    """A folder with a file store in it."""
    obstacle = folder / "disk"

    def out_of_order() -> tuple[Lab, Callable[[], None]]:
        obstacle.write_text("a file where a folder should be")
        return file_lab(folder, "disk/mlruns"), obstacle.unlink

    return Lab(folder, {"MLFLOW_TRACKING_URI": root}, lambda: read_runs(folder / root), folder / root, out_of_order)


def server_lab(folder: Path, server: MlflowServer, experiment: str, stack: ExitStack, url: str | None = None) -> Lab:
    """A folder, and an experiment of its own on a real MLflow server, which is reached by ``url``."""

    def out_of_order() -> tuple[Lab, Callable[[], None]]:
        proxy = stack.enter_context(FaultProxy(server.url))
        proxy.refuse()
        return server_lab(folder, server, experiment, stack, proxy.url), proxy.heal

    environment = {
        "MLFLOW_TRACKING_URI": url or server.url,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        # 50,000 events a second: a test's second or two of them are delivered within its deadlines
        "LOG_AND_REST": "1000",
    }
    return Lab(folder, environment, lambda: read_tables(server, experiment), server.artifacts, out_of_order)


def sqlite_lab(folder: Path, path: str = "mlflow.db") -> Lab:
    """A folder, and an SQLite database that its first program makes in it."""
    obstacle, database = folder / "disk", folder / path

    def out_of_order() -> tuple[Lab, Callable[[], None]]:
        obstacle.write_text("a file where a folder should be")
        return sqlite_lab(folder, "disk/mlflow.db"), obstacle.unlink

    tables = Tables(f"sqlite:///{database}")
    environment = {"MLFLOW_TRACKING_URI": tables.backend, "LOG_AND_REST": "1000"}

    def read() -> dict[str, StoredRun]:
        return read_tables(tables, "Default") if database.exists() and database.stat().st_size else {}

    return Lab(folder, environment, read, database.parent / "mlruns", out_of_order)


def postgres_lab(folder: Path, cluster: Postgres, experiment: str, stack: ExitStack, uri: str | None = None) -> Lab:
    """A folder, and an experiment of its own in a real PostgreSQL database, which is reached by ``uri``."""

    def out_of_order() -> tuple[Lab, Callable[[], None]]:
        from tests.wire import Wire  # where PostgreSQL is installed

        wire = stack.enter_context(Wire(cluster))
        wire.refuse()
        return postgres_lab(folder, cluster, experiment, stack, wire.uri), wire.heal

    environment = {
        "MLFLOW_TRACKING_URI": uri or cluster.url,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "LOG_AND_REST": "1000",
    }
    tables = Tables(cluster.url)
    return Lab(folder, environment, lambda: read_tables(tables, experiment), folder / "mlruns", out_of_order)


def read_tables(server: MlflowServer | Tables, experiment: str) -> dict[str, StoredRun]:
    """Every run of an experiment, read with SQL."""
    runs = {}
    for run_id in support.runs_of(server, experiment):
        ((start, end),) = server.rows("SELECT start_time, end_time FROM runs WHERE run_uuid = :run", run=run_id)
        found = support.stored(server, run_id)
        metrics: dict[str, list[tuple[int, float, int]]] = {}
        for key, timestamp, value, step in server.rows(
            "SELECT key, timestamp, value, step FROM metrics WHERE run_uuid = :run ORDER BY step", run=run_id
        ):
            metrics.setdefault(key, []).append((timestamp, value, step))
        meta = {"start_time": start, "end_time": end}
        runs[run_id] = StoredRun(run_id, found.status, meta, metrics, found.params, found.tags)
    return runs


def line_for(process: subprocess.Popen[str]) -> str:
    """The next line that a program prints: it has come so far."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the program has ended: {finish(process)}"
    return line.strip()


def steps(run: StoredRun, key: str = "loss") -> list[int]:
    """The steps of one metric that are stored; each value is checked to be the one that belongs to its step."""
    points = sorted((step, value) for _, value, step in run.metrics.get(key, []))
    assert points == [(step, step * 0.25) for step, _ in points]
    return [step for step, _ in points]


def check_counted(run: StoredRun, acknowledged: int, keys: int = 4) -> int:
    """All that ``log_for_ever`` logged is stored, once; how much that is."""
    points = sorted((step, value, name) for name, lines in run.metrics.items() for _, value, step in lines)
    assert points == [(i, i * 0.25, f"m{i % keys}") for i in range(len(points))], "lost, doubled or wrong"
    # The call under way when the end came may or may not have got there.
    assert len(points) in (acknowledged, acknowledged + 1)
    return len(points)

"""Stores and processes for the tests of whoever delivers beside a program, or after it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asynctrack.engine import shipper
from tests.fault.programs import COUNTING, finish, spools, start
from tests.mlruns import read_runs
from tests.rest import support
from tests.servers import MlflowServer


class Found(NamedTuple):
    """A run as a store holds it. ``points`` are (key, step, value), sorted."""

    run_id: str
    status: str
    points: list[tuple[str, int, float]]
    params: dict[str, str]
    tags: dict[str, str]


class Place:
    """A folder to run programs in and the store they log to, an experiment of its own on a server."""

    def __init__(self, folder: Path, server: MlflowServer | None, url: str | None = None) -> None:
        self.folder = folder
        self._server = server
        self._experiment = support.fresh()
        uri = url or (server.url if server is not None else str(folder / "mlruns"))
        self.environment = {
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "ASYNCTRACK_FLUSH_INTERVAL": "0.1",
        }

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program; what it has at hand is in `COUNTING`."""
        return start(COUNTING + code, self.folder, **(self.environment | environment))

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return finish(self.start(code, **environment))

    def asynctrack(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return finish(start_command(self.folder, *arguments, **environment))

    def found(self) -> list[Found]:
        """What the store holds."""
        if self._server is None:
            return [
                Found(
                    run.run_id,
                    run.status,
                    sorted((key, step, value) for key, lines in run.metrics.items() for _, value, step in lines),
                    run.params,
                    run.tags,
                )
                for run in read_runs(self.folder / "mlruns").values()
            ]
        runs = [(run, support.stored(self._server, run)) for run in support.runs_of(self._server, self._experiment)]
        return [Found(run_id, *run) for run_id, run in runs]

    def only_run(self) -> Found:
        """The one run there."""
        (run,) = self.found()
        return run

    def spools(self) -> list[Path]:
        """The spools that are left."""
        return spools(self.folder)

    def shippers(self) -> list[int]:
        """The shipper processes for spools in this folder."""
        return shippers(self.folder)


def start_command(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``asynctrack …`` in a folder."""
    code = f"import sys; sys.argv = {['asynctrack', *arguments]!r}; from asynctrack.cli import main; main()"
    return start(code, folder, **environment)


def shippers(folder: Path) -> list[int]:
    """The ids of the shipper processes for spools below a folder; one that has ended and that nobody has waited for is
    gone."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue  # no process, or one that has just ended
        if b"asynctrack.engine.shipper" in command and os.fsencode(folder) in command and entry.name.isdigit():
            found.append(int(entry.name))
    return found


def until(condition: Callable[[], object], what: str, seconds: float = support.PATIENCE) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)


def kernel_tells_how_the_dead_ended() -> bool:
    """Whether it does so after somebody has waited for them (Linux 6.15)."""
    with subprocess.Popen([sys.executable, "-c", "import os; os._exit(3)"]) as process:
        fd = os.pidfd_open(process.pid)
    info = bytearray(shipper._WANT_EXIT.to_bytes(8, sys.byteorder) + bytes(shipper._INFO_BYTES - 8))
    try:
        fcntl.ioctl(fd, shipper._GET_INFO, info)
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(int.from_bytes(info[:8], sys.byteorder) & shipper._WANT_EXIT)

"""Who is measured beside us: each peer in a virtual environment of its own, made on first use and kept in a cache.

No peer may speak to anybody: their offline and no-telemetry switches are set, and that is all they are configured with.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import Options

__all__ = [
    "IN_MEMORY",
    "NOTHING",
    "OURS",
    "PEERS",
    "Peer",
    "Subject",
    "available",
    "environment",
    "measure",
    "start",
    "viewers",
]

WORKER = Path(__file__).with_name("worker.py")
REAPER = Path(__file__).with_name("reaper.py")
#: seconds for one installation
_INSTALLATION = 900
#: seconds that a worker which takes orders is given to end by itself
_PARTING = 10

_QUIET = {
    "AIM_UI_TELEMETRY_ENABLED": "0",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "NEPTUNE_MODE": "offline",
    "SWANLAB_MODE": "offline",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
#: one thread multiplies small matrices fastest, and leaves the other processor to whoever logs
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: glibc gives large arrays back to the system when they are freed, and gets them anew, page by page: or does not,
#: where something else happens to lie behind them. A training loop of NumPy's is half as fast or twice, by that alone
_STEADY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
_FOREIGN = ("AIM_", "ASYNCTRACK_", "DVC_", "DVCLIVE_", "MLFLOW_", "NEPTUNE_", "SWANLAB_", "TRACKIO_", "WANDB_")


class Peer(NamedTuple):
    """A client that others have written. ``packages`` are what pip installs; ``job`` chooses a mode of the client."""

    name: str
    client: str
    packages: tuple[str, ...]
    job: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed


class Subject(NamedTuple):
    """What can be measured: a client and the interpreter that has it."""

    name: str
    python: str
    job: dict[str, Any]
    version: str = ""


#: all that write files; none of them speaks to a server
PEERS = (
    Peer("trackio", "trackio", ("trackio",)),
    Peer("tensorboardX", "tensorboardX", ("tensorboardX",)),
    Peer("tensorboard", "tensorboard", ("tensorboard",)),
    Peer("swanlab offline", "swanlab", ("swanlab",)),
    Peer("dvclive", "dvclive", ("dvclive",)),
    Peer("aim", "aim", ("aim",)),
    Peer("wandb offline", "wandb", ("wandb",)),
    Peer("neptune-scale offline", "neptune-scale", ("neptune-scale",)),
    Peer("mlflow, synchronous", "mlflow", ("mlflow",), {"synchronous": True}),
    Peer("mlflow, asynchronous", "mlflow", ("mlflow",), {"synchronous": False}),
)
#: those that have a page
VIEWERS = (
    Peer("TensorBoard", "tensorboard-view", ("tensorboard", "crc32c")),
    Peer("MLflow", "mlflow", ("mlflow",)),
)
#: whom --quick measures, unless it is told whom
_QUICK_PEERS = ("trackio", "tensorboardX")
NOTHING = Subject("no logging", sys.executable, {"client": "none"})
IN_MEMORY = Subject("in memory", sys.executable, {"client": "in memory"})
OURS = (
    Subject("asynctrack", sys.executable, {"client": "asynctrack", "shipper": "thread"}),
    Subject("asynctrack, shipper process", sys.executable, {"client": "asynctrack", "shipper": "process"}),
)


def available(options: Options, notes: list[str]) -> list[Subject]:
    """The peers that can be had, installed where they were not; a line in ``notes`` for each that cannot."""
    return _available(PEERS, _QUICK_PEERS if options.peers is None and options.quick else options.peers, options, notes)


def viewers(options: Options, notes: list[str]) -> list[Subject]:
    """The same of those that have a page."""
    return _available(VIEWERS, options.peers, options, notes)


def _available(
    peers: Sequence[Peer], wanted: Sequence[str] | None, options: Options, notes: list[str]
) -> list[Subject]:
    found = []
    for peer in peers:
        if wanted is not None and peer.client not in wanted and peer.name not in wanted:
            continue
        try:
            python, version = _installed(peer, options.cache)
        except (OSError, subprocess.SubprocessError) as error:
            notes.append(f"Left out: {peer.name}, which could not be installed ({_reason(error)}).")
            print(notes[-1], flush=True)
            continue
        found.append(Subject(peer.name, python, {"client": peer.client, **peer.job}, version))
    return found


def _installed(peer: Peer, cache: Path) -> tuple[str, str]:
    """The interpreter of a peer's environment and the peer's version. Raises OSError, SubprocessError."""
    folder = cache / f"{peer.client}-{sys.version_info.major}.{sys.version_info.minor}"
    python, ready = folder / "bin" / "python", folder / "installed"
    if not ready.exists():
        print(f"installing {peer.client} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", *peer.packages])
        show = f"import importlib.metadata; print(importlib.metadata.version({peer.packages[0]!r}))"
        ready.write_text(_run([str(python), "-c", show]).strip())
    return str(python), ready.read_text()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALLATION, check=True)
    return done.stdout


def _reason(error: BaseException) -> str:
    lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__


def environment() -> dict[str, str]:
    """For whatever is measured: nothing of the user's settings, no telemetry, no network, and modules are compiled
    once, as an installed package's are, not at each import."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **_QUIET, **_ONE_THREAD, "PYTHONWARNINGS": "ignore"}


def _command(subject: Subject, folder: str, job: dict[str, Any]) -> list[str]:
    return [subject.python, str(WORKER), json.dumps({**subject.job, **job, "folder": folder})]


def measure(subject: Subject, limit: float = 300.0, **job: Any) -> dict[str, Any]:
    """What the worker found, with the processor time of its whole process tree (``cpu``, in seconds) and when the
    last process of that was ``gone`` (monotonic seconds). Raises RuntimeError, with the client's words, where it
    failed."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        usage = Path(work, "usage")
        folder = Path(work, "client")
        folder.mkdir()
        command = [sys.executable, str(REAPER), str(usage), str(limit), *_command(subject, str(folder), job)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=folder)
        if not usage.exists() or done.returncode:
            said = done.stderr.strip().splitlines()
            raise RuntimeError(f"{subject.name} failed: {said[-1] if said else done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**found, **json.loads(usage.read_text())}


@contextmanager
def start(subject: Subject, **job: Any) -> Iterator[subprocess.Popen[str]]:
    """A worker that takes orders: a JSON line in, a JSON line out. Its first line says that it is ready."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        process = subprocess.Popen(
            _command(subject, work, job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment(), **_STEADY},
            cwd=work,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_PARTING)  # no more orders: it closes its client, if that can be done
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.communicate()

"""Logging clients, ours and peers', that `worker.py` measures: all log the same things through their ordinary calls.

Loaded in each peer's virtual environment, where there is neither asynctrack nor this package: nothing is imported from
it, and a client's own import happens when it is chosen.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import time
from collections import deque
from pathlib import Path
from typing import Any

Job = dict[str, Any]


class Client:
    """Logs nothing: what the loop itself costs."""

    def __init__(self, job: Job) -> None:
        """Start a run that writes below ``job["folder"]``, or to the server ``job["uri"]``."""
        self.folder = Path(job["folder"])

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log some metrics of one step: the call that a training loop would make."""

    def one(self, key: str, value: float, step: int) -> None:
        """Log one metric."""
        self.log({key: value}, step)

    def close(self) -> None:
        """End the run; returns when everything is stored."""

    def stored(self) -> int | None:
        """How many events are stored, after `close`; None where that cannot be told."""
        return None


class InMemory(Client):
    """The floor: nothing is checked, nothing is kept beyond the process, nothing is delivered."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.events: deque[tuple[str, float, int, int]] = deque(maxlen=100_000)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for key, value in metrics.items():
            self.one(key, value, step)

    def one(self, key: str, value: float, step: int, timestamp: int | None = None) -> None:
        self.events.append((key, float(value), step or 0, timestamp or time.time_ns() // 1_000_000))


class Asynctrack(Client):
    """Ours. ``job["shipper"]``: "thread" or "process"."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        module = importlib.import_module("asynctrack")
        spool = str(self.folder / "spool")
        module.configure(spool_dir=spool, shipper=job.get("shipper", "thread"), close_timeout=600.0)
        self._shutdown = module.shutdown
        self._run = module.start_run(tracking_uri=job.get("uri") or str(self.folder / "mlruns"))
        self._run.__enter__()

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log_metrics(metrics, step)

    def one(self, key: str, value: float, step: int) -> None:
        self._run.log_metric(key, value, step)

    def close(self) -> None:
        self._run.__exit__(None, None, None)
        self._shutdown()

    def stored(self) -> int | None:
        return _lines(self.folder / "mlruns")


class Mlflow(Client):
    """MLflow's own client. ``job["synchronous"]``; without ``job["uri"]`` into its file layout."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_tracking_uri(job.get("uri") or str(self.folder / "mlruns"))
        self._synchronous = job["synchronous"]
        self._run = self._mlflow.start_run()

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(metrics, step=step, synchronous=self._synchronous)

    def one(self, key: str, value: float, step: int) -> None:
        self._mlflow.log_metric(key, value, step=step, synchronous=self._synchronous)

    def close(self) -> None:
        if not self._synchronous:
            self._mlflow.flush_async_logging()
        self._mlflow.end_run()

    def stored(self) -> int | None:
        return _lines(self.folder / "mlruns") or None


class Trackio(Client):
    """An in-memory list and a thread that writes SQLite."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        os.environ["TRACKIO_DIR"] = str(self.folder)
        self._trackio: Any = importlib.import_module("trackio")
        self._trackio.init(project="benchmark", name="run")

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._trackio.log(metrics, step=step)

    def close(self) -> None:
        self._trackio.finish()

    def stored(self) -> int | None:
        total = 0
        for path in self.folder.rglob("*.db"):
            database = sqlite3.connect(path)
            if database.execute("select 1 from sqlite_master where name = 'metrics'").fetchone():
                total += database.execute("select count(*) from metrics").fetchone()[0]
            database.close()
        return total


class TensorboardX(Client):
    """A thread that writes event files."""

    module = "tensorboardX"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._writer = importlib.import_module(self.module).SummaryWriter(str(self.folder))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def one(self, key: str, value: float, step: int) -> None:
        self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class Tensorboard(TensorboardX):
    """TensorBoard's own writer in pure Python."""

    def __init__(self, job: Job) -> None:
        Client.__init__(self, job)
        self._writer = importlib.import_module("tensorboard.summary").Writer(str(self.folder))


class Wandb(Client):
    """Offline: a service process that writes a transaction log."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        wandb: Any = importlib.import_module("wandb")
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self._run = wandb.init(project="benchmark", dir=str(self.folder), mode="offline", settings=settings)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def close(self) -> None:
        self._run.finish()


class Swanlab(Client):
    """Offline: writes a log of its own."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._swanlab: Any = importlib.import_module("swanlab")
        self._swanlab.init(project="benchmark", mode="offline", logdir=str(self.folder))

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._swanlab.log(metrics, step=step)

    def close(self) -> None:
        self._swanlab.finish()


class Dvclive(Client):
    """Writes a TSV file a metric, in the call."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        live: Any = importlib.import_module("dvclive").Live
        self._live = live(str(self.folder / "dvclive"), save_dvc_exp=False, report=None, monitor_system=False)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._live.step = step
        for key, value in metrics.items():
            self._live.log_metric(key, value)

    def close(self) -> None:
        self._live.end()

    def stored(self) -> int | None:
        return sum(path.read_bytes().count(b"\n") - 1 for path in self.folder.rglob("*.tsv"))


class Aim(Client):
    """A local repository (RocksDB)."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        run: Any = importlib.import_module("aim").Run
        self._run = run(repo=str(self.folder), system_tracking_interval=None, log_system_params=False)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for key, value in metrics.items():
            self._run.track(value, name=key, step=step)

    def close(self) -> None:
        self._run.close()


class NeptuneScale(Client):
    """Offline: a process that writes SQLite."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        run: Any = importlib.import_module("neptune_scale").Run
        where = str(self.folder)
        self._run = run(run_id="benchmark", project="benchmark/benchmark", mode="offline", log_directory=where)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log_metrics(metrics, step=step)

    def close(self) -> None:
        self._run.close()


CLIENTS: dict[str, type[Client]] = {
    "none": Client,
    "in memory": InMemory,
    "asynctrack": Asynctrack,
    "mlflow": Mlflow,
    "trackio": Trackio,
    "tensorboardX": TensorboardX,
    "tensorboard": Tensorboard,
    "wandb": Wandb,
    "swanlab": Swanlab,
    "dvclive": Dvclive,
    "aim": Aim,
    "neptune-scale": NeptuneScale,
}


def _lines(store: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in store.rglob("metrics/*") if path.is_file())

"""Every test in a folder, an environment and a set of engines of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack import experiments, tracking


@pytest.fixture(autouse=True)
def _own_process_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "ASYNCTRACK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "_set_here", None)
    monkeypatch.setattr(experiments, "_chosen", None)
    yield
    asynctrack.shutdown()
    asynctrack.configure(**dict.fromkeys(asynctrack.Settings._fields))
    # Functions under test set these for child processes, as MLflow's do.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)

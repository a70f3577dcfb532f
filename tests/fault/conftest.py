"""The stores that programs log to in these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.programs import Lab
from tests.mlruns import read_runs


@pytest.fixture(params=["file"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """A folder and a store. A further store is one more parameter: its URI for the programs, and how to read it."""
    root = tmp_path / "mlruns"
    return Lab(tmp_path, {"MLFLOW_TRACKING_URI": str(root)}, lambda: read_runs(root))

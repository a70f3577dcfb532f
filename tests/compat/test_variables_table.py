"""docs/mlflow-variables.md says of each of MLflow's variables what it does."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

variables = pytest.importorskip("mlflow.environment_variables")
PAGE = Path(__file__).parents[2] / "docs" / "mlflow-variables.md"


def test_every_variable_of_mlflow_is_in_the_table() -> None:
    """By its name, or by a pattern of names; those with a leading underscore are MLflow's own business."""
    named = re.findall(r"`(MLFLOW_[A-Z0-9_*]+)`", PAGE.read_text())
    theirs = [name for name in vars(variables) if name.startswith("MLFLOW_")]
    assert len(theirs) > 100
    assert [name for name in theirs if not any(fnmatchcase(name, pattern) for pattern in named)] == []

"""A script whose `mlflow` has become the real MLflow again is told so, once, at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault import programs

#: as much of MLflow as it takes: where it keeps the run that was active last
FLUENT = """
class _Local:
    def get(self):
        return {run!r}
_last_active_run_id = {kept}
"""
SCRIPT = """
import asynctrack as mlflow
assert mlflow.__name__ == "asynctrack"
{then}
"""


def said(
    folder: Path,
    then: str,
    *,
    run: str | None = "a1",
    kept: str = "_Local()",
    head: str = SCRIPT,
    imported: bool = False,
) -> str:
    """What a script writes about its `mlflow`."""
    package = folder / "mlflow"
    (package / "tracking").mkdir(parents=True, exist_ok=True)
    for name in ("__init__", "sklearn", "tracking/__init__"):
        (package / f"{name}.py").write_text("import mlflow\n")
    (package / "tracking" / "fluent.py").write_text(FLUENT.format(run=run, kept=kept))
    (folder / "train.py").write_text(head.format(then=then))
    if imported:
        done = programs.run(f"import sys; sys.path.insert(0, {str(folder)!r}); import train", folder)
    else:
        path = os.pathsep.join([str(folder), programs.PACKAGE])
        command = [sys.executable, "train.py"]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("kept", "imported"), [("_Local()", False), ("'a1'", True)])
def test_a_script_that_lost_the_name_to_the_real_mlflow_is_told(kept: str, imported: bool, tmp_path: Path) -> None:
    """With its file, and what to do; so is one whose module has."""
    stderr = said(tmp_path, "import mlflow.sklearn, mlflow.tracking.fluent", kept=kept, imported=imported)
    assert stderr.count("the real MLflow has logged its run") == 1
    assert "train.py imports asynctrack as mlflow" in stderr


@pytest.mark.parametrize(
    ("then", "run", "head"),
    [
        ("import mlflow.sklearn, mlflow.tracking.fluent", None, SCRIPT),
        ("import mlflow.tracking.fluent as theirs", "a1", SCRIPT),
        ("", "a1", SCRIPT),
        ("", "a1", "import asynctrack, mlflow, mlflow.tracking.fluent"),
    ],
    ids=["no run of MLflow's", "the name is still ours", "no MLflow", "never that name"],
)
def test_nobody_else_is(then: str, run: str | None, head: str, tmp_path: Path) -> None:
    assert "real MLflow" not in said(tmp_path, then, run=run, head=head)


def test_modules_that_load_their_parts_when_they_are_asked_for_are_not_asked(tmp_path: Path) -> None:
    """One of Optuna's raises ModuleNotFoundError for ``mlflow`` where another package is missing."""
    lazy = "lazy = sys.modules['lazy'] = types.ModuleType('lazy'); lazy.__getattr__ = lambda name: 1 / 0"
    then = f"import mlflow.tracking.fluent, sys, types; {lazy}; lazy.__file__ = 'lazy.py'"
    assert said(tmp_path, then, head="import asynctrack\n{then}\n") == ""

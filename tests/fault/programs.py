"""Runs a user's program in a process of its own, as a user would, with a limit on how long it may take."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import asynctrack

#: the programs use the very asynctrack that is under test, installed or not
PACKAGE = str(Path(asynctrack.__file__).parents[1])
#: seconds after which a program that should have ended counts as hanging
LIMIT = 60


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


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` to its end."""
    process = start(code, folder, **environment)
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"the program hangs; it wrote:\n{output}\n{errors}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def recover(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The next program a user starts there: it delivers what the last one left."""
    result = run("import asynctrack\nwith asynctrack.start_run(run_name='next'):\n    pass\n", folder, **environment)
    assert result.returncode == 0, result.stderr
    return result


def spools(folder: Path) -> list[Path]:
    """The spool directories that are left."""
    home = folder / ".asynctrack"
    return [path for path in home.iterdir() if path.is_dir()] if home.exists() else []

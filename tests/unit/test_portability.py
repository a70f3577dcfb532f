"""What asynctrack does where the operating system has less than Linux: the modules and functions are taken away.

Nothing here replaces a test on macOS or Windows. It shows that nothing that only Linux has is needed.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import asynctrack
from tests.mlruns import only_run

PACKAGE = Path(asynctrack.__file__).parent

#: what macOS does not have
LINUX_ONLY = [
    *("os.memfd_create", "os.posix_fallocate", "os.pidfd_open", "os.fdatasync", "os.copy_file_range", "os.O_TMPFILE"),
    *(
        "os.sched_getaffinity",
        "os.eventfd",
        "os.splice",
        "fcntl.F_OFD_SETLK",
        "fcntl.F_OFD_GETLK",
        "fcntl.F_OFD_SETLKW",
    ),
]
#: what Windows does not have either
POSIX_ONLY = [
    *("fcntl", "pwd", "grp", "resource", "termios"),
    *("os.fork", "os.register_at_fork", "os.fchmod", "os.getuid", "os.geteuid", "os.uname", "os.pread", "os.pwrite"),
    *("os.O_CLOEXEC", "os.O_NOFOLLOW", "os.O_NONBLOCK", "os.O_DIRECTORY", "signal.SIGHUP", "signal.pthread_sigmask"),
]

#: Run before the program. asyncio registers what it does at a fork when it is imported, wherever there is os.fork.
TAKE_AWAY = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = {name for name in missing if "." not in name}
for name in absent:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in missing - absent:
    module, _, attribute = name.partition(".")
    if module not in absent and hasattr(importlib.import_module(module), attribute):
        delattr(sys.modules[module], attribute)
"""

LOGS = """
import asynctrack
with asynctrack.start_run(tracking_uri="mlruns") as run:
    for step in range(100):
        run.log_metric("loss", step, step=step)
    run.log_param("lr", "0.1")
    run.log_text("said", "note.txt").wait(30)
"""


def without(missing: list[str], code: str) -> str:
    """The program in an interpreter that lacks these modules and attributes."""
    return f"missing = {set(missing)!r}\n{TAKE_AWAY}\n{textwrap.dedent(code)}"


def run_without(missing: list[str], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", without(missing, code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "missing", [LINUX_ONLY, *([name] for name in LINUX_ONLY[:6]), ["os.register_at_fork", "os.fork"]]
)
def test_a_run_is_logged_without_what_only_linux_has(missing: list[str], tmp_path: Path) -> None:
    done = run_without(missing, LOGS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = only_run(tmp_path / "mlruns")
    assert (run.status, len(run.metrics["loss"]), run.params) == ("FINISHED", 100, {"lr": "0.1"})
    assert not list(tmp_path.glob(".asynctrack/*-*"))  # delivered, and its spool removed


def test_without_linux_s_locks_a_living_owner_is_seen_and_a_dead_one_s_spool_delivered(tmp_path: Path) -> None:
    code = """
        import asynctrack
        asynctrack.start_run(tracking_uri="mlruns").log_metric("loss", 1.0)
        print("logged", flush=True)
        input()
    """
    asks = "from asynctrack.cli.command import app\napp(['spool', '--json'])"
    program = [sys.executable, "-c", without(LINUX_ONLY, code)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "ASYNCTRACK_MODE": "offline"}
    with subprocess.Popen(
        program, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "logged\n"
        [living] = json.loads(run_without(LINUX_ONLY, asks, tmp_path).stdout)
        owner.kill()
    [dead] = json.loads(run_without(LINUX_ONLY, asks, tmp_path).stdout)
    assert (living["owner"], dead["owner"]) == ("alive", "dead")

    done = run_without(LINUX_ONLY, "from asynctrack.cli.command import app\napp(['sync'])", tmp_path)
    assert done.returncode == 0, done
    run = only_run(tmp_path / "mlruns")
    assert [value for _, value, _ in run.metrics["loss"]] == [1.0]


@pytest.mark.parametrize(
    ("missing", "named"),
    [([*LINUX_ONLY, *POSIX_ONLY], "fcntl, os.pread, os.pwrite"), (["fcntl"], "fcntl"), (["os.pread"], "os.pread")],
    ids=["Windows", "fcntl", "pread"],
)
def test_where_no_journal_can_be_kept_everything_imports_and_start_run_says_what_is_missing(
    missing: list[str], named: str, tmp_path: Path
) -> None:
    code = """
        import asynctrack, asynctrack.fluent, asynctrack.testing, asynctrack.cli
        try:
            asynctrack.start_run(tracking_uri="mlruns")
        except asynctrack.AsynctrackError as error:
            print(type(error).__name__, error)
    """
    done = run_without(missing, code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"SpoolError asynctrack cannot log here: its journal needs {named}, which Python on {sys.platform} does not "
        f"have; it runs on Linux and macOS, and on Windows under WSL\n"
    )
    assert not list(tmp_path.iterdir())


#: Where a function that only Linux has is called: with something that takes its place beside it.
PLACES = {
    "F_OFD_SETLK": "journal/locks.py",
    "F_OFD_GETLK": "journal/locks.py",
    "memfd_create": "journal/disk.py",
    "posix_fallocate": "journal/disk.py",
    "fdatasync": "journal/opening.py",
    "pidfd_open": "engine/child.py",
    "copy_file_range": "artifacts/files.py",
    "O_TMPFILE": "artifacts/files.py",
}


def test_what_only_linux_has_is_used_in_few_named_places() -> None:
    only = {name.partition(".")[2] for name in LINUX_ONLY}
    found = {
        (node.attr if isinstance(node, ast.Attribute) else node.value, str(path.relative_to(PACKAGE)))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in only)
        or (isinstance(node, ast.Constant) and node.value in only)
    }
    assert found == set(PLACES.items())


@pytest.mark.parametrize(
    ("attribute", "value"), [("frozen", True), ("executable", "/usr/bin/uwsgi"), ("executable", "")]
)
def test_where_the_executable_is_the_program_itself_no_shipper_process_is_started(
    attribute: str, value: object, tmp_path: Path
) -> None:
    """A frozen program, or one that embeds Python: started once more it would train once more."""
    code = f"""
        import sys
        sys.{attribute} = {value!r}
        import asynctrack
        asynctrack.configure(shipper="process")
        with asynctrack.start_run(tracking_uri="mlruns") as run:
            run.log_metric("loss", 0.5)
    """
    done = run_without([], code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "asynctrack: there is no Python executable to run as a shipper process; a thread delivers instead\n"
    )
    assert only_run(tmp_path / "mlruns").status == "FINISHED"

"""Nothing that delivers waits without a limit, or by a clock that somebody else turns: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import asynctrack
from tests.fault.programs import run
from tests.mlruns import read_runs

PACKAGE = Path(asynctrack.__file__).parent

#: methods that block until something happens, where they are given no time
WAITING = {"wait", "get", "acquire", "join", "communicate"}

#: where that is right, and why
EXCUSED = {
    ("engine/shipping.py", "event.wait"): "inside move_on_after",
    ("engine/local.py", "event.wait"): "inside move_on_after",
    ("engine/lifecycle.py", "threading.main_thread().join"): "a thread that is there for nothing else",
    ("engine/lifecycle.py", "others[0].join"): "the same: it waits for the program's threads, as the interpreter does",
    ("delivery/saving.py", "self._told.wait"): "inside move_on_after",
    ("delivery/receipts.py", "event.wait"): "a user's task, who bounds it with a cancel scope",
}


def endless_waits(name: str, source: str) -> Iterator[tuple[str, str]]:
    """File and call of each wait without a limit."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITING):
            continue
        called = ast.unparse(node.func)
        # What has an argument has a limit, is asked for a key, or is joined from parts.
        if not node.args and not node.keywords:
            yield name, called


def test_nothing_that_delivers_waits_without_a_limit() -> None:
    found = {
        wait
        for folder in ("engine", "delivery")
        for path in (PACKAGE / folder).glob("*.py")
        for wait in endless_waits(f"{folder}/{path.name}", path.read_text("utf-8"))
    }
    assert found == EXCUSED.keys()


def test_the_check_finds_a_wait_without_a_limit() -> None:
    source = "def f():\n    thread.join()\n    self._woken.get()\n    x.get('a')\n    lock.acquire(timeout=1)"
    assert {called for _, called in endless_waits("new.py", source)} == {"thread.join", "self._woken.get"}


def test_every_wait_goes_by_a_clock_that_no_program_turns() -> None:
    """``time.monotonic`` is what tests that freeze the time replace."""
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.monotonic")
        or (isinstance(node, ast.ImportFrom) and node.module == "time")
    ]
    assert found == ["clock.py"]


#: a test that freezes the time does so in every module that has the function; here, far in the future
FREEZING = """
        import asynctrack, sys, time
        kept = [time.monotonic]
        def frozen():
            return 4e9
        def freeze(old, new):
            for module in list(sys.modules.values()):
                for name, value in list(vars(module).items()):
                    if value is old and name != "frozen" and module.__name__ not in ("threading", "queue", "selectors"):
                        setattr(module, name, new)
        begun = time.monotonic()
"""


def test_runs_are_delivered_while_the_clock_stands_still_and_after_it(tmp_path: Path) -> None:
    program = f"""
        {FREEZING}
        with asynctrack.start_run(run_name="before") as run:
            run.log_metric("loss", 1.0)
        freeze(kept[0], frozen)
        assert time.monotonic() == 4e9
        with asynctrack.start_run(run_name="frozen") as run:
            run.log_metric("loss", 1.0)
            run.flush(30)
        freeze(frozen, kept[0])
        with asynctrack.start_run(run_name="after") as run:
            run.log_metric("loss", 1.0)
            run.flush(30)
        assert time.monotonic() - begun < 20, time.monotonic() - begun
    """
    result = run(program, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    found = {found.tags["mlflow.runName"]: found.status for found in read_runs(tmp_path / "mlruns").values()}
    assert found == dict.fromkeys(["before", "frozen", "after"], "FINISHED")


def test_sync_gives_up_in_time_while_the_clock_stands_still(tmp_path: Path) -> None:
    """Nobody is at the store. Its naps end, and so does its patience, although its program has stopped the time."""
    left = "import asynctrack; asynctrack.start_run(tracking_uri='http://127.0.0.1:9').log_metric('loss', 1.0)"
    assert run(left, tmp_path, ASYNCTRACK_MODE="offline").returncode == 0
    program = f"""
        {FREEZING}
        import faulthandler
        faulthandler.dump_traceback_later(30, exit=True)
        freeze(kept[0], frozen)
        assert time.monotonic() == 4e9
        states = [shipment.state for shipment in asynctrack.sync(timeout=1.0)]
        freeze(frozen, kept[0])
        assert states == ["partly"], states
    """
    result = run(program, tmp_path)
    assert result.returncode == 0, result.stderr

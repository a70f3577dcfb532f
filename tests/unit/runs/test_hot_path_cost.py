"""What one log call does, counted and not timed: bytecode instructions, calls, system calls. On any machine the same.

A change that makes the hot path dearer fails here. Where it is worth its price, raise the figure in the same commit;
where the path has become cheaper, lower it, so that the next change is measured against that.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import asynctrack


class Cost(NamedTuple):
    """What one call makes the interpreter do; ``python`` are calls of Python functions, itself among them."""

    instructions: int
    python: int


VERSION = sys.version_info[:2]
TWENTY = {f"layer{number}/grad_norm": number * 0.1 for number in range(20)}
CALLS: dict[str, Callable[[asynctrack.ActiveRun], object]] = {
    "log_metric(key, float, step)": lambda run: run.log_metric("loss", 0.5, 7),
    "log_metric(key, float)": lambda run: run.log_metric("loss", 0.5),
    "log_metric(key, int, step)": lambda run: run.log_metric("loss", 1, 7),
    "log_metrics(20 floats, step)": lambda run: run.log_metrics(TWENTY, 7),
}
#: by Python version, at most
FIGURES: dict[tuple[int, int], dict[str, Cost]] = {
    (3, 11): {
        "log_metric(key, float, step)": Cost(62, 1),
        "log_metric(key, float)": Cost(58, 1),
        "log_metric(key, int, step)": Cost(77, 1),
        "log_metrics(20 floats, step)": Cost(938, 2),
    },
    (3, 12): {
        "log_metric(key, float, step)": Cost(55, 1),
        "log_metric(key, float)": Cost(52, 1),
        "log_metric(key, int, step)": Cost(67, 1),
        "log_metrics(20 floats, step)": Cost(868, 1),
    },
    (3, 13): {
        "log_metric(key, float, step)": Cost(49, 1),
        "log_metric(key, float)": Cost(46, 1),
        "log_metric(key, int, step)": Cost(61, 1),
        "log_metrics(20 floats, step)": Cost(726, 1),
    },
}

known_version = pytest.mark.skipif(
    VERSION not in FIGURES, reason=f"no figures for Python {VERSION}: enter what this test counts"
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[asynctrack.ActiveRun]:
    """An open run that has logged each metric before, and whose flusher rests."""
    asynctrack.configure(flush_interval=3600.0)
    with asynctrack.start_run(tracking_uri=str(tmp_path / "mlruns")) as opened:
        for call in CALLS.values():
            call(opened)
        yield opened


def counted(call: Callable[[], object]) -> Cost:
    """What asynctrack does in ``call``."""
    found: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_globals["__name__"].startswith("asynctrack"):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        found[event] += 1
        return trace

    before = sys.gettrace()
    for _ in range(2):  # Python 3.12 looks at f_trace_opcodes when tracing begins: there the first time counts none
        found.clear()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
    return Cost(found["opcode"], found["call"])


def c_functions(call: Callable[[], object]) -> Counter[str]:
    """The C functions that ``call`` calls, and how often each."""
    found: Counter[str] = Counter()

    def profile(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            found[f"{function.__module__}.{function.__qualname__}"] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    del found["sys.setprofile"]
    return found


@known_version
@pytest.mark.parametrize("name", CALLS)
def test_a_log_call_executes_no_more_instructions_than_it_used_to(name: str, run: asynctrack.ActiveRun) -> None:
    call = CALLS[name]
    found = counted(lambda: call(run))
    assert found.instructions <= FIGURES[VERSION][name].instructions
    assert found.python <= FIGURES[VERSION][name].python


def test_the_counter_sees_what_a_dearer_call_does(run: asynctrack.ActiveRun) -> None:
    """Or the test above would pass whatever happens."""
    one, two = counted(lambda: run.log_metric("loss", 0.5, 7)), counted(lambda: run.log_metrics(TWENTY, 7))
    assert 20 < one.instructions < two.instructions
    assert one.python == counted(lambda: run.log_metric("loss", 0.5, 7)).python


def test_log_metric_calls_nothing_in_c_but_the_clock_and_the_two_writes(run: asynctrack.ActiveRun) -> None:
    found = c_functions(lambda: run.log_metric("loss", 0.5))
    assert found["time.time_ns"] == 1
    assert {name for name in found if name.startswith(("posix.", "_thread.", "mmap.", "_io.", "select."))} == set()
    assert found.total() <= 3


def test_log_metrics_calls_no_more_in_c_than_it_has_points(run: asynctrack.ActiveRun) -> None:
    found = c_functions(lambda: run.log_metrics(TWENTY, 7))
    assert found["time.time_ns"] == 1
    assert {name for name in found if name.startswith(("posix.", "_thread.", "mmap.", "_io.", "select."))} == set()
    assert max(found.values()) <= 3 * len(TWENTY)


#: logs between two marks that strace shows: system calls that nothing else makes
LOGS = """
import os, sys
import asynctrack
asynctrack.configure(flush_interval=3600.0)
with asynctrack.start_run(tracking_uri=sys.argv[1]) as run:
    twenty = {f"metric{number}": number * 0.1 for number in range(20)}
    run.log_metrics(twenty, 0)
    run.flush()
    os.path.exists("/begin-of-the-log-calls")
    for step in range(1000):
        run.log_metric("metric1", 0.5, step)
    for step in range(50):
        run.log_metrics(twenty, step)
    os.path.exists("/end-of-the-log-calls")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_two_thousand_events_are_logged_without_a_system_call(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    command = ["strace", "-f", "-o", str(log), sys.executable, "-c", LOGS, str(tmp_path / "mlruns")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace is not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    [begin] = [at for at, line in enumerate(lines) if "/begin-of-the-log-calls" in line]
    [end] = [at for at, line in enumerate(lines) if "/end-of-the-log-calls" in line]
    thread = lines[begin].split()[0]
    ours = [line for line in lines[begin + 1 : end] if line.split()[0] == thread]
    # Where the kernel gives a virtual machine no clock to read, asking for the time is a system call.
    assert [line for line in ours if not re.search(r" (clock_gettime|gettimeofday)\(| resumed>|\+\+\+", line)] == []

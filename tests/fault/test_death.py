"""Deaths that no handler sees: what was logged is in the spool, and the next program delivers it, once."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.fault.programs import ON_ALL, Lab, check_counted, finish, line_for, steps

TRAIN = """
with asynctrack.start_run() as run:
    run.log_params({"lr": 0.1})
    returned = counted()
    print("ready", flush=True)
    log_for_ever(run, returned)
"""


@pytest.mark.parametrize(
    ("death", "code"),
    [
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("os.abort()", -signal.SIGABRT),
    ],
    ids=["os._exit", "SIGKILL", "segfault", "abort"],
)
def test_a_sudden_death_keeps_everything_for_the_next_start(death: str, code: int, lab: Lab) -> None:
    """`os._exit`, `kill -9`, a segmentation fault in some library, an abort: every call that returned counts."""
    program = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        run = asynctrack.start_run()
        run.log_params({{"lr": 0.1}})
        log_some(run, 20_000)
        {death}
    """
    result = lab.run(program)
    assert result.returncode == code, result.stderr
    assert len(lab.spools()) == 1
    told = lab.recover().stderr
    assert "delivering what process" in told
    run = lab.only_run()
    assert steps(run) == list(range(20_000))
    assert (run.status, run.params) == ("KILLED", {"lr": "0.1"})
    assert lab.spools() == []


@ON_ALL
def test_killing_the_process_group_takes_nothing_along(lab: Lab) -> None:
    """As a scheduler or a shell's Ctrl-\\ does it: no helper process was needed to keep the events."""
    process = lab.start("os.setpgid(0, 0)" + TRAIN)
    line_for(process)
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL
    lab.recover()
    check_counted(lab.only_run(), lab.acknowledged())
    assert lab.only_run().status == "KILLED"


def test_out_of_memory_loses_nothing(lab: Lab) -> None:
    """The training code runs out of memory: MemoryError is what the user sees, the run is FAILED or KILLED, and the
    events are in the store or in the spool."""
    program = """
        import resource
        run = asynctrack.start_run()
        run.flush()
        log_some(run, 20_000)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), used + (8 << 20)))
        hoard = []
        step = 20_000
        while True:
            hoard.append(bytearray(1 << 16))
            run.log_metric("loss", step * 0.25, step)
            step += 1
    """
    result = lab.run(program, ASYNCTRACK_CLOSE_TIMEOUT="5")
    assert result.returncode == 1, result.stderr
    assert "MemoryError" in result.stderr
    lab.recover()
    run = lab.only_run()
    assert steps(run) == list(range(len(steps(run))))
    assert len(steps(run)) >= 20_000
    assert run.status in ("FAILED", "KILLED")
    assert lab.spools() == []


def test_a_stopped_program_is_not_taken_for_a_dead_one(lab: Lab) -> None:
    """Suspended with Ctrl-Z, or in a debugger: the next program leaves its spool alone, and it goes on afterwards."""
    process: subprocess.Popen[str] = lab.start(
        """
        with asynctrack.start_run() as run:
            log_some(run, 1000)
            print("ready", flush=True)
            sys.stdin.readline()
            for step in range(1000, 2000):
                run.log_metric("loss", step * 0.25, step)
        """
    )
    line_for(process)
    process.send_signal(signal.SIGSTOP)
    assert "delivering what process" not in lab.recover().stderr
    assert len(lab.spools()) == 1
    process.send_signal(signal.SIGCONT)
    process.communicate("go on\n", timeout=60)
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(2000)), "FINISHED")
    assert lab.spools() == []

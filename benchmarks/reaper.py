"""Runs a command and adds up the processor time of everything that it starts, daemons included.

    python reaper.py RESULT LIMIT COMMAND ...

A subreaper is given the orphans of its descendants (prctl(2)), so their time is its children's. Writes {"status",
"wall", "cpu", "gone"} (seconds; ``gone`` on the monotonic clock) to the file RESULT. What still runs ``_LINGER``
seconds after the command has ended, or LIMIT seconds after its start, is killed. Needs nothing but Python, on Linux.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
#: seconds that background processes are given to end by themselves
_LINGER = 10.0


def _children() -> list[int]:
    pid = os.getpid()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main(result: str, limit: float, command: list[str]) -> int:
    """Run the command; its exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begun = time.monotonic()
    first = subprocess.Popen(command).pid
    status: int | None = None
    wall = 0.0
    deadline = begun + limit
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == first:
            status, wall = os.waitstatus_to_exitcode(ended), time.monotonic() - begun
            deadline = min(deadline, time.monotonic() + _LINGER)
        elif pid == 0:
            if time.monotonic() > deadline:
                for child in _children():
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
    gone = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"status": status, "wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "gone": gone}
    Path(result).write_text(json.dumps(found))
    return status or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))

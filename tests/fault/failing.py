"""Runs one small program again and again, each time in a forked child and a folder of its own; the n-th time, the n-th
call of one kind fails (or, with ``--on``, that one and all after it). Ends when a program got through without.

``python -m tests.fault.failing FOLDER KIND [--on] [--some SEED]`` writes one JSON line a program. ``--some`` leaves
most of the later calls out, at random.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import importlib
import itertools
import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import asynctrack

#: the calls by which data reaches a disk, and how each may fail
KINDS: dict[str, tuple[Any, str, int]] = {
    "open": (os, "open", errno.EMFILE),
    "builtin open": (builtins, "open", errno.EIO),
    "write": (os, "write", errno.ENOSPC),
    "pwrite": (os, "pwrite", errno.EIO),
    "pread": (os, "pread", errno.EIO),
    "posix_fallocate": (os, "posix_fallocate", errno.ENOSPC),
    "mmap": (mmap, "mmap", errno.ENOMEM),
    "fsync": (os, "fsync", errno.EIO),
    "fdatasync": (os, "fdatasync", errno.EIO),
    "fstat": (os, "fstat", errno.EIO),
    "stat": (os, "stat", errno.EACCES),
    "replace": (os, "replace", errno.EIO),
    "rename": (os, "rename", errno.EROFS),
    "link": (os, "link", errno.ENOSPC),
    "unlink": (os, "unlink", errno.EROFS),
    "rmdir": (os, "rmdir", errno.EBUSY),
    "mkdir": (os, "mkdir", errno.EDQUOT),
    "listdir": (os, "listdir", errno.EIO),
    "scandir": (os, "scandir", errno.EACCES),
    "flock": (fcntl, "flock", errno.ENOLCK),
    "fcntl": (fcntl, "fcntl", errno.ENOLCK),
}
EVENTS = 200
#: seconds after which a program hangs
LIMIT = 20.0


def fail(kind: str, number: int, *, on: bool) -> None:
    """Have call ``number`` of a kind fail in this process, from now on; the file "hit" says that it came to that."""
    module, name, error = KINDS[kind]
    original, calls = getattr(module, name), itertools.count(1)
    made = os.open("hit", os.O_WRONLY | os.O_CREAT, 0o600)

    def failing(*args: Any, **options: Any) -> Any:
        call = next(calls)
        if call == number or (on and call > number):
            really_write(made, b"x")
            raise OSError(error, os.strerror(error), args[0] if args and isinstance(args[0], str) else None)
        return original(*args, **options)

    really_write = os.write
    setattr(module, name, failing)


def train(durability: asynctrack.settings.Durability) -> None:
    """A user's program: everything it does succeeds, or raises what the documentation says."""
    asynctrack.configure(
        flush_interval=0.01, close_timeout=3.0, spool_full="block", segment_bytes=4096, durability=durability
    )
    for name in ("first", "second"):
        try:
            run = asynctrack.start_run(run_name=name)
        except asynctrack.SpoolError:
            Path(f"{name} was refused").touch()
            continue
        with run:
            for step in range(EVENTS):
                run.log_metric(f"m{step % 3}", step * 0.25, step)
                if step % 40 == 0:
                    run.log_param(f"p{step}", step)
                    run.set_tag("last", step)


def in_child(folder: Path, kind: str, number: int, *, on: bool) -> tuple[int, bool]:
    """Run the program in a child; its exit code (None of its own: -9, it hung), and whether the call was reached.
    Returns in the child too, to its natural end: then the exit code is -1000."""
    folder.mkdir()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        sys.argv = [""]  # a console: no script, and so no git to be asked about it
        fail(kind, number, on=on)
        train("system" if "sync" in kind else "process")
        return -1000, False
    deadline = time.monotonic() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1]), (folder / "hit").stat().st_size > 0


def recover(folder: Path) -> int:
    """The next program, in which nothing fails. As `in_child`."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.dup2(os.open("stderr of the next", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        sys.argv = [""]
        asynctrack.configure(flush_interval=0.01)
        with asynctrack.start_run(run_name="next"):
            pass
        return -1000
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def load_what_comes_late(folder: Path) -> None:
    """Import here what a program imports while it runs: for a child of this process that would take ten times as long
    as all else. (Python itself imports with none of the calls that fail here.)"""
    folder.mkdir()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.argv = [""]
        train("process")
        Path("modules").write_text("\n".join(sys.modules))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for name in (folder / "modules").read_text().splitlines():
        with contextlib.suppress(ImportError):  # what extension modules make up for themselves
            importlib.import_module(name)


def main(folder: Path, kind: str, *, on: bool, some: random.Random | None) -> None:
    """The sweep."""
    number = 0
    load_what_comes_late(folder / "none")
    while True:
        number += 1 if some is None or number < 2 else some.randint(number // 2, 2 * number)
        home = folder / f"{number:04d}"
        code, hit = in_child(home, kind, number, on=on)
        if code == -1000:
            return
        recovered = recover(home)
        if recovered == -1000:
            return
        print(
            json.dumps({"folder": str(home), "call": number, "hit": hit, "code": code, "next": recovered}), flush=True
        )
        if not hit:
            return


if __name__ == "__main__":
    seed = sys.argv[sys.argv.index("--some") + 1] if "--some" in sys.argv else None
    main(Path(sys.argv[1]), sys.argv[2], on="--on" in sys.argv, some=None if seed is None else random.Random(seed))

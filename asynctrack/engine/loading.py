"""Late imports of background threads, none of which a fork may interrupt.

A child forked in the middle of another thread's import finds the module half done, for ever: the thread that would have
finished it does not exist there. So a background thread imports what it will need before it begins, under a lock that
every fork takes first; a fork waits for as long as the imports take (some 50 ms on a disk, once in a process).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from importlib import import_module

__all__ = ["load", "load_first"]

_lock = threading.RLock()
_COMMON = (
    "aiofiles",
    "random",
    "yaml",
    "asynctrack.artifacts.snapshot",
    "asynctrack.artifacts.uri",
)
_REMOTE = ("certifi", "encodings.idna", "h11", "httpcore", "httpx")


def load_first() -> None:
    """What has to be imported before the thread is started: it wants every fork to call it before and after, and a fork
    that waits for us has asked already who wants to be called before."""
    with suppress(RuntimeError):  # the interpreter is ending: the engine does without threads then
        import_module("concurrent.futures.thread")


def load(*, remote: bool) -> None:
    """Import what a background thread needs; ``remote``: of an engine that speaks HTTP. Costs nothing a second time."""
    with _lock:
        import anyio

        anyio.run(anyio.sleep, 0)  # anyio imports its backend when it is first run
        for name in (*_COMMON, *(_REMOTE if remote else ())):
            import_module(name)
        # With the interpreter daemon threads are ended from outside, for which glibc loads this library; where there is
        # no memory left for it, it aborts the program.
        with suppress(OSError):
            import_module("ctypes").CDLL("libgcc_s.so.1")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

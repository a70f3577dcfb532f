"""The process's engines: one per store, closed at interpreter exit, started anew in forked children."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from asynctrack.engine.engine import Engine
from asynctrack.engine.progress import Waiting
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.uri import resolve_store_uri

__all__ = [
    "after_fork",
    "before_exit",
    "deliver_at_the_end_of_this_child",
    "engine_for",
    "interpreter_is_ending",
    "shutdown",
]

logger = logging.getLogger("asynctrack")

_engines: dict[tuple[str, Settings], Engine] = {}
_lock = threading.RLock()
_before_exit: list[Callable[[str], None]] = []
_after_fork: list[Callable[[], None]] = []
_ending = False
_errors_before: BaseException | None = getattr(sys, "last_value", None)


def engine_for(tracking_uri: str | None, settings: Settings | None = None) -> Engine:
    """This process's engine for a store, started on first use. Raises InvalidInputError for a URI of no known kind."""
    uri = resolve_store_uri(tracking_uri)
    settings = settings or current_settings()
    with _lock:
        engine = _engines.get((uri, settings))
        if engine is None:
            engine = _engines[uri, settings] = Engine(uri, settings)
        return engine


def before_exit(hook: Callable[[str], None]) -> None:
    """Have ``hook(status)`` called first thing at interpreter exit: it ends the runs that are still open."""
    _before_exit.append(hook)


def after_fork(hook: Callable[[], None]) -> None:
    """Have ``hook`` called in a forked child, after the engines have let go of the parent's journals."""
    _after_fork.append(hook)


def interpreter_is_ending() -> bool:
    """Whether `atexit` callbacks are running."""
    return _ending


def exit_status() -> str:
    """The honest `RunStatus` of a run that is still open when the interpreter ends.

    ``sys.last_value`` is the exception that ended the program, set by the interpreter itself just before it calls
    ``sys.excepthook``; so no hook needs to be replaced. In an interactive session it is merely the last mistake typed.
    """
    error = getattr(sys, "last_value", None)
    if error is None or error is _errors_before or hasattr(sys, "ps1"):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def shutdown(status: str = "FINISHED") -> None:
    """End every open run with ``status``, deliver, and stop the background threads; the next run starts them anew.

    Waits for at most ``close_timeout`` seconds; what is left then stays in the spool, and a log line says where. The
    interpreter's end does the same by itself, so only tests, notebooks and embedding programs call this.
    """
    for hook in _before_exit:
        hook(status)
    with _lock:
        engines = [engine for engine in _engines.values() if engine.pid == os.getpid()]
        _engines.clear()
    started = time.monotonic()
    for engine in engines:
        engine.shut_down(started + _patience(engine))
    try:
        for engine in engines:
            _wait_for(engine, started)
    except KeyboardInterrupt:
        pass  # the user will not wait: what is left is reported below
    for engine in engines:
        if not engine.finished.is_set() or engine.left_behind:
            _report_left(engine)


def deliver_at_the_end_of_this_child() -> None:
    """In a forked child that has begun to log: a child of `multiprocessing` ends without `atexit`, by `os._exit`, but
    calls the finalizers that are registered there."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, shutdown, exitpriority=0)


def _at_exit() -> None:
    global _ending
    _ending = True
    shutdown(exit_status())


def _patience(engine: Engine) -> float:
    # Having waited in vain once already (at a run's end), the program is not held up as long a second time.
    return min(1.0, engine.settings.close_timeout) if engine.gave_up else engine.settings.close_timeout


def _wait_for(engine: Engine, started: float) -> None:
    with Waiting(engine.pending) as waiting:
        # The engine keeps the deadline itself; the second is for one step that is just under way.
        waiting.until(engine.finished.wait, started + _patience(engine) + 1.0 - time.monotonic())


def _report_left(engine: Engine) -> None:
    path = engine.journal.spool.path
    error = f" ({engine.last_error})" if engine.last_error else ""
    if path is None:
        logger.error("asynctrack: could not deliver everything to %s%s; what is left is lost", engine.store.uri, error)
    else:
        logger.error(
            "asynctrack: not everything could be delivered to %s%s. The rest is kept in %s and is delivered by the "
            "next program that logs to that store with the same spool folder.", engine.store.uri, error, path,
        )  # fmt: skip


def _in_forked_child() -> None:
    global _lock
    _lock = threading.RLock()
    for engine in _engines.values():
        engine.forget()
    for hook in _after_fork:
        hook()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)

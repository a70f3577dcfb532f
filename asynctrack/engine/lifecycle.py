"""The process's engines: one per store, closed at interpreter exit, started anew in forked children."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from asynctrack.engine.engine import Engine
from asynctrack.engine.progress import Waiting
from asynctrack.engine.signals import watch
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.uri import resolve_store_uri

__all__ = [
    "after_fork",
    "before_exit",
    "deliver_at_the_end_of_this_child",
    "engine_for",
    "engine_for_store",
    "heed_signals",
    "interpreter_is_ending",
    "shutdown",
]

logger = logging.getLogger("asynctrack")

#: by URI, or by the object where a user has handed over a store of their own
_engines: dict[tuple[str | AbstractStore, Settings], Engine] = {}
_lock = threading.RLock()
_before_exit: list[Callable[[str], None]] = []
_after_fork: list[Callable[[], None]] = []
_ending = False
#: the process, if it is a child of multiprocessing, whose end is taken care of
_cared_for = 0
#: engines that are being closed, and by when (monotonic seconds)
_closing: dict[Engine, float] = {}
_errors_before: BaseException | None = getattr(sys, "last_value", None)


def engine_for(tracking_uri: str | None, settings: Settings | None = None) -> Engine:
    """This process's engine for a store, started on first use. Raises InvalidInputError for a URI of no known kind."""
    uri = resolve_store_uri(tracking_uri)
    settings = settings or current_settings()
    deliver_at_the_end_of_this_child()
    with _lock:
        engine = _engines.get((uri, settings))
        if engine is None:
            engine = _engines[uri, settings] = _new_engine(uri, settings)
        return engine


def _new_engine(uri: str, settings: Settings) -> Engine:
    if settings.mode == "online" and settings.shipper == "thread":
        return Engine(uri, settings)
    if settings.mode == "online" and (settings.token is not None or not sys.executable):
        what = "a token function cannot be handed to" if sys.executable else "there is no Python executable to run as"
        logger.warning("asynctrack: %s a shipper process; a thread delivers instead", what)
        return Engine(uri, settings)
    from asynctrack.engine.remote import RemoteEngine

    engine = RemoteEngine(uri, settings)
    if engine.journal.spool.path is not None:
        return engine
    engine.journal.close()  # nobody else can read what is kept in memory
    return Engine(uri, settings)


def engine_for_store(store: AbstractStore) -> Engine:
    """This process's engine for a store object that no URI leads to."""
    settings = current_settings()
    deliver_at_the_end_of_this_child()
    with _lock:
        engine = _engines.get((store, settings))
        if engine is None:
            engine = _engines[store, settings] = Engine(store.uri, settings, store.over(ThreadedIO()))
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
    return status_of(error)


def status_of(error: BaseException | None) -> str:
    """The honest `RunStatus` of a run that ``error`` ends; where there are several, the worst."""
    if error is None or isinstance(error, GeneratorExit):
        return "FINISHED"
    if isinstance(error, BaseExceptionGroup):  # as trio's nurseries raise it, with a single error too
        found = {status_of(one) for one in error.exceptions}
        return next(status for status in ("FAILED", "KILLED", "FINISHED") if status in found)
    if isinstance(error, SystemExit):
        return "FINISHED" if error.code in (None, 0) else "FAILED"
    return "KILLED" if isinstance(error, (KeyboardInterrupt, *_cancellations())) else "FAILED"


def _cancellations() -> Iterator[type[BaseException]]:
    """What a cancelled task raises, in the libraries that are loaded: wholly, for another thread may be importing."""
    for library, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        found = getattr(sys.modules.get(library), name, None)
        if found is not None:
            yield found


def shutdown(status: str = "FINISHED") -> None:
    """End every open run with ``status``, deliver, and stop the background threads; the next run starts them anew.

    Waits for at most ``close_timeout`` seconds; what is left then stays in the spool, and a log line says where. The
    interpreter's end does the same by itself, so only tests, notebooks and embedding programs call this.
    """
    started = time.monotonic()
    for hook in _before_exit:
        hook(status)
    with _lock:
        engines = [engine for engine in _engines.values() if engine.pid == os.getpid()]
        _engines.clear()
    _close({engine: started + _patience(engine) for engine in engines})


def heed_signals(settings: Settings) -> None:
    """Have the open runs end with KILLED, and be delivered, before SIGTERM or SIGHUP kills the process; or, with
    ``handle_sigterm=False``, no longer. Does nothing outside the main thread."""
    watch(_terminate, settings.term_timeout, enabled=settings.handle_sigterm)


def _terminate(reason: str) -> None:
    """In a signal handler, which does not return to what it has interrupted; that may be another call of `_close`."""
    global _ending
    _ending = True
    here = os.getpid()
    # Without the lock, which the interrupted program or another thread may hold for long.
    engines = {engine for engine in (*_engines.values(), *_closing) if engine.pid == here}
    if not engines:
        return
    patience = min(engine.settings.term_timeout for engine in engines)
    started = time.monotonic()
    logger.warning("asynctrack: %s: ending open runs as KILLED, delivering for at most %g s", reason, patience)
    for hook in _before_exit:
        hook("KILLED")
    for engine in engines:
        # Here, in the thread whose locks are held for ever from now on, and not in the engine's.
        engine.journal.close()
    _close({engine: min(started + patience, _closing.get(engine, float("inf"))) for engine in engines})


def deliver_at_the_end_of_this_child() -> None:
    """Where this is a child of `multiprocessing`, by whatever method: a forked one ends without `atexit`, by
    ``os._exit``, but calls the finalizers that are registered with it. Called when something is first logged."""
    global _cared_for
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if _cared_for != os.getpid() and process is not None and util is not None and process.parent_process() is not None:
        _cared_for = os.getpid()
        util.Finalize(None, _at_the_end_of_this_child, exitpriority=0)


def _at_the_end_of_this_child() -> None:
    # multiprocessing calls its finalizers while the exception that the child's function raised is passing through.
    error = sys.exc_info()[1]
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        shutdown("FINISHED")
    else:
        shutdown("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def _at_exit() -> None:
    global _ending
    _ending = True
    shutdown(exit_status())


def _patience(engine: Engine) -> float:
    # Having waited in vain once already (at a run's end), the program is not held up as long a second time.
    return min(1.0, engine.settings.close_timeout) if engine.gave_up else engine.settings.close_timeout


def _close(deadlines: dict[Engine, float]) -> None:
    """Have each engine deliver what is there until its deadline, wait for that, and say what is left."""
    _closing.update(deadlines)
    for engine, deadline in deadlines.items():
        engine.shut_down(deadline)
    try:
        for engine, deadline in deadlines.items():
            with Waiting(engine.pending, engine.pending_artifact_bytes) as waiting:
                # The engine keeps the deadline itself; the second is for one step that is just under way.
                waiting.until(engine.finished.wait, deadline + 1.0 - time.monotonic())
    except KeyboardInterrupt:
        pass  # the user will not wait: what is left is reported below
    for engine in deadlines:
        if not engine.finished.is_set() or engine.left_behind:
            _report_left(engine)
        _closing.pop(engine, None)


def _report_left(engine: Engine) -> None:
    path, uri = engine.journal.spool.path, engine.store.uri
    error = f" ({engine.last_error})" if engine.last_error else ""
    if path is None or _is_gone(path):
        gone = "" if path is None else f": its spool {path} was deleted"
        logger.error("asynctrack: could not deliver everything to %s%s; what is left is lost%s", uri, error, gone)
        return
    from shlex import quote  # late, as it is rarely needed

    from asynctrack.engine.spools import read_spool

    try:
        found = read_spool(path)
    except (OSError, ValueError):
        found = None  # the engine, which did not end in time, is just changing it
    left = "the rest" if found is None else f"{found.events:,} events" if found.events else "a run's start and end"
    command = f"asynctrack sync {quote(path)}"
    if engine.offline:
        logger.warning("asynctrack: offline: %s for %s wait in %s. `%s` delivers them.", left, uri, path, command)
    else:
        logger.error(
            "asynctrack: not everything could be delivered to %s%s: %s wait in %s. `%s` delivers them, and so does the "
            "next program that logs to that store with the same spool folder.", uri, error, left, path, command,
        )  # fmt: skip


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass  # it is there, and not for this user any more
    return False


def _in_forked_child() -> None:
    global _lock
    _lock = threading.RLock()
    _closing.clear()
    for engine in _engines.values():
        engine.forget()
    for hook in _after_fork:
        hook()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)

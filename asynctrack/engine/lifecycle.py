"""The life of this process's engines: made on first use, closed at its end by whatever way, left alone in children."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import terminal_status
from asynctrack.engine.shutdown import Shutdown
from asynctrack.engine.signals import watch
from asynctrack.engine.status import exit_status
from asynctrack.engine.table import EngineTable
from asynctrack.errors import SpoolError
from asynctrack.forks import at_fork
from asynctrack.platforms import check_platform, interpreter, why
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.base import AbstractStore
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.uri import resolve_store_uri

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine

__all__ = [
    "after_fork",
    "end_before_others",
    "engine_for",
    "engine_for_store",
    "interpreter_is_ending",
    "shutdown",
    "take_care_of_the_end",
]

logger = logging.getLogger("asynctrack")

#: seconds for an engine that a run's end has waited for in vain already
_SHORT = 1.0

_table = EngineTable()
_after_fork: list[Callable[[], None]] = []
_ending = False
#: the process, if it is a forked child that ends without `atexit`, whose end is taken care of
_cared_for = 0
#: whether the function of this child of multiprocessing has raised, where nothing else says so
_has_failed = False
#: what the main thread is of, unless it is one that has forked
_MAIN_THREAD: type[threading.Thread] = getattr(threading, "_MainThread", threading.Thread)


def engine_for(tracking_uri: str | None, settings: Settings | None = None) -> Engine:
    """This process's engine for a store, started on first use. Raises InvalidInputError for a URI of no known kind, and
    SpoolError on a platform where no journal can be kept."""
    check_platform()
    uri = resolve_store_uri(tracking_uri)
    settings = settings or current_settings()
    take_care_of_the_end(settings)
    return _found((uri, settings), lambda: _new_engine(uri, settings))


def engine_for_store(store: AbstractStore) -> Engine:
    """This process's engine for a store object that no URI leads to. Raises SpoolError as `engine_for` does."""
    check_platform()
    settings = current_settings()
    take_care_of_the_end(settings)
    return _found((store, settings), lambda: _engine(store.uri, settings, store.over(ThreadedIO())))


def _found(key: tuple[Any, Settings], make: Callable[[], Engine]) -> Engine:
    try:
        return _table.find(key, make)
    except SpoolError:
        raise
    except OSError as error:  # no file descriptor for a pipe, or for a module that is imported only now
        raise SpoolError(error.errno, f"cannot start a run: {why(error)}") from error


def _engine(uri: str, settings: Settings, store: AbstractStore | None = None) -> Engine:
    # The one place where what writes and delivers is loaded, which is most of the package. A program that only imports
    # asynctrack, as each worker of a pool may, has no use for it.
    from asynctrack.engine.engine import Engine

    return Engine(uri, settings, store)


def _new_engine(uri: str, settings: Settings) -> Engine:
    if settings.mode == "online" and settings.shipper == "thread":
        return _engine(uri, settings)
    if settings.mode == "online" and (settings.token is not None or not interpreter()):
        what = "a token function cannot be handed to" if interpreter() else "there is no Python executable to run as"
        logger.warning("asynctrack: %s a shipper process; a thread delivers instead", what)
        return _engine(uri, settings)
    from asynctrack.engine.shipped import remote_engine

    return remote_engine(uri, settings)


# ── the end of the process


def shutdown(status: str = "FINISHED") -> None:
    """End every open run with ``status`` ("FINISHED", "FAILED" or "KILLED"),
    deliver, and stop the background threads. The next run starts new ones.

    Waits at most ``close_timeout`` seconds for delivery. The rest stays in the
    spool, and a log line says where. The interpreter does the same when it
    exits; only tests, notebooks and embedding programs need to call this.
    Raises InvalidInputError for any other ``status``.
    """
    Shutdown(_table, terminal_status(status), _close_timeout).carry_out()  # checked before anything is closed


def interpreter_is_ending() -> bool:
    """Whether `atexit` callbacks are running, or a signal is ending the process."""
    return _ending


def end_before_others() -> None:
    """Have the end of the interpreter taken care of here before the `atexit` callbacks that are registered so far."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def take_care_of_the_end(settings: Settings) -> None:
    """Have what is logged here delivered before this process ends. Called whenever an engine is asked for, and when a
    forked child logs for the first time."""
    # Runs are ended, and delivered, before SIGTERM or SIGHUP kills; with ``handle_sigterm=False``, no longer.
    watch(_terminate, settings.term_timeout, enabled=settings.handle_sigterm)
    _deliver_at_the_end_of_this_child()


def _deliver_at_the_end_of_this_child() -> None:
    """Where this is a child of `multiprocessing`, by whatever method: a forked one ends without `atexit`, by
    ``os._exit``, but calls the finalizers that are registered with it."""
    global _cared_for
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and getattr(process.current_process(), "_inheriting", False):
        # A run among the arguments of a child that is just being made: its finalizers are cleared once it is ready.
        util.register_after_fork(_deliver_at_the_end_of_this_child, lambda function: function())
    if _cared_for != os.getpid() and process is not None and util is not None and process.parent_process() is not None:
        _cared_for = os.getpid()
        util.Finalize(None, _at_the_end_of_this_child, exitpriority=0)
        _note_how_this_child_ends(process.BaseProcess._bootstrap.__code__)
    if _cared_for != os.getpid() and not isinstance(threading.main_thread(), _MAIN_THREAD):
        # Forked by another thread than the main one: this child ends as that thread returns from its function, without
        # `atexit`, and only when nobody else runs in it. Our own threads would keep it alive for ever.
        _cared_for = os.getpid()
        threading.Thread(target=_at_the_end_of_its_threads, name="asynctrack-child", daemon=True).start()


def _at_the_end_of_its_threads() -> None:
    threading.main_thread().join()
    while others := [thread for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]:
        others[0].join()
    shutdown()


def _note_how_this_child_ends(bootstrap: CodeType) -> None:
    """From Python 3.13 on multiprocessing calls its finalizers when the exception is forgotten. But it ends the threads
    before, in ``bootstrap``, which knows the exit status by then."""

    def note() -> None:
        global _has_failed
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not bootstrap:
            frame = frame.f_back
        _has_failed = frame is not None and frame.f_locals.get("exitcode", 0) != 0

    global _has_failed
    _has_failed = False
    with suppress(AttributeError, RuntimeError):  # a Python without that, or threading is at its end
        threading._register_atexit(note)  # type: ignore[attr-defined]  # as concurrent.futures does


def _at_the_end_of_this_child() -> None:
    # Before 3.13 the exception that the child's function raised is passing through.
    error = sys.exc_info()[1]
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        shutdown("FAILED" if _has_failed else "FINISHED")
    else:
        shutdown("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def _at_exit() -> None:
    global _ending
    _ending = True
    shutdown("FAILED" if _has_failed else exit_status())


def _terminate(signal: str) -> None:
    """In a signal handler, which does not return to what it has interrupted; that may be another `Shutdown`."""
    global _ending
    _ending = True
    patience = min((engine.settings.term_timeout for engine in _table.engines()), default=0.0)
    Shutdown(_table, "KILLED", lambda _engine: patience, signal).carry_out_in_a_handler()


def _close_timeout(engine: Engine) -> float:
    # Having waited in vain once already (at a run's end), the program is not held up as long a second time.
    return min(_SHORT, engine.settings.close_timeout) if engine.gave_up else engine.settings.close_timeout


# ── forks


def after_fork(hook: Callable[[], None]) -> None:
    """Have ``hook`` called in a forked child, after the engines have let go of the parent's journals."""
    _after_fork.append(hook)


def _in_forked_child() -> None:
    _table.forget()
    for hook in _after_fork:
        hook()


atexit.register(_at_exit)
at_fork(after_in_child=_in_forked_child)

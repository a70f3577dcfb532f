"""What is said when an engine ends and something is left."""

from __future__ import annotations

import logging
import os
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine

__all__ = ["count_left", "say_what_is_left"]

logger = logging.getLogger("asynctrack")


def say_what_is_left(engine: Engine, left: str = "the rest") -> None:
    """Log that something waits, ``left`` of it, where, and the command that delivers it."""
    path, uri = engine.journal.spool.path, engine.store.uri
    error = f" ({engine.last_error})" if engine.last_error else ""
    if path is None or _is_gone(path):
        gone = "" if path is None else f": its spool {path} was deleted"
        logger.error("asynctrack: could not deliver everything to %s%s; what is left is lost%s", uri, error, gone)
        return
    command = f"asynctrack sync {quote(path)}"
    if engine.offline:
        logger.warning("asynctrack: offline: %s for %s wait in %s. `%s` delivers them.", left, uri, path, command)
    else:
        logger.error(
            "asynctrack: not everything could be delivered to %s%s: %s wait in %s. `%s` delivers them, and so does the "
            "next program that logs to that store with the same spool folder.", uri, error, left, path, command,
        )  # fmt: skip


def count_left(engine: Engine) -> str:
    """How much waits, found by reading the spool."""
    # Every engine has loaded it long ago: only `import asynctrack` does without.
    from asynctrack.journal.survey import read_spool

    try:
        found = read_spool(engine.journal.spool.path or "")
    except (OSError, ValueError):
        found = None  # the engine, which did not end in time, is just changing it
    if found is None:
        return "the rest"
    return f"{found.events:,} events" if found.events else "a run's start and end"


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass  # it is there, and not for this user any more
    return False

"""What a fork does to open databases: their connections are closed before it.

SQLite keeps its locks of a file in memory, for the whole process. A child that has them too believes that it holds
locks which are its parent's, and writes without any: both destroy the file. So a fork waits until no transaction is
under way. If one takes too long, the child does not touch that database.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from asynctrack.clock import monotonic
from asynctrack.forks import at_fork

__all__ = ["watch"]

#: seconds that a fork waits for all transactions together
_PATIENCE = 10.0


class Forking(Protocol):
    """A database that takes part."""

    def before_fork(self, wait: float) -> bool:
        """Take the lock and close the connection, within ``wait`` seconds; whether the lock was taken."""

    def after_fork(self) -> None:
        """In the parent, where it was: let go of the lock."""

    def in_child(self) -> None:
        """In the child: begin anew, if the connection was closed."""


_watched: weakref.WeakSet[Forking] = weakref.WeakSet()


class _Asked(threading.local):
    """The databases that a thread has asked for its fork, and whether it has their locks: several may fork at once."""

    def __init__(self) -> None:
        self.databases: dict[Forking, bool] = {}


_asked = _Asked()


def watch(database: Forking) -> None:
    """Have a database told of every fork for as long as it lives."""
    _watched.add(database)


def _before() -> None:
    until = monotonic() + _PATIENCE
    # All of them at first: should Ctrl-C interrupt the wait for one, the child begins anew with each.
    asked = _asked.databases = dict.fromkeys(_watched, False)
    for database in asked:
        asked[database] = database.before_fork(max(until - monotonic(), 0.0))


def _after_in_parent() -> None:
    asked, _asked.databases = _asked.databases, {}
    for database, locked in asked.items():
        if locked:
            database.after_fork()


def _after_in_child() -> None:
    asked, _asked.databases = _asked.databases, {}
    for database in asked:
        database.in_child()


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

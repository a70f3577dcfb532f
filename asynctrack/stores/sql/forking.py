"""What a fork does to open databases: their connections are closed before it.

SQLite keeps its locks of a file in memory, for the whole process. A child that has them too believes that it holds
locks which are its parent's, and writes without any: both destroy the file. So a fork waits until no transaction is
under way. If one takes too long, the child does not touch that database.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from asynctrack.clock import monotonic
from asynctrack.forks import at_fork

__all__ = ["watch"]

#: seconds that a fork waits for all transactions together
_PATIENCE = 10.0


class Forking(Protocol):
    """A database that takes part."""

    def before_fork(self, wait: float) -> None:
        """Take the lock and close the connection, within ``wait`` seconds."""

    def after_fork(self) -> None:
        """In the parent: let go of the lock."""

    def in_child(self) -> None:
        """In the child: begin anew, if the connection was closed."""


_watched: weakref.WeakSet[Forking] = weakref.WeakSet()
#: those that the fork under way has asked
_asked: list[Forking] = []


def watch(database: Forking) -> None:
    """Have a database told of every fork for as long as it lives."""
    _watched.add(database)


def _before() -> None:
    until = monotonic() + _PATIENCE
    for database in list(_watched):
        _asked.append(database)
        database.before_fork(max(until - monotonic(), 0.0))


def _after_in_parent() -> None:
    while _asked:
        _asked.pop().after_fork()


def _after_in_child() -> None:
    while _asked:
        _asked.pop().in_child()


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

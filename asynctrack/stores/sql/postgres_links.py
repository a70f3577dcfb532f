"""Connections to PostgreSQL that are not in use: one for each database, for whoever in this process needs the next.

A server takes a hundred connections from all programs together, unless its owner has said otherwise. So a program keeps
one, though its engine, its questions and its services have a store each; another that is needed at the same moment is
closed after that. Where the server is nearly full a program keeps none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic
from asynctrack.forks import at_fork
from asynctrack.stores.sql.schema import Schema

if TYPE_CHECKING:
    import psycopg

__all__ = ["Link", "close_idle", "inherit", "is_full", "let_go", "take_idle"]

#: of the connections that a server takes, how many may be there so that one that is not in use is kept
_SHARE = 0.75
#: seconds between two looks at how many there are
_ROUND = 10.0
_CROWDED = (
    "SELECT count(*) > %s * current_setting('max_connections')::int FROM pg_stat_activity "
    "WHERE backend_type = 'client backend'"
)
#: what servers and poolers say while connecting; there is no code then
_FULL = ("too many", "connection slots", "no more connections")

#: by the database's URI
_idle: dict[str, Link] = {}
#: what a forked child has from its parent: closing one would end the parent's session
_inherited: list[Link] = []


class Link:
    """An open connection. ``schema``: MLflow's revision of the tables, what was found out of it, and whether points are
    copied into them directly."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.schema: tuple[str, Schema, bool] | None = None
        self._look_at = 0.0
        self._crowded = False

    def rolled_back(self) -> bool:
        """Take back a transaction that is still open; whether the connection can be used again."""
        from psycopg import Error
        from psycopg.pq import TransactionStatus

        try:
            if not self.connection.closed and self.connection.info.transaction_status != TransactionStatus.IDLE:
                self.connection.execute("ROLLBACK")
        except Error:
            return False
        return not self.connection.closed

    def may_stay(self) -> bool:
        """Whether the server has room for those who keep a connection that they do not use."""
        from psycopg import Error

        if monotonic() >= self._look_at:
            try:
                [self._crowded] = self.connection.execute(_CROWDED, (_SHARE,)).fetchone() or (True,)
            except Error:
                return False
            self._look_at = monotonic() + _ROUND
        return not self._crowded


def take_idle(uri: str) -> Link | None:
    """The connection that is kept, for this thread alone."""
    return _idle.pop(uri, None)


def let_go(uri: str, link: Link) -> None:
    """Keep a connection, or close it."""
    if not (link.rolled_back() and link.may_stay() and _idle.setdefault(uri, link) is link):
        link.connection.close()


def close_idle(uri: str) -> None:
    """Close the connection that is kept, if there is one."""
    link = _idle.pop(uri, None)
    if link is not None:
        link.connection.close()


def is_full(error: psycopg.Error) -> bool:
    """Whether a server takes no connection more for the moment."""
    return error.sqlstate == "53300" or (error.sqlstate is None and any(text in str(error) for text in _FULL))


def inherit(link: Link) -> None:
    """In a forked child: a connection that was in use by a thread of its parent's is never touched."""
    _inherited.append(link)


def _forked() -> None:
    _inherited.extend(_idle.values())
    _idle.clear()


at_fork(after_in_child=_forked)

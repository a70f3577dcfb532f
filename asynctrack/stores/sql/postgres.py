"""A PostgreSQL database, through psycopg 3: a connection for each transaction, one of which is kept for the next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asynctrack.clock import chance, monotonic
from asynctrack.errors import UnavailableError
from asynctrack.reentrant import RLock
from asynctrack.stores.sql import forking, postgres_links
from asynctrack.stores.sql.postgres_errors import store_error
from asynctrack.stores.sql.postgres_links import Link
from asynctrack.stores.sql.postgres_session import PostgresSession
from asynctrack.stores.sql.postgres_uri import PostgresPlace
from asynctrack.stores.sql.schema import Column, Schema, check_schema

__all__ = ["PostgresDatabase"]

#: of a transaction, and not of the session, which a pooler gives to others afterwards. The server ends one that does
#: not go on, so that it keeps nobody's rows locked
_LIMITS = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
#: a writer's statement is not cancelled because it takes long: the same one would be sent again, for ever
_WRITE = "BEGIN; SET LOCAL statement_timeout = 0"
#: what the network does when the other end has gone: nothing for hours, unless it is told
_NETWORK = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3", "tcp_user_timeout": "30000"}
_COLUMNS = """
SELECT a.attname, a.attnotnull AND d.adbin IS NULL AND a.attidentity = ''
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
#: the columns of `metrics` that have other types than points are copied as
_OTHER_TYPES = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('metrics') AND attnum > 0 AND NOT attisdropped
AND (attname, atttypid::regtype::text) NOT IN (
    ('key', 'character varying'), ('run_uuid', 'character varying'), ('timestamp', 'bigint'), ('step', 'bigint'),
    ('value', 'double precision'), ('is_nan', 'boolean'))
"""

#: seconds between two attempts to get a connection from a server that takes no more: at first, and at most
_STEP, _LONGEST_STEP = 0.05, 1.0


class PostgresDatabase:
    """One database. Every transaction waits for the one before, and looks whether the schema is what it was.

    ``secret``: looks up the password from the URI; "" leaves it to libpq (``PGPASSWORD``, ``PGPASSFILE``, a service).
    ``offline``: what is raised instead of connecting.
    """

    def __init__(
        self,
        place: PostgresPlace,
        secret: Callable[[], str],
        *,
        connect_timeout: float = 10.0,
        offline: str | None = None,
    ) -> None:
        self.uri = place.uri
        #: as MLflow does it for clients: in the program's working directory
        self.artifact_root = os.path.abspath("mlruns")
        self._keywords = place.keywords
        self._secret = secret
        self._connect_timeout = connect_timeout
        self._offline = offline
        self._lock = RLock()
        self._inside = False
        #: the connection of the transaction that is under way
        self._link: Link | None = None
        forking.watch(self)

    @contextmanager
    def write(self, wait: float, *, create: bool = False) -> Iterator[PostgresSession]:
        """A transaction that is committed unless an exception leaves it. Raises `StoreError` classes. Tables are not
        made here, whatever ``create`` says."""
        with self._begun(wait, _WRITE) as link:
            session = PostgresSession(link.connection, *self._checked(link))
            yield session
            session.flush()
            link.connection.execute("COMMIT")

    @contextmanager
    def read(self, wait: float) -> Iterator[PostgresSession]:
        """A transaction that sees one state of the database."""
        with self._begun(wait, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as link:
            yield PostgresSession(link.connection, *self._checked(link))

    @contextmanager
    def _begun(self, wait: float, statement: str) -> Iterator[Link]:
        """A connection with a transaction, which waits for each of others' locks for so long. Readers do, too: nobody
        reads a table while it is upgraded."""
        with self._turn(wait) as link:
            link.connection.execute(statement)
            link.connection.execute(f"{_LIMITS}; SET LOCAL lock_timeout = {max(int(wait * 1000), 1)}")
            yield link

    def is_gone(self) -> bool:
        return False  # a server that is away says so

    def close(self) -> None:
        """Close the connection that is kept; the next transaction opens another."""
        postgres_links.close_idle(self.uri)

    @contextmanager
    def _turn(self, wait: float) -> Iterator[Link]:
        """A connection, for this thread alone; a transaction that is still open at the end is rolled back."""
        until = monotonic() + wait
        if not self._lock.acquire(timeout=wait):
            raise UnavailableError(f"{self.uri} is in use by another thread of this program for {wait:.0f} s")
        try:
            if self._inside:
                raise UnavailableError(f"{self.uri}: a signal handler has interrupted a transaction on it")
            import psycopg  # late: only who uses it needs it

            self._inside = True
            try:
                self._link = link = self._linked(until)
                yield link
            except psycopg.Error as error:
                raise store_error(error, self.uri, self._secret()) from None  # its text may show a password
            finally:
                if self._link is not None:
                    postgres_links.let_go(self.uri, self._link)
                self._link = None
                self._inside = False
        finally:
            self._lock.release()

    def _linked(self, until: float) -> Link:
        """The connection that is kept, or another. Where the server takes no more, one that somebody closes."""
        import psycopg

        if self._offline is not None:
            raise UnavailableError(self._offline)
        step = _STEP
        while True:
            link = postgres_links.take_idle(self.uri)
            if link is not None:
                return link
            try:
                return self._connect(until - monotonic())
            except psycopg.OperationalError as error:
                if not postgres_links.is_full(error) or monotonic() + step > until:
                    raise
            time.sleep(step * (0.5 + 0.5 * chance()))
            step = min(step * 1.5, _LONGEST_STEP)

    def _connect(self, wait: float) -> Link:
        import psycopg

        options: dict[str, Any] = {
            "application_name": "asynctrack",
            "connect_timeout": max(int(min(self._connect_timeout, wait)), 2),  # libpq's least
            **_NETWORK,
            **self._keywords,
            "client_encoding": "UTF8",  # in which points are copied, whatever PGCLIENTENCODING says
            **({"password": str(secret)} if (secret := self._secret()) else {}),
        }
        # Nothing is prepared: a pooler may give each transaction another session.
        return Link(psycopg.connect(autocommit=True, prepare_threshold=None, **options))

    def _checked(self, link: Link) -> tuple[Schema, bool]:
        """What the tables are like; looked at again when MLflow has upgraded them."""
        connection = link.connection
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            revision = ""
        else:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            revision = "" if found is None else found[0]
        if link.schema is None or link.schema[0] != revision:

            def columns(table: str) -> list[Column]:
                return [Column(*row) for row in connection.execute(_COLUMNS, (table,)).fetchall()]

            direct = connection.execute(_OTHER_TYPES).fetchone() is None
            link.schema = revision, check_schema(self.uri, columns), direct
        return link.schema[1:]

    # ── forks

    def before_fork(self, wait: float) -> bool:
        """Nothing: the child lets go of the connection."""
        return False

    def after_fork(self) -> None:
        """Nothing, either."""

    def in_child(self) -> None:
        """In the child: begin anew. The connection is the parent's."""
        if self._link is not None:
            postgres_links.inherit(self._link)
        self._link = None
        self._lock = RLock()
        self._inside = False

"""A PostgreSQL database, through psycopg 3: one connection, opened anew when it is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asynctrack.errors import UnavailableError
from asynctrack.reentrant import RLock
from asynctrack.stores.sql import forking
from asynctrack.stores.sql.postgres_errors import store_error
from asynctrack.stores.sql.postgres_session import PostgresSession
from asynctrack.stores.sql.postgres_uri import PostgresPlace
from asynctrack.stores.sql.schema import Column, Schema, check_schema

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresDatabase"]

#: seconds after which the server ends a transaction that does not go on, so that it keeps nobody's rows locked
_IDLE = 60
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

#: connections that a forked child has from its parent: closing one would end the parent's session
_inherited: list[Any] = []


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
        self._connection: psycopg.Connection[Any] | None = None
        #: MLflow's revision of the schema, and what was found out of it; whether points are copied into it directly
        self._schema: tuple[str, Schema, bool] | None = None
        forking.watch(self)

    @contextmanager
    def write(self, wait: float, *, create: bool = False) -> Iterator[PostgresSession]:
        """A transaction that is committed unless an exception leaves it. Raises `StoreError` classes. Tables are not
        made here, whatever ``create`` says."""
        with self._turn(wait) as connection:
            connection.execute("BEGIN")
            connection.execute(f"SET LOCAL lock_timeout = {max(int(wait * 1000), 1)}")
            session = PostgresSession(connection, *self._checked(connection))
            yield session
            session.flush()
            connection.execute("COMMIT")

    @contextmanager
    def read(self, wait: float) -> Iterator[PostgresSession]:
        """A transaction that sees one state of the database."""
        with self._turn(wait) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgresSession(connection, *self._checked(connection))

    def close(self) -> None:
        """Close the connection, unless another thread is using it: then it is left to the end of the process."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._close()
            finally:
                self._lock.release()

    @contextmanager
    def _turn(self, wait: float) -> Iterator[psycopg.Connection[Any]]:
        """The connection, for this thread alone; a transaction that is still open at the end is rolled back."""
        if not self._lock.acquire(timeout=wait):
            raise UnavailableError(f"{self.uri} is in use by another thread of this program for {wait:.0f} s")
        try:
            if self._inside:
                raise UnavailableError(f"{self.uri}: a signal handler has interrupted a transaction on it")
            import psycopg  # late: only who uses it needs it

            self._inside = True
            try:
                yield self._open(wait)
            except psycopg.Error as error:
                raise store_error(error, self.uri, self._secret()) from None  # its text may show a password
            finally:
                self._roll_back()
                self._inside = False
        finally:
            self._lock.release()

    def _open(self, wait: float) -> psycopg.Connection[Any]:
        import psycopg

        if self._offline is not None:
            raise UnavailableError(self._offline)
        if self._connection is None or self._connection.closed:
            self._close()
            options: dict[str, Any] = {
                "application_name": "asynctrack",
                "connect_timeout": max(int(min(self._connect_timeout, wait)), 2),  # libpq's least
                **_NETWORK,
                **self._keywords,
                "client_encoding": "UTF8",  # in which points are copied, whatever PGCLIENTENCODING says
                **({"password": str(secret)} if (secret := self._secret()) else {}),
            }
            # Nothing is prepared: a pooler may give each transaction another session.
            self._connection = psycopg.connect(autocommit=True, prepare_threshold=None, **options)
            self._connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE}s'")
        return self._connection

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return
        from psycopg import Error
        from psycopg.pq import TransactionStatus

        if connection.info.transaction_status == TransactionStatus.IDLE:
            return
        try:
            connection.execute("ROLLBACK")
        except Error:
            self._close()

    def _close(self) -> None:
        connection, self._connection, self._schema = self._connection, None, None
        if connection is not None:
            connection.close()

    def _checked(self, connection: psycopg.Connection[Any]) -> tuple[Schema, bool]:
        """What the tables are like; looked at again when MLflow has upgraded them."""
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            revision = ""
        else:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            revision = "" if found is None else found[0]
        if self._schema is None or self._schema[0] != revision:

            def columns(table: str) -> list[Column]:
                return [Column(*row) for row in connection.execute(_COLUMNS, (table,)).fetchall()]

            direct = connection.execute(_OTHER_TYPES).fetchone() is None
            self._schema = revision, check_schema(self.uri, columns), direct
        return self._schema[1:]

    # ── forks

    def before_fork(self, wait: float) -> None:
        """Nothing: the child lets go of the connection."""

    def after_fork(self) -> None:
        """Nothing, either."""

    def in_child(self) -> None:
        """In the child: begin anew. The connection is the parent's."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = self._schema = None
        self._lock = RLock()
        self._inside = False

"""An SQLite database: one connection, short transactions, and waits of our own for whoever has it locked."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote

from asynctrack.clock import chance, monotonic
from asynctrack.errors import UnavailableError, WrongServerError
from asynctrack.reentrant import RLock
from asynctrack.stores.file.files import unavailable
from asynctrack.stores.sql import forking, places, sharing
from asynctrack.stores.sql.experiments import add_default
from asynctrack.stores.sql.schema import Column, Schema, check_schema, creation
from asynctrack.stores.sql.sqlite_errors import is_busy, store_error
from asynctrack.stores.sql.sqlite_session import SqliteSession

__all__ = ["SqliteDatabase"]

#: INSERT ... ON CONFLICT DO NOTHING
_OLDEST = (3, 24, 0)
#: of pages, at most: what a transaction of 64,000 points changes. With SQLite's 2 MB it writes pages before its end,
#: which keeps readers out until then, waits twice as often for the disk, and with many runs at once reads them again
_CACHE = "PRAGMA cache_size = -32000"
_COUNT_TABLES = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
#: longest wait in seconds between two attempts to get a lock; whoever waits longer each time never gets it
_LONGEST_STEP = 0.02

#: in a child: files on which its parent had a transaction when it forked
_torn: set[str] = set()


class SqliteDatabase:
    """One file. Every transaction waits for the one before, and looks whether file and schema are what they were."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.uri = places.sqlite_uri(f"sqlite:///{path}")
        self.artifact_root = places.artifact_root(path)
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        #: device and inode of the open file
        self._file = (0, 0)
        #: what was found out, and SQLite's number of the schema that it was found out of
        self._schema: tuple[int, Schema] | None = None
        self._manners = sharing.Manners(self.path)
        #: it was there once, so it is not made again where it has gone
        self._seen = False
        #: this thread is inside a transaction
        self._inside = False
        forking.watch(self)

    @contextmanager
    def write(self, wait: float, *, create: bool = False) -> Iterator[SqliteSession]:
        """A transaction that is committed unless an exception leaves it. Raises `StoreError` classes, OSError."""
        with self._turn(wait, create) as (connection, until):
            try:
                # Whoever is refused at once need not wait: somebody else's turn is taken from our time.
                self._manners.enter(until)
                self._locked(connection, "BEGIN IMMEDIATE", until, self._manners.refused)
                self._manners.began(connection)
                session = SqliteSession(connection, self._checked(connection))
                yield session
                session.flush()
                self._locked(connection, "COMMIT", until)
                self._manners.committed()
            finally:
                self._manners.leave()

    @contextmanager
    def read(self, wait: float) -> Iterator[SqliteSession]:
        """A transaction that sees one state of the file. It keeps others from committing: fetch, and end it. A file
        that was never there is not made: it reads like one that was made just now."""
        if not self._seen and not self._is_made():
            with self._nothing() as session:
                yield session
            return
        with self._turn(wait, False) as (connection, until):
            connection.execute("BEGIN")
            self._locked(connection, _COUNT_TABLES, until)  # from here on it is locked
            yield SqliteSession(connection, self._checked(connection))

    def is_gone(self) -> bool:
        return not self._is_made()

    def _is_made(self) -> bool:
        try:
            return os.stat(self.path).st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unavailable(error, self.path) from error

    @contextmanager
    def _nothing(self) -> Iterator[SqliteSession]:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            for statement in creation():
                connection.execute(statement)
            session = SqliteSession(connection, check_schema(self.path, partial(_columns, connection)))
            add_default(session, self.artifact_root)
            yield session
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection, unless another thread is using it: then it is left to the end of the process."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._close()
            finally:
                self._lock.release()

    # ── transactions

    @contextmanager
    def _turn(self, wait: float, create: bool) -> Iterator[tuple[sqlite3.Connection, float]]:
        """The connection, for this thread alone; a transaction that is still open at the end is rolled back."""
        until = monotonic() + wait
        if not self._lock.acquire(timeout=wait):
            raise UnavailableError(f"{self.path} is in use by another thread of this program for {wait:.0f} s")
        try:
            if self._inside:
                raise UnavailableError(f"{self.path}: a signal handler has interrupted a transaction on it")
            self._inside = True
            try:
                yield self._open(create, until), until
            except sqlite3.Error as error:
                raise store_error(error, self.path) from error
            finally:
                self._roll_back()
                self._inside = False
        finally:
            self._lock.release()

    def _locked(
        self, connection: sqlite3.Connection, statement: str, until: float, refused: Callable[[float], object] = bool
    ) -> int:
        """Carry out a statement that waits for others' locks; the number that it finds, if any. They take turns by
        chance, so the steps are short. ``refused`` is called with ``until`` when it has to wait."""
        step = 0.001
        while True:
            try:
                row = connection.execute(statement).fetchone()
                return 0 if row is None else int(row[0])
            except sqlite3.OperationalError as error:
                if not is_busy(error) or monotonic() >= until:
                    raise
            refused(until)
            time.sleep(step * (0.5 + 0.5 * chance()))
            step = min(step * 1.5, _LONGEST_STEP)

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None or not connection.in_transaction:
            return  # SQLite rolls back itself when the disk is full
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()  # which rolls back, too

    # ── the file

    def _open(self, create: bool, until: float) -> sqlite3.Connection:
        if self.path in _torn:
            raise UnavailableError(
                f"{self.path}: this process was forked in the middle of a transaction, and leaves the database to its "
                f"parent. What it logs is kept, and delivered when it has ended"
            )
        file = self._identity()
        if self._connection is not None and file == self._file:
            return self._connection
        self._close()
        self._manners = sharing.Manners(self.path)
        if file is None and (self._seen or not create):
            raise UnavailableError(
                f"{self.path} is not there. Put it back, or check that its disk is mounted; nothing is lost: it is "
                f"tried again"
            )
        return self._connect(create, until)

    def _connect(self, create: bool, until: float) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise WrongServerError(f"{self.path}: SQLite {sqlite3.sqlite_version} is too old; 3.24 is the oldest")
        if create and not self._seen:
            try:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise WrongServerError(f"{self.path}: {error.filename} is a file; choose another path") from error
        mode = "rwc" if create and not self._seen else "rw"
        self._connection = connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=0,  # it would wait up to 100 ms at a time: see `_locked`
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        self._file = self._identity() or (0, 0)
        sharing.warn_of_network(self.path)
        try:
            self._prepare(connection, create, until)
        except BaseException:
            self._close()  # the next one makes the tables, if these are not there
            raise
        self._seen = True
        return connection

    def _prepare(self, connection: sqlite3.Connection, create: bool, until: float) -> None:
        self._locked(connection, _CACHE, until)  # it reads the schema
        if not self._locked(connection, _COUNT_TABLES, until) and create:
            self._locked(connection, "BEGIN IMMEDIATE", until)
            if not self._tables(connection):  # another process may have been faster
                for statement in creation():
                    connection.execute(statement)
                add_default(SqliteSession(connection, self._checked(connection)), self.artifact_root)
            self._locked(connection, "COMMIT", until)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unavailable(error, self.path) from error
        return found.st_dev, found.st_ino

    def _close(self) -> None:
        connection, self._connection, self._schema = self._connection, None, None
        if connection is not None:
            connection.close()

    # ── the schema

    @staticmethod
    def _tables(connection: sqlite3.Connection) -> int:
        count: int = connection.execute(_COUNT_TABLES).fetchone()[0]
        return count

    def _checked(self, connection: sqlite3.Connection) -> Schema:
        """What the tables are like; looked at again when anybody has changed them."""
        number: int = connection.execute("PRAGMA schema_version").fetchone()[0]
        if self._schema is None or self._schema[0] != number:
            if not self._tables(connection):
                self._close()
                raise UnavailableError(f"{self.path} has no tables yet; it is tried again")
            self._schema = number, check_schema(self.path, partial(_columns, connection))
        return self._schema[1]

    # ── forks

    def before_fork(self, wait: float) -> bool:
        """Take the lock and close the connection, within ``wait`` seconds; whether the lock was taken."""
        locked = self._lock.acquire(timeout=wait)
        if locked and not self._inside:
            self._close()
        return locked

    def after_fork(self) -> None:
        """In the parent, where it was: let go of the lock."""
        self._lock.release()

    def in_child(self) -> None:
        """In the child: begin anew, if the connection was closed."""
        if self._connection is not None:
            import ctypes  # late: this is rare

            _torn.add(self.path)
            # It is never closed here, not even at the end: that would roll the parent's transaction back.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = None
        self._manners.leave()  # of the parent's turn this process has no part
        self._lock = RLock()
        self._inside = False


def _columns(connection: sqlite3.Connection, table: str) -> list[Column]:
    found = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return [Column(name, bool(not_null) and default is None) for _, name, _, not_null, default, _ in found]

"""Statements on an SQLite connection, within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from asynctrack.stores.sql.rows import Flat, Latest
from asynctrack.stores.sql.schema import Schema
from asynctrack.stores.sql.session import LATER, LATEST, Row

__all__ = ["SqliteSession"]

#: rows of one INSERT. With many it takes 0.6 of the time of as many INSERTs of one; up to 999 values work everywhere
_ROWS = (256, 64, 16, 4, 1)


@cache
def _insert(rows: int, nan: int) -> str:
    # Without numbered placeholders, for which Python 3.12 warns. ("WHERE 1" tells ON CONFLICT from a join's ON.)
    # OR FAIL: a row that no column takes leaves those before it, which the transaction takes back. Else SQLite would
    # keep a copy of each page for each statement that changes it, in a file: with many runs half of the time.
    values = ",".join(["(?,?,?)"] * rows)
    return (
        f"INSERT OR FAIL INTO metrics (key, run_uuid, timestamp, step, value, is_nan) "
        f"SELECT ?, ?, column1, column2, column3, {nan} FROM (VALUES {values}) WHERE 1 ON CONFLICT DO NOTHING"
    )


class SqliteSession:
    """A transaction on one connection. Raises sqlite3.Error."""

    #: nobody else writes between BEGIN IMMEDIATE and COMMIT
    for_update = ""
    enforces_lengths = False
    numbers_rows = True

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self.schema = schema
        self._connection = connection
        self._points: list[tuple[str, str, Flat, bool]] = []

    def pages(self, statement: str, values: Sequence[Any], most: int) -> Iterator[list[Row]]:
        cursor = self._connection.execute(statement, values)
        while rows := cursor.fetchmany(most):
            yield rows

    def version(self) -> object:
        return self._connection.execute("PRAGMA schema_version").fetchone()[0]

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(statement, values).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(statement, rows)

    def kept(self, text: str) -> str:
        return text

    def lock_names(self) -> None:
        """Nothing: see `for_update`."""

    def add_experiment(self, name: str, now: int) -> int:
        done = self._connection.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
            "VALUES (?, '', 'active', ?, ?)",
            (name, now, now),
        )
        return done.lastrowid or 0

    def set_latest(self, run_id: str, latest: Sequence[tuple[str, Latest]]) -> None:
        self.many(f"{LATEST}VALUES (?, ?, ?, ?, ?, ?) {LATER}", [(key, *its, run_id) for key, its in latest])

    def add_points(self, run_id: str, key: str, points: Flat, *, nan: bool) -> None:
        self._points.append((key, run_id, points, nan))

    def flush(self) -> None:
        """Insert the points that were collected, metric by metric: runs that log at once have the same metrics at the
        same times, so their rows are neighbours in the primary key. Run by run, each would change all its pages anew,
        and they are more than SQLite keeps in memory."""
        for key, run_id, points, nan in sorted(self._points, key=itemgetter(0)):
            at, end = 0, len(points)
            for rows in _ROWS:
                statement = _insert(rows, int(nan))
                while at + 3 * rows <= end:
                    self._connection.execute(statement, [key, run_id, *points[at : at + 3 * rows]])
                    at += 3 * rows
        self._points = []

"""Statements on a PostgreSQL connection, within a transaction."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.stores.sql.rows import Flat, Latest
from asynctrack.stores.sql.schema import Schema
from asynctrack.stores.sql.session import LATER, LATEST, Row

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresSession"]

_COLUMNS = "(key, run_uuid, timestamp, step, value, is_nan)"
#: points of one metric, without those that are there. (By way of a temporary table it would take a quarter less time,
#: and a right that not every user has)
_MERGE = (
    f"INSERT INTO metrics {_COLUMNS} SELECT %s::text, %s::text, at, step, value, %s "
    "FROM unnest(%s::int8[], %s::int8[], %s::float8[]) AS points (at, step, value) ORDER BY at, step "
    "ON CONFLICT DO NOTHING"
)
#: what `latest_metrics` gets: key, value, timestamp, step, is_nan, run
_ARRAYS = "%s::text[], %s::float8[], %s::int8[], %s::int8[], %s::bool[], %s::text[]"
#: any number that nobody else uses: whoever creates an experiment holds it to the end of their transaction
_NAMES = 0x6173796E63
#: rows that are collected before they are copied
_MOST_ROWS = 100_000
#: how COPY's binary format begins and ends; and what stands before a row: the number of its fields
_SIGNATURE, _END, _FIELDS = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff", struct.pack("!h", 6)
_LENGTH = struct.Struct("!i")


@lru_cache(256)
def _translated(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _kept(text: str) -> str:
    """A text as PostgreSQL takes it: none there holds a NUL, and what goes through a server has U+FFFD in its place."""
    return text.replace("\0", "\ufffd")


def _sent(values: Sequence[Any]) -> Sequence[Any]:
    for value in values:
        if isinstance(value, str) and "\0" in value:
            return [_kept(each) if isinstance(each, str) else each for each in values]
    return values


def _rank(latest: Latest) -> tuple[int, int, float]:
    return latest.step, latest.timestamp, latest.value


class _Points(NamedTuple):
    """Points of one metric that are to be copied."""

    run_id: str
    key: str
    flat: Flat
    nan: bool

    def rows(self) -> bytes:
        """In COPY's binary format, which takes a third of the time of text, and spares the server reading numbers.
        Each field stands behind its length in bytes."""
        names = (_LENGTH.pack(len(name)) + name for name in (self.key.encode(), self.run_id.encode()))
        head, tail = _FIELDS + b"".join(names), struct.pack("!i?", 1, self.nan)
        pack = struct.Struct(f"!{len(head)}siqiqid{len(tail)}s").pack
        items = iter(self.flat)
        return b"".join(
            [pack(head, 8, at, 8, step, 8, value, tail) for at, step, value in zip(items, items, items, strict=True)]
        )


def _binary(points: Iterable[_Points]) -> Iterator[bytes]:
    yield _SIGNATURE
    for each in points:
        yield each.rows()
    yield _END


class PostgresSession:
    """A transaction on one connection. Points are collected, and go to the server by COPY. Raises psycopg.Error."""

    #: nobody deletes the run, and of two writers that will both change its row one waits at once
    for_update = " FOR NO KEY UPDATE"
    enforces_lengths = True
    numbers_rows = False

    def __init__(self, connection: psycopg.Connection[Any], schema: Schema, direct: bool) -> None:
        self.schema = schema
        self._connection = connection
        #: the table's columns are of the types in which points are copied
        self._direct = direct
        self._points: list[_Points] = []
        self._rows = 0
        #: by run and key
        self._latest: dict[tuple[str, str], Latest] = {}

    def pages(self, statement: str, values: Sequence[Any], most: int) -> Iterator[list[Row]]:
        # The server keeps what is not fetched yet. In binary, numbers need not be read.
        with self._connection.cursor(name="asynctrack_pages", binary=True) as cursor:
            cursor.execute(_translated(statement), _sent(values))
            while rows := cursor.fetchmany(most):
                yield rows

    def version(self) -> object:
        return ""  # rows have no numbers here

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(_translated(statement), _sent(values)).fetchall()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(_translated(statement), _sent(values)).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(_translated(statement), map(_sent, rows))

    def kept(self, text: str) -> str:
        return _kept(text)

    def lock_names(self) -> None:
        self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_NAMES,))

    def add_experiment(self, name: str, now: int) -> int:
        [(number,)] = self.rows(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
            "VALUES (?, '', 'active', ?, ?) RETURNING experiment_id",
            (name, now, now),
        )
        return int(number)

    def set_latest(self, run_id: str, latest: Sequence[tuple[str, Latest]]) -> None:
        """Collected, too: of many runs at once, a statement for each would take a tenth of the transaction's time."""
        for key, its in latest:
            there = self._latest.get((run_id, key))
            if there is None or _rank(its) > _rank(there):
                self._latest[run_id, key] = its

    def add_points(self, run_id: str, key: str, points: Flat, *, nan: bool) -> None:
        self._points.append(_Points(run_id, key, points, nan))
        self._rows += len(points) // 3
        if self._rows >= _MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Send the points that were collected: straight into the table, or, where one of them is there already, with
        statements that leave it out."""
        self._flush_latest()
        # Runs that log at once have the same metrics at the same times: then their rows are neighbours in the key.
        points, self._points, self._rows = sorted(self._points, key=lambda each: each.key), [], 0
        if not points or (self._direct and self._copied(points)):
            return
        for each in points:
            columns = each.flat[0::3], each.flat[1::3], each.flat[2::3]
            self._connection.execute(_MERGE, (each.key, each.run_id, each.nan, *columns))

    def _flush_latest(self) -> None:
        latest, self._latest = self._latest, {}
        if not latest:
            return
        rows = [(key, *its, run_id) for (run_id, key), its in sorted(latest.items(), key=itemgetter(0))]
        self._connection.execute(
            f"{LATEST}SELECT * FROM unnest({_ARRAYS}) {LATER}",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def _copied(self, points: Sequence[_Points]) -> bool:
        """Copy them straight into the table; False where one of them is there already."""
        from psycopg.errors import UniqueViolation

        statement = f"COPY metrics {_COLUMNS} FROM STDIN (FORMAT BINARY)"
        try:
            with (
                self._connection.transaction(),  # a savepoint
                self._connection.cursor() as cursor,
                cursor.copy(statement) as copy,
            ):
                for data in _binary(points):  # the server works on one metric's rows while the next one's are made
                    copy.write(data)
        except UniqueViolation:
            return False
        return True

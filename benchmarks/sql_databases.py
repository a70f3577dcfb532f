"""The two databases that `sql.py` measures, with MLflow's newest tables, and the bare way to put rows into each.

Both are written as they come: nothing of their configuration is changed, but that PostgreSQL's autovacuum is off, which
would begin at moments of its own.
"""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from asynctrack.journal.slots import PACK_SETTLED, SLOT_SIZE
from asynctrack.stores.base import AbstractStore, Batch, RecordBlock, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from tests import servers
from tests.mlflow_store import open_mlflow

__all__ = [
    "BATCH",
    "KEYS",
    "START",
    "Database",
    "Postgres",
    "Sqlite",
    "block",
    "new_run",
    "on_a_copy",
    "opened",
    "points",
]

KEYS = [f"metric{number}" for number in range(10)]
STREAMS = {1 + number: key for number, key in enumerate(KEYS)}
#: events of a transaction
BATCH = 64_000
START = 1_700_000_000_000
_INSERT = "INSERT INTO metrics (key, run_uuid, timestamp, step, value, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
_COPY = "COPY metrics (key, run_uuid, timestamp, step, value, is_nan) FROM STDIN (FORMAT BINARY)"

#: key, run, time, step, value
Row = tuple[str, str, int, int, float]


def points(first: int, count: int) -> Iterator[tuple[int, int, int, float]]:
    """Which metric, time, step, value."""
    for number in range(first, first + count):
        yield number % 10, START + number // 10, number // 10, math.sin(number)


def block(first: int, count: int) -> RecordBlock:
    """As the journal has them."""
    data = bytearray(count * SLOT_SIZE)
    for at, (metric, timestamp, step, value) in enumerate(points(first, count)):
        PACK_SETTLED(data, at * SLOT_SIZE, timestamp, step, value, 1 + metric, timestamp, step, value, 1 + metric)
    return RecordBlock(bytes(data), STREAMS)


def opened(uri: str) -> AbstractStore:
    """Ours, for a plain thread."""
    return open_store(uri, InlineIO())


def new_run(store: AbstractStore) -> str:
    """A run in the default experiment."""
    return drive(store.create_run(RunSpec(uuid.uuid4().hex, start_time=START))).run_id


class Database(Protocol):
    """One of the two. ``bare`` is what its floor is called."""

    name: str
    bare: str

    def server(self, folder: Path) -> servers.MlflowServer:
        """An MLflow server on another database of the kind, with one worker."""

    def fill(self, first: int, count: int) -> None:
        """Put points of other runs into what is copied."""

    def copy(self, *, large: bool) -> str:
        """The URI of a new copy. ``large``: of gigabytes."""

    def drop(self) -> None:
        """Delete the last copy, if there is one."""

    def insert(self, uri: str, first: int, events: int, runs: int) -> float:
        """Seconds that bare inserts take for the rows of so many runs, each of which has its part of a transaction.
        ``first``: the number of their first point."""


def on_a_copy(database: Database, call: Callable[[str], float]) -> float:
    """What a call returns that may write a copy, whose URI it is given."""
    uri = database.copy(large=False)
    try:
        return call(uri)
    finally:
        database.drop()


def rows_of(ids: Sequence[str], first: int, events: int) -> list[list[Row]]:
    """The rows of each transaction, of each run metric by metric: what is next to each other in the keys comes so."""
    share = min(events, BATCH) // len(ids)
    return [
        [
            (KEYS[metric], run_id, when, step, value)
            for run_id in ids
            for metric, when, step, value in sorted(points(at, share))
        ]
        for at in range(first, first + events // len(ids), share)
    ]


def _fill(uri: str, first: int, count: int) -> None:
    store = opened(uri)
    run_id = new_run(store)
    for at in range(first, first + count, BATCH):
        drive(store.log_batch(run_id, Batch(blocks=[block(at, min(BATCH, first + count - at))])))
    drive(store.aclose())


class Sqlite:
    """A file. Bare is one `executemany` of tuples for each transaction."""

    name, bare = "SQLite", "bare executemany"

    def __init__(self, work: Path) -> None:
        self._base = work / "base.db"
        self._copy = work / "copy.db"
        open_mlflow(self._base)._dispose_engine()

    def server(self, folder: Path) -> servers.MlflowServer:
        return servers.sqlite(folder)

    def fill(self, first: int, count: int) -> None:
        _fill(f"sqlite:///{self._base}", first, count)

    def copy(self, *, large: bool) -> str:
        shutil.copy(self._base, self._copy)
        if large:
            os.sync()  # else the disk is busy with it while others are measured
        return f"sqlite:///{self._copy}"

    def drop(self) -> None:
        self._copy.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete it."""
        self.drop()
        self._base.unlink()

    def insert(self, uri: str, first: int, events: int, runs: int) -> float:
        connection = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
        ids = [uuid.uuid4().hex for _ in range(runs)]
        connection.executemany("INSERT INTO runs (run_uuid, experiment_id) VALUES (?, 0)", [(each,) for each in ids])
        parts = rows_of(ids, first, events)
        begun = time.perf_counter()
        for rows in parts:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")
        took = time.perf_counter() - begun
        connection.close()
        return took


class Postgres:
    """A server of its own. Bare is one COPY for each transaction, of bytes that are ready in its binary format."""

    name, bare = "PostgreSQL", "bare COPY"

    def __init__(self, work: Path) -> None:
        import psycopg

        from tests.postgres import Postgres as Cluster  # where it is installed

        self._cluster = Cluster()
        self._copies = 0
        open_mlflow(self._cluster.url, work)._dispose_engine()
        url = self._cluster.url.replace("+psycopg", "").replace("/postgres?", "/template1?")
        self._sql = psycopg.connect(url, autocommit=True)
        self._sql.execute("ALTER SYSTEM SET autovacuum = off")
        self._sql.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """Stop it and delete its data."""
        self._sql.close()
        self._cluster.close()

    def server(self, folder: Path) -> servers.MlflowServer:
        return servers.postgres(folder)

    def fill(self, first: int, count: int) -> None:
        _fill(self._cluster.url, first, count)

    def copy(self, *, large: bool) -> str:
        self._copies += 1
        uri = self._cluster.copy(f"copy{self._copies}", strategy="FILE_COPY" if large else "WAL_LOG")
        if large:
            os.sync()
        return uri

    def drop(self) -> None:
        self._sql.execute(f"DROP DATABASE IF EXISTS copy{self._copies} (FORCE)".encode())

    def insert(self, uri: str, first: int, events: int, runs: int) -> float:
        import psycopg

        ids = [uuid.uuid4().hex for _ in range(runs)]
        parts = [_encoded(rows) for rows in rows_of(ids, first, events)]
        with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as sql:
            for run_id in ids:
                sql.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES (%s, 0)", (run_id,))
            begun = time.perf_counter()
            for data in parts:
                sql.execute("BEGIN")
                with sql.cursor() as cursor, cursor.copy(_COPY) as copy:
                    copy.write(data)
                sql.execute("COMMIT")
            return time.perf_counter() - begun


def _encoded(rows: Sequence[Row]) -> bytes:
    """In COPY's binary format: each field behind its length in bytes."""
    found = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for key, run_id, at, step, value in rows:
        names = struct.pack(f"!hi{len(key)}si32s", 6, len(key), key.encode(), 32, run_id.encode())
        found.append(names + struct.pack("!iqiqidi?", 8, at, 8, step, 8, value, 1, False))
    return b"".join([*found, b"\xff\xff"])

"""Statements on an SQLite connection: what they cost, and what is left of one that fails."""

from __future__ import annotations

import math
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrack.errors import RefusedError
from asynctrack.stores.base import RunSpec
from asynctrack.stores.sql.runs import create_run
from asynctrack.stores.sql.sqlite import SqliteDatabase

RUNS, POINTS = 20, 400


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "x.db"))
    yield database
    database.close()


def new_runs(database: SqliteDatabase, count: int) -> list[str]:
    with database.write(1.0, create=True) as session:
        specs = [RunSpec(uuid.uuid4().hex, start_time=1) for _ in range(count)]
        return [create_run(session, spec, "/artifacts").run_id for spec in specs]


def open_files() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # that of the listing
    return found


def test_points_of_many_runs_need_no_file_but_the_database_and_its_journal(database: SqliteDatabase) -> None:
    """SQLite's journal of a statement, for those that may fail in the middle, doubled what 64 runs take."""
    runs = new_runs(database, RUNS)
    with database.write(1.0) as session:
        for run_id in runs:
            session.add_points(run_id, "m", [item for at in range(POINTS) for item in (at, at, 0.5)], nan=False)
        session.flush()
        assert [name for name in open_files() if "etilqs" in name] == []
        assert any(name.endswith("x.db-journal") for name in open_files())
    with database.read(1.0) as session:
        assert session.rows("SELECT count(*) FROM metrics") == [(RUNS * POINTS,)]


def test_others_read_until_a_transaction_of_many_points_ends(database: SqliteDatabase) -> None:
    """With the memory that SQLite takes by itself, pages go into the file before: it is locked from then on."""
    runs = new_runs(database, RUNS)
    other = sqlite3.connect(database.path, timeout=0.0)
    try:
        with database.write(1.0) as session:
            for run_id in runs:
                points = [item for at in range(800) for item in (at, at, 0.5)]
                session.add_points(run_id, "m", points, nan=False)
            session.flush()
            assert other.execute("SELECT count(*) FROM metrics").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM metrics").fetchone() == (RUNS * 800,)
    finally:
        other.close()


def test_nothing_is_left_of_points_of_which_one_fits_no_column(database: SqliteDatabase) -> None:
    [run_id] = new_runs(database, 1)
    points = [item for at in range(100) for item in (at, at, 0.5)]
    points[200] = math.nan  # which SQLite takes for NULL
    with pytest.raises(RefusedError, match="NOT NULL"), database.write(1.0) as session:
        session.add_points(run_id, "m", points, nan=False)
    with database.write(1.0) as session:
        assert session.rows("SELECT count(*) FROM metrics") == [(0,)]


def test_a_point_that_is_there_already_leaves_the_others_of_its_statement(database: SqliteDatabase) -> None:
    [run_id] = new_runs(database, 1)
    for times in ([7], [5, 6, 7, 8]):
        with database.write(1.0) as session:
            session.add_points(run_id, "m", [item for at in times for item in (at, at, 0.5)], nan=False)
    with database.read(1.0) as session:
        assert session.rows("SELECT timestamp FROM metrics ORDER BY timestamp") == [(5,), (6,), (7,), (8,)]

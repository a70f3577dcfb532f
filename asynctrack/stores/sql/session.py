"""What the statements need of a database: `Session`, inside a transaction, and `Database`, which begins one.

Statements are written once, with "?" for each value, in the SQL that SQLite and PostgreSQL have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from asynctrack.stores.sql.rows import Flat, Latest
from asynctrack.stores.sql.schema import Schema

__all__ = ["LATER", "LATEST", "Database", "Row", "Session"]

Row = tuple[Any, ...]

#: what is written of `latest_metrics`, and when it replaces what is there
LATEST = "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
LATER = (
    "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp, "
    "step = excluded.step, is_nan = excluded.is_nan "
    "WHERE (excluded.step, excluded.timestamp, excluded.value) > "
    "(latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)"
)


class Session(Protocol):
    """A transaction. It belongs to the thread that has begun it."""

    schema: Schema
    #: whether a text longer than its column is refused; elsewhere it is kept as it is
    enforces_lengths: bool
    #: the end of a SELECT whose row must not change before the transaction ends
    for_update: str

    #: whether a row of any table has a ``rowid``, which is higher than that of every row before
    numbers_rows: bool

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Every row of a SELECT."""

    def pages(self, statement: str, values: Sequence[Any], most: int) -> Iterator[list[Row]]:
        """The same, so many at a time, in flat memory."""

    def version(self) -> object:
        """What differs after the tables were changed, or their rows numbered anew."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Carry out a statement; how many rows it has changed."""

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Carry out a statement for each of ``rows``."""

    def kept(self, text: str) -> str:
        """What a column has, once ``text`` is written into it."""

    def lock_names(self) -> None:
        """Let nobody else create an experiment before the transaction ends."""

    def add_experiment(self, name: str, now: int) -> int:
        """Insert an active experiment that has no place for artifacts yet; its id."""

    def set_latest(self, run_id: str, latest: Sequence[tuple[str, Latest]]) -> None:
        """Have rows of `latest_metrics` written before the transaction ends, by key, where they are later than what is
        there."""

    def add_points(self, run_id: str, key: str, points: Flat, *, nan: bool) -> None:
        """Have points of one metric inserted before the transaction ends, except those that are there already.
        ``nan``: their values, which are all 0, stand for NaN."""


class Database(Protocol):
    """Where the tables are. Any thread may call its methods; they wait for one another."""

    uri: str
    #: the folder, or URI, below which an experiment's artifacts are unless it names a place
    artifact_root: str

    def write(self, wait: float, *, create: bool = False) -> AbstractContextManager[Session]:
        """A transaction that is committed unless an exception leaves it. ``wait``: seconds to wait for others.
        ``create``: make what is not there yet."""

    def read(self, wait: float) -> AbstractContextManager[Session]:
        """A transaction that sees one state of the database, and changes nothing."""

    def is_gone(self) -> bool:
        """Whether nothing at all is there: it may be on a disk that is not mounted now. Raises UnavailableError."""

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""

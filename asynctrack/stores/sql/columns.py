"""Reading the points of a run from `metrics` as columns, in MLflow's order (time, step, value), or only what is new.

SQLite numbers the rows as they come: what is new has a higher number. It is read page by page, each in a transaction of
its own, because a reader keeps writers from committing. PostgreSQL's readers keep nobody; there the points of a metric
are counted: what lies behind the newest one that was read is new if there are as many as were added. A metric whose new
points do not all lie behind those that were read is read anew, and so is everything when a branch of the run was
dropped or the schema has changed, as a migration or VACUUM numbers the rows anew.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from zlib import crc32

from asynctrack.errors import UnavailableError
from asynctrack.stores.branches import branches_of
from asynctrack.stores.columns import Columns, Increment, check_steps, increment, known_marks
from asynctrack.stores.sql.reading import get_tags
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.session import Database, Row, Session

__all__ = ["INFINITIES", "read_columns"]

#: rows that are read at once
_PAGE = 20_000
_ATTEMPTS = 5
#: keys of one statement
_MOST_KEYS = 400
#: what MLflow stores in the place of ±Inf
INFINITIES = {sys.float_info.max: math.inf, -sys.float_info.max: -math.inf}
#: the run's own mark stands under no metric's key: the number of the last row, and what must not have changed
_RUN = ""
#: time, step, the value's bits, whether it is NaN; the number of points
_Mark = list[int]
_COLUMNS = "timestamp, step, value, is_nan, key"


def read_columns(
    database: Database,
    wait: float,
    run_id: str,
    keys: Collection[str] | None,
    after: Any,
    min_step: int | None,
    max_step: int | None,
) -> Increment:
    """Raises `NotFoundError`, `InvalidInputError`, `UnavailableError`."""
    check_steps(min_step, max_step)
    known = known_marks(after, 5)
    wanted = None if keys is None else [storable(key) for key in dict.fromkeys(keys)]
    for _ in range(_ATTEMPTS):
        with database.read(wait) as session:
            state = _state(session, run_id)
        reader = _Reader(database, wait, run_id, wanted, min_step, max_step)
        run = known.get(_RUN)
        if run is not None and run[1] == state and reader.has(run[0]):
            found, anew = reader.news({key: mark for key, mark in known.items() if key != _RUN}, run[0])
            marks = {key: mark for key, mark in known.items() if key not in anew}
        else:
            found = reader.all()
            marks, anew = {}, {key for key in known if key != _RUN}
        with database.read(wait) as session:
            if state != _state(session, run_id):
                continue
        for key, points in found.items():
            if points:
                before = marks[key][4] if key in marks else 0
                marks[key] = [*points.last(), before + len(points.columns)]
        marks[_RUN] = [reader.last, state, 0, 0, 0]
        return increment({key: points.columns for key, points in found.items()}, marks, anew)
    raise UnavailableError(f"run {run_id} was changed again and again while it was read; it can be tried again")


def _state(session: Session, run_id: str) -> int:
    """What differs when the rows of a run may have been deleted or numbered anew."""
    branches = sorted(branches_of(get_tags(session, run_id)))
    return crc32(f"{session.version()} {branches}".encode("utf-8", "replace"))


class _Points:
    """Points of one metric. They come in any order."""

    def __init__(self) -> None:
        self.columns = Columns()
        self._nan = array("b")
        #: as they are stored
        self.oldest: Row | None = None
        self._newest: Row | None = None
        self._in_order = True

    def __bool__(self) -> bool:
        return len(self.columns) > 0

    def add(self, rows: list[Row]) -> None:
        """``rows``: time, step, value, whether it is NaN; and anything."""
        rows.sort()
        oldest, newest = rows[0][:4], rows[-1][:4]
        if self._newest is not None and oldest < self._newest:
            self._in_order = False
        self._newest = newest if self._newest is None else max(newest, self._newest)
        self.oldest = oldest if self.oldest is None else min(oldest, self.oldest)
        times, steps, values, nan, *_ = zip(*rows, strict=True)
        self.columns.times.extend(times)
        self.columns.steps.extend(steps)
        self.columns.values.extend(values)
        self._nan.extend(map(int, nan))

    def sort(self) -> None:
        """Bring them into the store's order."""
        if not self._in_order:
            columns = self.columns
            rows: list[Row] = list(zip(columns.times, columns.steps, columns.values, self._nan, strict=True))
            self.columns, self._nan, self._newest, self._in_order = Columns(), array("b"), None, True
            self.add(rows)

    def last(self) -> list[int]:
        """Where the next ones must lie behind."""
        assert self._newest is not None
        time, step, value, nan = self._newest
        return [time, step, array("q", array("d", [value]).tobytes())[0], int(nan)]

    def show(self) -> None:
        """Put NaN and the infinities in the place of what stands for them."""
        values = self.columns.values
        if any(self._nan):
            for at, nan in enumerate(self._nan):
                if nan:
                    values[at] = math.nan
        for number, infinity in INFINITIES.items():
            if number in values:
                for at, value in enumerate(values):
                    if value == number:
                        values[at] = infinity


class _Reader:
    """One run's points, of some keys and steps."""

    def __init__(
        self,
        database: Database,
        wait: float,
        run_id: str,
        keys: Sequence[str] | None,
        min_step: int | None,
        max_step: int | None,
    ) -> None:
        self._database, self._wait, self._keys = database, wait, keys
        self._run_id = storable(run_id)
        self._steps = [
            (f" AND +step {operator} ?", step)
            for operator, step in ((">=", min_step), ("<=", max_step))
            if step is not None
        ]
        #: the number of the last row that is read: of all keys, whatever comes meanwhile
        self.last = 0
        with database.read(wait) as session:
            self.numbered = session.numbers_rows
            if self.numbered:
                [(self.last,)] = session.rows(
                    "SELECT COALESCE(MAX(rowid), 0) FROM metrics WHERE run_uuid = ?", (self._run_id,)
                )

    def has(self, row: int) -> bool:
        """Whether the row is still there that was the last one."""
        if not self.numbered or not row:
            return True
        with self._database.read(self._wait) as session:
            return bool(session.rows("SELECT 1 FROM metrics WHERE rowid = ? AND run_uuid = ?", (row, self._run_id)))

    def all(self) -> dict[str, _Points]:
        """Every point."""
        return _gathered(self._numbered(0, self._keys) if self.numbered else self._ordered(self._keys))

    def news(self, marks: dict[str, _Mark], last: int) -> tuple[dict[str, _Points], set[str]]:
        """The points behind some marks, and the keys that are given anew."""
        if self.numbered:
            found = _gathered(self._numbered(last, self._keys))
            late = {
                key
                for key, points in found.items()
                if key in marks and points.oldest is not None and points.oldest < _place(marks[key])
            }
            found.update(_gathered(self._numbered(0, sorted(late))))
            return found, late
        with self._database.read(self._wait) as session:
            counts = self._counts(session)
        added = {key for key, count in counts.items() if key not in marks}
        grown = {key: count - marks[key][4] for key, count in counts.items() if key in marks}
        found = _gathered(self._ordered(sorted(added))) if added else {}
        gone = marks.keys() - counts.keys()
        late = {key for key, more in grown.items() if more < 0}
        for key, more in grown.items():
            if more > 0:
                behind = _gathered(self._ordered([key], _place(marks[key])))
                if key in behind and len(behind[key].columns) == more:
                    found[key] = behind[key]
                else:
                    late.add(key)
        if late:
            found.update(_gathered(self._ordered(sorted(late))))
        return found, late | gone

    def _where(self, keys: Sequence[str] | None) -> Iterator[tuple[str, list[Any]]]:
        """The conditions, each with its values. They must not lead SQLite to another index than that of the runs: the
        plus says so."""
        steps = "".join(text for text, _ in self._steps)
        given = [step for _, step in self._steps]
        for at in range(0, 1 if keys is None else len(keys), _MOST_KEYS):
            some = [] if keys is None else list(keys[at : at + _MOST_KEYS])
            among = f" AND key IN ({','.join('?' * len(some))})" if some else ""
            yield f"run_uuid = ?{among}{steps}", [self._run_id, *some, *given]

    def _numbered(self, behind: int, keys: Sequence[str] | None) -> Iterator[list[Row]]:
        """Rows of SQLite with a number above ``behind``, up to `last`."""
        for where, values in self._where(keys):
            statement = (
                f"SELECT {_COLUMNS}, rowid FROM metrics WHERE {where.replace(' AND key', ' AND +key')} "
                f"AND rowid > ? AND rowid <= ? ORDER BY rowid LIMIT {_PAGE}"
            )
            at = behind
            while True:
                with self._database.read(self._wait) as session:
                    rows = session.rows(statement, [*values, at, self.last])
                if rows:
                    at = rows[-1][5]
                    yield rows
                if len(rows) < _PAGE:
                    break

    def _ordered(
        self, keys: Sequence[str] | None, behind: tuple[int, int, float, int] | None = None
    ) -> Iterator[list[Row]]:
        """Rows of PostgreSQL, in one transaction."""
        with self._database.read(self._wait) as session:
            for where, values in self._where(keys):
                where = where.replace("+step", "step")
                if behind is not None:
                    where += " AND (timestamp, step, value, is_nan) > (?, ?, ?, ?)"
                    values += [*behind[:3], bool(behind[3])]
                yield from session.pages(
                    f"SELECT {_COLUMNS} FROM metrics WHERE {where} ORDER BY key, timestamp, step, value, is_nan",
                    values, _PAGE,
                )  # fmt: skip

    def _counts(self, session: Session) -> dict[str, int]:
        found: dict[str, int] = {}
        for where, values in self._where(self._keys):
            where = where.replace("+step", "step")
            found.update(session.rows(f"SELECT key, COUNT(*) FROM metrics WHERE {where} GROUP BY key", values))
        return found


def _place(mark: _Mark) -> tuple[int, int, float, int]:
    return mark[0], mark[1], array("d", array("q", [mark[2]]).tobytes())[0], mark[3]


def _gathered(pages: Iterator[list[Row]]) -> dict[str, _Points]:
    """The points of some rows, by key, in the store's order."""
    found: dict[str, _Points] = {}
    for page in pages:
        groups: defaultdict[str, list[Row]] = defaultdict(list)
        for row in page:
            groups[row[4]].append(row)
        for key, rows in groups.items():
            found.setdefault(key, _Points()).add(rows)
    for points in found.values():
        points.sort()
        points.show()
    return found

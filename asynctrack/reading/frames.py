"""A table of columns that every library of data frames takes, and none is needed for.

`Table` holds nothing itself: a subclass says which columns there are, and gives their rows in chunks. pandas, polars,
pyarrow and NumPy are imported when somebody asks for what only they make.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from asynctrack.errors import InvalidInputError
from asynctrack.markup import moment, table_markup
from asynctrack.reading.arrow import stream_of
from asynctrack.reading.chunks import Chunk, Kind, Same, needed
from asynctrack.values import shortened

__all__ = ["Format", "Table", "check_format"]

#: "columns": the object itself, which has a method for each of the others
Format = Literal["pandas", "polars", "arrow", "dict", "columns"]

_FORMATS = ("pandas", "polars", "arrow", "dict", "columns")
#: rows that are shown in a notebook, and at the prompt
_SHOWN = 10


def check_format(wanted: object) -> Format:
    """A ``format`` argument. Raises InvalidInputError."""
    if not isinstance(wanted, str) or wanted not in _FORMATS:
        names = ", ".join(map(repr, _FORMATS))
        raise InvalidInputError(f"format: expected one of {names}, got {shortened(wanted)}")
    return wanted  # type: ignore[return-value]  # one of the literals: tested above


class Table(ABC):
    """Rows and columns. ``len()`` is the number of rows.

    ``polars.DataFrame(table)``, ``pyarrow.table(table)`` and DuckDB take it as it is, by Arrow's C stream.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def kinds(self) -> Mapping[str, Kind]:
        """The columns' names, in order, and what is in them."""

    @abstractmethod
    def _chunks(self) -> Iterator[Chunk]:
        """The rows."""

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self.kinds)

    def __len__(self) -> int:
        return sum(chunk.rows for chunk in self._chunks())

    def __bool__(self) -> bool:
        return any(chunk.rows for chunk in self._chunks())

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, one after another, as tuples of plain Python values; times in ms since the epoch."""
        kinds = list(self.kinds.values())
        for chunk in self._chunks():
            yield from zip(
                *(_values(kind, column, chunk.rows) for kind, column in zip(kinds, chunk.columns, strict=True)),
                strict=True,
            )

    def to(self, wanted: Format) -> Any:
        """The table in one of the formats. Raises InvalidInputError for any other, ImportError for one that needs a
        package which is not installed."""
        match check_format(wanted):
            case "pandas":
                return self.to_pandas()
            case "polars":
                return self.to_polars()
            case "arrow":
                return self.to_arrow()
            case "dict":
                return self.to_dict()
        return self

    def to_dict(self) -> dict[str, list[Any]]:
        """A list of plain Python values for each column; times in ms since the epoch."""
        found: dict[str, list[Any]] = {name: [] for name in self.kinds}
        for chunk in self._chunks():
            for (name, kind), column in zip(self.kinds.items(), chunk.columns, strict=True):
                found[name].extend(_values(kind, column, chunk.rows))
        return found

    def to_pandas(self) -> Any:
        """A pandas DataFrame. Texts are categories, times are UTC. Needs pandas."""
        pandas, np = needed("pandas", "a DataFrame", "pandas"), needed("numpy", "a DataFrame", "numpy")
        chunks = list(self._chunks())
        found = {}
        for index, (name, kind) in enumerate(self.kinds.items()):
            parts = [(chunk.columns[index], chunk.rows) for chunk in chunks]
            if kind == "text":
                found[name] = _categories(pandas, np, parts)
            elif kind == "bool":
                found[name] = _joined(np, [np.arange(rows) < count for count, rows in parts], bool)
            else:
                arrays = [np.frombuffer(column, "f8" if kind == "double" else "i8") for column, _ in parts if column]
                values = _joined(np, arrays, "f8" if kind == "double" else "i8")
                found[name] = _moments(pandas, values) if kind == "time" else values
        return pandas.DataFrame(found, columns=list(self.kinds))

    def to_polars(self) -> Any:
        """A polars DataFrame. Needs polars and nanoarrow."""
        return needed("polars", "a polars DataFrame", "polars").DataFrame(self)

    def to_arrow(self) -> Any:
        """A pyarrow Table. Needs pyarrow and nanoarrow."""
        return needed("pyarrow", "an Arrow table", "pyarrow").table(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Arrow's C stream, by which other libraries read the table. Needs nanoarrow."""
        return stream_of(self.kinds, self._chunks()).__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self):,} rows of {', '.join(self.kinds)}>"

    def _repr_html_(self) -> str:
        """The first rows, for notebooks."""
        total = len(self)
        more = f"<p>{total:,} rows, the first {_SHOWN} of them shown</p>" if total > _SHOWN else ""
        kinds = self.kinds.values()
        rows = (
            [_shown(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in islice(self.rows(), _SHOWN)
        )
        return table_markup(self.columns, rows) + more


def _shown(kind: Kind, value: Any) -> Any:
    return f"{moment(value)}.{value % 1000:03d}" if kind == "time" else value


def _values(kind: Kind, column: Any, rows: int) -> list[Any]:
    if kind == "bool":
        return [True] * column + [False] * (rows - column)
    if isinstance(column, Same):
        return [column.value] * rows
    return list(column)


def _joined(np: Any, parts: list[Any], kind: Any) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _categories(pandas: Any, np: Any, parts: list[tuple[Any, int]]) -> Any:
    codes: dict[str, int] = {}
    found = []
    for column, rows in parts:
        if isinstance(column, Same):
            found.append(
                np.full(rows, -1 if column.value is None else codes.setdefault(column.value, len(codes)), "i4")
            )
        else:
            found.append(np.fromiter((codes.setdefault(text, len(codes)) for text in column), "i4", rows))
    return pandas.Categorical.from_codes(_joined(np, found, "i4"), categories=pandas.Index(list(codes), dtype=object))


def _moments(pandas: Any, times: Any) -> Any:
    """Times in ms as pandas has them. Before pandas 2 some years are beyond it: these become NaT."""
    try:
        return pandas.DatetimeIndex(times.astype("M8[ms]")).tz_localize("UTC")
    except pandas.errors.OutOfBoundsDatetime:
        return pandas.to_datetime(times, unit="ms", utc=True, errors="coerce")

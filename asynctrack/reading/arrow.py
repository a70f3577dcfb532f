"""Tables as Arrow's C stream, by nanoarrow: a small library that needs no other."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from asynctrack.reading.chunks import Chunk, Kind, Same, needed

__all__ = ["stream_of"]

#: rows of one batch of the stream: a text column repeats its text in each row, so this bounds what that takes
_ROWS = 1 << 16


def stream_of(kinds: Mapping[str, Kind], chunks: Iterator[Chunk]) -> Any:
    """A stream of record batches, with a column of each kind. Raises ImportError where nanoarrow is not installed."""
    na: Any = needed("nanoarrow", "Arrow's C stream", "nanoarrow")
    from nanoarrow.c_array_stream import CArrayStream

    types = {
        "text": na.string(),
        "int": na.int64(),
        "time": na.timestamp("ms", timezone="UTC"),
        "double": na.float64(),
        "bool": na.bool_(),
    }
    schema = na.struct({name: types[kind] for name, kind in kinds.items()}, nullable=False)
    batches = []
    for chunk in chunks:
        for start in range(0, chunk.rows, _ROWS):
            rows = min(_ROWS, chunk.rows - start)
            children = [
                na.c_array_from_buffers(
                    types[kind], rows, _buffers(kind, column, start, rows), null_count=_nulls(column, rows)
                )
                for kind, column in zip(kinds.values(), chunk.columns, strict=True)
            ]
            batches.append(na.c_array_from_buffers(schema, rows, [None], null_count=0, children=children))
    return CArrayStream.from_c_arrays(batches, na.c_schema(schema))


def _nulls(column: Any, rows: int) -> int:
    return rows if isinstance(column, Same) and column.value is None else 0


def _buffers(kind: Kind, column: Any, start: int, rows: int) -> list[Any]:
    """What Arrow's format wants: first which rows are there (None: all)."""
    if kind == "bool":
        return [None, _bits(min(max(column - start, 0), rows), rows)]
    if kind != "text":
        return [None, column if rows == len(column) else column[start : start + rows]]
    if isinstance(column, Same) and column.value is None:
        return [bytes(-(-rows // 8)), array("i", bytes(4 * (rows + 1))), b""]
    if isinstance(column, Same):
        text = _encoded(column.value or "")
        return [None, array("i", [index * len(text) for index in range(rows + 1)]), text * rows]
    texts = [_encoded(text) for text in column[start : start + rows]]
    return [None, array("i", accumulate(map(len, texts), initial=0)), b"".join(texts)]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # a lone surrogate is no text to Arrow


def _bits(ones: int, rows: int) -> bytes:
    return ((1 << ones) - 1).to_bytes(-(-rows // 8) or 1, "little")

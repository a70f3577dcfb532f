"""The files that `asynctrack export` writes, a part at a time."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import IO, TYPE_CHECKING, Any, Protocol

from asynctrack.cli.amounts import exact, moment, plain
from asynctrack.cli.output import csv_cell
from asynctrack.errors import InvalidInputError
from asynctrack.reading.chunks import needed

if TYPE_CHECKING:
    from asynctrack.cli.news import Step
    from asynctrack.stores.columns import Columns

__all__ = ["FORMATS", "Writer", "writer_for"]

FORMATS = ("csv", "jsonl", "parquet", "arrow")
_LONG = ("run_id", "key", "step", "time", "value")
#: rows of one batch in Arrow's formats: of a wide table, and of a long one, whose texts are held for each row
_BATCH, _GROUP = 10_000, 1 << 17


class Writer(Protocol):
    """Writes points, or steps where the table is wide."""

    def write_points(self, run_id: str, key: str, columns: Columns) -> None:
        """Write a row for each point of one metric."""

    def write_step(self, run_id: str, step: Step) -> None:
        """Write the row of one step."""

    def close(self) -> None:
        """Write what is left."""


@contextmanager
def writer_for(kind: str, path: str, keys: Sequence[str] | None) -> Iterator[Writer]:
    """A writer of one of the formats, to a file or, "-", to standard output. ``keys``: the columns of a wide table;
    None for a long one.

    A file is there, under its name, only once it is whole. Raises InvalidInputError where it cannot be made, and for
    Arrow's formats where pyarrow is not installed.
    """
    if path == "-":
        if kind in ("parquet", "arrow") and sys.stdout.isatty():
            raise InvalidInputError(f"{kind} is not for a terminal; give --output FILE, or a pipe")
        sys.stdout.flush()
        writer = _writer(kind, sys.stdout if kind in ("csv", "jsonl") else sys.stdout.buffer, keys)
        yield writer
        writer.close()
        sys.stdout.flush()
        return
    part = f"{path}.{os.getpid()}.part"
    try:
        with _open(part, path, kind) as file:
            writer = _writer(kind, file, keys)
            yield writer
            writer.close()
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def _open(part: str, path: str, kind: str) -> IO[Any]:
    try:
        if kind in ("csv", "jsonl"):
            return open(part, "w", encoding="utf-8", errors="backslashreplace", newline="")
        return open(part, "wb")
    except OSError as error:
        raise InvalidInputError(f"--output {path}: {error.strerror or error}") from None


def _writer(kind: str, file: IO[Any], keys: Sequence[str] | None) -> Writer:
    if kind == "csv":
        return _Csv(file, keys)
    return _Jsonl(file) if kind == "jsonl" else _Arrow(file, keys, kind)


class _Csv:
    def __init__(self, file: IO[str], keys: Sequence[str] | None) -> None:
        self._file, self._rows, self._keys = file, csv.writer(file, lineterminator="\n"), keys or ()
        self._rows.writerow(_LONG if keys is None else ["run_id", "step", "time", *map(csv_cell, keys)])

    def write_points(self, run_id: str, key: str, columns: Columns) -> None:
        head = StringIO()
        csv.writer(head, lineterminator="").writerow([csv_cell(run_id), csv_cell(key)])
        # Numbers and times need no quotes, and written by a csv.writer take twice as long.
        begin = head.getvalue()
        self._file.writelines(f"{begin},{step},{moment(time)},{value!r}\n" for step, time, value in columns.rows())

    def write_step(self, run_id: str, step: Step) -> None:
        values = (exact(step.metrics.get(key)) for key in self._keys)
        self._rows.writerow([csv_cell(run_id), step.step, moment(step.time), *values])

    def close(self) -> None:
        pass  # each row is written at once


class _Jsonl:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write_points(self, run_id: str, key: str, columns: Columns) -> None:
        head = json.dumps({"run_id": run_id, "key": key})[:-1]
        self._file.writelines(
            f'{head}, "step": {step}, "time": {_json_time(time)}, "value": {_json_number(value)}}}\n'
            for step, time, value in columns.rows()
        )

    def write_step(self, run_id: str, step: Step) -> None:
        row = {"run_id": run_id, "step": step.step, "time": moment(step.time), "metrics": plain(step.metrics)}
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        pass  # each row is written at once


def _json_time(ms: int) -> str:
    at = moment(ms)
    return f'"{at}"' if isinstance(at, str) else str(at)


def _json_number(value: float) -> str:
    return repr(value) if math.isfinite(value) else json.dumps(plain(value))


class _Arrow:
    """Parquet, and Arrow's file format, by pyarrow."""

    def __init__(self, file: IO[bytes], keys: Sequence[str] | None, kind: str) -> None:
        try:
            pyarrow = needed("pyarrow", kind, "pyarrow")
            parquet = needed("pyarrow.parquet", kind, "pyarrow")
        except ImportError as error:
            raise InvalidInputError(str(error)) from None
        self._arrow: Any = pyarrow
        self._keys = keys or ()
        at = ("time", pyarrow.timestamp("ms", "UTC"))
        text, number = pyarrow.string(), pyarrow.float64()
        fields = [("run_id", text), ("step", pyarrow.int64()), at, *((_named(key), number) for key in self._keys)]
        if keys is None:
            fields = [("run_id", text), ("key", text), ("step", pyarrow.int64()), at, ("value", number)]
        self._schema = pyarrow.schema(fields)
        if kind == "parquet":
            # Texts repeat; steps and times rise evenly: half as large as with a dictionary of every column.
            encoding = dict.fromkeys(("step", "time"), "DELTA_BINARY_PACKED")
            texts = ["run_id", "key"] if keys is None else ["run_id"]
            self._file: Any = parquet.ParquetWriter(file, self._schema, use_dictionary=texts, column_encoding=encoding)
        else:
            self._file = pyarrow.ipc.new_file(file, self._schema)
        self._waiting: list[tuple[str, Step]] = []

    def write_points(self, run_id: str, key: str, columns: Columns) -> None:
        arrow = self._arrow
        for start in range(0, len(columns), _GROUP):
            part = columns.part(start, start + _GROUP)
            texts = [arrow.repeat(arrow.scalar(_encodable(text), arrow.string()), len(part)) for text in (run_id, key)]
            figures = [arrow.array(each) for each in (part.steps, part.times, part.values)]
            figures[1] = figures[1].cast(self._schema.field("time").type)
            self._file.write_batch(arrow.record_batch([*texts, *figures], schema=self._schema))

    def write_step(self, run_id: str, step: Step) -> None:
        self._waiting.append((run_id, step))
        if len(self._waiting) >= _BATCH:
            self._write_waiting()

    def _write_waiting(self) -> None:
        arrow, steps = self._arrow, [step for _, step in self._waiting]
        columns = [
            [_encodable(run_id) for run_id, _ in self._waiting],
            [step.step for step in steps],
            [step.time for step in steps],
            *([step.metrics.get(key) for step in steps] for key in self._keys),
        ]
        arrays = [arrow.array(each, field.type) for each, field in zip(columns, self._schema, strict=True)]
        self._file.write_batch(arrow.record_batch(arrays, schema=self._schema))
        self._waiting.clear()

    def close(self) -> None:
        if self._waiting:
            self._write_waiting()
        self._file.close()


def _named(key: str) -> str:
    """The column of a metric that is called like one that is there already."""
    return _encodable(f"{key} (metric)" if key in ("run_id", "step", "time") else key)


def _encodable(text: str) -> str:
    """A text that Arrow takes: lone surrogates are none."""
    return text.encode("utf-8", "replace").decode()

"""``asynctrack export``: all points of runs into one file, at full resolution."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from asynctrack.cli.asking import ask, columns_of, looked, named_all, open_store
from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.drawing import chosen_keys
from asynctrack.cli.files import FORMATS, Writer, writer_for
from asynctrack.cli.news import by_step
from asynctrack.cli.options import Fields, NoLive, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.verbs import verb
from asynctrack.errors import InvalidInputError
from asynctrack.reading.runs import FoundRun, find_runs

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["export_runs"]

_FIELDS = ("file", "format", "runs", "rows", "bytes")
_command = verb(*_FIELDS)

_ALL = 1_000_000


@_command
def export_runs(
    runs: Annotated[list[str] | None, Argument(metavar="[RUN...]", help="As of show; default: all runs.")] = None,
    file: Annotated[
        str,
        Option("--output", "-o", metavar="FILE", help="A .csv, .jsonl, .parquet or .arrow file; - is stdout."),
    ] = "-",
    form: Annotated[
        str | None,
        Option("--format", metavar="FORMAT", help="csv, jsonl, parquet or arrow; default: as FILE ends."),
    ] = None,
    wide: Annotated[bool, Option("--wide", help="A row for each step, with a column for each metric.")] = False,
    keys: Annotated[list[str] | None, Option("--key", "-k", metavar="REGEX", help="Only these metrics.")] = None,
    experiment: Annotated[
        list[str] | None, Option("--experiment", "-e", metavar="NAME", help="All runs of this one (name or id).")
    ] = None,
    store: Store = None,
    no_live: NoLive = False,
    fields: Fields = None,
) -> None:
    """Write all points of runs: run_id, key, step, time, value, a row for each.

    Nothing is sampled, and what is not delivered yet is there, too. With
    --wide: run_id, step, time, and a column for each metric. Parquet and Arrow
    need pyarrow. --json says what was written.

    Exit status: 0; 1 if the file cannot be written, 3 if a run is not there.
    """
    names = chosen_fields(fields, _FIELDS)
    kind = _format(file, form)
    if fields is not None and file == "-":
        raise InvalidInputError("--json says what was written, and standard output has the points; give --output FILE")
    opened = open_store(store)
    found = _runs(opened, runs or [], experiment or [], not no_live)
    there = {key for each in found for key in each.run.data.metrics}
    wanted = chosen_keys(there, keys) if keys else sorted(there)
    rows = 0
    with writer_for(kind, file, wanted if wide else None) as writer:
        for each in found:
            rows += _write_wide(opened, each, wanted, writer) if wide else _write_long(opened, each, wanted, writer)
    if file != "-":
        size = os.path.getsize(file)
        if fields is not None:
            said = {"file": file, "format": kind, "runs": len(found), "rows": rows, "bytes": size}
            write_json({name: said[name] for name in names})
        else:
            print(f"{file}: {rows:,} rows of {len(found):,} runs, {size:,} bytes", file=sys.stderr, flush=True)


def _format(file: str, form: str | None) -> str:
    kind = form or ("csv" if file == "-" else os.path.splitext(file)[1][1:].lower())
    if kind not in FORMATS:
        raise InvalidInputError(f"--output {file}: it must end in .csv, .jsonl, .parquet or .arrow, or give --format")
    return kind


def _runs(store: AbstractStore, texts: Sequence[str], experiments: Sequence[str], live: bool) -> list[FoundRun]:
    if texts:
        return named_all(store, texts, live)
    found = ask(find_runs(store, experiments or None, limit=_ALL, live=live))
    if found.trouble is not None:
        raise found.trouble  # what only spools hold is not all of it
    return found


def _write_long(store: AbstractStore, found: FoundRun, keys: Sequence[str], writer: Writer) -> int:
    """One metric at a time is in memory."""
    rows = 0
    for key in keys:
        if key in found.run.data.metrics:
            for columns in columns_of(looked(store, found, [key], whole=True)).values():
                writer.write_points(found.run.info.run_id, key, columns)
                rows += len(columns)
    return rows


def _write_wide(store: AbstractStore, found: FoundRun, keys: Sequence[str], writer: Writer) -> int:
    """One run at a time is in memory."""
    held = columns_of(looked(store, found, [key for key in keys if key in found.run.data.metrics], whole=True))
    rows = 0
    for step in by_step({key: columns.rows_by_step() for key, columns in held.items()}):
        writer.write_step(found.run.info.run_id, step)
        rows += 1
    return rows

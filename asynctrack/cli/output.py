"""The forms of what a verb found: a table for a terminal; TSV, CSV, JSON and JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from asynctrack.cli.amounts import exact, plain
from asynctrack.cli.terminal import Terminal, cell_width, clean, cut, pad, page
from asynctrack.errors import InvalidInputError

__all__ = ["FORMS", "Column", "choose_form", "csv_cell", "fit", "show_one", "show_rows", "table", "write_json"]

FORMS = ("table", "tsv", "csv", "json", "jsonl")
#: the least columns of a terminal that a column is shown in
_LEAST = 6
#: what a spreadsheet takes for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Mapping[str, Any]


class Column(NamedTuple):
    """One column of a table. ``title``: as it stands there; default: the name in capitals. ``show``: its value as
    people read it (default: as text). ``right``: a number, which is never cut; nor is what is ``whole``. ``style``: of
    a row's value."""

    name: str
    title: str = ""
    show: Callable[[Any], str] = exact
    right: bool = False
    style: Callable[[Any], str] | None = None
    whole: bool = False


def choose_form(asked: str | None, fields: str | None, terminal: Terminal) -> str:
    """The form of a verb's output. JSON where ``--json`` is given, else what ``-o`` says, else a table on a terminal
    and TSV in a pipe. Raises InvalidInputError."""
    if asked is not None and asked not in FORMS:
        raise InvalidInputError(f"--output {clean(asked)}: it must be one of {', '.join(FORMS)}")
    if fields is not None:
        if asked not in (None, "json", "jsonl"):
            raise InvalidInputError(f"--json and --output {asked} are two things; give one")
        return asked or "json"
    return asked or ("table" if terminal.interactive else "tsv")


def show_rows(
    rows: Iterable[Row], columns: Sequence[Column], form: str, terminal: Terminal, pager: bool = True
) -> None:
    """Write rows to standard output. In JSON each row has just the names of ``columns``."""
    if form == "table":
        text = table(list(rows), columns, terminal)
        page(text, terminal, pager)
        return
    write = sys.stdout.write
    if form in ("json", "jsonl"):
        lines = (_json({column.name: row.get(column.name) for column in columns}) for row in rows)
        if form == "jsonl":
            for line in lines:
                write(f"{line}\n")
        else:
            write(f"[{(',' + chr(10) + ' ').join(lines)}]\n")
    elif form == "csv":
        from csv import writer

        file = writer(sys.stdout, lineterminator="\n")
        file.writerow([column.name for column in columns])
        harmless = clean if terminal.interactive else str
        for row in rows:
            cells = (row.get(column.name) for column in columns)
            file.writerow([csv_cell(cell if not isinstance(cell, str) else harmless(cell)) for cell in cells])
    else:
        write("\t".join(clean(column.name) for column in columns) + "\n")
        for row in rows:
            write("\t".join(_tsv_cell(row.get(column.name)) for column in columns) + "\n")
    sys.stdout.flush()


def show_one(found: Mapping[str, Any], form: str, terminal: Terminal) -> None:
    """Write one thing's fields as JSON."""
    indent = 2 if terminal.interactive and form == "json" else None
    write_json(dict(found), indent)


def write_json(found: Any, indent: int | None = None) -> None:
    """Write one JSON value and a line's end to standard output."""
    sys.stdout.write(_json(found, indent) + "\n")
    sys.stdout.flush()


def _json(found: Any, indent: int | None = None) -> str:
    # Escapes all that is not ASCII, so that no terminal obeys what a name holds.
    separators = (",", ":") if indent is None else None
    return json.dumps(plain(found), indent=indent, separators=separators, allow_nan=False).replace("\x7f", "\\u007f")


def _tsv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    return clean(_json(value) if isinstance(value, dict | list | tuple) else exact(value))


def csv_cell(value: Any) -> str:
    """A cell that no spreadsheet runs: a text that begins like a formula gets a ``'`` before it. Numbers stay."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return _json(value) if isinstance(value, dict | list | tuple) else exact(value)


def table(rows: Sequence[Row], columns: Sequence[Column], terminal: Terminal) -> str:
    """The rows under their titles, as wide as the terminal at most; "" of no rows. What does not fit is cut, and
    columns that would be too narrow are left out, with a line that says so."""
    if not rows:
        return ""
    shown = [[clean(column.show(row.get(column.name))) for column in columns] for row in rows]
    titles = [clean(column.title or column.name.upper()) for column in columns]
    full = [max(map(cell_width, each)) for each in zip(titles, *shown, strict=True)]
    widths = fit(full, terminal.width, [not (column.right or column.whole) for column in columns])
    kept = list(zip(range(len(widths)), widths, columns, strict=False))
    lines = ["  ".join(pad(cut(titles[i], width, terminal.more), width, column.right) for i, width, column in kept)]
    lines[0] = terminal.style(lines[0].rstrip(), "bold")
    for row, cells in zip(rows, shown, strict=True):
        parts = []
        for i, width, column in kept:
            text = pad(cut(cells[i], width, terminal.more), width, column.right)
            name = column.style(row.get(column.name)) if column.style else ""
            parts.append(terminal.style(text, name) if name else text)
        lines.append("  ".join(parts).rstrip())
    if len(kept) < len(columns):
        left = ", ".join(clean(column.name) for column in columns[len(kept) :])
        lines.append(terminal.style(cut(f"not shown for want of room: {left}", terminal.width, terminal.more), "dim"))
    return "\n".join(lines) + "\n"


def fit(full: Sequence[int], room: int, narrows: Sequence[bool] | None = None) -> list[int]:
    """The widths of columns, two blanks between them, so that all fit in the room. Pure.

    Of those that ``narrows`` allows (default: all) the widest are narrowed, to six at least. Where that is not enough,
    columns are left out from the right, and the first that stays alone is as wide as the room.
    """
    may = list(narrows) if narrows is not None else [True] * len(full)
    widths = list(full)
    least = [min(width, _LEAST) if each else width for width, each in zip(full, may, strict=True)]
    while len(widths) > 1 and sum(least[: len(widths)]) + 2 * (len(widths) - 1) > room:
        widths.pop()
    if len(widths) == 1:
        return [min(widths[0], room)]
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0:
        # There is one that may, and is wider than its least: else its column would have been left out.
        index = max((i for i in range(len(widths)) if may[i]), key=lambda i: widths[i])
        widths[index] -= 1
        excess -= 1
    return widths

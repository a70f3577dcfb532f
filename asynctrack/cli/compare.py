"""``asynctrack compare``: runs side by side."""

from __future__ import annotations

from typing import Annotated, Any

from asynctrack.cli.amounts import exact, number
from asynctrack.cli.asking import labels_of, named_all, open_store, tell
from asynctrack.cli.declaring import Option
from asynctrack.cli.differences import aspects
from asynctrack.cli.drawing import Axis, charts_of, chosen_keys
from asynctrack.cli.options import Fields, NoLive, NoPager, OnlyChanged, Output, RunNames, Store, chosen_fields
from asynctrack.cli.output import Column, choose_form, show_rows, table
from asynctrack.cli.plot import drawn
from asynctrack.cli.terminal import Terminal, page
from asynctrack.cli.verbs import verb

__all__ = ["compare_runs"]

#: what rows have besides a value for each run, by its name
_FIELDS = ("kind", "key")
_command = verb(*_FIELDS)

#: rows of a chart, with its axes
_HEIGHT = 14


@_command
def compare_runs(
    runs: RunNames,
    keys: Annotated[
        list[str] | None,
        Option("--key", "-k", metavar="REGEX", help="Draw these metrics, and show only them among metrics."),
    ] = None,
    store: Store = None,
    only_changed: OnlyChanged = True,
    no_live: NoLive = False,
    output: Output = None,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Show runs side by side: params, last values of metrics, tags that differ.

    On a terminal, -k draws metrics of all of them into one chart each.

    Exit status: 0; 3 if a run is not there.
    """
    terminal = Terminal()
    form = choose_form(output, fields, terminal)
    opened = open_store(store)
    found = named_all(opened, runs, not no_live)
    tell(next((each.trouble for each in found if each.trouble is not None), None))
    labels = [f"{label} (run)" if label in _FIELDS else label for label in labels_of(found)]
    metrics = {key for each in found for key in each.run.data.metrics}
    wanted = chosen_keys(metrics, keys) if keys else sorted(metrics)
    shown = [
        each
        for each in aspects([each.run for each in found])
        if (each.differs or not only_changed) and (each.kind != "metric" or each.key in wanted)
    ]
    rows: list[dict[str, Any]] = [
        {"kind": each.kind, "key": each.key, **dict(zip(labels, each.values, strict=True))} for each in shown
    ]
    columns = [Column("kind"), Column("key"), *(Column(label, label, _value) for label in labels)]
    if form != "table":
        show_rows(rows, _asked(fields, columns), form, terminal)
        return
    text = table(rows, columns, terminal) or "Nothing differs.\n"
    if keys:
        text += "\n" + drawn(charts_of(opened, found, wanted, Axis()), terminal, terminal.width, _HEIGHT)
    page(text, terminal, not no_pager)


def _asked(fields: str | None, columns: list[Column]) -> list[Column]:
    names = chosen_fields(fields, tuple(column.name for column in columns))
    return [column for column in columns if column.name in names]


def _value(value: Any) -> str:
    return "" if value is None else number(value) if isinstance(value, float) else exact(value)

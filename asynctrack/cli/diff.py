"""``asynctrack diff``: what differs between two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from asynctrack.cli.asking import named, open_store
from asynctrack.cli.differences import aspects
from asynctrack.cli.options import Fields, NoLive, NoPager, Output, RunName, Store, chosen_fields
from asynctrack.cli.output import Column, choose_form, show_rows
from asynctrack.cli.terminal import Terminal
from asynctrack.cli.verbs import FAILED, verb

__all__ = ["app", "diff_runs"]

_FIELDS = ("kind", "key", "a", "b")
app, _command = verb(*_FIELDS)


@_command
def diff_runs(
    a: RunName,
    b: RunName,
    store: Store = None,
    only_changed: Annotated[
        bool, typer.Option("--only-changed/--all", help="Only what differs, or everything.")
    ] = True,
    no_live: NoLive = False,
    output: Output = None,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Show what differs between two runs: params, last values of metrics, tags.

    Exit status, as of diff: 0 if nothing differs, 1 if something does; 2 for
    wrong usage, 3 if a run is not there. What fails otherwise is 1, too, with
    a line on standard error.
    """
    terminal = Terminal()
    form = choose_form(output, fields, terminal)
    names = chosen_fields(fields, _FIELDS)
    opened = open_store(store)
    pair = [named(opened, text, not no_live).run for text in (a, b)]
    found = aspects(pair)
    rows = [
        {"kind": each.kind, "key": each.key, "a": each.values[0], "b": each.values[1]}
        for each in found
        if each.differs or not only_changed
    ]
    titles = {"a": pair[0].info.run_name or a, "b": pair[1].info.run_name or b}
    show_rows(rows, [Column(name, titles.get(name, "")) for name in names], form, terminal, not no_pager)
    if any(each.differs for each in found):
        raise typer.Exit(FAILED)

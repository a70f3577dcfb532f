"""``asynctrack diff``: what differs between two runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asynctrack.cli.asking import named, open_store
from asynctrack.cli.differences import aspects
from asynctrack.cli.drawing import chosen_keys
from asynctrack.cli.options import Fields, NoLive, NoPager, OnlyChanged, OnlyKeys, Output, RunName, Store, chosen_fields
from asynctrack.cli.output import Column, choose_form, show_rows
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.cli.verbs import verb
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["diff_runs"]

_FIELDS = ("kind", "key", "a", "b")
_command = verb(*_FIELDS)

#: exit statuses, as diff has them
_DIFFERENT, _TROUBLE = 1, 2


@_command
def diff_runs(
    a: RunName,
    b: RunName,
    store: Store = None,
    keys: OnlyKeys = None,
    only_changed: OnlyChanged = True,
    no_live: NoLive = False,
    output: Output = None,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Show what differs between two runs: params, last values of metrics, tags.

    Exit status, as of diff: 0 if nothing differs, 1 if something does, 2 for
    wrong usage and where the store does not answer. 3 if a run is not there.
    """
    terminal = Terminal()
    form = choose_form(output, fields, terminal)
    names = chosen_fields(fields, _FIELDS)
    pair = _pair(store, (a, b), not no_live)
    found = aspects(pair)
    if keys:
        wanted = chosen_keys({each.key for each in found if each.kind == "metric"}, keys)
        found = [each for each in found if each.kind != "metric" or each.key in wanted]
    rows = [
        {"kind": each.kind, "key": each.key, "a": each.values[0], "b": each.values[1]}
        for each in found
        if each.differs or not only_changed
    ]
    titles = {"a": pair[0].info.run_name or a, "b": pair[1].info.run_name or b}
    show_rows(rows, [Column(name, titles.get(name, "")) for name in names], form, terminal, not no_pager)
    if any(each.differs for each in found):
        raise SystemExit(_DIFFERENT)


def _pair(store: str | None, texts: Iterable[str], live: bool) -> list[Run]:
    """The runs that are compared, as wholes. Else nothing is known of their difference, and the status must say so."""
    try:
        opened = open_store(store)
        pair = [named(opened, text, live) for text in texts]
        for each in pair:
            if each.trouble is not None:
                raise each.trouble
    except (NotFoundError, InvalidInputError):
        raise
    except AsynctrackError as error:
        print(f"asynctrack: {clean(error)}", file=sys.stderr, flush=True)
        raise SystemExit(_TROUBLE) from None
    return [each.run for each in pair]

"""The command ``asynctrack`` as Typer has it."""

from __future__ import annotations

import typer

from asynctrack.cli.typed import Verbs

__all__ = ["app"]

#: Help is plain text: it is read through pipes, too, and the coloured one takes a third of a second to load.
app = typer.Typer(
    name="asynctrack", cls=Verbs, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def _common() -> None:
    """Show runs, and deliver the events that wait in spools on disk.

    Exit status: 0 for success, 1 if something could not be done, 2 for wrong
    usage, 3 if something was not found, 124 if the time of `wait` was up, 130
    after Ctrl-C.
    """

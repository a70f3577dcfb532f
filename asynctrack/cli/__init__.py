"""The command ``asynctrack``. It parses arguments and shows results; the work is done in `asynctrack.recovery`."""

from __future__ import annotations

import sys

import typer

from asynctrack.cli import spool
from asynctrack.cli.doctor import examine
from asynctrack.cli.importing import import_folder
from asynctrack.cli.sync import ship_spools
from asynctrack.errors import InvalidInputError
from asynctrack.settings import current_settings

__all__ = ["app", "main"]

app = typer.Typer(
    name="asynctrack", help="Show and deliver the events that wait in spools on disk.", no_args_is_help=True
)
app.add_typer(spool.app, name="spool")
app.command("sync")(ship_spools)
app.command("import")(import_folder)
app.command("doctor")(examine)


@app.callback()
def _common() -> None:
    """Show and deliver the events that wait in spools on disk."""


def main() -> None:
    """Run the command. Exit status: 0 for success, 1 for failure, 2 for wrong
    usage."""
    try:
        current_settings()
    except InvalidInputError as error:
        print(f"asynctrack: {error}", file=sys.stderr)
        sys.exit(2)
    app()

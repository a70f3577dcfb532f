"""The command ``asynctrack``. The work is done in `asynctrack.engine`; here arguments are read and results shown."""

from __future__ import annotations

import sys

import typer

from asynctrack.cli import spool
from asynctrack.cli.sync import ship_spools
from asynctrack.errors import InvalidInputError
from asynctrack.settings import current_settings

__all__ = ["app", "main"]

app = typer.Typer(
    name="asynctrack", help="What asynctrack has not delivered yet, and what to do with it.", no_args_is_help=True
)
app.add_typer(spool.app, name="spool")
app.command("sync")(ship_spools)


@app.callback()
def _common() -> None:
    """What asynctrack has not delivered yet, and what to do with it."""


def main() -> None:
    """Run the command. Exit status: 0 done, 1 it could not be done, 2 wrong usage."""
    try:
        current_settings()
    except InvalidInputError as error:
        print(f"asynctrack: {error}", file=sys.stderr)
        sys.exit(2)
    app()

"""The command ``asynctrack``. It parses arguments and shows results; the work is done in other rows of the package."""

from __future__ import annotations

import gc
import sys

import typer

from asynctrack.cli.verbs import USAGE, Verbs
from asynctrack.errors import InvalidInputError
from asynctrack.settings import current_settings

__all__ = ["app", "main"]

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


def main() -> None:
    """Run the command, and exit with its status."""
    # Loading modules and listing runs makes many objects and no garbage; looking for some takes a tenth of the time.
    gc.set_threshold(50_000)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding does not
    try:
        current_settings()
    except InvalidInputError as error:
        print(f"asynctrack: {error}", file=sys.stderr)
        sys.exit(USAGE)
    app()

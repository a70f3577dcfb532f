"""The command ``asynctrack``. It parses arguments and shows results; the work is done in other rows of the package."""

from __future__ import annotations

import gc
import os
import sys

from asynctrack.cli.verbs import USAGE, call_plainly
from asynctrack.errors import InvalidInputError
from asynctrack.settings import current_settings

__all__ = ["main"]


def main() -> None:
    """Run the command, and exit with its status."""
    # Loading modules and listing runs makes many objects and no garbage, and at the end all of it goes with the
    # process. Python would look through it for garbage meanwhile and then, which takes a third of a verb's time.
    gc.set_threshold(50_000)
    try:
        _run()
    finally:
        gc.freeze()


def _run() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed (`2>&-`): what is written goes nowhere, and not to the other
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # it stays open as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding does not
    try:
        current_settings()
    except InvalidInputError as error:
        print(f"asynctrack: {error}", file=sys.stderr)
        sys.exit(USAGE)
    if call_plainly(sys.argv[1:]):
        return
    from asynctrack.cli.command import app

    app()

"""``asynctrack spool``: list spools, and list, retry or delete refused events."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from asynctrack.cli.spools import Dir, Json, Spools, To, meant, show_rejected, show_spools, tell_ownerless
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.survey import read_rejected, read_spool
from asynctrack.recovery.rejected import drop_rejected, retry_rejected
from asynctrack.settings import configure

__all__ = ["app"]

app = typer.Typer(
    invoke_without_command=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def list_spools(context: typer.Context, folder: Dir = None, as_json: Json = False) -> None:
    """List the spools. For each: its store, events that wait, size, age,
    whether its program runs, refused events.

    Exit status: 0, also if nothing waits.
    """
    if context.invoked_subcommand is not None:
        return
    found = [info for info in map(read_spool, meant(None, folder)) if info is not None]
    if as_json:
        typer.echo(json.dumps([{**info._asdict(), "runs": [run._asdict() for run in info.runs]} for info in found]))
    elif not found:
        typer.echo("Nothing waits: there are no spools here.")
    else:
        show_spools(found)
    tell_ownerless(folder)


@app.command()
def rejected(spools: Spools = None, folder: Dir = None, as_json: Json = False) -> None:
    """List the events that a store has refused for good, with the reasons.

    Exit status: 0, also if no event was refused; 1 if a name is not that of a
    spool.
    """
    events = list(read_rejected(meant(spools, folder)))
    if as_json:
        typer.echo(json.dumps([event._asdict() for event in events]))
    elif not events:
        typer.echo("No event was refused.")
    else:
        show_rejected(events)


@app.command()
def retry(
    spools: Spools = None,
    folder: Dir = None,
    to: To = None,
) -> None:
    """Deliver refused events again, after the cause of the refusal is mended.

    Exit status: 0 if all were accepted, 1 if some were refused again or could
    not be tried.
    """
    accepted, problems = 0, []
    for path in meant(spools, folder):
        # Offline mode is meant for programs that log. Events refused again are kept beside the old spool.
        configure(mode="online", shipper="thread", spool_dir=os.path.dirname(path))
        try:
            found = retry_rejected(path, to=to)
        except (AsynctrackError, OSError) as error:
            problems.append(f"{path}: {error}")
            continue
        accepted += found.accepted
        problems += found.problems
    typer.echo(f"{accepted} events accepted.")
    for problem in problems:
        typer.echo(f"asynctrack: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def drop(
    spools: Spools = None,
    folder: Dir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete refused events. Events that wait to be delivered stay.

    Exit status: 0 if they are deleted, 1 if not.
    """
    paths = meant(spools, folder)
    count = sum(1 for _ in read_rejected(paths))
    if count and not yes:
        typer.confirm(f"Delete {count} refused events?", abort=True)
    try:
        dropped = sum(drop_rejected(path) for path in paths)
    except (InvalidInputError, OSError) as error:
        typer.echo(f"asynctrack: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{dropped} refused events deleted.")

"""``asynctrack spool``: what waits where, and what stores have refused."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from asynctrack.cli.spools import Dir, Json, Spools, meant, show_rejected, show_spools
from asynctrack.engine.spools import drop_rejected, read_rejected, read_spool
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.settings import configure

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True)


@app.callback()
def list_spools(context: typer.Context, folder: Dir = None, as_json: Json = False) -> None:
    """List the spools: store, events that wait, bytes, age, whether the owner lives, refused events.

    Exit status: 0, also where nothing waits.
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


@app.command()
def rejected(spools: Spools = None, folder: Dir = None, as_json: Json = False) -> None:
    """List the events that stores have refused for good, and why.

    Exit status: 0, also where none was; 1 where a name is no spool's.
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
    to: Annotated[str | None, typer.Option("--to", metavar="URI", help="Another store than the recorded one.")] = None,
) -> None:
    """Try refused events again, once what they were refused for is mended.

    Exit status: 0 when all were accepted, 1 when some were refused again or could not be tried.
    """
    from asynctrack.rejected import retry_rejected

    accepted, problems = 0, []
    for path in meant(spools, folder):
        # Whatever the programs here are told to do; and what is refused again is kept beside what was before.
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
    """Throw away events that stores have refused. What still waits to be delivered stays.

    Exit status: 0 when they are gone, 1 when they are not.
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

"""``asynctrack spool``: what waits where, and what stores have refused."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from asynctrack.engine.spools import (
    RejectedEvent,
    SpoolInfo,
    drop_rejected,
    find_spools,
    read_rejected,
    read_spool,
)
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.settings import current_settings

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, help="List the spools: events that are not delivered yet.")

_DIR = "Folder with the spools; default: $ASYNCTRACK_SPOOL_DIR, else ./.asynctrack and the user's state folder."
Dir = Annotated[str | None, typer.Option("--dir", help=_DIR)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Spools = Annotated[list[str] | None, typer.Argument(help="Spool folders, or their names; default: all.")]


@app.callback()
def list_spools(context: typer.Context, folder: Dir = None, as_json: Json = False) -> None:
    """List the spools: store, events that wait, bytes, age, whether the owner lives, refused events."""
    if context.invoked_subcommand is not None:
        return
    found = [info for info in map(read_spool, _spools(None, folder)) if info is not None]
    if as_json:
        typer.echo(json.dumps([{**info._asdict(), "runs": [run._asdict() for run in info.runs]} for info in found]))
    elif not found:
        typer.echo("Nothing waits: there are no spools here.")
    else:
        _show_spools(found)


@app.command()
def rejected(spools: Spools = None, folder: Dir = None, as_json: Json = False) -> None:
    """List the events that stores have refused for good, and why."""
    events = list(read_rejected(_spools(spools, folder)))
    if as_json:
        typer.echo(json.dumps([event._asdict() for event in events]))
    elif not events:
        typer.echo("No event was refused.")
    else:
        _show_rejected(events)


@app.command()
def retry(
    spools: Spools = None,
    folder: Dir = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URI", help="Another store than the recorded one.")] = None,
) -> None:
    """Try refused events again, once what they were refused for is mended. Exit status 1 where some were again."""
    from asynctrack.rejected import retry_rejected

    accepted, problems = 0, []
    for path in _spools(spools, folder):
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
    """Throw away events that stores have refused. What still waits to be delivered stays."""
    paths = _spools(spools, folder)
    count = sum(1 for _ in read_rejected(paths))
    if count and not yes:
        typer.confirm(f"Delete {count} refused events?", abort=True)
    try:
        for path in paths:
            drop_rejected(path)
    except (InvalidInputError, OSError) as error:
        typer.echo(f"asynctrack: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{count} refused events deleted.")


def _spools(wanted: list[str] | None, folder: str | None) -> list[str]:
    """The folders meant; exits with status 1 where one of them is no spool."""
    there = list(find_spools(folder or current_settings().spool_dir))
    if not wanted:
        return there
    paths = []
    for name in wanted:
        path = next((path for path in there if os.path.basename(path) == name), os.path.abspath(name))
        if not os.path.exists(os.path.join(path, "owner")):
            typer.echo(f"asynctrack: {name} is no spool; `asynctrack spool` lists them", err=True)
            raise typer.Exit(1)
        paths.append(path)
    return paths


def _show_spools(found: list[SpoolInfo]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("spool", "store", "runs"):
        table.add_column(name, overflow="fold")
    for name in ("events", "size", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("owner", no_wrap=True)
    table.add_column("refused", justify="right", no_wrap=True)
    for info in found:
        runs = [f"{run.run_id} {run.name or ''}".rstrip() for run in info.runs]
        owner = f"{info.owner}, pid {info.pid}" + (f" on {info.host}" if info.owner == "unknown" else "")
        table.add_row(
            info.path, info.store, "\n".join(runs[:3] + [f"and {len(runs) - 3} more"] * (len(runs) > 3)),
            f"{info.events:,}", _size(info.bytes), _age(info.age), owner, f"{info.rejected:,}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table, markup=False)
    for info in found:
        for problem in info.problems:
            console.print(f"{info.path}: {problem}", markup=False, soft_wrap=True)


def _show_rejected(events: list[RejectedEvent]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("run", "kind", "key", "value", "step", "reason"):
        table.add_column(name, overflow="fold")
    for event in events:
        step = "" if event.step is None else str(event.step)
        table.add_row(event.run_id, event.kind, event.key, str(event.value), step, event.reason)
    Console(highlight=False).print(table, markup=False)


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count //= 1024
    return f"{count:,} GiB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

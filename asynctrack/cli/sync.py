"""``asynctrack sync``: deliver the spools of programs that have ended, or that are running offline."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from asynctrack.cli.options import not_blank
from asynctrack.cli.spools import Dir, Json, Spools, To, meant, tell_ownerless
from asynctrack.cli.verbs import verb
from asynctrack.errors import AsynctrackError
from asynctrack.journal.survey import read_spool
from asynctrack.recovery.sync import Shipment, spool_paths, sync
from asynctrack.stores.uri import resolve_store_uri

__all__ = ["app", "ship_spools"]

app, _command = verb()

#: exit statuses besides 0 (nothing is left to do) and 2 (wrong usage)
_SOMETHING_LEFT, _INTERRUPTED = 1, 130
_NOTHING = "Nothing waits: there are no spools here."


@_command
def ship_spools(
    spools: Spools = None,
    folder: Dir = None,
    to: To = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="NAME", help="Create the runs in this experiment.", callback=not_blank),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the last running offline program has ended.")
    ] = False,
    owner_gone: Annotated[
        bool, typer.Option("--owner-gone", help="Assume that programs on other hosts have ended.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="Give up after this time without progress.")
    ] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Deliver nothing; show what would be delivered.")] = False,
    as_json: Json = False,
) -> None:
    """Deliver the spools of programs that have ended, and of running programs
    with mode=offline.

    It may be interrupted, repeated, and run twice at once: each event is
    delivered once.

    Exit status: 0 if nothing is left to do, 1 if events are left or were
    refused, 2 for wrong usage, 130 after Ctrl-C. A spool that its own program
    or another sync delivers counts as nothing left to do.
    """
    named = meant(spools, folder) if spools else None
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        if dry_run:
            _plan(spool_paths(folder) if named is None else named, to, as_json)
            if named is None:
                tell_ownerless(folder)
            return
        with _bar(not as_json) as progress:
            results = sync(
                named,
                spool_dir=folder,
                to=to,
                experiment=experiment,
                watch=watch,
                owner_gone=owner_gone,
                timeout=timeout,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo("Interrupted: the rest stays where it is, and the next sync goes on from there.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except AsynctrackError as error:
        typer.echo(f"asynctrack: {error}", err=True)
        raise typer.Exit(_SOMETHING_LEFT) from None
    _say(results, as_json)


def _say(results: list[Shipment], as_json: bool) -> None:
    """What became of each spool, in words and in the exit status."""
    if as_json:
        typer.echo(json.dumps([result._asdict() for result in results]))
    else:
        _summary(results)
    if any(result.rejected or result.state not in ("delivered", "up to date", "busy") for result in results):
        raise typer.Exit(_SOMETHING_LEFT)


def _plan(paths: list[str], to: str | None, as_json: bool) -> None:
    found = [info for info in map(read_spool, paths) if info is not None]
    target = resolve_store_uri(to) if to else None
    plan = [
        {"spool": info.path, "store": target or info.store, "events": info.events, "delivering": info.delivering}
        for info in found
    ]
    if as_json:
        typer.echo(json.dumps(plan))
    elif not plan:
        typer.echo(_NOTHING)
    for entry in [] if as_json else plan:
        how = "being delivered already" if entry["delivering"] else f"would go to {entry['store']}"
        typer.echo(f"{entry['spool']}: {entry['events']:,} events, {how}")


def _summary(results: list[Shipment]) -> None:
    if not results:
        typer.echo(_NOTHING)
    for result in results:
        typer.echo(f"{result.spool}: {_said(result)}")
    if len(results) > 1:
        states = Counter(result.state for result in results)
        delivered = sum(result.delivered for result in results)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        typer.echo(f"{len(results)} spools ({counts}), {delivered:,} events delivered")


def _said(result: Shipment) -> str:
    if result.state == "busy":
        return "busy: its program, or another sync, is delivering it"
    parts = [f"{result.delivered:,} events delivered to {result.store}"] if result.store else []
    parts += [f"{result.rejected:,} refused (see `asynctrack spool rejected`)"] if result.rejected else []
    parts += [f"about {result.left:,} left"] if result.left else []
    parts += ["up to date; its program goes on"] if result.state == "up to date" else []
    return ", ".join(parts) + (f"{': ' if parts else ''}{result.problem}" if result.problem else "")


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("delivering"), BarColumn(), MofNCompleteColumn(), TextColumn("events"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, left: bar.update(task, completed=done, total=done + left)

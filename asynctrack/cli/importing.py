"""``asynctrack import``: a whole folder of MLflow's file layout into another store."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from asynctrack.cli.options import not_blank
from asynctrack.cli.spools import Json
from asynctrack.cli.verbs import verb
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.importing.runs import Import, import_runs

__all__ = ["app", "import_folder"]

app, _command = verb()

#: exit statuses besides 0 (everything is there) and 2 (wrong usage)
_SOMETHING_LEFT, _INTERRUPTED = 1, 130


@_command
def import_folder(
    source: Annotated[str, typer.Argument(metavar="FOLDER", help="MLflow's files, like ./mlruns. Only read.")],
    to: Annotated[str, typer.Option("--to", metavar="URI", help="The store to write into.", callback=not_blank)],
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to try a store that is away.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Write all experiments and runs of a folder into another store: a
    database, a server, another folder.

    It may be interrupted and repeated: what is there already is left alone.
    What cannot be read or is refused is named at the end, and the rest is
    imported.

    Exit status: 0 if everything is there, 1 if not, 2 for wrong usage, 130
    after Ctrl-C.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        with _bar(not as_json) as progress:
            done = import_runs(source, to=to, timeout=timeout, progress=progress)
    except KeyboardInterrupt:
        typer.echo("Interrupted: the same command goes on from there.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except InvalidInputError as error:
        typer.echo(f"asynctrack: {error}", err=True)
        raise typer.Exit(2) from None
    except AsynctrackError as error:
        typer.echo(f"asynctrack: {error}. The same command goes on from there.", err=True)
        raise typer.Exit(_SOMETHING_LEFT) from None
    if as_json:
        typer.echo(json.dumps(done._asdict()))
    else:
        _say(done)
    if done.problems:
        raise typer.Exit(_SOMETHING_LEFT)


def _say(done: Import) -> None:
    for problem in done.problems:
        typer.echo(problem, err=True)
    typer.echo(
        f"{done.source} into {done.store}: {done.experiments:,} experiments, {done.runs:,} runs with {done.events:,} "
        f"events imported, {done.present:,} runs were there already"
    )
    if done.problems:
        typer.echo(f"{len(done.problems):,} problems, named above; everything else is imported.", err=True)


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[Import], None] | None]:
    """A progress bar on a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("importing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs, {task.fields[events]:,} events"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, events=0)

        def tell(done: Import) -> None:
            finished = done.runs + done.present
            bar.update(task, completed=finished, total=finished + done.left, events=done.events)

        yield tell

"""``asynctrack import``: a whole folder of MLflow's file layout into another store."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.options import Fields, chosen_fields, not_blank
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import clean
from asynctrack.cli.verbs import FAILED, INTERRUPTED, verb
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.importing.runs import Import, import_runs

__all__ = ["import_folder"]

_FIELDS = Import._fields
#: folders that are named
_MOST = 10
_command = verb(*_FIELDS)


@_command
def import_folder(
    source: Annotated[str, Argument(metavar="FOLDER", help="MLflow's files, like ./mlruns. Only read.")],
    to: Annotated[str, Option("--to", metavar="URI", help="The store to write into.", callback=not_blank)],
    timeout: Annotated[
        float, Option("--timeout", metavar="SECONDS", min=0.0, help="How long to try a store that is away.")
    ] = 60.0,
    fields: Fields = None,
) -> None:
    """Write all experiments and runs of a folder into another store: a
    database, a server, another folder.

    It may be interrupted and repeated: what is there already is left alone.
    What cannot be read or is refused is named at the end, and the rest is
    imported.

    Exit status: 0 if everything is there, 1 if not, 2 for wrong usage, 130
    after Ctrl-C.
    """
    names = chosen_fields(fields, _FIELDS)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        with _bar(fields is None) as progress:
            done = import_runs(source, to=to, timeout=timeout, progress=progress)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from there.", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    except InvalidInputError:
        raise  # to be mended, and not repeated
    except AsynctrackError as error:
        print(f"asynctrack: {clean(error)}. The same command goes on from there.", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None
    if fields is not None:
        whole = done._asdict()
        write_json({name: whole[name] for name in names})
    else:
        _say(done)
    if done.problems:
        raise SystemExit(FAILED)


def _say(done: Import) -> None:
    for problem in done.problems:
        print(clean(problem), file=sys.stderr, flush=True)
    print(
        f"{done.source} into {done.store}: {done.experiments:,} experiments, {done.runs:,} runs with {done.events:,} "
        f"events imported, {done.present:,} runs were there already",
        flush=True,
    )
    if done.problems:
        print(
            f"{len(done.problems):,} problems, named above; everything else is imported.", file=sys.stderr, flush=True
        )
    if done.in_use:
        more = f" and {len(done.in_use) - _MOST:,} more" if len(done.in_use) > _MOST else ""
        print(
            f"Still in use, for artifacts of {done.store}: {clean(', '.join(done.in_use[:_MOST]))}{more}; keep "
            f"these if you delete what is in {done.source}",
            flush=True,
        )


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

"""``asynctrack spool``: what waits in the spools of this and other programs, and what stores have refused."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asynctrack.cli.amounts import moment
from asynctrack.cli.declaring import Option, with_fields
from asynctrack.cli.options import Fields, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.spools import Dir, Spools, To, meant, rejected_text, spools_text, tell_ownerless
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.cli.typed import quicken, taking, typed
from asynctrack.cli.verbs import FAILED
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.journal.survey import read_rejected, read_spool
from asynctrack.settings import configure

__all__ = ["app"]

#: what ``--json`` gives of a spool, of a refused event, and of what was done about them
_SPOOL = (
    *("path", "store", "events", "rejected", "owner", "pid", "host", "delivering", "created", "age", "bytes"),
    *("runs", "problems"),
)
_EVENT = ("run_id", "kind", "key", "value", "step", "time", "reason", "refused_at", "spool")
_RETRIED, _DROPPED = ("accepted", "problems"), ("dropped",)


class _Group(TyperGroup):
    """Takes ``--json`` with a value and without, where no verb of its own is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            quicken(param)
        verbs = (at for at, each in enumerate(args) if each in self.commands and args[at - 1 : at] != ["--dir"])
        end = next(verbs, len(args))
        return super().parse_args(ctx, with_fields(args[:end], _SPOOL) + args[end:])


app = typer.Typer(
    cls=_Group,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
@typed
def list_spools(context: typer.Context, folder: Dir = None, fields: Fields = None) -> None:
    """List the spools. For each: its store, events that wait, size, age,
    whether its program runs, refused events.

    Exit status: 0, also if nothing waits.
    """
    if context.invoked_subcommand is not None:
        return
    names = chosen_fields(fields, _SPOOL)
    found = [info for info in map(read_spool, meant(None, folder)) if info is not None]
    if fields is not None:
        whole = (
            {
                **info._asdict(),
                "created": moment(info.created),
                "age": round(info.age, 3),
                "runs": [run._asdict() for run in info.runs],
            }
            for info in found
        )
        write_json([{name: each[name] for name in names} for each in whole])
    elif not found:
        print("Nothing waits: there are no spools here.", flush=True)
    else:
        sys.stdout.write(spools_text(found, Terminal()))
    tell_ownerless(folder)


@app.command(cls=taking(*_EVENT))
@typed
def rejected(spools: Spools = None, folder: Dir = None, fields: Fields = None) -> None:
    """List the events that a store has refused for good, with the reasons.

    Exit status: 0, also if no event was refused; 3 if a name is not that of a
    spool.
    """
    names = chosen_fields(fields, _EVENT)
    events = list(read_rejected(meant(spools, folder)))
    if fields is not None:
        whole = (
            {**event._asdict(), "time": moment(event.timestamp), "refused_at": moment(event.refused_at)}
            for event in events
        )
        write_json([{name: each[name] for name in names} for each in whole])
    elif not events:
        print("No event was refused.", flush=True)
    else:
        sys.stdout.write(rejected_text(events, Terminal()))


@app.command(cls=taking(*_RETRIED))
@typed
def retry(
    spools: Spools = None,
    folder: Dir = None,
    to: To = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Put tags and artifacts in the place of others.")] = False,
    fields: Fields = None,
) -> None:
    """Deliver refused events again, after the cause of the refusal is mended.

    A tag or an artifact in whose place the store has another one, which may
    be newer, is not delivered but named, unless you say --overwrite.

    Exit status: 0 if all were accepted, 1 if some were refused again or could
    not be tried, 3 if a name is not that of a spool.
    """
    from asynctrack.recovery.rejected import retry_rejected

    names = chosen_fields(fields, _RETRIED)
    accepted, problems = 0, []
    for path in meant(spools, folder):
        # Offline mode is meant for programs that log. Events refused again are kept beside the old spool.
        configure(mode="online", shipper="thread", spool_dir=os.path.dirname(path))
        try:
            found = retry_rejected(path, to=to, overwrite=overwrite)
        except (AsynctrackError, OSError) as error:
            problems.append(f"{path}: {error}")
            continue
        accepted += found.accepted
        problems += found.problems
    if fields is not None:
        said = {"accepted": accepted, "problems": problems}
        write_json({name: said[name] for name in names})
    else:
        print(f"{accepted:,} events accepted.", flush=True)
        for problem in problems:
            print(f"asynctrack: {clean(problem)}", file=sys.stderr, flush=True)
    if problems:
        raise SystemExit(FAILED)


@app.command(cls=taking(*_DROPPED))
@typed
def drop(
    spools: Spools = None,
    folder: Dir = None,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
    fields: Fields = None,
) -> None:
    """Delete refused events. Events that wait to be delivered stay. With
    --json nothing is asked, and --yes is needed.

    Exit status: 0 if they are deleted, 1 if not, 3 if a name is not that of a
    spool.
    """
    from asynctrack.recovery.rejected import drop_rejected

    names = chosen_fields(fields, _DROPPED)
    paths = meant(spools, folder)
    count = sum(1 for _ in read_rejected(paths))
    if count and not yes:
        if fields is not None:
            raise InvalidInputError(f"--json asks nothing: give --yes as well to delete {count:,} refused events")
        typer.confirm(f"Delete {count} refused events?", abort=True)
    try:
        dropped = sum(drop_rejected(path) for path in paths)
    except (InvalidInputError, OSError) as error:
        print(f"asynctrack: {clean(error)}", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None
    if fields is not None:
        said = {"dropped": dropped}
        write_json({name: said[name] for name in names})
    else:
        print(f"{dropped:,} refused events deleted.", flush=True)

"""``asynctrack sync``: deliver the spools of programs that have ended, or that are running offline."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from asynctrack.cli.declaring import Option
from asynctrack.cli.options import Fields, chosen_fields, not_blank
from asynctrack.cli.output import write_json
from asynctrack.cli.spools import Dir, Spools, To, meant, tell_ownerless
from asynctrack.cli.terminal import clean
from asynctrack.cli.verbs import FAILED, INTERRUPTED, verb
from asynctrack.journal.survey import read_spool
from asynctrack.recovery.shipment import Shipment
from asynctrack.recovery.sync import spool_paths, sync
from asynctrack.stores.uri import resolve_store_uri

__all__ = ["ship_spools"]

#: what ``--json`` gives of each spool: of what was done, and with --dry-run of what would be
_DONE, _PLAN = Shipment._fields, ("spool", "store", "events", "delivering")
_command = verb(*dict.fromkeys(_DONE + _PLAN))

_NOTHING = "Nothing waits: there are no spools here."


@_command
def ship_spools(
    spools: Spools = None,
    folder: Dir = None,
    to: To = None,
    experiment: Annotated[
        str | None,
        Option("--experiment", metavar="NAME", help="Create the runs in this experiment.", callback=not_blank),
    ] = None,
    watch: Annotated[bool, Option("--watch", help="Go on until the last running offline program has ended.")] = False,
    owner_gone: Annotated[bool, Option("--owner-gone", help="Assume that programs on other hosts have ended.")] = False,
    create_missing: Annotated[
        bool,
        Option("--create-missing", help="Assume that rank 0 is gone where it has not created its shared run."),
    ] = False,
    timeout: Annotated[
        float, Option("--timeout", metavar="SECONDS", min=0.0, help="Give up after this time without progress.")
    ] = 60.0,
    dry_run: Annotated[bool, Option("--dry-run", help="Deliver nothing; show what would be delivered.")] = False,
    fields: Fields = None,
) -> None:
    """Deliver the spools of programs that have ended, and of running programs
    with mode=offline.

    It may be interrupted, repeated, and run twice at once: each event is
    delivered once.

    Exit status: 0 if nothing is left to do, 1 if events are left or were
    refused, 2 for wrong usage, 3 if a name is not that of a spool, 130 after
    Ctrl-C. A spool that its own program or another sync delivers counts as
    nothing left to do.
    """
    names = None if fields is None else chosen_fields(fields, _PLAN if dry_run else _DONE)
    named = meant(spools, folder) if spools else None
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        if dry_run:
            _plan(spool_paths(folder) if named is None else named, to, names)
            if named is None:
                tell_ownerless(folder)
            return
        with _bar(names is None) as progress:
            results = sync(
                named,
                spool_dir=folder,
                to=to,
                experiment=experiment,
                watch=watch,
                owner_gone=owner_gone,
                create_missing=create_missing,
                timeout=timeout,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(
            "Interrupted: the rest stays where it is, and the next sync goes on from there.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(INTERRUPTED) from None
    if names is not None:
        _write([result._asdict() for result in results], names)
    else:
        _summary(results)
    if any(result.rejected or result.state not in ("delivered", "up to date", "busy") for result in results):
        raise SystemExit(FAILED)


def _write(found: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    write_json([{name: each[name] for name in names} for each in found])


def _plan(paths: list[str], to: str | None, names: tuple[str, ...] | None) -> None:
    found = [info for info in map(read_spool, paths) if info is not None]
    target = resolve_store_uri(to) if to else None
    plan = [
        {"spool": info.path, "store": target or info.store, "events": info.events, "delivering": info.delivering}
        for info in found
    ]
    if names is not None:
        _write(plan, names)
        return
    if not plan:
        print(_NOTHING, flush=True)
    for entry in plan:
        how = "being delivered already" if entry["delivering"] else f"would go to {clean(entry['store'])}"
        print(f"{clean(entry['spool'])}: {entry['events']:,} events, {how}", flush=True)


def _summary(results: list[Shipment]) -> None:
    if not results:
        print(_NOTHING, flush=True)
    for result in results:
        print(clean(f"{result.spool}: {_said(result)}"), flush=True)
    if len(results) > 1:
        states = Counter(result.state for result in results)
        delivered = sum(result.delivered for result in results)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        print(f"{len(results)} spools ({counts}), {delivered:,} events delivered", flush=True)


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

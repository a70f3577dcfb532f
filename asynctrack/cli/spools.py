"""Spools on the command line: the arguments that name them, and how they are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from itertools import groupby
from typing import Annotated

from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.options import not_blank
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.journal.owner import lost_owner
from asynctrack.journal.survey import RejectedEvent, SpoolInfo, find_ownerless, find_spools
from asynctrack.settings import current_settings

__all__ = ["Dir", "Spools", "To", "meant", "rejected_text", "spools_text", "tell_ownerless"]

_DIR = "Folder with the spools; default: $ASYNCTRACK_SPOOL_DIR, else ./.asynctrack and the user's state folder."


def _existing(folder: str | None) -> str | None:
    """The folder that was given. A missing folder is wrong usage: "Nothing waits" would hide the mistake."""
    if folder is not None and not os.path.isdir(folder):
        raise InvalidInputError(f"there is no folder {folder!r}")
    return folder


Dir = Annotated[str | None, Option("--dir", metavar="FOLDER", help=_DIR, callback=_existing)]
To = Annotated[
    str | None,
    Option("--to", metavar="URI", help="Deliver to this store instead.", callback=not_blank),
]
Spools = Annotated[list[str] | None, Argument(help="Spools by folder or name, or folders with spools; default: all.")]

#: number of runs shown for one spool
_RUNS = 3


def meant(wanted: list[str] | None, folder: str | None) -> list[str]:
    """The folders of the spools that are named, or of all. A folder that holds spools names each of them. Raises
    NotFoundError for a name that is none of a spool."""
    there = list(find_spools(folder or current_settings().spool_dir))
    if not wanted:
        return there
    paths = []
    for name in wanted:
        path = next((path for path in there if os.path.basename(path) == name), os.path.abspath(name))
        found = [path] if os.path.exists(os.path.join(path, "owner")) else list(find_spools(path))
        if not found:
            lost = lost_owner(path)
            raise NotFoundError(f"{name}: {lost}" if lost else f"{name} is not a spool; `asynctrack spool` lists them")
        paths += [path for path in found if path not in paths]
    return paths


def tell_ownerless(folder: str | None) -> None:
    """Name the folders that were spools until their owner file was lost."""
    for path, problem in find_ownerless(folder or current_settings().spool_dir):
        print(f"asynctrack: {clean(path)}: {clean(problem)}", file=sys.stderr, flush=True)


def spools_text(found: list[SpoolInfo], terminal: Terminal) -> str:
    """A few lines for each spool, under the folder it is in. Short ones fit a narrow terminal."""
    lines = []
    for home, spools in groupby(found, lambda info: os.path.dirname(info.path)):
        lines.append(terminal.style(clean(home), "bold"))
        for info in spools:
            lines += _lines_of(info, terminal)
    events, refused = (sum(getattr(info, name) for info in found) for name in ("events", "rejected"))
    sums = f"{_count(len(found), 'spool')}, {_count(events, 'event')} to deliver"
    sums += f", {refused:,} refused" if refused else ""
    sums += ". `asynctrack sync` delivers them." if any(info.runs for info in found) else "."
    return "\n".join([*lines, "", sums]) + "\n"


def _lines_of(info: SpoolInfo, terminal: Terminal) -> list[str]:
    lines = [f"  {terminal.style(clean(os.path.basename(info.path)), 'cyan')}"]

    def say(text: str, *style: str) -> None:
        lines.append(f"    {terminal.style(clean(text), *style)}")

    owner = f"{info.owner}, pid {info.pid}" + (f" on {info.host}" if info.owner == "unknown" else "")
    facts = [_count(info.events, "event"), _size(info.bytes), f"{_age(info.age)} old", f"owner {owner}"]
    facts += ["being delivered"] if info.delivering else []
    facts += [f"{info.rejected:,} refused"] if info.rejected else []
    say(" · ".join(facts))
    say(f"to {info.store}")
    for run in info.runs[:_RUNS]:
        say(f"run {run.run_id}{f' {run.name}' if run.name else ''}: {_count(run.events, 'event')}", "dim")
    if len(info.runs) > _RUNS:
        say(f"and {len(info.runs) - _RUNS:,} more runs", "dim")
    for problem in info.problems:
        say(problem, "red")
    return lines


def rejected_text(events: Iterable[RejectedEvent], terminal: Terminal) -> str:
    """A line for each event, under its run."""
    lines = []
    for (spool, run_id), found in groupby(events, lambda event: (event.spool, event.run_id)):
        lines.append(terminal.style(clean(f"run {run_id}, kept in {spool}"), "bold"))
        for event in found:
            step = "" if event.step is None else f" at step {event.step}"
            lines.append(clean(f"  {event.kind} {event.key} = {event.value}{step}: {event.reason}"))
    return "\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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

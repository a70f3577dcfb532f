"""The options that many verbs have."""

from __future__ import annotations

from typing import Annotated

from asynctrack.cli.declaring import Argument, Option
from asynctrack.errors import InvalidInputError

__all__ = [
    "Fields",
    "NoLive",
    "NoPager",
    "OnlyChanged",
    "OnlyKeys",
    "Output",
    "RunName",
    "RunNames",
    "Store",
    "StoreArgument",
    "chosen_fields",
    "not_blank",
]


def not_blank(value: str | None) -> str | None:
    """What was given. A variable that is not set leaves nothing: the default would be something nobody meant."""
    if value is not None and not value.strip():
        raise InvalidInputError("it is empty; leave it out, or name one")
    return value


_STORE = "Where the runs are; default: MLFLOW_TRACKING_URI, else ./mlruns or ./mlflow.db."
Store = Annotated[str | None, Option("--store", metavar="URI", help=_STORE, callback=not_blank)]
#: the same for a verb that has no runs to name
StoreArgument = Annotated[str | None, Argument(metavar="[URI]", help=_STORE, callback=not_blank, show_default=False)]
Fields = Annotated[
    str | None,
    Option("--json", metavar="[FIELDS]", help="Print JSON: all fields, or these (names, with commas)."),
]
Output = Annotated[
    str | None,
    Option(
        "--output",
        "-o",
        metavar="FORM",
        help="table, tsv, csv, json or jsonl; default: a table on a terminal, else tsv.",
    ),
]
OnlyKeys = Annotated[list[str] | None, Option("--key", "-k", metavar="REGEX", help="Of metrics only these.")]
NoLive = Annotated[bool, Option("--no-live", help="Show only what the store has, and not what waits in spools here.")]
NoPager = Annotated[bool, Option("--no-pager", help="Do not start a pager for what is longer than the screen.")]
OnlyChanged = Annotated[bool, Option("--only-changed/--all", help="Only what differs, or everything.")]
_RUN = "Id, start of an id, or name; @ is the latest run, @1 the one before it, @live the latest that is running."
RunName = Annotated[str, Argument(metavar="RUN", help=_RUN, completes="runs")]
RunNames = Annotated[list[str], Argument(metavar="RUN...", help=_RUN, completes="runs")]


def chosen_fields(asked: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the fields that ``--json`` asks for; all known ones where it names none. Raises
    InvalidInputError that lists the known ones."""
    names = tuple(name for name in (asked or "").split(",") if name.strip())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInputError(f"--json: there is no field {', '.join(unknown)}; the fields are {', '.join(known)}")
    return names or known

"""``asynctrack doctor``: what is installed, where it logs, what waits, and whether the store answers."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

import typer

from asynctrack.cli.spools import Json
from asynctrack.cli.verbs import verb
from asynctrack.clock import monotonic
from asynctrack.current import store_for
from asynctrack.errors import AsynctrackError
from asynctrack.journal.survey import find_spools, read_spool
from asynctrack.settings import current_settings
from asynctrack.stores.io import drive
from asynctrack.stores.sql.places import sqlite_path
from asynctrack.stores.uri import resolve_store_uri

__all__ = ["app", "examine"]

app, _command = verb()

_PREFIX = "asynctrack+"


@_command
def examine(as_json: Json = False) -> None:
    """Show what is installed, where programs started here log to, whether that
    store answers, and what waits in spools. Add it to a bug report: it shows
    no credentials.

    Exit status: 0 if the store answers, 1 if it does not.
    """
    found = {"asynctrack": _version("asynctrack"), "python": platform.python_version(), "system": platform.platform()}
    found |= _mlflow() | _store() | _spools()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            typer.echo(f"{name:{width}}  {value}")
    if "no answer" in found:
        raise typer.Exit(1)


def _version(*names: str) -> str:
    for name in names:
        try:
            return f"{version(name)} ({name})" if len(names) > 1 else version(name)
        except PackageNotFoundError:
            pass  # the next name may be there
    return "not installed"


def _mlflow() -> dict[str, Any]:
    """Which MLflow there is, and whether it is asked to log through asynctrack. It is not imported: that takes
    seconds."""
    there = _version("mlflow", "mlflow-skinny")
    if there == "not installed":
        return {"mlflow": there}
    known = any(each.name == "asynctrack" for each in entry_points(group="mlflow.tracking_store"))
    if not known:
        wrapped = "never: asynctrack was installed before it could; install it again"
    elif "_MLFLOW_SERVER_FILE_STORE" in os.environ:
        wrapped = "no: this is the environment of a server"
    elif os.environ.get("MLFLOW_TRACKING_URI", "").startswith(_PREFIX):
        wrapped = f"yes: MLFLOW_TRACKING_URI begins with {_PREFIX}"
    elif os.environ.get("ASYNCTRACK_MLFLOW", "").lower() in ("1", "true", "yes", "on"):
        wrapped = "yes: ASYNCTRACK_MLFLOW is set"
    else:
        wrapped = f"not asked for: write {_PREFIX} before the tracking URI, or set ASYNCTRACK_MLFLOW=1"
    return {"mlflow": there, "mlflow logs through asynctrack": wrapped}


def _store() -> dict[str, Any]:
    given = os.environ.get("MLFLOW_TRACKING_URI", "").removeprefix(_PREFIX)
    begun = monotonic()
    try:
        uri = resolve_store_uri(given or None)
    except AsynctrackError as error:
        return {"tracking URI": "unusable", "no answer": str(error)}
    shown = uri if given else f"{uri} (MLFLOW_TRACKING_URI is not set)"
    if uri.startswith("sqlite:") and not os.path.exists(sqlite_path(uri)):
        return {"tracking URI": shown, "database": "not there yet; the first run makes it"}  # and looking would, too
    try:
        drive(store_for(uri).search_experiments(max_results=1))
    except AsynctrackError as error:
        return {"tracking URI": shown, "no answer": str(error)}
    return {"tracking URI": shown, "answers after": f"{(monotonic() - begun) * 1000:.0f} ms"}


def _spools() -> dict[str, Any]:
    found = [info for info in map(read_spool, find_spools(current_settings().spool_dir)) if info is not None]
    if not found:
        return {"waiting": "nothing"}
    events, refused = sum(info.events for info in found), sum(info.rejected for info in found)
    return {"waiting": f"{events} events, and {refused} refused, in {len(found)} spools: `asynctrack spool` shows them"}

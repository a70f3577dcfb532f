"""``asynctrack doctor``: what is installed, where it logs, what waits, and whether the store answers."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from asynctrack.cli.asking import store_uri
from asynctrack.cli.installed import Package, installed
from asynctrack.cli.options import Fields, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.cli.verbs import verb
from asynctrack.clock import monotonic
from asynctrack.constants import VERSION
from asynctrack.current import store_for
from asynctrack.errors import AsynctrackError
from asynctrack.journal.survey import find_spools, read_spool
from asynctrack.settings import Settings, current_settings, switch
from asynctrack.stores.io import drive
from asynctrack.stores.sql.places import sqlite_path

__all__ = ["examine", "settings_set"]

_FIELDS = (
    *("asynctrack", "python", "system", "mlflow", "mlflow logs through asynctrack", "libraries"),
    *("tracking URI", "from", "answers after", "no answer", "database", "waiting", "spools", "settings"),
)
_command = verb(*_FIELDS)

_PREFIX = "asynctrack+"
#: what goes through it, in short: docs/behind-mlflow.md
_THROUGH = "metrics, params, tags, inputs, outputs, starts and ends of runs do, the rest goes MLflow's own way"
_UNUSABLE = "unusable"
#: what reading and writing use where it is there
_LIBRARIES = ("numpy", "httpx", "anyio", "msgpack", "psycopg", "pyarrow", "pandas", "polars", "pillow")


@_command
def examine(store: Store = None, fields: Fields = None) -> None:
    """Show what is installed, where programs started here log to, whether that
    store answers and how fast, what waits in which spool, and each setting
    that is not the default, with where it comes from. Add it to a bug report:
    it shows no credentials.

    Exit status: 0 if the store answers, 1 if it does not.
    """
    names = chosen_fields(fields, _FIELDS)
    there = installed()
    found: dict[str, Any] = {"asynctrack": VERSION, "python": platform.python_version(), "system": platform.platform()}
    logged = _store(store)
    found |= _mlflow(there, logged["tracking URI"])
    found |= {"libraries": {name: there[name].version for name in _LIBRARIES if name in there}}
    found |= logged | _spools() | {"settings": settings_set()}
    if fields is not None:
        write_json({name: found[name] for name in names if name in found}, 2 if Terminal().interactive else None)
    else:
        sys.stdout.write(_page(found))
    if "no answer" in found:
        raise SystemExit(1)


def _page(found: dict[str, Any]) -> str:
    """All of it, for people."""
    width = max(map(len, found))
    lines = []
    for name, value in found.items():
        parts = [clean(value)]
        if name == "libraries":
            parts = [", ".join(f"{each} {held}" for each, held in value.items())]
        elif name == "spools":
            parts = [f"{each['events']:,} events of {clean(each['store'])} in {clean(each['path'])}" for each in value]
        elif name == "settings":
            parts = [f"{each}={clean(held['value'])} ({held['from']})" for each, held in value.items()]
            parts = parts or ["all as by default"]
        lines += [f"{name if part is parts[0] else '':{width}}  {part}" for part in parts]
    return "\n".join(lines) + "\n"


def settings_set(environment: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """The settings that are not as by default, with what they come from: the environment is all that reaches a
    command. Functions are not shown: one may hold a secret."""
    given = Settings.from_environment(environment)
    return {
        name: {"value": getattr(given, name), "from": f"ASYNCTRACK_{name.upper()}"}
        for name, default in Settings._field_defaults.items()
        if getattr(given, name) != default and not callable(getattr(given, name))
    }


def _mlflow(there: Mapping[str, Package], uri: str) -> dict[str, Any]:
    """Which MLflow there is, whether it is asked to log through asynctrack, and what of it then does. It is not
    imported: that takes seconds."""
    name = next((name for name in ("mlflow", "mlflow-skinny") if name in there), None)
    if name is None:
        return {"mlflow": "not installed"}
    if "asynctrack" not in there or "[mlflow.tracking_store]" not in there["asynctrack"].read("entry_points.txt"):
        wrapped = "never: asynctrack was installed before it could; install it again"
    elif "_MLFLOW_SERVER_FILE_STORE" in os.environ:
        wrapped = "no: this is the environment of a server"
    elif os.environ.get("MLFLOW_TRACKING_URI", "").startswith(_PREFIX):
        wrapped = f"yes: MLFLOW_TRACKING_URI begins with {_PREFIX}; {_THROUGH}"
    elif switch("ASYNCTRACK_MLFLOW", default=False):
        wrapped = f"yes: ASYNCTRACK_MLFLOW is set; {_THROUGH}"
    else:
        wrapped = (
            f"not asked for: write {_PREFIX} before the tracking URI, or set ASYNCTRACK_MLFLOW=1; a program that calls "
            "asynctrack.mlflow.install() cannot be seen from here"
        )
    if wrapped.startswith("yes") and uri == _UNUSABLE:
        wrapped = "no: asynctrack has no store for the tracking URI, so MLflow logs as without it"
    return {"mlflow": f"{there[name].version} ({name})", "mlflow logs through asynctrack": wrapped}


def _store(given: str | None) -> dict[str, Any]:
    named = os.environ.get("MLFLOW_TRACKING_URI", "").removeprefix(_PREFIX)
    source = "--store" if given else "MLFLOW_TRACKING_URI" if named.strip() else "default"
    begun = monotonic()
    try:
        uri = store_uri(given)
    except AsynctrackError as error:
        return {"tracking URI": _UNUSABLE, "from": source, "no answer": str(error)}
    shown = uri if source != "default" else f"{uri} (MLFLOW_TRACKING_URI is not set)"
    said: dict[str, Any] = {"tracking URI": shown, "from": source}
    if uri.startswith("sqlite:") and not os.path.exists(sqlite_path(uri)):
        return {**said, "database": "not there yet; the first run makes it"}  # and looking would, too
    try:
        drive(store_for(uri).search_experiments(max_results=1))
    except AsynctrackError as error:
        return {**said, "no answer": str(error)}
    return {**said, "answers after": f"{(monotonic() - begun) * 1000:.0f} ms"}


def _spools() -> dict[str, Any]:
    found = [info for info in map(read_spool, find_spools(current_settings().spool_dir)) if info is not None]
    if not found:
        return {"waiting": "nothing", "spools": []}
    events, refused = sum(info.events for info in found), sum(info.rejected for info in found)
    each = [
        {
            "path": info.path, "store": info.store, "events": info.events, "rejected": info.rejected,
            "owner": info.owner, "problems": info.problems,
        }
        for info in found
    ]  # fmt: skip
    waiting = f"{events} events, and {refused} refused, in {len(found)} spools: `asynctrack spool` shows them"
    return {"waiting": waiting, "spools": each}

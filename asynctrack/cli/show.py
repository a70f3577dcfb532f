"""``asynctrack show``: one run, in summaries."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from asynctrack.cli.amounts import ago, duration, number
from asynctrack.cli.asking import columns_of, experiment_names, looked, named, open_store, summaries, tell
from asynctrack.cli.declaring import Option
from asynctrack.cli.drawing import chosen_keys
from asynctrack.cli.fields import RUN_FIELDS, Asked, Listed, parse, value_of
from asynctrack.cli.options import Fields, NoLive, NoPager, OnlyKeys, Output, RunName, Store
from asynctrack.cli.output import Column, choose_form, show_one, show_rows, table
from asynctrack.cli.terminal import Terminal, clean, page
from asynctrack.cli.verbs import verb
from asynctrack.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.stores.base import AbstractStore
    from asynctrack.stores.columns import Columns, Summary

__all__ = ["around", "nan_from", "show_run", "snapshot", "summary_fields"]

_command = verb(*RUN_FIELDS)

#: steps to each side that --around shows; characters of a sparkline
_WINDOW, _SPARK = 10, 16


@_command
def show_run(
    run: RunName,
    store: Store = None,
    at: Annotated[
        int | None, Option("--at", metavar="STEP", help="All metrics at this step: the last point up to it.")
    ] = None,
    centre: Annotated[
        int | None, Option("--around", metavar="STEP", help="All metrics, step by step, around this step.")
    ] = None,
    window: Annotated[
        int, Option("--window", metavar="N", min=0, help="So many steps to each side with --around.")
    ] = _WINDOW,
    keys: OnlyKeys = None,
    everything: Annotated[bool, Option("--all", "-a", help="Also the tags that MLflow sets.")] = False,
    no_live: NoLive = False,
    output: Output = None,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Show a run: status, params, tags, and of each metric the last, the
    smallest and the largest value with their steps.

    Exit status: 0; 3 if there is no such run.
    """
    terminal = Terminal()
    form = choose_form(output, fields, terminal)
    if at is not None and centre is not None:
        raise InvalidInputError("--at and --around are two questions; ask one")
    opened = open_store(store)
    found = named(opened, run, not no_live)
    names = tuple(text.strip() for text in (fields or "").split(",") if text.strip()) or RUN_FIELDS
    asked = [parse(text, [found]) for text in names]
    wanted = chosen_keys(found.run.data.metrics, keys) if keys else None
    if at is not None:
        rows = snapshot(columns_of(looked(opened, found, wanted, max_step=at)))
        show_rows(rows, [Column("key"), *map(_figure, ("step", "value")), Column("time")], form, terminal, not no_pager)
    elif centre is not None:
        near = columns_of(looked(opened, found, wanted, min_step=centre - window, max_step=centre + window))
        columns = [_figure("step"), Column("time"), *(_figure(key, key) for key in near)]
        show_rows(around(near), columns, form, terminal, not no_pager)
    elif form == "table":
        page(_page(opened, found, wanted, everything, terminal), terminal, not no_pager)
    else:
        summarized = sorted({each.key for each in asked if each.summarized})
        made = summaries(opened, found, summarized) if summarized else {}
        whole = _fields(opened, found, everything, made, asked)
        if "metrics" in whole:
            whole["metrics"] = _summaries_for_programs(opened, found, wanted)
        elif not summarized:  # else points were read, and that has said so
            tell(found.trouble)
        _for_programs(whole, form, terminal)


def snapshot(found: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """A row for each metric: its point with the largest step. Pure."""
    from asynctrack.cli.amounts import moment
    from asynctrack.stores.columns import Summary

    rows = []
    for key, columns in found.items():
        summary = Summary.of(columns)
        if summary is not None:
            step, at, value = summary.latest
            rows.append({"key": key, "step": step, "value": value, "time": moment(at)})
    return rows


def around(found: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """A row for each step, with the value of each metric there; of several values at one step the one that was logged
    last. Pure."""
    from asynctrack.cli.amounts import moment

    rows: dict[int, dict[str, Any]] = {}
    for key, columns in found.items():
        for step, at, value in columns.rows():
            # A metric may be called like a column: the column is what the row has for people to find its way by.
            row = rows.setdefault(step, {})
            row[key] = value
            row["step"], row["time"] = step, moment(at)
    return [rows[step] for step in sorted(rows)]


def nan_from(columns: Columns) -> int | None:
    """The step from which on a metric is NaN; None where its last value is a number. Pure."""
    begun: int | None = None
    for step, _, value in columns.rows_by_step():
        if not math.isnan(value):
            begun = None
        elif begun is None:
            begun = step
    return begun


def summary_fields(summary: Summary, lost: int | None = None) -> dict[str, Any]:
    """What is said of a metric: few words, so that a model that reads it has room for others. ``lost``: `nan_from`.
    Pure."""
    said: dict[str, Any] = {"last": summary.latest.value, "step": summary.latest.step}
    if lost is not None:
        said["nan_from"] = lost
    for name, spot in (("min", summary.min), ("max", summary.max)):
        if spot is not None:
            said |= {name: spot.value, f"{name}_step": spot.step}
    return said | {"first": summary.first.value, "points": summary.points}


def _summaries_for_programs(store: AbstractStore, found: FoundRun, keys: list[str] | None) -> dict[str, Any]:
    if found.waiting:
        points = columns_of(looked(store, found, keys))
        made = _summaries(points)
    else:
        made = summaries(store, found, keys)
        lost = [key for key, each in made.items() if math.isnan(each.latest.value)]
        points = columns_of(looked(store, found, lost)) if lost else {}
    return {key: summary_fields(each, nan_from(points[key]) if key in points else None) for key, each in made.items()}


def _for_programs(whole: Mapping[str, Any], form: str, terminal: Terminal) -> None:
    if form in ("json", "jsonl"):
        show_one(whole, form, terminal)
        return
    rows = []
    for name, value in whole.items():
        for key, each in value.items() if isinstance(value, dict) else [("", value)]:
            label = f"{name}.{key}" if key else name
            if isinstance(each, dict):
                rows += [{"field": f"{label}.{part}", "value": figure} for part, figure in each.items()]
            else:
                rows.append({"field": label, "value": each})
    show_rows(rows, [Column("field"), Column("value")], form, terminal)


def _fields(
    store: AbstractStore,
    found: FoundRun,
    everything: bool,
    made: Mapping[str, Summary],
    asked: Iterable[Asked],
) -> dict[str, Any]:
    experiment = found.run.info.experiment_id
    listed = Listed(found, experiment_names(store).get(experiment, experiment), time.time_ns() // 1_000_000, made)
    whole = {each.text: value_of(each, listed) for each in asked}
    if everything and "tags" in whole:
        whole["tags"] = dict(sorted(found.run.data.tags.items()))
    return whole


def _page(store: AbstractStore, found: FoundRun, keys: list[str] | None, everything: bool, terminal: Terminal) -> str:
    """All of it, for people."""
    info, now = found.run.info, time.time_ns() // 1_000_000
    points = columns_of(looked(store, found, keys))
    made = _summaries(points)
    fields = _fields(store, found, everything, made, [Asked(name, "run", name) for name in RUN_FIELDS])
    state = f"{info.status}, running here" if found.alive else info.status
    lines = [f"{terminal.style(clean(info.run_name or info.run_id), 'bold')}  {_coloured(state, terminal)}"]
    said = {
        "id": info.run_id,
        "experiment": fields["experiment"],
        "started": f"{fields['started']} ({ago(info.start_time, now)})",
        "took": duration(fields["duration"]),
        "last point": ago(found.last_time, now),
        "user": info.user_id,
        "artifacts": info.artifact_uri,
        "waiting": f"{found.waiting:,} events are not delivered yet" if found.waiting else "",
        "store": "" if found.stored else "does not know the run yet",
    }
    lines += _pairs({name: each for name, each in said.items() if each}, terminal)
    for title, entries in (("params", fields["params"]), ("tags", fields["tags"])):
        if entries:
            lines += ["", terminal.style(title.upper(), "bold"), *_pairs(entries, terminal)]
    return "\n".join(lines) + "\n" + _metrics(points, made, terminal)


def _summaries(points: Mapping[str, Columns]) -> dict[str, Summary]:
    from asynctrack.stores.columns import Summary

    made = {key: Summary.of(columns) for key, columns in points.items()}
    return {key: summary for key, summary in made.items() if summary is not None}


def _metrics(points: Mapping[str, Columns], made: Mapping[str, Summary], terminal: Terminal) -> str:
    from asynctrack.plots.spark import spark

    rows = [
        {"metric": key, **summary_fields(each), "": spark(points[key].values, _SPARK, ascii_only=not terminal.unicode)}
        for key, each in made.items()
    ]
    columns = [
        Column("metric"),
        *(_figure(name) for name in ("last", "step", "min", "max")),
        Column("", " ", str, whole=True),
        _figure("points"),
    ]
    for row in rows:
        if math.isnan(row["last"]):
            row["last"] = f"nan from {nan_from(points[row['metric']])}"
        for name in ("min", "max"):
            row[name] = f"{number(row[name])}@{row[f'{name}_step']}" if name in row else ""
    return f"\n{table(rows, columns, terminal)}" if rows else ""


def _figure(name: str, title: str = "") -> Column:
    return Column(name, title, lambda value: "" if value is None else number(value), True)


def _pairs(entries: Mapping[str, Any], terminal: Terminal) -> list[str]:
    width = min(max(len(clean(name)) for name in entries), terminal.width // 3)
    return [f"  {clean(name):{width}}  {clean(value)}" for name, value in entries.items()]


def _coloured(state: str, terminal: Terminal) -> str:
    styles = {"RUNNING": "green", "FAILED": "red", "KILLED": "yellow"}
    name = styles.get(state.partition(",")[0])
    return terminal.style(state, name) if name else state

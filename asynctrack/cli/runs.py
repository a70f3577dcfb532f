"""``asynctrack runs``: the runs of a store, those that are running first."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from asynctrack.cli.amounts import ago, duration, exact, number
from asynctrack.cli.asking import ask, experiment_names, open_store, summaries, tell
from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.fields import RUN_FIELDS, Asked, Listed, leading_key, may_be_beside_metrics, parse, value_of
from asynctrack.cli.options import Fields, NoLive, NoPager, Output, Store
from asynctrack.cli.output import Column, choose_form, show_rows, table
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.cli.verbs import FAILED, verb
from asynctrack.constants import ViewType
from asynctrack.errors import NotFoundError
from asynctrack.reading.runs import FoundRun, find_runs

if TYPE_CHECKING:
    from asynctrack.errors import StoreError
    from asynctrack.stores.base import AbstractStore

__all__ = ["list_runs", "ordered"]

_command = verb(*RUN_FIELDS, any_field=True)

_SHOWN = ("id", "name", "status", "started", "duration", "step", "rate", "waiting")
_PIPED = (*_SHOWN[:3], "alive", *_SHOWN[3:], "experiment")
#: digits of an id in a table, at least; how many metrics a table shows unasked
_DIGITS, _METRICS = 8, 4
#: what is asked for at once
_ALL = 1_000_000


@_command
def list_runs(
    filter_text: Annotated[str | None, Argument(metavar="[FILTER]", help="As --filter.", show_default=False)] = None,
    store: Store = None,
    experiment: Annotated[
        list[str] | None, Option("--experiment", "-e", metavar="NAME", help="Only of this one (name or id).")
    ] = None,
    filter_string: Annotated[
        str | None,
        Option("--filter", metavar="FILTER", help="In MLflow's language: \"params.lr = '0.1' and metrics.f1>.9\"."),
    ] = None,
    sort: Annotated[
        str | None,
        Option("--sort", metavar="FIELD", help="Smallest first: loss.min; with - before it, largest first."),
    ] = None,
    limit: Annotated[int, Option("--limit", "-n", metavar="N", min=1, help="At most so many runs.")] = 50,
    columns: Annotated[
        str | None,
        Option("--columns", "-c", metavar="FIELDS", help="Fields, params and metrics: name,lr,loss,loss.min."),
    ] = None,
    everything: Annotated[
        bool, Option("--all", "-a", help="All runs, also deleted ones, whatever --limit says.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print the ids only, one a line.")] = False,
    watch: Annotated[bool, Option("--watch", "-w", help="Show the table anew every second, until Ctrl-C.")] = False,
    no_live: NoLive = False,
    output: Output = None,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """List runs: those that are running first, then the latest start.

    With how long ago they began, steps a second, and how many events are not
    delivered yet. Runs of which the store does not know yet are there, too.

    Exit status: 0, also if no run matches; 3 if an experiment is not there.
    """
    terminal = Terminal()
    form = choose_form(output, fields, terminal)
    opened = open_store(store)
    names = experiment_names(opened)
    query = _Query(
        opened,
        names,
        experiment or None,
        _one_filter(filter_text, filter_string),
        sort,
        _ALL if everything else limit,
        ViewType.ALL if everything else ViewType.ACTIVE_ONLY,
        not no_live,
    )
    asked = fields or columns or ""
    texts = tuple(text.strip() for text in asked.split(",") if text.strip())
    if watch:
        from asynctrack.cli.watching import watch as watch_it

        def draw(terminal: Terminal) -> str:
            rows = query.rows(texts).rows
            return table(*shown(rows, texts, "table"), terminal) or "No run matches.\n"

        watch_it(draw)
        return
    texts = texts or (_PIPED if form != "table" else ())
    found = query.rows(() if quiet else texts)
    if quiet:
        sys.stdout.writelines(f"{each.found.run.info.run_id}\n" for each in found.rows)
    else:
        show_rows(*shown(found.rows, texts, form), form, terminal, not no_pager)
        if not found.rows and form == "table":
            print(
                "No run matches." if filter_text or filter_string else "There are no runs here.",
                file=sys.stderr,
                flush=True,
            )
    for path, problem in sorted(found.problems.items()):
        print(f"asynctrack: {clean(path)}: {clean(problem)}", file=sys.stderr, flush=True)
    tell(found.trouble)
    if found.trouble is not None:
        raise SystemExit(FAILED)


def _one_filter(argument: str | None, option: str | None) -> str:
    if argument and option:
        return f"{argument} and {option}"
    return argument or option or ""


class _Rows(NamedTuple):
    """The runs. ``trouble``: why the store could not be asked; ``problems``: which spools cannot be read."""

    rows: list[Listed]
    trouble: StoreError | None
    problems: dict[str, str]


class _Query(NamedTuple):
    """Which runs are asked for, and in which order. ``names``: of the experiments, by id."""

    store: AbstractStore
    names: dict[str, str]
    experiments: list[str] | None
    filter_string: str
    sort: str | None
    limit: int
    view_type: int
    live: bool

    def rows(self, fields: Sequence[str]) -> _Rows:
        """The runs, with the summaries that the fields and the order take."""
        limit = _ALL if self.sort else self.limit
        first, descending = ("", False) if self.sort is None else _parse_sort(self.sort)
        outlines = not any(map(may_be_beside_metrics, filter(None, (*fields, first))))
        try:
            every = ask(
                find_runs(
                    self.store, self.experiments, self.filter_string, (), limit, self.view_type, self.live,
                    outlines=outlines,
                )
            )  # fmt: skip
        except NotFoundError as error:
            there = ", ".join(sorted(self.names.values())[:10])
            raise NotFoundError(f"{error}; there are {there}" if there else str(error)) from None
        found: list[FoundRun] = every
        now = time.time_ns() // 1_000_000
        if self.sort is not None:
            by = parse(first, found)
            whole = [self._listed(now, each, [by]) for each in found]
            found = [each.found for each in ordered(whole, by, descending)[: self.limit]]
        asked = [parse(text, found) for text in fields]
        return _Rows([self._listed(now, each, asked) for each in found], every.trouble, every.problems)

    def _listed(self, now: int, found: FoundRun, asked: Sequence[Asked]) -> Listed:
        keys = {each.key for each in asked if each.summarized and each.key in found.run.data.metrics}
        if found.alive and found.run.data.latest:
            keys.add(leading_key(found.run.data.latest))
        experiment = self.names.get(found.run.info.experiment_id, found.run.info.experiment_id)
        return Listed(found, experiment, now, summaries(self.store, found, sorted(keys)) if keys else {})


def _parse_sort(text: str) -> tuple[str, bool]:
    """The field, and whether its largest is first."""
    name, _, direction = text.strip().rpartition(" ")
    if direction.lower() not in ("asc", "desc"):
        name, direction = text.strip(), "asc"
    descending = direction.lower() == "desc"
    return (name[1:], not descending) if name.startswith("-") else (name, descending)


def ordered(rows: Sequence[Listed], by: Asked, descending: bool = False) -> list[Listed]:
    """The runs by a field, those that do not have it last. Texts that are numbers sort as such. Pure."""
    keyed = [(_rank(value_of(by, each)), each) for each in rows]
    there = sorted((each for each in keyed if each[0] is not None), key=_first, reverse=descending)
    return [each for _, each in there] + [each for rank, each in keyed if rank is None]


def _first(pair: tuple[Any, Listed]) -> Any:
    return pair[0]


def _rank(value: Any) -> tuple[int, Any] | None:
    """None of what has no place in an order, NaN among it."""
    if value is None or value != value:
        return None
    if isinstance(value, bool | int | float):
        return 0, value
    try:
        as_number = float(value)
    except (TypeError, ValueError):
        return 1, str(value)
    return (0, as_number) if as_number == as_number else None


def shown(rows: Sequence[Listed], texts: Sequence[str], form: str) -> tuple[list[dict[str, Any]], list[Column]]:
    """The rows and the columns of a form. Without ``texts``: a table's, with the metrics that most runs have."""
    found = [each.found for each in rows]
    if not texts:
        counts = Counter(key for each in found for key in each.run.data.metrics)
        common = sorted(counts, key=lambda key: (-counts[key], key))[:_METRICS]
        empty = {"rate"} if not any(each.alive for each in found) else set()
        empty |= {"waiting"} if not any(each.waiting for each in found) else set()
        texts = (*(name for name in _SHOWN if name not in empty), *(f"metrics.{key}" for key in common))
    asked = [parse(text, found) for text in texts]
    values = [{each.text: value_of(each, row) for each in asked} for row in rows]
    if form == "table":
        for row, listed in zip(values, rows, strict=True):
            _for_people(row, listed)
        digits = _digits([each.run.info.run_id for each in found])
        return values, [_column(each, digits) for each in asked]
    return values, [Column(each.text) for each in asked]


def _for_people(row: dict[str, Any], listed: Listed) -> None:
    """Times as people say them."""
    info = listed.found.run.info
    for name, ms in (("started", info.start_time), ("ended", info.end_time), ("updated", listed.found.last_time)):
        if name in row:
            row[name] = ago(ms, listed.now)


def _digits(ids: Sequence[str]) -> int:
    """How many digits of the ids tell them apart, eight at least."""
    digits = _DIGITS
    while len({each[:digits] for each in ids}) < len(set(ids)):
        digits += 1
    return digits


_STATUS_STYLES = {"RUNNING": "green", "FAILED": "red", "KILLED": "yellow"}


def _column(asked: Asked, digits: int) -> Column:
    title = "" if asked.kind == "run" else asked.key  # keys as they are: capitals may tell them apart
    if asked.kind == "metric":
        return Column(asked.text, title if asked.part == "last" else f"{title}.{asked.part}", _number, True)
    if asked.kind == "run" and asked.key in _SHOW:
        show, right = _SHOW[asked.key]
        style = (lambda value: _STATUS_STYLES.get(value, "")) if asked.key == "status" else None
        return Column(
            asked.text, title, (lambda value: value[:digits]) if asked.key == "id" else show, right, style, True
        )
    return Column(asked.text, title)


def _number(value: Any) -> str:
    return "" if value is None else number(value)


def _count(value: Any) -> str:
    return f"{value:,}" if value else ""


_SHOW: dict[str, tuple[Any, bool]] = {
    "id": (exact, False),
    "status": (exact, False),
    "duration": (duration, True),
    "started": (exact, True),
    "ended": (exact, True),
    "updated": (exact, True),
    "step": (exact, True),
    "rate": (lambda value: "" if value is None else f"{value:.3g}/s", True),
    "waiting": (_count, True),
}

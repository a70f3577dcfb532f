"""``asynctrack tail``: the last points of a run, and those that come."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Annotated

from asynctrack.cli.amounts import exact, moment, number, seconds_of
from asynctrack.cli.asking import ask, named, open_store, tell
from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.news import News, Step, by_step
from asynctrack.cli.options import Fields, NoLive, RunName, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import Terminal, clean
from asynctrack.cli.verbs import verb
from asynctrack.reading.follower import Follower

__all__ = ["tail_run"]

_FIELDS = ("step", "time", "metrics")
_command = verb(*_FIELDS)

#: seconds between two looks: at what is on this machine, and at a server
_EVERY, _EVERY_SERVER = 0.25, 2.0


@_command
def tail_run(
    run: RunName,
    keys: Annotated[
        list[str] | None,
        Argument(metavar="[KEY...]", help="Only these metrics.", completes="keys"),
    ] = None,
    store: Store = None,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on until the run ends.")] = False,
    lines: Annotated[int, Option("--lines", "-n", metavar="N", min=0, help="So many steps.")] = 10,
    since: Annotated[
        str | None, Option("--since", metavar="TIME", help="What was logged in this time: 30s, 5m, 1h.")
    ] = None,
    no_live: NoLive = False,
    fields: Fields = None,
) -> None:
    """Print the last steps of a run, one a line: step, time, metrics.

    With -f also what comes, until the run ends; also what is not delivered
    yet. Metrics of one step that come apart have a line each.

    Exit status: 0; 3 if there is no such run, or no such metric and none can
    come, 130 after Ctrl-C.
    """
    names = chosen_fields(fields, _FIELDS)
    opened = open_store(store)
    found = named(opened, run, not no_live)
    follower = Follower(opened, found.run.info.run_id, keys or None, not no_live)
    news, terminal = News(), Terminal()
    ask(follower.look())
    if keys and not (follow and not follower.ended):
        _refuse_unknown(keys, follower.series or found.run.data.metrics)
    steps = _new(follower, news)
    if since is not None:
        earliest = time.time_ns() // 1_000_000 - int(seconds_of(since) * 1000)
        steps = [each for each in steps if each.time >= earliest]
    elif lines < len(steps):
        steps = steps[len(steps) - lines :]
    _write(steps, fields is not None, names, terminal)
    told = _tell(follower, None)
    while follow and not follower.ended:
        time.sleep(_EVERY_SERVER if opened.uri.startswith(("http", "databricks", "postgresql")) else _EVERY)
        ask(follower.look())
        told = _tell(follower, told)
        _write(_new(follower, news), fields is not None, names, terminal)


def _refuse_unknown(keys: Iterable[str], known: Collection[str]) -> None:
    """Raises NotFoundError for a metric that is not there, and will not come while this looks."""
    from asynctrack.cli.drawing import none_is_called

    unknown = next((key for key in keys if key not in known), None)
    if unknown is not None:
        raise none_is_called(unknown, known)


def _tell(follower: Follower, told: str | None) -> str | None:
    """Say that the store does not answer, once each time; it is asked again."""
    trouble = None if follower.trouble is None else str(follower.trouble)
    if trouble is not None and told is None:
        tell(follower.trouble)
    return trouble


def _new(follower: Follower, news: News) -> list[Step]:
    new = {key: news.of(key, series) for key, series in follower.series.items()}
    return list(by_step({key: sorted(points, key=itemgetter(0)) for key, points in new.items()}))


def _write(steps: Iterable[Step], as_json: bool, names: Iterable[str], terminal: Terminal) -> None:
    for each in steps:
        if as_json:
            said = {"step": each.step, "time": moment(each.time), "metrics": each.metrics}
            write_json({name: said[name] for name in names})
        else:
            sys.stdout.write(_line(each, terminal) + "\n")
    sys.stdout.flush()


def _line(each: Step, terminal: Terminal) -> str:
    """For people with aligned steps and short numbers; in a pipe with tabs, and all digits."""
    if terminal.interactive:
        shown = "  ".join(f"{clean(key)}={number(value)}" for key, value in each.metrics.items())
        at = str(moment(each.time))[11:19]
        return f"{terminal.style(at, 'dim')} {each.step:>7}  {shown}"
    cells = [f"{clean(key)}={exact(value)}" for key, value in each.metrics.items()]
    return "\t".join([str(each.step), str(moment(each.time)), *cells])

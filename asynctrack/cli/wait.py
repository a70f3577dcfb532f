"""``asynctrack wait``: until a run's metrics fulfil a condition."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from asynctrack.cli.amounts import duration, number, seconds_of
from asynctrack.cli.asking import ask, named, open_store
from asynctrack.cli.conditions import Facts, parse
from asynctrack.cli.declaring import Argument, Option
from asynctrack.cli.options import Fields, NoLive, RunName, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import clean
from asynctrack.cli.verbs import FAILED, TIMED_OUT, verb
from asynctrack.clock import monotonic
from asynctrack.reading.follower import Follower
from asynctrack.stores.columns import Summary

if TYPE_CHECKING:
    from asynctrack.cli.conditions import Condition
    from asynctrack.stores.base import AbstractStore

__all__ = ["wait_for"]

_FIELDS = ("met", "ended", "status", "step", "values")
_command = verb(*_FIELDS)

#: seconds between two looks: at what is on this machine, and at a server
_EVERY, _EVERY_SERVER = 0.25, 2.0


@_command
def wait_for(
    run: RunName,
    condition: Annotated[
        str, Argument(metavar="CONDITION", help="'loss < 0.1', 'val/acc.max >= 0.9 and step >= 1000', 'ended'.")
    ],
    store: Store = None,
    timeout: Annotated[
        str | None, Option("--timeout", metavar="TIME", help="Give up after this time: 90, 30s, 5m, 1h30m.")
    ] = None,
    no_live: NoLive = False,
    fields: Fields = None,
) -> None:
    """Wait until a run's metrics fulfil a condition, or the run has ended.

    A condition compares the last value of a metric, or its .min, .max or
    .first, with a number: < <= > >= == !=. `step` is the run's largest step,
    `ended` is met when the run has ended, `and` joins several. A key with
    blanks stands in backticks.

    Exit status: 0 if it is met, 1 if the run has ended without, 2 for a
    condition that cannot be read, 3 if there is no such run, 124 if the time
    is up.
    """
    wanted = parse(condition)
    names = chosen_fields(fields, _FIELDS)
    limit = None if timeout is None else monotonic() + seconds_of(timeout)
    facts = _wait(open_store(store), run, wanted, limit, not no_live)
    met = wanted.met(facts)
    if fields is not None:
        said = {
            "met": met,
            "ended": facts.ended,
            "status": facts.status,
            "step": facts.step,
            "values": dict(wanted.values(facts)),
        }
        write_json({name: said[name] for name in names})
    if met:
        return
    values = ", ".join(f"{clean(text)} is {number(value)}" for text, value in wanted.values(facts))
    if facts.ended:
        print(
            f"asynctrack: {clean(run)} has ended ({facts.status}), and {values or 'nothing was met'}",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(FAILED)
    print(f"asynctrack: not met after {duration(seconds_of(timeout or '0'))}: {values}", file=sys.stderr, flush=True)
    raise SystemExit(TIMED_OUT)


def _wait(store: AbstractStore, run: str, wanted: Condition, limit: float | None, live: bool) -> Facts:
    """What is known of the run when the condition is met, the run has ended, or the time is up. A store that does not
    answer meanwhile is waited for."""
    found = named(store, run, live)
    keys = sorted(wanted.metrics()) if not wanted.needs_step else None
    follower = Follower(store, found.run.info.run_id, keys, live)
    every = _EVERY_SERVER if store.uri.startswith(("http", "databricks", "postgresql")) else _EVERY
    made: dict[str, Summary] = {}
    told = False
    while True:
        begun = monotonic()
        for key in ask(follower.look()):
            summary = Summary.of(follower.series[key].columns) if key in follower.series else None
            made.pop(key, None)
            if summary is not None:
                made[key] = summary
        if follower.trouble is not None and not told:
            told = True
            print(f"asynctrack: {clean(follower.trouble)}; waiting for it", file=sys.stderr, flush=True)
        step = max((each.latest.step for each in made.values()), default=None)
        facts = Facts(made, step, follower.ended, "UNKNOWN" if follower.run is None else follower.run.info.status)
        if wanted.met(facts) or facts.ended or (limit is not None and monotonic() >= limit):
            return facts
        pause = max(every, 4 * (monotonic() - begun))  # a look at a long run takes its time, and others work here, too
        time.sleep(pause if limit is None else max(min(pause, limit - monotonic()), 0.0))

"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Goal, Report

__all__ = ["Options", "default_cache", "machine", "run"]


class Options(NamedTuple):
    """How to measure. ``cache`` is the folder of the peers' virtual environments; ``peers`` which ones to measure, by
    name (None: all of them); ``large`` whether what needs tables of millions of rows is measured, too."""

    quick: bool
    cache: Path
    peers: list[str] | None
    large: bool = True


def default_cache() -> Path:
    """The user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "asynctrack-benchmarks")


def machine() -> str:
    """One line that says where the figures come from."""
    return (
        f"{_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {platform.system()} "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}, "
        f"asynctrack {importlib.metadata.version('asynctrack')}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(about: str | None, measure: Callable[[Options], Report]) -> None:
    """Measure as the command line says, and print. Ends the program with status 1 where a goal asked for is missed."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, and little more")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the peers' environments")
    parser.add_argument(
        "--peers", help="which peers to measure, by name, with commas (default: all, with --quick two; 'none')"
    )
    parser.add_argument("--no-large", action="store_true", help="leave out tables of millions of rows")
    parser.add_argument(
        "--check", nargs="*", metavar="NAME=LIMIT", help="status 1 where a goal (default: any) is missed"
    )
    parser.add_argument("--json", type=Path, help="write the findings there too")
    given = parser.parse_args()
    peers = None if given.peers is None else [name for name in given.peers.split(",") if name not in ("", "none")]
    where, when = machine(), datetime.date.today().isoformat()
    print(where, flush=True)
    report = measure(Options(given.quick, given.cache, peers, not given.no_large))
    report.machine, report.date, report.quick = where, when, given.quick
    for line in report.text():
        print(line)
    if given.json:
        report.save(given.json)
    if given.check is not None:
        missed = [goal for goal in _asked(report.goals, given.check, parser) if not goal.reached]
        sys.exit(1 if missed else 0)


def _asked(goals: list[Goal], check: Iterable[str], parser: argparse.ArgumentParser) -> list[Goal]:
    """The goals to check, with the limits given for them."""
    by_name = {goal.name: goal for goal in goals}
    asked = []
    for text in check:
        name, _, limit = text.partition("=")
        if name not in by_name:
            parser.error(f"--check {text}: the goals here are {', '.join(by_name) or 'none'}")
        goal = by_name[name]
        if limit:
            goal.limit = float(limit)
        asked.append(goal)
        print(f"checked: {goal.text()}")
    return asked or goals

"""Runs the benchmarks, each in a process of its own, and writes RESULTS.md with their tables, goals and plots.

Findings are kept as JSON beside the plots, so that one benchmark can be run again (``--only``) and the page still shows
all of them, each with its own date and machine. Takes about 35 minutes on two processors, and some more the first time,
when the peers are installed; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peers
from benchmarks.command import Options, default_cache
from benchmarks.plots import draw
from benchmarks.report import Report, figure_of

NAMES = (
    *("startup", "hot_path", "behind_mlflow", "file_store", "rest", "sql", "read", "view", "training", "cpu"),
    *("services", "memory", "recovery", "fleet", "soak"),
)
#: measured only where ``--only`` names it: it takes 40 minutes
ALONE = "soak"
#: seconds for one of them
LIMIT = 3000


def page(reports: list[Report]) -> Iterator[str]:
    """RESULTS.md, in pieces."""
    yield "# Results"
    yield (
        "Written by `python -m benchmarks`; what each figure means, and how it is measured, stands with its benchmark. "
        "Every ratio is between numbers of one run on one machine; absolute figures belong to that machine."
    )
    if any(report.quick for report in reports):
        yield "**Quick sizes: these figures show that the benchmarks work, and nothing else.**"
    machines = sorted({f"{report.date}: {report.machine}" for report in reports})
    yield "\n".join(f"- {line}" for line in machines)
    versions = {name: version for report in reports for name, version in report.versions.items()}
    if versions:
        yield "Measured beside: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "."
    yield "## Goals"
    rows = [
        f"| {report.name} | {goal.what} | {figure_of(goal.found)} {goal.unit} | {goal.wanted} | {goal.verdict} |"
        for report in reports
        for goal in report.goals
    ]
    yield "\n".join(["| benchmark | what | found | wanted | |", "|---|---|--:|--:|---|", *rows])
    for report in reports:
        yield f"## {report.title}"
        yield f"`python -m benchmarks.{report.name}`, {report.date}"
        yield report.about.strip()
        for chart in report.charts:
            yield f"![{chart.title}](results/{chart.name}.png)"
        for table in report.tables:
            yield table.markdown()
        if report.notes:
            yield "\n".join(f"- {note}" for note in dict.fromkeys(report.notes))


def run(name: str, out: Path, options: list[str]) -> bool:
    """Run one benchmark and keep its findings; whether it worked."""
    print(f"\n=== {name}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(out / f"{name}.json"), *options]
    try:
        worked = subprocess.run(command, timeout=LIMIT).returncode == 0
    except subprocess.TimeoutExpired:
        worked = False
    print(f"=== {name}: {time.monotonic() - begun:.0f} s{'' if worked else ', FAILED'}", flush=True)
    return worked


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, and little more")
    parser.add_argument("--no-large", action="store_true", help="leave out what needs tables of millions of rows")
    parser.add_argument(
        "--only",
        default=",".join(name for name in NAMES if name != ALONE),
        help=f"which benchmarks, with commas (default: all but {ALONE}, which takes 40 minutes)",
    )
    parser.add_argument("--peers", help="which peers, by name, with commas (default: all, with --quick two; 'none')")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the peers' environments")
    parser.add_argument(
        "--out", type=Path, help="folder for RESULTS.md (default: this one; for --quick a temporary one)"
    )
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := sorted(set(wanted) - set(NAMES)):
        parser.error(f"--only {','.join(unknown)}: the benchmarks are {', '.join(NAMES)}")
    out: Path = given.out or (
        Path(tempfile.mkdtemp(prefix="asynctrack-results-")) if given.quick else Path(__file__).parent
    )
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    names = None if given.peers is None else [name for name in given.peers.split(",") if name not in ("", "none")]
    peers.available(Options(given.quick, given.cache, names), [])  # installs, while nothing is measured
    options = ["--cache", str(given.cache)]
    options += ["--quick"] if given.quick else []
    options += ["--no-large"] if given.no_large else []
    options += ["--peers", given.peers] if given.peers is not None else []
    failed = [name for name in wanted if not run(name, results, options)]
    reports = [Report.load(results / f"{name}.json") for name in NAMES if (results / f"{name}.json").exists()]
    for report in reports:
        for chart in report.charts:
            draw(chart, results / f"{chart.name}.png")
    (out / "RESULTS.md").write_text("\n\n".join(page(reports)) + "\n")
    print(f"\nwritten: {out / 'RESULTS.md'}")
    missed = [f"{report.name}.{goal.name}" for report in reports for goal in report.goals if not goal.reached]
    print(f"goals missed: {', '.join(missed) or 'none'}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

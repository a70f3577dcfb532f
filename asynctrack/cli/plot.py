"""``asynctrack plot``: metrics of runs as charts, in the terminal or in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from asynctrack.cli.asking import named_all, open_store
from asynctrack.cli.declaring import Option
from asynctrack.cli.drawing import Axis, charts_of, chosen_keys, together
from asynctrack.cli.options import Fields, NoLive, NoPager, RunNames, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import Terminal, clean, page
from asynctrack.cli.verbs import verb
from asynctrack.constants import RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.plots.chart import Chart
    from asynctrack.reading.runs import FoundRun

__all__ = ["drawn", "plot_runs"]

_FIELDS = ("key", "x", "label", "points")
_command = verb(*_FIELDS)

#: charts that are drawn unasked; rows of one, and of one of several; points of a line in JSON
_CHARTS, _ROWS, _ROWS_OF_SEVERAL, _POINTS = 4, 20, 14, 100
_FILES = (".svg", ".png", ".html")


@_command
def plot_runs(
    runs: RunNames,
    keys: Annotated[
        list[str] | None,
        Option("--key", "-k", metavar="REGEX", help="These metrics, a chart each; default: the first four."),
    ] = None,
    store: Store = None,
    x: Annotated[
        str, Option("--x", metavar="X", help="step; time; relative (to each run's start); or a metric's key.")
    ] = "step",
    log_y: Annotated[bool, Option("--log-y", help="Logarithmic y axis.")] = False,
    log_x: Annotated[bool, Option("--log-x", help="Logarithmic x axis.")] = False,
    smooth: Annotated[
        float, Option("--smooth", metavar="W", help="Moving average; W from 0 to below 1, like 0.9.")
    ] = 0.0,
    low: Annotated[
        float | None, Option("--from", metavar="X", help="From this x on; seconds where x is a time.")
    ] = None,
    high: Annotated[float | None, Option("--to", metavar="X", help="Up to this x.")] = None,
    width: Annotated[
        int, Option("--width", metavar="N", min=0, help="Characters, or pixels of a file; 0: as fits.")
    ] = 0,
    height: Annotated[int, Option("--height", metavar="N", min=0, help="Rows, or pixels of a file; 0: as fits.")] = 0,
    watch: Annotated[bool, Option("--watch", "-w", help="Draw anew every second, until all runs ended.")] = False,
    file: Annotated[
        str | None, Option("--output", "-o", metavar="FILE", help="Write a .svg, .png or .html file instead.")
    ] = None,
    no_live: NoLive = False,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Draw metrics of runs. No spike is lost, however long the run is: each
    column shows the smallest and the largest value in it.

    Smoothing is done on all points. An HTML file has a chart for each metric
    and all points in it. --json prints points, with the smallest and the
    largest value of each stretch.

    Exit status: 0; 3 if a run or a metric is not there.
    """
    if not 0 <= smooth < 1:
        raise InvalidInputError(f"--smooth {smooth}: it must be from 0 to below 1")
    if file is not None and not file.lower().endswith(_FILES):
        raise InvalidInputError(f"--output {file}: it must end in {', '.join(_FILES)}")
    if file is not None and fields is not None:
        raise InvalidInputError("--json prints the points, and --output draws them into a file; give one")
    names = chosen_fields(fields, _FIELDS)
    opened = open_store(store)
    found = named_all(opened, runs, not no_live)
    axis = Axis(x, low, high, smooth, log_x, log_y)
    wanted = _keys(found, keys, x)
    if watch and fields is None and file is None:
        from asynctrack.cli.watching import watch as watch_it

        ids = [each.run.info.run_id for each in found]

        def draw(terminal: Terminal) -> str:
            found[:] = named_all(opened, ids, not no_live)
            rows = height or max((terminal.height - 2) // len(wanted) - 1, 6)
            return drawn(charts_of(opened, found, wanted, axis), terminal, width, rows)

        watch_it(draw, lambda: all(RunStatus.is_terminated(each.run.info.status) for each in found))
        return
    charts = charts_of(opened, found, wanted, axis)
    if fields is not None:
        write_json([{name: each[name] for name in names} for each in _points(charts)])
    elif file is not None:
        _write(charts, file, width or 960, height or 420)
    else:
        terminal = Terminal()
        rows = height or min(terminal.height - 3, _ROWS if len(charts) == 1 else _ROWS_OF_SEVERAL)
        page(drawn(charts, terminal, width, rows), terminal, not no_pager)


def _keys(found: Sequence[FoundRun], patterns: list[str] | None, x: str) -> list[str]:
    there = {key for each in found for key in each.run.data.metrics}
    if x not in ("step", "time", "relative") and x not in there:
        raise InvalidInputError(
            f"--x {x}: it must be step, time, relative or a metric; there are {', '.join(sorted(there)[:10])}"
        )
    if patterns:
        return chosen_keys(there, patterns)
    if not there:
        raise NotFoundError("there is nothing to draw: no metric was logged")
    wanted = sorted(there - {x}) or [x]
    if len(wanted) > _CHARTS:
        left = ", ".join(clean(key) for key in wanted[_CHARTS : _CHARTS + 10])
        print(f"{len(wanted) - _CHARTS} more metrics, which -k draws: {left}", file=sys.stderr, flush=True)
    return wanted[:_CHARTS]


def drawn(charts: Sequence[Chart], terminal: Terminal, width: int, rows: int) -> str:
    """The charts as text."""
    wide, ascii_only = width or terminal.width, not terminal.unicode
    return "\n\n".join(each.text(wide, rows, colour=terminal.colour, ascii_only=ascii_only) for each in charts) + "\n"


def _points(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    from asynctrack.reading.sampling import sampled

    said = []
    for chart in charts:
        for line in chart.lines:
            low, high = min(line.x, default=0.0), max(line.x, default=0.0)
            kept = sampled(line.x, line.y, _POINTS, low, high)
            points = [(line.x[at], line.y[at]) for at in kept]
            said.append({"key": chart.title, "x": chart.x_label, "label": line.label, "points": points})
    return said


def _write(charts: Sequence[Chart], path: str, width: int, height: int) -> None:
    from asynctrack.plots.chart import Charts

    whole = Charts(charts if path.lower().endswith(".html") else [together(charts)])
    try:
        whole.save(path, width, height)
    except OSError as error:
        raise InvalidInputError(f"--output {path}: {error.strerror or error}") from None
    except ImportError as error:
        raise InvalidInputError(str(error)) from None
    print(f"{path}: {os.path.getsize(path):,} bytes", file=sys.stderr, flush=True)

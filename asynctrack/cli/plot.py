"""``asynctrack plot``: metrics of runs as charts, in the terminal or in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from asynctrack.cli.asking import labels_of, named_all, open_store
from asynctrack.cli.drawing import Axis, chosen_keys, extremes, lines_of, smoothed
from asynctrack.cli.options import Fields, NoLive, NoPager, RunNames, Store, chosen_fields
from asynctrack.cli.output import write_json
from asynctrack.cli.terminal import Terminal, clean, page
from asynctrack.cli.verbs import verb
from asynctrack.constants import RunStatus
from asynctrack.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from asynctrack.cli.standin import FoundRun
    from asynctrack.plots.lines import Line
    from asynctrack.stores.base import AbstractStore

__all__ = ["app", "plot_runs"]

_FIELDS = ("key", "x", "label", "points")
app, _command = verb(*_FIELDS)

#: charts that are drawn unasked; rows of one, and of one of several; points of a line in JSON
_CHARTS, _ROWS, _ROWS_OF_SEVERAL, _POINTS = 4, 20, 14, 100
_FILES = (".svg", ".png", ".html")


class _Chart(NamedTuple):
    """What is to be drawn of which runs."""

    store: AbstractStore
    runs: Sequence[FoundRun]
    keys: Sequence[str]
    axis: Axis
    log_x: bool
    log_y: bool

    def lines(self, keys: Sequence[str]) -> tuple[list[Line], str]:
        return lines_of(self.store, self.runs, labels_of(self.runs), keys, self.axis)


@_command
def plot_runs(
    runs: RunNames,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", "-k", metavar="REGEX", help="These metrics, a chart each; default: the first four."),
    ] = None,
    store: Store = None,
    x: Annotated[
        str, typer.Option("--x", metavar="X", help="step; time; relative (to each run's start); or a metric's key.")
    ] = "step",
    log_y: Annotated[bool, typer.Option("--log-y", help="Logarithmic y axis.")] = False,
    log_x: Annotated[bool, typer.Option("--log-x", help="Logarithmic x axis.")] = False,
    smooth: Annotated[
        float, typer.Option("--smooth", metavar="W", help="Moving average; W from 0 to below 1, like 0.9.")
    ] = 0.0,
    low: Annotated[float | None, typer.Option("--from", metavar="X", help="Show x from here on.")] = None,
    high: Annotated[float | None, typer.Option("--to", metavar="X", help="Show x up to here.")] = None,
    width: Annotated[
        int, typer.Option("--width", metavar="N", min=0, help="Characters, or pixels of a file; 0: all there is.")
    ] = 0,
    height: Annotated[int, typer.Option("--height", metavar="N", min=0, help="Rows, or pixels of a file.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Draw anew every second, until all runs ended.")] = False,
    file: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write a .svg, .png or .html file instead.")
    ] = None,
    no_live: NoLive = False,
    fields: Fields = None,
    no_pager: NoPager = False,
) -> None:
    """Draw metrics of runs. No spike is lost, however long the run: each column
    shows the smallest and the largest value in it.

    Smoothing is done on all points. With --json the points themselves, with
    the smallest and the largest of each stretch.

    Exit status: 0; 3 if a run or a metric is not there.
    """
    smoothed((), smooth)  # says what it must be, before anything is read
    if file is not None and not file.lower().endswith(_FILES):
        raise InvalidInputError(f"--output {file}: it must end in {', '.join(_FILES)}")
    names = chosen_fields(fields, _FIELDS)
    opened = open_store(store)
    found = named_all(opened, runs, not no_live)
    axis = Axis(x, low, high, smooth)
    chart = _Chart(opened, found, _keys(found, keys, x), axis, log_x, log_y)
    if fields is not None:
        _write_points(chart, names)
    elif file is not None:
        _write_file(chart, file, width, height)
    elif watch:
        from asynctrack.cli.watching import watch as watch_it

        ids = [each.run.info.run_id for each in found]

        def draw(terminal: Terminal) -> str:
            nonlocal chart
            chart = chart._replace(runs=named_all(opened, ids, not no_live))
            return _draw(chart, terminal, width, height or max((terminal.height - 2) // len(chart.keys), 6))

        watch_it(draw, lambda: all(RunStatus.is_terminated(each.run.info.status) for each in chart.runs))
    else:
        terminal = Terminal()
        page(_draw(chart, terminal, width, height), terminal, not no_pager)


def _keys(found: Sequence[FoundRun], patterns: list[str] | None, x: str) -> list[str]:
    there = {key for each in found for key in each.run.data.metrics}
    if x not in ("step", "time", "relative") and x not in there:
        raise InvalidInputError(f"--x {x}: it must be step, time, relative or a metric; there are {sorted(there)[:10]}")
    if patterns:
        return chosen_keys(there, patterns)
    if not there:
        raise NotFoundError("there is nothing to draw: no metric was logged")
    wanted = sorted(there - {x}) or [x]
    if len(wanted) > _CHARTS:
        left = ", ".join(clean(key) for key in wanted[_CHARTS : _CHARTS + 10])
        print(f"{len(wanted) - _CHARTS} more metrics, which -k draws: {left}", file=sys.stderr)
    return wanted[:_CHARTS]


def _draw(chart: _Chart, terminal: Terminal, width: int, height: int) -> str:
    from asynctrack.plots.braille import draw

    drawn = []
    for key in chart.keys:
        lines, x_label = chart.lines([key])
        drawn.append(
            draw(
                [line._replace(label=clean(line.label)) for line in lines],
                width or terminal.width,
                height or min(terminal.height - 3, _ROWS if len(chart.keys) == 1 else _ROWS_OF_SEVERAL),
                log_x=chart.log_x,
                log_y=chart.log_y,
                colour=terminal.colour,
                ascii_only=not terminal.unicode,
                title=clean(key),
                x_label=clean(x_label),
            )
        )
    return "\n\n".join(text.rstrip("\n") for text in drawn) + "\n"


def _write_points(chart: _Chart, names: Sequence[str]) -> None:
    said: list[dict[str, Any]] = []
    for key in chart.keys:
        lines, x_label = chart.lines([key])
        for line in lines:
            points = extremes(line.x, line.y, _POINTS)
            whole = {"key": key, "x": x_label, "label": line.label, "points": points}
            said.append({name: whole[name] for name in names})
    write_json(said)


def _write_file(chart: _Chart, path: str, width: int, height: int) -> None:
    from asynctrack.stores.io import write_file_atomically

    kind = os.path.splitext(path)[1].lower()
    size = {"width": width or 720, "height": height or 360}
    logs = {"log_x": chart.log_x, "log_y": chart.log_y}
    if kind == ".html":
        data = _html(chart, size, logs).encode()
    else:
        lines, x_label = chart.lines(chart.keys)
        title = ", ".join(chart.keys)
        if kind == ".svg":
            from asynctrack.plots import svg

            data = svg.draw(lines, **size, **logs, title=title, x_label=x_label).encode()
        else:
            from asynctrack.plots import png

            data = png.draw(lines, **size, **logs, title=title, x_label=x_label)
    try:
        write_file_atomically(path, data, durable=False)
    except OSError as error:
        raise InvalidInputError(f"--output {path}: {error.strerror or error}") from None
    print(f"{path}: {len(data):,} bytes", file=sys.stderr)


def _html(chart: _Chart, size: dict[str, int], logs: dict[str, bool]) -> str:
    raise NotImplementedError

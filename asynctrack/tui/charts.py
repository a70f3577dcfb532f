"""The charts of `asynctrack top`, as text."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asynctrack.cli.amounts import moment, number
from asynctrack.cli.terminal import cell_width, clean, cut, pad
from asynctrack.plots import braille
from asynctrack.plots.lines import Line, frame_of
from asynctrack.reading.means import means_of, named
from asynctrack.reading.table import History, Piece
from asynctrack.ui.charts import x_of
from asynctrack.ui.grid import ema

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.ui.tapes import Points

__all__ = ["Asked", "beside", "bounds_of", "chart", "colours_of_groups", "in_a_grid"]

#: the least a chart takes that says something
LEAST_WIDTH, LEAST_HEIGHT = 36, 9
_GREY = 7
#: seconds from which on an axis of time is in hours or minutes, and their length
_UNITS = (("h", 7200.0, 3600.0), ("min", 300.0, 60.0))


class Asked(NamedTuple):
    """How charts are drawn. ``x``: "step", "relative" (seconds since each run began) or "time" (seconds since the first
    of them began). ``zoom``: from where to where. ``group``: as in `asynctrack.tui.state.View`. ``plain``: nothing but
    ASCII."""

    x: str = "step"
    zoom: tuple[float, float] | None = None
    smoothing: float = 0.0
    group: str | None = None
    colour: bool = True
    plain: bool = False


def beside(width: int, height: int, columns: int = 0, rows: int = 0) -> tuple[int, int]:
    """How many charts stand beside, and above, one another; ``columns`` and ``rows`` are what was asked for, 0 for as
    many as fit. Pure."""
    return (
        max(min(columns or width // LEAST_WIDTH, width // 21), 1),
        max(min(rows or height // LEAST_HEIGHT, height // 6), 1),
    )


def _x(kind: str, run: Run, points: Mapping[str, Points], key: str, begun: int) -> Any:
    x = x_of(kind, run, points, key)
    if kind == "time":
        return (x - begun) / 1000
    if kind == "step" and len(x) > 1 and x[0] == x[-1] and bool((x == x[0]).all()):
        return np.arange(len(x), dtype=np.float64)  # no steps were given
    return x


def _begun(runs: Sequence[Run]) -> int:
    return min((run.info.start_time for run in runs), default=0)


def bounds_of(
    asked: Asked, keys: Sequence[str], runs: Sequence[Run], points: Mapping[str, Mapping[str, Points]]
) -> tuple[float, float]:
    """From where to where x goes in some charts; (0, 1) where there is nothing. Pure."""
    low, high = math.inf, -math.inf
    for run in runs:
        its = points.get(run.info.run_id, {})
        for key in keys:
            if key in its and len(its[key].values):
                x = _x(asked.x, run, its, key, _begun(runs))
                low, high = min(low, float(x.min())), max(high, float(x.max()))
    return (low, high) if low < high else (0.0, 1.0)


def chart(
    key: str,
    runs: Sequence[Run],
    points: Mapping[str, Mapping[str, Points]],
    asked: Asked,
    colours: Mapping[str, int],
    width: int,
    height: int,
    *,
    log_y: bool = False,
    focused: bool = False,
) -> list[str]:
    """The lines of a chart, each so wide. Every column shows the smallest and the largest value in it. Pure."""
    there = [run for run in runs if key in points.get(run.info.run_id, {})]
    if asked.group is not None:
        lines = _mean_lines(key, there, points, asked, colours)
    else:
        lines = []
        for run in there:
            its = points[run.info.run_id]
            x = _x(asked.x, run, its, key, _begun(runs))
            lines.append(_line(x, its[key].smoothed(asked.smoothing), asked.zoom, colours.get(run.info.run_id, 0)))
    marked = focused and not asked.colour
    title = "> " * marked + _title(key, there, points, lines, asked, log_y, width - 2 * marked)
    if not any(len(line.y) for line in lines):
        note = "no points here" if there else "reading..." if asked.plain else "reading…"
        shown = [title, *[""] * (height // 2 - 1), note.center(width)]
    else:
        lines, label = _in_units(lines, asked.x)
        text = braille.draw(
            lines, width, height - 1, log_y=log_y, colour=asked.colour, ascii_only=asked.plain, x_label=label,
            legend=False,
        )  # fmt: skip
        shown = [title, *text.split("\n")]
    if asked.colour:
        shown[0] = f"\x1b[{7 if focused else 1}m{pad(title, width)}\x1b[0m"
    return [pad(line, width) for line in (*shown, *[""] * height)][:height]


def _line(x: Any, y: Any, zoom: tuple[float, float] | None, colour: int) -> Line:
    if zoom is not None:
        inside = (x >= zoom[0]) & (x <= zoom[1])
        x, y = x[inside], y[inside]
    # Arrays of Python's own: looping over NumPy's takes three times as long.
    return Line("", _array(x), _array(y), colour)


def _array(values: Any) -> array[float]:
    return array("d", np.ascontiguousarray(values, np.float64).tobytes())


def group_of(run: Run, name: str) -> str:
    """The group of a run whose runs have a param or tag in common; "": all runs are one."""
    return named(run, [name]) if name else "all runs"


def colours_of_groups(runs: Sequence[Run], name: str) -> dict[str, int]:
    """The place in the palette of each run's group, by the run's id."""
    names = sorted({group_of(run, name) for run in runs})
    # The grey one is what deviations are drawn with.
    return {run.info.run_id: names.index(group_of(run, name)) % _GREY for run in runs}


def _mean_lines(
    key: str,
    runs: Sequence[Run],
    points: Mapping[str, Mapping[str, Points]],
    asked: Asked,
    colours: Mapping[str, int],
) -> list[Line]:
    """The mean at each step, and one deviation above and below it, of each group; the means last, above the others."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(group_of(run, asked.group or ""), []).append(run)
    means: list[Line] = []
    deviations: list[Line] = []
    for its in members.values():
        history = History([Piece(run, key, points[run.info.run_id][key].series) for run in its])
        for group in means_of(history, (), ()).groups:
            steps = np.frombuffer(group.steps, np.int64).astype(np.float64)
            mean, std = np.frombuffer(group.means), np.nan_to_num(np.frombuffer(group.stds), nan=0.0)
            for lines, values, colour in (
                (deviations, mean - std, _GREY),
                (deviations, mean + std, _GREY),
                (means, mean, colours.get(its[0].info.run_id, 0)),
            ):
                lines.append(_line(steps, ema(values, asked.smoothing), asked.zoom, colour))
    return [*deviations, *means]


def _in_units(lines: list[Line], x: str) -> tuple[list[Line], str]:
    """Seconds as minutes or hours, where there are many."""
    if x == "step":
        return lines, "step"
    most = max(max(line.x) for line in lines if len(line.x))
    unit, length = next(((name, length) for name, least, length in _UNITS if most >= least), ("s", 1.0))
    return [line._replace(x=array("d", (x / length for x in line.x))) for line in lines], unit


def _title(
    key: str,
    runs: Sequence[Run],
    points: Mapping[str, Mapping[str, Points]],
    lines: Sequence[Line],
    asked: Asked,
    log_y: bool,
    width: int,
) -> str:
    """The key, and at the right what a drawing does not say: the last value or the extremes, and odd values."""
    more = "~" if asked.plain else "…"
    frame = frame_of(lines, log_y=log_y)
    parts = [f"{count:,} {what}" for count, what in ((frame.nans, "NaN"), (frame.infs, "Inf")) if count]
    if frame.left_out:
        parts.append(f"{frame.left_out:,} <= 0")
    parts += ["log y"] if log_y else []
    parts += [f"smooth {asked.smoothing:g}"] if asked.smoothing else []
    if asked.group is not None:
        parts.append(f"mean of {len(runs)}" + (f" by {cut(clean(asked.group), 16, more)}" if asked.group else ""))
    if len(runs) == 1:
        parts.append(number(float(points[runs[0].info.run_id][key].values[-1])))
    right = ", ".join(parts)
    name = clean(key)
    if right and cell_width(name) + cell_width(right) + 2 > width:
        name = cut(name, max(width - cell_width(right) - 2, width // 3), more)
    if not right:
        return cut(name, width, more)
    return cut(name + " " * max(width - cell_width(name) - cell_width(right), 2) + right, width, more)


def in_a_grid(cells: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Blocks of lines beside and below one another, two blanks between them. Pure."""
    lines = []
    for at in range(0, len(cells), columns):
        row = cells[at : at + columns]
        lines += ["  ".join(parts) for parts in zip(*row, strict=True)]
    return lines


def since(asked: Asked, runs: Sequence[Run]) -> str:
    """What x is, in words. Pure."""
    if asked.x == "time":
        return f"since {moment(_begun(runs))}"
    return "since each run's start" if asked.x == "relative" else "step"

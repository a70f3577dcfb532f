"""What `asynctrack top` shows, and what each key changes of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.stores import search

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.reading.runs import FoundRun

__all__ = ["HELP", "There", "View", "after", "group_names", "is_system", "matching", "matching_keys"]

Pane = Literal["runs", "charts", "about"]

#: runs that are drawn unasked: those that are alive, else the latest
_MOST_ALIVE, _MOST_LATEST = 10, 5
_SMOOTHING = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
#: params and tags that runs are grouped by, at most
_MOST_NAMES = 30
_AXES = ("step", "relative", "time")
#: what a zoom, and a step to the side, is of the width that is seen
_ZOOM, _ASIDE = 0.5, 0.25

HELP = (
    ("j k ↓ ↑", "next, previous run, chart or line"),
    ("h l ← →", "chart to the left, to the right"),
    ("PgDn PgUp n N", "next, previous page"),
    ("Home End", "first, last"),
    ("Tab", "runs, charts, overview"),
    ("Space", "draw this run as well, or not"),
    ("Enter", "runs: draw only this run; charts: one chart alone"),
    ("Esc", "back"),
    ("/", "metrics whose key matches a regular expression"),
    ("f", "runs by name (a regular expression) or by MLflow's filter"),
    ("Ctrl+L Ctrl+F", "all metrics, all runs again"),
    ("1 2 [ ]", "charts, system metrics, runs, overview: show or hide"),
    ("c r", "columns, rows of charts; then a digit, 0 for as many as fit"),
    ("y", "logarithmic y axis"),
    ("x", "x axis: step, since each run's start, time"),
    ("s S", "smooth more, less"),
    ("g G", "mean and deviation: of all drawn runs, by a param or tag"),
    ("+ -", "zoom in at the end of x, out"),
    ("< >", "earlier, later"),
    ("0", "no zoom, as many charts as fit"),
    ("e", "the command that writes what is drawn to a file"),
    ("? q", "this help; quit"),
)


class There(NamedTuple):
    """What there is to choose from: the ids of the runs that are listed, and which of them are alive; the keys of the
    metrics that are listed; how many charts stand on a page, and beside one another; the rows of the runs' pane; from
    where to where x goes."""

    runs: Sequence[str]
    alive: Sequence[str]
    keys: Sequence[str]
    per_page: int = 1
    beside: int = 1
    rows: int = 10
    x: tuple[float, float] = (0.0, 1.0)
    names: Sequence[str] = ()


class View(NamedTuple):
    """What is shown. ``chosen``: the runs that are drawn; None: those that are alive, else the latest. ``cursor``,
    ``chart``: the run and the metric that keys act on; None: the first. ``alone``: one chart fills the screen.
    ``group``: None for a line for each run, "" for their mean, or the param or tag whose values have a mean each.
    ``asking``: "c" or "r", for whose digit is waited. ``columns``, ``rows``: of charts, 0 for as many as fit. ``zoom``:
    the x to show. ``below``: lines of the overview that are above its upper edge."""

    focus: Pane = "runs"
    panes: frozenset[Pane] = frozenset({"runs", "charts"})
    chosen: tuple[str, ...] | None = None
    cursor: str | None = None
    chart: str | None = None
    alone: bool = False
    runs_filter: str = ""
    keys_filter: str = ""
    system: bool = True
    x: str = "step"
    log_y: frozenset[str] = frozenset()
    smoothing: float = 0.0
    group: str | None = None
    zoom: tuple[float, float] | None = None
    columns: int = 0
    rows: int = 0
    asking: str = ""
    help: bool = False
    below: int = 0

    def drawn(self, there: There) -> list[str]:
        """The ids of the runs that are drawn."""
        if self.chosen is not None:
            return list(self.chosen)
        return list(there.alive[:_MOST_ALIVE] or there.runs[:_MOST_LATEST])

    def run(self, there: There) -> str | None:
        """The run that keys act on."""
        return self.cursor if self.cursor in there.runs else next(iter(there.runs), None)

    def key(self, there: There) -> str | None:
        """The metric that keys act on."""
        return self.chart if self.chart in there.keys else next(iter(there.keys), None)

    def page(self, there: There) -> list[str]:
        """The keys whose charts are on the screen."""
        key = self.key(there)
        if key is None or "charts" not in self.panes:
            return []
        if self.alone:
            return [key]
        first = there.keys.index(key) // there.per_page * there.per_page
        return list(there.keys[first : first + there.per_page])


def matching(found: Sequence[FoundRun], text: str) -> list[FoundRun]:
    """The runs that MLflow's filter selects; where the text is none, those in whose name or id the regular expression
    is found."""
    if not text.strip():
        return list(found)
    try:
        clauses = search.parse_run_filter(text)
    except InvalidInputError:
        is_met = _finder(text)
        return [each for each in found if is_met(f"{each.run.info.run_name or ''} {each.run.info.run_id}")]
    return [each for each in found if search.matches(clauses, search.run_getter(each.run))]


def matching_keys(keys: Sequence[str], text: str, system: bool) -> list[str]:
    """The keys in which the regular expression is found, those of system metrics last, or not at all."""
    is_met = _finder(text)
    found = [key for key in keys if is_met(key)]
    usual = [key for key in found if not is_system(key)]
    return [*usual, *(key for key in found if is_system(key))] if system else usual


def is_system(key: str) -> bool:
    """Whether a metric tells of the machine."""
    return key.startswith("system/")


def _finder(text: str) -> Callable[[str], object]:
    """Finds the regular expression, whatever its case; or the text itself while it is none, as when it is typed."""
    try:
        return re.compile(text, re.IGNORECASE).search
    except re.error:
        return lambda other: text.lower() in other.lower()


# ── keys


def after(view: View, key: str, there: There) -> View:
    """The view after a key: the character that it types, or its name, as "pageup". What means nothing changes
    nothing."""
    if view.help:
        return view._replace(help=False)
    if view.asking:
        answered = view._replace(asking="")
        if not (key.isascii() and key.isdecimal()):
            return answered
        return answered._replace(columns=int(key)) if view.asking == "c" else answered._replace(rows=int(key))
    change = _KEYS.get(_SAME.get(key, key))
    return view if change is None else change(view, there)


def _move(by: int, page: bool = False) -> Callable[[View, There], View]:
    def change(view: View, there: There) -> View:
        if view.focus == "about":
            return view._replace(below=max(view.below + by * (there.rows if page else 1), 0))
        if view.focus == "runs":
            at = _moved(there.runs, view.run(there), by * (there.rows if page else 1))
            return view._replace(cursor=at, below=0)
        if view.alone:
            return _on_chart(view, there, by)
        return _on_chart(view, there, by * (there.per_page if page else there.beside))

    return change


def _aside(by: int) -> Callable[[View, There], View]:
    def change(view: View, there: There) -> View:
        return _on_chart(view, there, by) if view.focus == "charts" else _turned(by)(view, there)

    return change


def _turned(by: int) -> Callable[[View, There], View]:
    """To another page, also while another pane has the keys."""

    def change(view: View, there: There) -> View:
        return _on_chart(view, there, by * (1 if view.alone else there.per_page))

    return change


def _on_chart(view: View, there: There, by: int) -> View:
    return view._replace(chart=_moved(there.keys, view.key(there), by))


def _moved(names: Sequence[str], name: str | None, by: int) -> str | None:
    if name is None:
        return None
    return names[min(max(names.index(name) + by, 0), len(names) - 1)]


def _to_end(at: int) -> Callable[[View, There], View]:
    def change(view: View, there: There) -> View:
        if view.focus == "about":
            return view._replace(below=0 if at == 0 else 10**6)
        if view.focus == "runs":
            return view._replace(cursor=there.runs[at] if there.runs else None)
        return view._replace(chart=there.keys[at] if there.keys else None)

    return change


def _focus(by: int) -> Callable[[View, There], View]:
    def change(view: View, _: There) -> View:
        order: list[Pane] = [pane for pane in ("runs", "charts", "about") if pane in view.panes]
        if not order:
            return view
        at = order.index(view.focus) if view.focus in order else 0
        return view._replace(focus=order[(at + by) % len(order)])

    return change


def _toggled(pane: Pane) -> Callable[[View, There], View]:
    def change(view: View, there: There) -> View:
        panes = view.panes ^ {pane}
        if not panes & {"runs", "charts"}:
            return view  # something has to be there
        view = view._replace(panes=panes, alone=view.alone and "charts" in panes)
        return view if view.focus in panes else _focus(1)(view, there)

    return change


def _chosen(view: View, there: There) -> View:
    run = view.run(there)
    if run is None or view.focus != "runs":
        return view
    drawn = view.drawn(there)
    chosen = [each for each in drawn if each != run] if run in drawn else [*drawn, run]
    return view._replace(chosen=tuple(chosen))


def _entered(view: View, there: There) -> View:
    run = view.run(there)
    if view.focus == "charts":
        return view._replace(alone=not view.alone)
    if run is None or view.focus != "runs":
        return view
    return view._replace(chosen=(run,), focus="charts" if "charts" in view.panes else "runs")


def _back(view: View, _: There) -> View:
    if view.alone:
        return view._replace(alone=False)
    if view.focus != "runs" and "runs" in view.panes:
        return view._replace(focus="runs")
    return view._replace(chosen=None)


def _logged(view: View, there: There) -> View:
    key = view.key(there)
    if key is None:
        return view
    keys = {key} if view.focus == "charts" else set(there.keys)
    on = not keys <= view.log_y
    return view._replace(log_y=view.log_y | keys if on else view.log_y - keys)


def _smoothed(by: int) -> Callable[[View, There], View]:
    def change(view: View, _: There) -> View:
        at = _SMOOTHING.index(view.smoothing) + by
        return view._replace(smoothing=_SMOOTHING[min(max(at, 0), len(_SMOOTHING) - 1)])

    return change


def _zoomed(view: View, there: There) -> View:
    low, high = view.zoom or there.x
    return view._replace(zoom=(high - (high - low) * _ZOOM, high))


def _zoomed_out(view: View, there: There) -> View:
    if view.zoom is None:
        return view
    low, high = view.zoom
    wider = max(high - (high - low) / _ZOOM, there.x[0]), high
    return view._replace(zoom=None if wider[0] <= there.x[0] and high >= there.x[1] else wider)


def _shifted(by: int) -> Callable[[View, There], View]:
    def change(view: View, there: There) -> View:
        if view.zoom is None:
            return view
        low, high = view.zoom
        way = by * (high - low) * _ASIDE
        way = max(way, there.x[0] - low) if by < 0 else min(way, max(there.x[1] - high, 0.0))
        return view._replace(zoom=(low + way, high + way))

    return change


def _grouped(by: int) -> Callable[[View, There], View]:
    """No groups, all runs, then by each name."""

    def change(view: View, there: There) -> View:
        choices: list[str | None] = [None, "", *there.names]
        at = choices.index(view.group) if view.group in choices else 0
        # Groups have steps for x.
        zoom = view.zoom if view.x == "step" else None
        return view._replace(group=choices[(at + by) % len(choices)], zoom=zoom)

    return change


def group_names(runs: Sequence[Run]) -> list[str]:
    """The params, then the tags, in which some runs differ, and that are not different in each of them."""
    found = []
    for kind in ("params", "tags"):
        its = [getattr(run.data, kind) for run in runs]
        for name in sorted({name for each in its for name in each if not name.startswith(("mlflow.", "asynctrack."))}):
            values = {each.get(name) for each in its}
            if 1 < len(values) < max(len(runs), 3):
                found.append(name)
    return list(dict.fromkeys(found))[:_MOST_NAMES]


def _reset(view: View, _: There) -> View:
    return view._replace(zoom=None, columns=0, rows=0)


_SAME = {
    "down": "j", "up": "k", "left": "h", "right": "l", "pagedown": "n", "pageup": "N", "=": "+", "_": "-", ",": "<",
    ".": ">",
}  # fmt: skip
_KEYS: dict[str, Callable[[View, There], View]] = {
    "j": _move(1),
    "k": _move(-1),
    "h": _aside(-1),
    "l": _aside(1),
    "n": _move(1, page=True),
    "N": _move(-1, page=True),
    "home": _to_end(0),
    "end": _to_end(-1),
    "tab": _focus(1),
    "shift+tab": _focus(-1),
    " ": _chosen,
    "enter": _entered,
    "escape": _back,
    "ctrl+l": lambda view, _: view._replace(keys_filter=""),
    "ctrl+f": lambda view, _: view._replace(runs_filter=""),
    "1": _toggled("charts"),
    "2": lambda view, _: view._replace(system=not view.system),
    "[": _toggled("runs"),
    "]": _toggled("about"),
    "c": lambda view, _: view._replace(asking="c"),
    "r": lambda view, _: view._replace(asking="r"),
    "y": _logged,
    "x": lambda view, _: view._replace(x=_AXES[(_AXES.index(view.x) + 1) % len(_AXES)], zoom=None),
    "s": _smoothed(1),
    "S": _smoothed(-1),
    "g": _grouped(1),
    "G": _grouped(-1),
    "+": _zoomed,
    "-": _zoomed_out,
    "<": _shifted(-1),
    ">": _shifted(1),
    "0": _reset,
    "?": lambda view, _: view._replace(help=True),
}

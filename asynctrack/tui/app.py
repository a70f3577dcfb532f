"""The full screen of `asynctrack top`: it shows what the watcher finds, and gives keys to the state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textual.app import App, ComposeResult
from textual.widgets import Input

from asynctrack.clock import monotonic
from asynctrack.plots.palette import places_of
from asynctrack.tui import charts, panes
from asynctrack.tui.panes import Pen
from asynctrack.tui.picture import Picture
from asynctrack.tui.state import There, View, after, group_names, matching, matching_keys
from asynctrack.tui.watcher import Shot, Watcher

if TYPE_CHECKING:
    from textual.events import Key, Resize

    from asynctrack.entities import Run
    from asynctrack.reading.runs import FoundRun

__all__ = ["Top"]

#: seconds between two pictures at least, and the longest time for which one is kept
_FRAME, _OLD = 0.1, 1.0
_HINT = "? help  q quit  j/k move  Space draw  Enter alone  Tab pane  / metrics  f runs  [ ] 1 panes"
_PROMPTS = {"/": "metrics (regular expression)", "f": "runs (regular expression, or MLflow's filter)"}


class Top(App[None]):
    """``uri`` is what the header says of the store."""

    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #prompt { display: none; height: 1; border: none; padding: 0; background: ansi_default; color: ansi_default; }
    #prompt:focus { border: none; }
    """
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None

    def __init__(self, watcher: Watcher, uri: str, pen: Pen) -> None:
        super().__init__(ansi_color=True)
        self.view = View()
        self._watcher, self._uri, self._pen = watcher, uri, pen
        self._there = There((), (), ())
        self._asked_for = ""
        self._drawn: tuple[Any, ...] | None = None
        self._drawn_at = 0.0
        self._cells: dict[str, tuple[Any, list[str]]] = {}
        self._said = ""
        # Not looked up when they are needed: what is still to come while the app closes finds no widget any more.
        self._shown, self._prompt = Picture(), Input(id="prompt")

    def compose(self) -> ComposeResult:
        yield self._shown
        yield self._prompt

    def on_mount(self) -> None:
        self._watcher.start()
        self.set_interval(_FRAME, self.redraw)

    def on_unmount(self) -> None:
        self._watcher.stop()

    # ── keys

    async def on_event(self, event: Any) -> None:
        """Every key is ours, but for those that a prompt takes."""
        from textual.events import Key

        if isinstance(event, Key) and not event.is_forwarded and event.key == "ctrl+c":
            self.exit()
        elif isinstance(event, Key) and not event.is_forwarded and not self._asked_for:
            self._press(event)
        else:
            await super().on_event(event)

    def _press(self, event: Key) -> None:
        key = event.character if event.is_printable and event.character else event.key
        self._said = ""
        if not (self.view.help or self.view.asking):
            if key in _PROMPTS:
                self._ask(key)
                return
            if key == "q":
                self.exit()
            if key == "e":
                self._said = _command(self.view, self._there, self._uri)
        self.view = after(self.view, key, self._there)
        self.redraw()

    def _ask(self, what: str) -> None:
        self._asked_for = what
        prompt = self._prompt
        prompt.value = self.view.keys_filter if what == "/" else self.view.runs_filter
        prompt.placeholder = _PROMPTS[what]
        prompt.display = True
        prompt.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """What is typed is looked for at once."""
        if self._asked_for == "/":
            self.view = self.view._replace(keys_filter=event.value)
        elif self._asked_for == "f":
            self.view = self.view._replace(runs_filter=event.value)
        self.redraw()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._close_prompt()

    def key_escape(self) -> None:
        """Only a prompt lets it come here."""
        self._close_prompt()

    def _close_prompt(self) -> None:
        self._asked_for = ""
        self._prompt.display = False
        self.set_focus(None)
        self.redraw()

    def on_resize(self, _: Resize) -> None:
        self.call_after_refresh(self.redraw)

    # ── the picture

    def redraw(self) -> None:
        """Draw what has changed; what has not is drawn once a second, for what it says of time."""
        if self._watcher.failure is not None:
            self.exit()  # who has started it says why
            return
        shot, picture = self._watcher.shot, self._shown
        size = picture.size.width, picture.size.height
        state = (
            self.view, size, shot.runs, shot.keys, shot.points, self._said, self._asked_for,
            shot.news and shot.news._replace(behind=0.0, version=0, keys=[]),
        )  # fmt: skip
        before, now = self._drawn, monotonic()
        is_same = (
            before is not None and state[:2] == before[:2] and state[5:] == before[5:] and _same_data(state, before)
        )
        if (is_same and now < self._drawn_at + _OLD) or min(size) < 1:
            return
        self._drawn, self._drawn_at = state, now
        picture.show(self._picture(shot, *size))

    def _picture(self, shot: Shot, width: int, height: int) -> list[str]:
        pen, view = self._pen, self.view
        top = panes.header(pen, self._uri, shot.news, width)
        inner = max(height - len(top) - (not self._asked_for), 1)
        runs = matching(shot.runs, view.runs_filter)
        blocks: list[list[str]] = []
        side = min(max(width // 4, 26), 40)
        edge = "|" if pen.plain else "│"
        left = width
        for pane in ("runs", "about"):
            if pane in view.panes and "charts" in view.panes:
                left -= side + 1
        charts_width = left if left >= 21 or view.focus == "charts" else 0
        self._there = self._layout(shot, runs, charts_width, inner)
        view = self.view
        drawn = view.drawn(self._there)
        by_id = {each.run.info.run_id: each for each in shot.runs}
        colours = self._colours([by_id[each].run for each in drawn if each in by_id])
        self._watcher.want(drawn, view.page(self._there))
        if view.help:
            return [*top, *panes.framed(panes.help_page(pen, width, inner), width, inner)]
        wide = side if "charts" in view.panes else width - (side + 1 if "about" in view.panes else 0)
        if "runs" in view.panes:
            rows = panes.run_rows(
                pen, runs, colours, view.run(self._there), view.focus == "runs", int(time.time() * 1000), (wide, inner)
            )
            blocks.append(panes.framed(rows, wide, inner, edge if wide < width else ""))
        if "charts" in view.panes and charts_width:
            blocks.append(self._charts(shot, [by_id[each] for each in drawn if each in by_id], charts_width, inner))
        if "about" in view.panes:
            said = panes.about(pen, by_id.get(view.run(self._there) or ""), shot.experiments, side)
            below = min(view.below, max(len(said) - inner, 0))
            self.view = self.view._replace(below=below)
            blocks.append([edge + line for line in panes.framed(said[below:], side, inner)])
        lines = ["".join(parts) for parts in zip(*blocks, strict=True)]
        return [*top, *lines, *([] if self._asked_for else [panes.footer(pen, self._footer(shot), width)])]

    def _layout(self, shot: Shot, runs: Sequence[FoundRun], width: int, height: int) -> There:
        """What keys have to know."""
        view = self.view
        across, down = charts.beside(width, height, view.columns, view.rows)
        keys = matching_keys(shot.keys, view.keys_filter, view.system)
        ids = [each.run.info.run_id for each in runs]
        there = There(
            ids, [each.run.info.run_id for each in runs if each.alive], keys, across * down, across, height, (0.0, 1.0)
        )
        by_id = {each.run.info.run_id: each.run for each in shot.runs}
        drawn = [by_id[each] for each in view.drawn(there) if each in by_id]
        bounds = charts.bounds_of(self._asked(), view.page(there), drawn, shot.points)
        return there._replace(x=bounds, names=group_names(drawn))

    def _colours(self, drawn: Sequence[Run]) -> dict[str, int]:
        """The place in the palette of each run's line, or of its group's."""
        if self.view.group is not None:
            return charts.colours_of_groups(drawn, self.view.group)
        return places_of(run.info.run_id for run in drawn)

    def _asked(self) -> charts.Asked:
        view, pen = self.view, self._pen
        x = "step" if view.group is not None else view.x
        return charts.Asked(x, view.zoom, view.smoothing, view.group, pen.colour, pen.plain)

    def _charts(self, shot: Shot, drawn: Sequence[FoundRun], width: int, height: int) -> list[str]:
        view, there = self.view, self._there
        keys = view.page(there)
        if not keys:
            said = "no metric is called so" if shot.keys else "nothing to draw yet"
            return panes.framed(["", said.center(width)], width, height)
        across = 1 if view.alone else min(there.beside, len(keys))
        wide, high = (width - 1 - 2 * (across - 1)) // across, height // -(-len(keys) // across)
        runs, asked = [each.run for each in drawn], self._asked()
        colours = self._colours(runs)
        cells, known = [], self._cells
        self._cells = {}
        for key in keys:
            focused = view.focus == "charts" and key == view.key(there)
            of = [shot.points.get(each.info.run_id, {}).get(key) for each in runs]
            # What has not changed is the same object.
            mark = (asked, colours, wide, high, key in view.log_y, focused, len(runs), [id(points) for points in of])
            if key not in known or known[key][0] != mark:
                lines = charts.chart(
                    key, runs, shot.points, asked, colours, wide, high, log_y=key in view.log_y, focused=focused
                )
                known[key] = mark, lines
            self._cells[key] = known[key]
            cells.append(known[key][1])
        while len(cells) % across:
            cells.append([" " * wide] * high)
        return panes.framed([" " + line for line in charts.in_a_grid(cells, across)], width, height)

    def _footer(self, shot: Shot) -> str:
        view, there = self.view, self._there
        if view.asking:
            return f"{'columns' if view.asking == 'c' else 'rows'}: press a digit, 0 for as many as fit"
        if self._said:
            return self._said
        key, parts = view.key(there), []
        if key is not None and "charts" in view.panes and len(there.keys) > there.per_page:
            pages = -(-len(there.keys) // there.per_page)
            parts.append(f"page {there.keys.index(key) // there.per_page + 1}/{pages} of {len(there.keys)} metrics")
        parts += [f"x {view.x}"] if view.x != "step" else []
        parts += [f"zoom {view.zoom[0]:.4g} to {view.zoom[1]:.4g}"] if view.zoom else []
        parts += [f"/{view.keys_filter}"] if view.keys_filter else []
        parts += [f"f {view.runs_filter} ({len(there.runs)} of {len(shot.runs)} runs)"] if view.runs_filter else []
        return "  ".join([*parts, _HINT])


def _same_data(state: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """Runs and keys are the same objects while nothing is new, and so are the points of each metric."""
    if state[2] is not before[2] or state[3] is not before[3] or state[4].keys() != before[4].keys():
        return False
    return all(
        its.keys() == before[4][run_id].keys() and all(points is before[4][run_id][key] for key, points in its.items())
        for run_id, its in state[4].items()
    )


def _command(view: View, there: There, uri: str) -> str:
    """What writes the drawn runs to a file: this one only shows."""
    import shlex

    ids = " ".join(each[:8] for each in view.drawn(there))
    return f"asynctrack export {ids} --store {shlex.quote(uri)} -o points.csv"

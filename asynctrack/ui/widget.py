"""`live`: a run in a notebook, drawn while it is logged, over the notebook's own connection: no port, no proxy."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from asynctrack.arguments import given, run_id_of, several, text_of
from asynctrack.current import store_for
from asynctrack.errors import AsynctrackError
from asynctrack.histories import place_of, run_meant
from asynctrack.plots.lines import Line, frame_of, strokes_of
from asynctrack.plots.palette import COLOURS, places_of
from asynctrack.reading.chunks import needed
from asynctrack.reading.follower import Follower
from asynctrack.reading.series import Series
from asynctrack.reading.table import label_of
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.runs.run import ActiveRun

__all__ = ["live", "packed"]

#: stretches of x of one drawing, about as many as pixels
_COLUMNS = 600
#: seconds between two looks
_PAUSE = 0.5
#: drawings of one run; a notebook with hundreds of them is of no use
_MOST = 24


def live(
    run: str | Run | ActiveRun,
    keys: str | Iterable[str] | None = None,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
) -> Any:
    """Show a run in a notebook and follow it: each point is drawn about half a
    second after it is logged, by this process or any other on this machine,
    delivered or not, and what others have delivered as the store has it.

    Make it the last line of a cell, or ``display`` it. ``run``: a run or its
    id. ``keys``: of metrics, default all, the first 24 of them. ``.stop()``
    stops following; so does the run's end. Needs the extra ``notebook``.
    Raises ImportError without it, NotFoundError, InvalidInputError, another
    StoreError.
    """
    wanted = None if given(keys) is None else [text_of("keys", key) for key in several("keys", keys)]
    found = run_meant(run) or run_id_of(run)
    run_id = found if isinstance(found, str) else found.info.run_id
    store = store_for(place_of(run) if given(tracking_uri) is None else tracking_uri)
    return _widget_class()(_Looks(store, run_id, wanted))


class _Looks:
    """One look after another at a run, as what the widget's JavaScript draws."""

    def __init__(self, store: Any, run_id: str, keys: Sequence[str] | None) -> None:
        self._follower = Follower(store, run_id, keys)
        drive(self._follower.look())

    @property
    def ended(self) -> bool:
        return self._follower.ended

    def payload(self) -> dict[str, Any]:
        """What is to be drawn."""
        run, series = self._follower.run, self._follower.series
        label = label_of(run) if run is not None else "run"
        charts = [packed(key, label, series[key]) for key in sorted(series)[:_MOST]]
        waiting = sum(each.waiting for each in series.values())
        said = f"{label}: {run.info.status if run is not None else 'not created yet'}"
        if waiting:
            said += f", {waiting:,} points not delivered yet"
        if len(series) > _MOST:
            said += f", {len(series) - _MOST:,} more metrics (name some with keys=)"
        return {"said": said, "charts": charts}

    def look(self) -> bool:
        """Whether anything is new. Trouble of the store is no news: what is drawn stays."""
        try:
            return bool(drive(self._follower.look()))
        except AsynctrackError:
            return False


def packed(key: str, label: str, series: Series) -> dict[str, Any]:
    """A metric for the widget: of so many ``columns`` of x from ``x0`` to ``x1`` the smallest and the largest value, as
    32-bit floats, NaN where there is none."""
    line = Line(label, array("d", series.columns.steps), series.columns.values)
    frame = frame_of([line])
    low, width = frame.y.low, frame.y.high - frame.y.low
    values = array("f", [float("nan")]) * (_COLUMNS * 2)
    for stroke in strokes_of(line, frame, _COLUMNS):
        at = stroke.column * 2
        smallest, largest = low + stroke.low * width, low + stroke.high * width
        if values[at] == values[at]:  # the line has been here before, and came back
            smallest, largest = min(smallest, values[at]), max(largest, values[at + 1])
        values[at], values[at + 1] = smallest, largest
    place = places_of([label])[label]
    return {
        "title": key,
        "x": "step",
        "x0": frame.x.low,
        "x1": frame.x.high,
        "columns": _COLUMNS,
        "lines": [{"label": label, "colour": place % len(COLOURS)}],
        "data": values.tobytes(),
    }


def _widget_class() -> Any:
    """The widget's class. It is made when the first one is shown: anywidget takes a second to import."""
    if not _made:
        needed("anywidget", "a live view", "asynctrack[notebook]")
        import anywidget
        import traitlets

        static = files("asynctrack.ui") / "static"
        uplot = (static / "vendor" / "uPlot.iife.min.js").read_text("utf-8")

        class LiveRun(anywidget.AnyWidget):
            """A run that is followed."""

            _esm = uplot + "\n" + (static / "widget.js").read_text("utf-8")
            _css = (static / "vendor" / "uPlot.min.css").read_text("utf-8")
            payload = traitlets.Dict().tag(sync=True)

            def __init__(self, looks: _Looks) -> None:
                super().__init__(payload=looks.payload())
                self._stopped = threading.Event()
                # The cell that trains keeps the kernel's own thread.
                self._thread = threading.Thread(target=self._follow, args=(looks,), name="asynctrack-live", daemon=True)
                self._thread.start()

            def stop(self) -> None:
                """Stop following. What is drawn stays."""
                self._stopped.set()

            def close(self) -> None:
                self.stop()
                super().close()

            def _follow(self, looks: _Looks) -> None:
                while not self._stopped.wait(_PAUSE):
                    if looks.look() or looks.ended:
                        self.payload = looks.payload()
                    if looks.ended:
                        return

        _made.append(LiveRun)
    return _made[0]


_made: list[Any] = []

"""A history with a column for each metric, as spreadsheets and plotting functions like it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from asynctrack.reading.chunks import Chunk, Kind, Same
from asynctrack.reading.frames import Table

if TYPE_CHECKING:
    from asynctrack.reading.table import History, Piece

__all__ = ["Wide"]


class Wide(Table):
    """A row for each run and x, by x; NaN where a metric was not logged there.
    Several values of a metric at one x take a row each, in the order in which
    they were logged."""

    __slots__ = ("_history",)

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def kinds(self) -> dict[str, Kind]:
        x = self._history.x
        # A metric may be called as one of the other columns is.
        names = [f"{key} (metric)" if key in ("run_id", x) else key for key in self._history.keys]
        kind: Kind = "int" if x == "step" else "time" if x == "time" else "double"
        found: dict[str, Kind] = {"run_id": "text", x: kind}
        return found | dict.fromkeys(names, "double")

    def _chunks(self) -> Iterator[Chunk]:
        by_run: dict[str, dict[str, Piece]] = {}
        for piece in self._history.pieces:
            by_run.setdefault(piece.run.info.run_id, {})[piece.key] = piece
        for run_id, pieces in by_run.items():
            yield self._chunk(run_id, pieces)

    def _chunk(self, run_id: str, pieces: dict[str, Piece]) -> Chunk:
        keys = self._history.keys
        found: dict[tuple[float, int], list[float]] = {}
        for column, key in enumerate(keys):
            if key not in pieces:
                continue
            times: dict[float, int] = {}  # so often this x was met
            columns = pieces[key].series.columns
            of_x = {"step": columns.steps, "time": columns.times}.get(self._history.x)
            for x, value in zip(of_x or self._history.x_of(pieces[key]), columns.values, strict=True):
                nth = times[x] = times.get(x, -1) + 1
                row = found.get((x, nth))
                if row is None:
                    row = found[x, nth] = [math.nan] * len(keys)
                row[column] = value
        order = sorted(found)
        code: Literal["q", "d"] = "q" if self._history.x in ("step", "time") else "d"
        xs: array[Any] = array(code, [x for x, _ in order])
        values = [array("d", [found[each][column] for each in order]) for column in range(len(keys))]
        return Chunk(len(order), [Same(run_id), xs, *values])

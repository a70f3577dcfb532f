"""The strokes of a line of very many points, by NumPy. The results are those of `asynctrack.plots.lines`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asynctrack.plots.scales import Scale

if TYPE_CHECKING:
    from asynctrack.plots.lines import Frame, Line

__all__ = ["strokes_of_many"]


def strokes_of_many(line: Line, frame: Frame, columns: int) -> list[tuple[int, float, float, float, float, bool]]:
    """The fields of each `asynctrack.plots.lines.Stroke`."""
    x = _array(line.x)
    at, y = _places(x, frame.x), _places(_array(line.y), frame.y)
    shown = np.flatnonzero(~(np.isnan(at) | np.isnan(y)))
    if not len(shown):
        return []
    x, y = x[shown], y[shown]
    column = np.minimum((at[shown] * columns).astype(np.int64), columns - 1)
    apart = np.empty(len(shown), bool)  # from the point before
    apart[0] = True
    apart[1:] = (np.diff(shown) > 1) | (x[1:] < x[:-1])
    begins = apart.copy()
    begins[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(shown)) - 1
    fields = (
        column[starts].tolist(),
        y[starts].tolist(),
        y[ends].tolist(),
        np.minimum.reduceat(y, starts).tolist(),
        np.maximum.reduceat(y, starts).tolist(),
        (~apart[starts]).tolist(),
    )
    return list(zip(*fields, strict=True))


def _array(values: Sequence[float]) -> Any:
    return np.asarray(values, dtype=np.float64)


def _places(values: Any, scale: Scale) -> Any:
    low, high = scale.low, scale.high
    with np.errstate(all="ignore"):
        if scale.log:
            low, high = np.log10(low), np.log10(high)
            values = np.where(values > 0, np.log10(values), np.nan)
        places = (values / 2 - low / 2) / (high / 2 - low / 2)
        return np.where(np.isnan(values), np.nan, np.clip(np.where(values <= low, 0.0, places), 0.0, 1.0))

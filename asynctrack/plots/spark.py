"""A line in one row of text."""

from __future__ import annotations

from collections.abc import Sequence

from asynctrack.plots.lines import Line, frame_of, strokes_of

__all__ = ["spark"]

_BARS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=^"


def spark(values: Sequence[float], width: int = 20, *, ascii_only: bool = False) -> str:
    """The values from left to right in at most ``width`` characters; a blank where there is no number.

    A character shows, of the values that it stands for, the one farthest from the usual value: a spike is seen. "" for
    no values.
    """
    if not len(values):
        return ""
    width = min(width, len(values))
    line = Line("", range(len(values)), values)
    frame = frame_of([line])
    bars = _ASCII if ascii_only else _BARS
    shown = [" "] * width
    strokes = strokes_of(line, frame, width)
    usual = sorted(stroke.last for stroke in strokes)[len(strokes) // 2] if strokes else 0.5
    far: dict[int, float] = {}
    for stroke in strokes:
        for place in (stroke.low, stroke.high):
            if stroke.column not in far or abs(place - usual) > abs(far[stroke.column] - usual):
                far[stroke.column] = place
    for column, place in far.items():
        shown[column] = bars[min(int(place * len(bars)), len(bars) - 1)]
    return "".join(shown)

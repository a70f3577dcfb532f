"""Colours that people with any eyes can tell apart, and that stay with a run."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

__all__ = ["COLOURS", "TERMINAL", "places_of"]

#: after Okabe and Ito, a little darker where white paper needs it; for SVG and pages
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6bb1", "#7f7f7f")
#: the nearest of a terminal's 256 colours
TERMINAL = (33, 202, 35, 175, 75, 214, 97, 245)


def places_of(names: Iterable[str]) -> dict[str, int]:
    """A place in the palette for each name (a run's id): always the same one, as long as no other name of the selection
    has it; then the next free one, in the order of the names' spelling, so that no order of arrival decides."""
    found: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(set(names)):
        place = zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(COLOURS)
        if len(taken) < len(COLOURS):
            while place in taken:
                place = (place + 1) % len(COLOURS)
            taken.add(place)
        found[name] = place
    return found

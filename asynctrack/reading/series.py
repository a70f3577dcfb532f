"""The points of one metric of one run, as a reader sees them."""

from __future__ import annotations

from typing import NamedTuple

from asynctrack.stores.columns import Columns

__all__ = ["Series"]


class Series(NamedTuple):
    """All that was logged: the first ``stored`` points are in the store, those behind them still wait in spools."""

    columns: Columns
    stored: int

    @property
    def waiting(self) -> int:
        """The number of points that wait."""
        return len(self.columns) - self.stored

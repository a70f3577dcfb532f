"""One metric of one run that is followed: what is stored, and what still waits, each point once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from asynctrack.reading.growing import GrowingColumns
from asynctrack.reading.points import StoredStretches, Stretch, drop_known, taken
from asynctrack.reading.series import Series
from asynctrack.stores.branches import Branch
from asynctrack.stores.columns import Columns

__all__ = ["Line"]


class Line:
    """The points of a metric, but for those that ``branches`` replace; with steps in ``within`` (both included)."""

    def __init__(self, branches: Collection[Branch], within: tuple[int | None, int | None]) -> None:
        self._branches = branches
        self._within = within
        #: those that are stored, and behind them those that wait
        self._points = GrowingColumns()
        self._stored = 0
        #: the stored points as far as they were compared with others
        self._known = StoredStretches()
        self._waiting: list[Stretch] = []
        self._shown: tuple[object, ...] = ()
        self._changes = 0

    def restrict(self, branches: Collection[Branch]) -> None:
        """From now on these branches replace points."""
        self._branches = branches
        self._replace_stored(_outside(self._points.part(0, self._stored), branches))

    def _replace_stored(self, columns: Columns) -> None:
        self._put(0, columns)
        self._known = StoredStretches()
        for stretch in self._waiting:
            stretch.fresh = True

    def _put(self, at: int, stored: Columns) -> None:
        self._points.put(at, stored)
        self._stored = len(self._points)
        self._changes += 1

    def update(self, news: Columns | None, anew: bool, waiting: Sequence[Stretch]) -> bool:
        """Take in what is new in the store, and what waits now. Whether anything has changed."""
        if anew and self._stored:
            self._replace_stored(Columns())
        if news is not None and len(news):
            self._put(self._stored, _outside(news, self._branches))
        self._waiting = list(waiting)
        self._tell_apart()
        shown = self._changes, *((id(stretch), len(stretch)) for stretch in self._waiting if len(stretch))
        changed, self._shown = shown != self._shown, shown
        return changed

    def _tell_apart(self) -> None:
        """Leave out of what waits what is stored, or stands there twice."""
        if not self._waiting:
            return
        added = self._known.add(self._points, self._stored)
        known = [stretch for stretch in self._waiting if not stretch.fresh]
        drop_known(known, added)
        fresh = [stretch for stretch in self._waiting if stretch.fresh]
        drop_known(fresh, self._known.near(self._points, fresh))
        sets: dict[int, AbstractSet[object]] = {}
        for stretch in fresh:
            stretch.leave_out(known, sets)
            stretch.fresh = False
            known.append(stretch)

    def series(self) -> Series:
        """All of it."""
        waiting = Columns()
        for stretch in self._waiting:
            waiting.extend(_outside(stretch.columns.between(*self._within), self._branches))
        self._points.put(self._stored, waiting)
        return Series(self._points.view(), self._stored)


def _outside(columns: Columns, branches: Collection[Branch]) -> Columns:
    """The points that no branch replaces."""
    for branch in branches:
        if len(columns) and max(columns.steps) >= branch.from_step and min(columns.times) < branch.began:
            rows = enumerate(zip(columns.steps, columns.times, strict=True))
            columns = taken(columns, [index for index, row in rows if not branch.replaces(*row)])
    return columns

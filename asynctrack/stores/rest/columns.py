"""Reading the points of a run from a server as columns, a page at a time, or only what is new.

A server gives the points of a metric in a fixed order, from some number on. So what is new is asked for from the last
point on that was read. Where another one stands in its place now, points have come in between or gone, and the metric
is read anew; so it is where a server does not take a number for a page's token.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from collections.abc import Collection
from typing import Any

from asynctrack.entities import Metric
from asynctrack.errors import InvalidInputError, RefusedError
from asynctrack.stores.columns import Columns, Increment, check_steps, increment, known_marks
from asynctrack.stores.rest.runs import MOST_PAGES, Runs

__all__ = ["read_columns"]

#: the number of points; the last one's time, step, and value's bits
_Mark = list[int]
_LARGEST = sys.float_info.max


async def read_columns(
    runs: Runs, run_id: str, keys: Collection[str] | None, after: Any, min_step: int | None, max_step: int | None
) -> Increment:
    """Raises `NotFoundError`, `InvalidInputError`, `UnavailableError`."""
    check_steps(min_step, max_step)
    known = known_marks(after, 4)
    run = await runs.get(run_id)
    present = run.data.metrics
    anew = {key for key in known if key not in present}
    found, marks = {}, {}
    for key in dict.fromkeys(present if keys is None else keys):
        if key not in present:
            continue
        reader = _Reader(runs, run.info.run_id or run_id, key, min_step, max_step)
        mark = known.get(key)
        if mark is None or not await reader.goes_on(mark):
            if mark is not None:
                anew.add(key)
            await reader.read("")
        found[key], marks[key] = reader.columns, reader.mark
    return increment(found, marks, anew)


class _Reader:
    """One metric."""

    def __init__(self, runs: Runs, run_id: str, key: str, min_step: int | None, max_step: int | None) -> None:
        self._runs, self._run_id, self._key = runs, run_id, key
        self._steps = min_step, max_step
        self.columns = Columns()
        self.mark: _Mark = [0, 0, 0, 0]

    async def goes_on(self, mark: _Mark) -> bool:
        """Read what is behind a mark; False where the point that was the last one does not stand there any more."""
        number = mark[0]
        if not number:
            return True
        token = base64.b64encode(json.dumps({"offset": number - 1}).encode()).decode() if number > 1 else ""
        try:
            points, token = await self._runs.history_page(self._run_id, self._key, token)
        except (RefusedError, InvalidInputError):
            return False
        if not points or _place(points[0]) != mark[1:]:
            return False
        self.mark = mark
        self._add(points[1:])
        if token:
            await self.read(token)
        return True

    async def read(self, token: str) -> None:
        """Read from a page on."""
        seen = {token}
        while True:
            points, token = await self._runs.history_page(self._run_id, self._key, token)
            self._add(points)
            if not token:
                return
            if token in seen or len(seen) > MOST_PAGES:
                raise self._runs.endless(self._run_id, self._key)
            seen.add(token)

    def _add(self, points: list[Metric]) -> None:
        if points:
            self.mark = [self.mark[0] + len(points), *_place(points[-1])]
            self.columns.extend(_columns(points).between(*self._steps))


def _place(point: Metric) -> _Mark:
    return [point.timestamp, point.step, array("q", array("d", [point.value]).tobytes())[0]]


def _columns(points: list[Metric]) -> Columns:
    columns = Columns.of(points)
    values = columns.values
    if _LARGEST in values or -_LARGEST in values:  # what a database holds in the place of ±Inf
        for at, value in enumerate(values):
            if abs(value) == _LARGEST:
                values[at] = math.copysign(math.inf, value)
    return columns

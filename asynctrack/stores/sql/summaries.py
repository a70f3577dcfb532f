"""Summaries of a run's metrics, made by PostgreSQL: two passes over its rows, and a look at the times that they name.

They are exact, down to which of several equal points counts: see `asynctrack.stores.columns.Summary`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from asynctrack.stores.columns import Spot, Summary
from asynctrack.stores.sql.columns import INFINITIES
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.runs import get_info
from asynctrack.stores.sql.session import Row, Session

__all__ = ["summarize"]

#: keys of one statement; each may name four times
_MOST_KEYS = 100
_PAGE = 20_000
_NUMBER = "CASE WHEN {}is_nan THEN NULL ELSE {}value END"
_ENDS = f"""
WITH ends AS (
    SELECT key AS name, COUNT(*) AS points, MIN(timestamp) AS began, MAX(timestamp) AS newest, MAX(step) AS last_step,
        MIN({_NUMBER.format("", "")}) AS least, MAX({_NUMBER.format("", "")}) AS most
    FROM metrics WHERE run_uuid = ?{{among}} GROUP BY key
)
SELECT name, points, began, newest, last_step, least, most,
    MAX(CASE WHEN step = last_step THEN timestamp END),
    MIN(CASE WHEN {_NUMBER.format("m.", "m.")} = least THEN timestamp END),
    MIN(CASE WHEN {_NUMBER.format("m.", "m.")} = most THEN timestamp END)
FROM metrics m JOIN ends ON name = m.key
WHERE m.run_uuid = ?{{among}}
GROUP BY name, points, began, newest, last_step, least, most
"""
_AT = "SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ? AND (key, timestamp) IN (VALUES {})"


def summarize(session: Session, run_id: str, keys: Collection[str] | None) -> dict[str, Summary] | None:
    """None from a database that is better read. Raises `NotFoundError`."""
    if session.numbers_rows:
        return None
    run_id = get_info(session, run_id).run_id
    wanted = [] if keys is None else [storable(key) for key in dict.fromkeys(keys)]
    rows: list[Row] = []
    pieces: Iterable[list[str]] = [[]] if keys is None else _chunks(wanted)
    for some in pieces:
        among = f" AND key IN ({','.join('?' * len(some))})" if some else ""
        rows += session.rows(_ENDS.format(among=among), [run_id, *some, run_id, *some])
    found: dict[str, Summary] = {}
    for few in _chunks(rows):
        at = {(name, time) for name, _, began, *_, latest, least, most in few for time in (began, latest, least, most)}
        values = [value for place in sorted(place for place in at if place[1] is not None) for value in place]
        points: dict[str, list[tuple[int, int, float, int]]] = {row[0]: [] for row in few}
        for page in session.pages(_AT.format(",".join(["(?, ?)"] * (len(values) // 2))), [run_id, *values], _PAGE):
            for name, *point in page:
                points[name].append((point[0], point[1], point[2], point[3]))
        for row in few:
            found[row[0]] = _summary(row, points[row[0]])
    return found


def _summary(ends: Row, points: list[tuple[int, int, float, int]]) -> Summary:
    _, count, began, newest, last_step, least, most, at_latest, at_least, at_most = ends
    points.sort()
    latest = [point for point in points if point[0] == at_latest and point[1] == last_step]
    return Summary(
        count,
        _spot(next(point for point in points if point[0] == began)),
        _spot(max(latest, key=lambda point: point[2])),  # of equals the first; NaN is stored as 0
        _first(points, at_least, least),
        _first(points, at_most, most),
        newest,
    )


def _first(points: Iterable[tuple[int, int, float, int]], time: int | None, value: float | None) -> Spot | None:
    if time is None:
        return None
    return _spot(next(point for point in points if point[0] == time and point[2] == value and not point[3]))


def _spot(point: tuple[int, int, float, int]) -> Spot:
    time, step, value, is_nan = point
    return Spot(step, time, math.nan if is_nan else INFINITIES.get(value, value))


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[at : at + _MOST_KEYS] for at in range(0, len(items), _MOST_KEYS))

"""Points out of a journal's slots: as columns with their places, and each once.

With NumPy where the program has loaded it, or where there are so many points that loading it pays.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice, pairwise
from operator import lt
from typing import Any

from asynctrack.journal.slots import LAST_STREAM, SLOT_SIZE, Record, Slots, decode_slot, plain_streams, records
from asynctrack.reading.growing import GrowingColumns
from asynctrack.stores.columns import Columns

__all__ = [
    *("StoredStretches", "Stretch", "drop_doubles", "drop_known", "join_last", "late_point", "load_numpy"),
    *("points_in", "taken"),
]

#: the least and the largest step of some points, and time
Bounds = tuple[tuple[int, int], tuple[int, int]]
#: points of one stretch at most, as slots are read
_BLOCK = 8192
#: slots to read for which NumPy is loaded: 0.15 s, against 0.4 s for so many without it
_MANY = 400_000
#: stretches that may share points with another, from which on they are looked through once for all
_NEAR = 16


def load_numpy(slots: int) -> None:
    """Have NumPy at hand where so many slots are to be read, and it is installed."""
    if slots >= _MANY and "numpy" not in sys.modules:
        try:
            import numpy as np  # noqa: F401  # `_numpy` finds it
        except ImportError:
            pass


def _numpy() -> Any:
    """NumPy, if it is loaded, and not just being loaded by another thread."""
    found = sys.modules.get("numpy")
    return found if found is not None and hasattr(found, "frombuffer") and hasattr(found, "unique") else None


class Stretch:
    """Some points of one metric that stand close together, in order.

    ``numbers``: the sequence numbers of their slots, ascending; empty for points of a store.
    """

    __slots__ = ("_whole", "bounds", "columns", "fresh", "numbers")

    def __init__(self, columns: Columns, numbers: Sequence[int] = ()) -> None:
        self.columns = columns
        self.numbers = numbers
        #: not compared with other points yet
        self.fresh = True
        #: as it was before points were left out that wait elsewhere, too
        self._whole: tuple[Columns, Sequence[int]] | None = None
        #: the least and the largest step, and time
        self.bounds = _range(columns.steps), _range(columns.times)

    def __len__(self) -> int:
        return len(self.columns)

    @classmethod
    def joined(cls, one: Stretch, other: Stretch) -> Stretch | None:
        """Two that lie behind one another as one; None where they are to be restored, or compared, by themselves, or
        would be too many points."""
        together = len(one) + len(other)
        if not together or together > _BLOCK or any(each.fresh or each._whole is not None for each in (one, other)):
            return None
        columns = one.columns.part(0)
        columns.extend(other.columns)
        joined = cls(columns, array("q", [*one.numbers, *other.numbers]))
        joined.fresh, joined.bounds = False, _around(one.bounds, other.bounds)
        return joined

    @property
    def steps(self) -> tuple[int, int]:
        """The least and the largest of its steps, as it was at first."""
        return self.bounds[0]

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of it, nor will be."""
        return not len(self) and self._whole is None

    def leave_out(self, known: Sequence[Stretch], sets: dict[int, AbstractSet[Any]]) -> None:
        """Leave out the points that stand in ``known``, which wait, too: until `restore`."""
        whole = self.columns, self.numbers
        drop_known([self], known, sets)
        if len(self) < len(whole[0]):
            self._whole = whole

    def restore(self) -> None:
        """What was left out counts again: the place where it waited is gone."""
        if self._whole is not None:
            (self.columns, self.numbers), self._whole = self._whole, None
            self.fresh = True

    def keep(self, indices: Sequence[int]) -> None:
        """Only these points."""
        if len(indices) < len(self):
            self.columns = taken(self.columns, indices)
            self.numbers = array("q", [self.numbers[index] for index in indices])

    def keep_from(self, number: int, others: Collection[int]) -> None:
        """Only the points in slots from ``number`` on, and those in ``others``."""
        first = bisect_left(self.numbers, number)
        if first:
            kept = [index for index in range(first) if self.numbers[index] in others] if others else []
            self.keep([*kept, *range(first, len(self))])

    def names(self) -> Iterator[tuple[int, int, float | None]]:
        """What makes each of the points the same as another, as in `asynctrack.stores.file.lines.identity`."""
        values: Iterable[float | None] = self.columns.values
        if not math.isfinite(sum(self.columns.values)):
            values = map(_as_sql_holds, self.columns.values)
        return zip(self.columns.times, self.columns.steps, values, strict=True)


def _as_sql_holds(value: float) -> float | None:
    if math.isnan(value):
        return None
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def _range(numbers: array[int]) -> tuple[int, int]:
    np = _numpy()
    if np is None:
        return min(numbers), max(numbers)
    found = np.frombuffer(numbers, np.int64)
    return int(found.min()), int(found.max())


def _ascend(numbers: array[int]) -> bool:
    """Whether each is larger than the one before."""
    np = _numpy()
    if np is None:
        return all(map(lt, numbers, islice(numbers, 1, None)))
    found = np.frombuffer(numbers, np.int64)
    return bool((found[1:] > found[:-1]).all())


def _may_share(one: Bounds, other: Bounds) -> bool:
    """Whether points that lie between these may be the same."""
    (steps, times), (its_steps, its_times) = one, other
    return (
        steps[0] <= its_steps[1] and its_steps[0] <= steps[1] and times[0] <= its_times[1] and its_times[0] <= times[1]
    )


def taken(columns: Columns, indices: Sequence[int]) -> Columns:
    """The points with these indices."""
    return Columns(
        [columns.steps[index] for index in indices],
        [columns.times[index] for index in indices],
        [columns.values[index] for index in indices],
    )


class StoredStretches:
    """The points of a store in stretches. Only where each lies is kept: of what grows they may be many."""

    def __init__(self) -> None:
        self._bounds: list[Bounds] = []
        self._points = 0

    def add(self, points: GrowingColumns, end: int) -> list[Stretch]:
        """Those to before index ``end`` that are not among these yet, as stretches until the next change of them."""
        added = []
        while self._points < end:
            stop = min((self._points // _BLOCK + 1) * _BLOCK, end)
            stretch = Stretch(points.part(self._points, stop))
            if self._points % _BLOCK:
                self._bounds[-1] = _around(self._bounds[-1], stretch.bounds)
            else:
                self._bounds.append(stretch.bounds)
            added.append(stretch)
            self._points = stop
        return added

    def near(self, points: GrowingColumns, others: Sequence[Stretch]) -> list[Stretch]:
        """Those that may share points with one of some others, until the next change of them."""
        return [
            Stretch(points.part(index * _BLOCK, min((index + 1) * _BLOCK, self._points)))
            for index, bounds in enumerate(self._bounds)
            if any(_may_share(bounds, other.bounds) for other in others)
        ]


def _around(one: Bounds, other: Bounds) -> Bounds:
    (a, b), (c, d) = ((min(mine[0], its[0]), max(mine[1], its[1])) for mine, its in zip(one, other, strict=True))
    return (a, b), (c, d)


def join_last(stretches: list[Stretch]) -> None:
    """Keep stretches few that a look after the other has added to: of their points, ever fewer stretches are."""
    while len(stretches) > 1 and 2 * len(stretches[-1]) >= len(stretches[-2]):
        joined = Stretch.joined(*stretches[-2:])
        if joined is None:
            return
        stretches[-2:] = [joined]


# ── each once


def drop_known(
    stretches: Iterable[Stretch], known: Sequence[Stretch], sets: dict[int, AbstractSet[Any]] | None = None
) -> None:
    """Take out of ``stretches`` the points that stand in ``known``, too. ``sets``: what calls right after one another
    have made of the points of ``known``, for the next of them."""
    everything: AbstractSet[Any] | None = None
    sets = {} if sets is None else sets
    for stretch in stretches:
        near = [other for other in known if _may_share(stretch.bounds, other.bounds)]
        if not near:
            continue
        if len(near) > _NEAR:
            everything = everything or {name for other in known for name in other.names()}
            parts = [everything]
        else:
            parts = [_kept(sets, other) for other in near]
        stretch.keep([index for index, name in enumerate(stretch.names()) if not any(name in part for part in parts)])


def _kept(sets: dict[int, AbstractSet[Any]], stretch: Stretch) -> AbstractSet[Any]:
    found = sets.get(id(stretch))
    if found is None:
        while len(sets) > 2 * _NEAR:
            sets.pop(next(iter(sets)))
        found = sets[id(stretch)] = frozenset(stretch.names())
    return found


def drop_doubles(stretch: Stretch) -> None:
    """Take out of a stretch what stands in it before: a store keeps it once."""
    if _ascend(stretch.columns.steps):
        return
    first: dict[Any, int] = {}
    for index, name in enumerate(stretch.names()):
        first.setdefault(name, index)
    stretch.keep(list(first.values()))


# ── out of slots


def points_in(data: Slots, start: int) -> dict[int, Stretch]:
    """The points in some slots by stream number; the first of the slots has the sequence number ``start``."""
    np = _numpy()
    if np is not None:
        return _by_numpy(np, data, start)
    plain = plain_streams(data)
    if plain is not None and len(plain) == 1:
        words = memoryview(data).cast("q")
        found = Columns()
        for column, at in ((found.times, 0), (found.steps, 1)):
            column.frombytes(words[at::8].tobytes())
        found.values.frombytes(words[2::8].tobytes())
        return {plain.pop(): Stretch(found, range(start, start + len(found)))}
    lists: dict[int, tuple[list[int], list[Record]]] = {}
    for number, record in enumerate(records(data) if plain is not None else _decoded(data), start):
        if record is not None and 0 < record[3] <= LAST_STREAM:
            numbers, points = lists.setdefault(record[3], ([], []))
            numbers.append(number)
            points.append(record)
    return {stream: _stretch(numbers, points) for stream, (numbers, points) in lists.items()}


def _decoded(data: Slots) -> Iterator[Record | None]:
    return (decode_slot(data[at : at + SLOT_SIZE]) for at in range(0, len(data), SLOT_SIZE))


def _stretch(numbers: list[int], points: list[Record]) -> Stretch:
    times, steps, values, _ = zip(*points, strict=True)
    return Stretch(Columns(steps, times, values), array("q", numbers))


def late_point(number: int, point: Record) -> Stretch:
    """The stretch of one point that was written late."""
    return _stretch([number], [point])


def _by_numpy(np: Any, data: Slots, start: int) -> dict[int, Stretch]:
    words = np.frombuffer(data, "<u8").reshape(-1, SLOT_SIZE // 8)
    streams = words[:, 3] & 0xFFFFFFFF
    good = (words[:, :4] == words[:, 4:]).all(axis=1) & (streams > 0) & (streams <= LAST_STREAM)
    places = np.flatnonzero(good)
    if not len(places):
        return {}
    order = places[np.argsort(streams[places], kind="stable")]
    sorted_streams = streams[order]
    borders = [0, *(np.flatnonzero(np.diff(sorted_streams)) + 1).tolist(), len(order)]
    found = {}
    for begin, end in pairwise(borders):
        rows = words[order[begin:end]]
        columns = Columns()
        for column, at in ((columns.times, 0), (columns.steps, 1), (columns.values, 2)):
            column.frombytes(rows[:, at].tobytes())
        numbers = array("q")
        numbers.frombytes((order[begin:end] + start).astype("<i8").tobytes())
        found[int(sorted_streams[begin])] = Stretch(columns, numbers)
    return found

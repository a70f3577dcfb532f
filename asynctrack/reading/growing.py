"""Arrays that grow with a run: a look adds what is new, and who has an earlier look's array keeps it as it was."""

from __future__ import annotations

import mmap
from array import array
from typing import Any, cast

from asynctrack.stores.columns import Columns

__all__ = ["Growing", "GrowingColumns", "same_memory"]

#: bytes of an item, which is a 64-bit integer or a double
_WIDTH = 8
#: bytes from which on an array has memory of its own, which is taken when it is written to, and given back in whole:
#: on a heap the gaps that arrays leave as they grow are too small for the next
_LARGE = 256 * 1024


class Growing:
    """An array that grows at its end, for one thread that puts and any number that read.

    Readers are given views, and what they were given is never written over: where that has to change, or there is no
    room, everything moves to new memory, and a view keeps the old.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._memory: Any = array(kind)
        self._room = self._size = 0
        #: so many items at the front somebody may be reading
        self._given = 0

    def __len__(self) -> int:
        return self._size

    def put(self, at: int, items: Any) -> None:
        """From index ``at`` on these items stand, and no others behind them. An array, or what has the same in
        memory."""
        new = memoryview(items).cast("B")
        end = at + len(new) // _WIDTH
        if not self._room and isinstance(items, array):
            # Of most runs all is read at once, and nothing comes after it. It is not written to: it is another's.
            self._memory, self._room, self._given = items, end, end
        elif end > self._room or self._would_change(at, new):
            self._move(at, end)
            self._write(at, new)
        else:
            kept = max(min(self._given, end) - at, 0)
            self._write(at + kept, new[kept * _WIDTH :])
        self._size = end

    def view(self) -> array[Any]:
        """All of it: a read-only view that nothing changes (without room for more, the array itself)."""
        self._given = max(self._given, self._size)
        return self.part(0, self._size)

    def part(self, start: int, end: int) -> array[Any]:
        """Items to look at before the next `put`."""
        if end - start == self._room and isinstance(self._memory, array):
            return self._memory
        # A view has all of an array that a reader needs: it is a sequence, and NumPy and Arrow read it in place.
        return cast("array[Any]", self._bytes().cast(self._kind)[start:end].toreadonly())  # type: ignore[call-overload]  # no literal

    def _would_change(self, at: int, new: memoryview) -> bool:
        shown = min(max(self._given - at, 0) * _WIDTH, len(new))
        return bool(shown) and new[:shown].tobytes() != self._bytes()[at * _WIDTH :][:shown].tobytes()

    def _move(self, at: int, end: int) -> None:
        before, self._room = self._bytes(), 2 * end
        size = self._room * _WIDTH
        if size < _LARGE:
            self._memory = array(self._kind, bytes(size))
        else:
            self._memory = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
        self._write(0, before[: at * _WIDTH])
        self._given = 0

    def _write(self, at: int, new: memoryview) -> None:
        if len(new):
            self._bytes()[at * _WIDTH : at * _WIDTH + len(new)] = new

    def _bytes(self) -> memoryview:
        return memoryview(self._memory).cast("B")


class GrowingColumns:
    """Columns of such arrays."""

    def __init__(self) -> None:
        self._columns = Growing("q"), Growing("q"), Growing("d")

    def __len__(self) -> int:
        return len(self._columns[0])

    def put(self, at: int, points: Columns) -> None:
        """From index ``at`` on these points stand, and no others behind them."""
        for column, items in zip(self._columns, (points.steps, points.times, points.values), strict=True):
            column.put(at, items)

    def view(self) -> Columns:
        """All points, as columns that nothing changes."""
        return Columns(*(column.view() for column in self._columns))

    def part(self, start: int, end: int) -> Columns:
        """Points to look at before the next `put`."""
        return Columns(*(column.part(start, end) for column in self._columns))


def same_memory(one: object, other: object) -> bool:
    """Whether two views are of the same memory: then the shorter one is how the longer one begins."""
    return _memory(one) is _memory(other)


def _memory(view: object) -> object:
    return view.obj if isinstance(view, memoryview) else view

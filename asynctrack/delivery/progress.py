"""How far one run of a journal is on its way to the store. Pure, and the only place that computes it.

A run's events up to its *watermark* are acknowledged: the store has them, or has refused them for good. The exceptions
are few and named: slots that were written late, into a hole that had been passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from asynctrack.journal.positions import RunPosition

__all__ = ["Front", "RunProgress", "Stage"]

#: a bookmark's end where all that a journal holds may have been delivered already
_EVERYTHING = 1 << 63


class Stage(IntEnum):
    """Where a run stands. It goes forward only."""

    #: its registration was read
    REGISTERED = 1
    #: something of it is loaded, and the store does not have it yet
    CREATING = 2
    #: the store has it
    OPEN = 3
    #: its end is loaded
    ENDING = 4
    #: its end is delivered, or is another process's business
    ENDED = 5
    #: nothing of it is kept in memory any more
    FORGOTTEN = 6


class Front:
    """How far a journal has been read for all of its runs together."""

    __slots__ = ("at", "behind", "bytes", "changes", "complete", "holes", "laden", "order", "weight")

    def __init__(self, at: int = 0, order: tuple[int, str] = (0, "")) -> None:
        #: the events of every slot before this one were handed to their runs
        self.at = at
        #: where its journal stands among others: when that was made, and where it is
        self.order = order
        #: the last look has found the journal's end
        self.complete = True
        #: slots that were passed over a moment ago: claimed, and just being written
        self.holes: frozenset[int] = frozenset()
        #: how far those runs have been read that have fallen behind, by their numbers; kept by `RunProgress`
        self.behind: dict[int, int] = {}
        #: of all runs together: entities and calls that are loaded, bytes of frames, runs that have any of it, and how
        #: often one of these has changed. Kept by each run's `Accumulator`, so that nobody walks thousands to know
        self.weight = self.bytes = self.laden = self.changes = 0


class RunProgress:
    """How far one run is, or the artifacts of one."""

    __slots__ = ("_run", "bookmark", "bookmark_end", "first", "front", "late", "stage", "suspects")

    def __init__(self, front: Front, run: int = 0) -> None:
        self.front = front
        self._run = run
        self.stage = Stage.REGISTERED
        #: where the oldest of its loaded events begin; None: none is loaded
        self.first: int | None = None
        #: slots written late that are loaded and not acknowledged
        self.late: set[int] = set()
        #: from an earlier consumer: what starts before ``bookmark_end``, or stands in ``suspects``, may be stored
        #: already, behind the bookmark
        self.bookmark: Any = None
        self.bookmark_end = 0
        self.suspects: set[int] = set()

    @property
    def position(self) -> int | None:
        """The run is read up to here; None: as far as the front."""
        return self.front.behind.get(self._run)

    @position.setter
    def position(self, position: int | None) -> None:
        if position is None:
            self.front.behind.pop(self._run, None)
        else:
            self.front.behind[self._run] = position

    @property
    def read_to(self) -> int:
        """Its events before this sequence number were read."""
        return self.front.behind.get(self._run, self.front.at)

    @property
    def watermark(self) -> int:
        """Every event before this sequence number is acknowledged, but for late ones. It never falls."""
        return self.read_to if self.first is None else self.first

    @property
    def acknowledged(self) -> int:
        """Every event before this sequence number is acknowledged, late ones too."""
        return min([self.watermark, *self.late])

    def settled(self, mark: int) -> bool:
        """Whether no event before ``mark`` is left."""
        return self.acknowledged >= mark

    def advance(self, stage: Stage) -> None:
        """Go on to a later stage; an earlier one changes nothing."""
        assert stage is not Stage.FORGOTTEN or self.stage is Stage.ENDED
        self.stage = max(self.stage, stage)

    def loaded(self, start: int, late: Iterable[int] = ()) -> None:
        """Events that begin at ``start`` are loaded."""
        assert start >= self.watermark
        if self.first is None:
            self.first = start
        self.late.update(late)

    def dealt_with(self, first: int | None, late: Iterable[int] = ()) -> None:
        """The oldest loaded events are acknowledged, ``late`` ones among them; ``first``: where those left begin."""
        assert first is None or first >= self.watermark
        self.first = first
        self.late.difference_update(late)

    def unload(self, bookmark: Any, bookmark_end: int) -> set[int]:
        """Nothing is loaded any more; it is read again from the watermark on. The late slots, to be looked at again."""
        watermark, self.first = self.watermark, None
        self.position = watermark if watermark < self.front.at else None
        if bookmark is not None:
            self.bookmark, self.bookmark_end = bookmark, bookmark_end
        late, self.late = self.late, set()
        self.suspects |= late
        return late

    def restore(self, position: RunPosition, suspects: Iterable[int]) -> None:
        """Go on where an earlier consumer has stopped."""
        self.bookmark, self.bookmark_end = position.bookmark, position.bookmark_end
        self.suspects = set(suspects)
        if position.acknowledged < self.front.at:
            self.position = position.acknowledged
        if position.ended:
            self.stage = Stage.ENDED

    @property
    def everything_is_suspect(self) -> bool:
        """Whether nothing is known of what was delivered."""
        return self.bookmark_end == _EVERYTHING

    def suspect_everything(self, before: int = _EVERYTHING) -> None:
        """Nothing is known of what was delivered: have the store look for every event, from its beginning; or for
        every one ``before`` a sequence number."""
        self.bookmark, self.bookmark_end = {}, before

    def suspect(self, start: int, late: Iterable[int]) -> bool:
        """Whether some of the events that begin at ``start`` may be stored already."""
        if self.bookmark is None:
            return False
        return start < self.bookmark_end or not self.suspects.isdisjoint(late)

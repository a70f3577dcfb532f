"""A spool seen from outside, once or again and again: what stands in it behind its cursor.

Nothing is taken over or changed, and no lock is taken. The spool may be written, delivered and deleted meanwhile: what
is gone at the next look was delivered, for the cursor moves before anything is deleted.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator

from asynctrack.journal.cursor import CursorFile
from asynctrack.journal.found import SegmentChain
from asynctrack.journal.frames import FrameFile
from asynctrack.journal.opening import Descriptor, open_regular
from asynctrack.journal.owner import Owner
from asynctrack.journal.positions import Positions
from asynctrack.journal.reader import Chunk, JournalReader

__all__ = ["SpoolView"]

#: slots read at once
_BLOCK = 8192
#: how often a cursor is read that its consumer is just writing
_TRIES = 3


class _Registry(FrameFile):
    """Opened for each use: hundreds of spools that are looked at take no descriptors, and one that was deleted is
    seen to be."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _opened(self) -> Descriptor:
        return Descriptor(open_regular(self._path, os.O_RDONLY))


class SpoolView:
    """The spool at ``path``. Belongs to one thread at a time.

    `refresh` and `walk` raise FileNotFoundError where it is gone, OSError where it cannot be read now, and ValueError
    where its registry is no file.
    """

    def __init__(self, path: str, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self.segments = SegmentChain(path)
        self.positions = Positions()
        #: why nothing, or nothing new, is known of what was delivered; None: it is known
        self.unsure: str | None = None
        #: ... as the cursor is damaged, or was just being written
        self.damaged = False
        self._registry = _Registry(os.path.join(path, "registry"))
        self.reader = JournalReader(self._registry, None, problems=self.segments.problems)
        self._cursor = CursorFile(path)
        self._stamp: tuple[int, ...] | None = None
        self._at: int | None = None
        self._complete = False

    def refresh(self, *, living: bool) -> bool:
        """Take in what has been delivered, registered and begun since. ``living``: its owner may be alive. False where
        the cursor has gone back, as for another store: begin anew with another view."""
        before = self.positions
        # First: what it says is delivered, the store has whenever it is asked after this.
        self._load_positions()
        if self._at is not None and self.positions.low_water() < before.low_water():
            return False
        self.reader.registry.refresh()
        if not self._complete:
            self.reader.head = self.segments.look(self.reader.head, living=living)
            self._complete = self.segments.complete
        self._let_go()
        return True

    def walk(self) -> Iterator[Chunk]:
        """What stands behind the last walk's end, at first behind the cursor, in order; then the slots that were empty
        when they were passed, and are no more. Of each run either all events of a chunk wait, or none: see `waits`."""
        borders = list(self.positions.borders())
        if self._at is None:
            self._at = borders[0]
            self.reader.pending.update(self.positions.pending)
        while True:
            index = bisect_right(borders, self._at)
            border = borders[index] if index < len(borders) else self._at + _BLOCK
            chunk = self.reader.read(self._at, min(_BLOCK, border - self._at))
            if chunk.end == self._at:
                if self._at < border <= self.positions.front:
                    self._at = border  # slots that were never written
                    continue
                break
            if chunk.start > self._at:
                self._at = chunk.start  # what stood before it is deleted; and a border may stand in this chunk
                continue
            yield chunk
            self._at = chunk.end
        late = self.reader.read_pending()
        try:
            while late:
                yield late[0]
                late.pop(0)
        finally:
            self.reader.pending.update(chunk.start for chunk in late)

    def waits(self, run: int, chunk: Chunk) -> bool:
        """Whether the events of a run in a chunk are still to be delivered. Artifacts count under the negative
        number."""
        if chunk.late is not None:
            return chunk.late in self.positions.pending or self.positions.waits(run, chunk.late)
        return self.positions.waits(run, chunk.start)

    def left(self) -> int:
        """How many slots there are to walk, at most."""
        ends = [segment.end for segment in self.reader.chain()]
        return max(ends, default=0) - (min(self.positions.borders()) if self._at is None else self._at)

    def registered(self) -> int:
        """How large the registry is, in bytes."""
        return self._registry.size()

    def close(self) -> None:
        """Let go of the segments' files."""
        for segment in self.reader.chain():
            segment.close()

    def _load_positions(self) -> None:
        stamp = self._stamp_of_cursor()
        if stamp == self._stamp and self.unsure is None:
            return
        for _ in range(_TRIES):
            try:
                record = self._cursor.load()
                self.positions = Positions() if record is None else Positions.of(record)
            except ValueError as error:
                self.unsure, self.damaged = str(error), True  # its consumer may be in the middle of writing it
            except OSError as error:
                self.unsure, self.damaged = f"cannot be read now: {error}", False
            else:
                self.unsure, self._stamp = None, stamp
                return

    def _stamp_of_cursor(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(os.path.join(self.path, "cursor"))
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _let_go(self) -> None:
        """Of the segments that are read, delivered and deleted."""
        before = self.positions.low_water()
        while self._at is not None and (head := self.reader.head) is not None and head.next is not None:
            if head.end > min(before, self._at) or any(number < head.end for number in self.reader.pending):
                break
            if head.path is None or os.path.exists(head.path):
                break  # the next look at the folder would find it again
            self.reader.drop(head)
            head.close()

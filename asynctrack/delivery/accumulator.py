"""What goes into the next batch. Pure: decides, and leaves reading and sending to others.

An `Accumulator` takes one run's share of each chunk of the journal as a `Part`, and gives out `Work`: as many whole
parts as the store takes at once. Where the store allows it, batches of metrics overlap; what must keep its order
(params among themselves, tags, the run's start and end) waits for its turn. The cursor only ever stands between chunks,
before the first work that is not dealt with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from itertools import takewhile

from asynctrack.delivery.progress import RunProgress, Stage
from asynctrack.delivery.uploads import clash
from asynctrack.delivery.work import Part, Work, WorkState
from asynctrack.journal.positions import RunPosition
from asynctrack.stores.base import Limits

__all__ = ["FRAME_BYTES", "STUCK", "Accumulator", "UploadAccumulator"]

#: bytes of params and tags that are enough for one work
FRAME_BYTES = 1 << 20
#: seconds after which a request that is still under way takes no place away from other runs
STUCK = 5.0


class Accumulator:
    """What is loaded of one run, and what of it is under way."""

    def __init__(self, progress: RunProgress) -> None:
        self.progress = progress
        self.parts: deque[Part] = deque()
        #: under way, or put off, in order
        self.flight: deque[Work] = deque()
        #: how many entities and calls it holds, and about how many bytes of frames
        self.weight = self.bytes = 0

    @property
    def idle(self) -> bool:
        """Nothing is loaded and nothing is under way."""
        return not self.parts and not self.flight

    def stuck(self, now: float) -> int:
        """How many of its requests have been under way for so long that their answers may never come."""
        return sum(work.busy and now - work.begun > STUCK for work in self.flight)

    # ── what is loaded

    def add(self, part: Part) -> None:
        """Take one part in, behind the others; one that was written late, in its place among them."""
        if part.late:
            self._add_late(part)
        else:
            self.parts.append(part)
        self.progress.loaded(part.start, part.late)
        self._weigh(part.weight(), part.bytes)

    def _weigh(self, weight: int, size: int) -> None:
        """So much more is loaded, or less."""
        front = self.progress.front
        front.laden -= self.weight > 0
        self.weight += weight
        self.bytes += size
        front.laden += self.weight > 0
        front.weight += weight
        front.bytes += size
        front.changes += 1

    def _add_late(self, part: Part) -> None:
        slot = part.late[0]
        part.start = part.end = self.progress.read_to
        for index, other in enumerate(self.parts):
            if other.start <= slot < other.end and other.upload is None and part.upload is None:
                other.absorb(part)
                part.start = other.start
                return
            if other.at > slot:
                part.start = part.end = other.start
                self.parts.insert(index, part)
                return
        self.parts.append(part)

    def unload(self) -> set[int] | None:
        """Let go of everything; it is read again from the journal. The late slots among it, which are to be looked at
        again; None where something is under way, or dealt with already."""
        if any(work.busy or work.done or work.refusals is not None for work in self.flight):
            return None
        bookmark, end = self._bookmark(list(self.flight), self.progress.watermark)
        self.parts.clear()
        self.flight.clear()
        self._weigh(-self.weight, -self.bytes)
        return self.progress.unload(bookmark, end)

    # ── what goes next

    def next_work(self, limits: Limits, overlap: int, *, created: bool = True, end_waits: bool = False) -> Work | None:
        """What to do next; None when there is nothing, or something under way must come first.

        ``overlap``: how many batches of a run may be under way at once. ``created``: the store has the run.
        ``end_waits``: its end has to wait. The work is in ``flight`` until it is `done`.
        """
        for work in self.flight:
            if not work.busy and not work.done:
                return work
        if len(self.flight) >= overlap or (self.flight and not created):
            return None
        if any(work.alone for work in self.flight):
            return None
        taken = self._choose(limits, end_waits)
        if not taken:
            return None
        work = Work(taken[0])
        for part in taken:
            work.take(part)
            self.parts.popleft()
        if self._suspect(taken[0]):
            work.bookmark, work.uncertain = self.progress.bookmark, True
        self.flight.append(work)
        return work

    def _choose(self, limits: Limits, end_waits: bool) -> list[Part]:
        """The parts that make up the next work."""
        if end_waits:
            self._set_end_apart()
        ordered_before = any(work.ordered for work in self.flight)
        taken: list[Part] = []
        weight = size = 0
        for part in self.parts:
            if self.flight and (part.alone or (part.ordered and ordered_before)):
                break
            if (part.ends is not None and end_waits) or self._overtakes(part):
                break
            if taken and (weight + part.weight() > limits.entities or taken[-1].ends is not None):
                break
            if taken and size + part.bytes > FRAME_BYTES:
                break
            if taken and self._suspect(part) != self._suspect(taken[0]):
                break  # the bookmark knows nothing of what comes behind it
            taken.append(part)
            weight, size = weight + part.weight(), size + part.bytes
        # A small batch beside others would only cost the store more: it fills up meanwhile.
        return [] if self.flight and weight < limits.entities // 2 else taken

    def _overtakes(self, part: Part) -> bool:
        """Whether a slot that is just being written may hold something which goes before it."""
        holes = self.progress.front.holes
        return bool(holes) and min(holes) < part.ordered_to

    def _set_end_apart(self) -> None:
        """The end waits for the artifacts; what came with it (maybe the start, for which these wait) does not."""
        for index, part in enumerate(self.parts):
            if part.ends is not None and (part.batch or part.starts):
                # As if its slot had been written late: what another thread has logged behind it is not read again.
                end = Part(part.end, part.end, ends=part.ends, late=[part.ends_at])
                end.ends_at = part.ends_at
                self.parts.insert(index + 1, end)
                self.progress.late.add(part.ends_at)
                part.late = [slot for slot in part.late if slot != part.ends_at]
                part.ends = None
                return

    def _suspect(self, part: Part) -> bool:
        return self.progress.suspect(part.start, part.late)

    # ── what is dealt with

    def passed(self, dealt_with: Set[Work]) -> list[Work]:
        """The works under way that are dealt with together with everything before them, once ``dealt_with`` are."""
        return list(takewhile(lambda work: work.done or work in dealt_with, self.flight))

    def done(self, work: Work) -> list[Work]:
        """The work is dealt with. What is dealt with together with everything before it: from here on the cursor stands
        behind it."""
        passed = self.passed({work})
        work.state = WorkState.DONE
        for each in passed:
            self.flight.popleft()
            self._weigh(-each.weight(), -each.bytes)
        self.progress.dealt_with(self._first(0), [number for each in passed for number in each.late])
        if work.ends is not None:
            self.progress.advance(Stage.ENDED)
        return passed

    def _first(self, passed: int) -> int | None:
        """Where what is loaded begins, once so many works are gone."""
        if passed < len(self.flight):
            return self.flight[passed].start
        return self.parts[0].start if self.parts else None

    def at(self, run_id: str | None, dealt_with: Set[Work]) -> RunPosition:
        """For the cursor: where the run is; or will be, once the works ``dealt_with`` are acknowledged."""
        ended, late, left, passed = self.progress.stage >= Stage.ENDED, self.progress.late, self.flight, 0
        # Asked of every run each time that one gets on: those that it does not concern have none that is passed.
        if dealt_with and self.flight and not dealt_with.isdisjoint(self.flight):
            gone = self.passed(dealt_with)
            passed = len(gone)
            ended |= any(work.ends is not None for work in self.flight if work in dealt_with)
            late = late.difference(*(work.late for work in gone))
            left = deque(work for work in self.flight if work not in dealt_with)
        first = self._first(passed)
        acknowledged = self.progress.read_to if first is None else first
        bookmark = self._bookmark(left, acknowledged) if left or self.progress.bookmark is not None else (None, 0)
        return RunPosition(acknowledged, run_id, *bookmark, ended, tuple(sorted(late)) if late else ())

    def _bookmark(self, left: Iterable[Work], acknowledged: int) -> tuple[object, int]:
        """The bookmark behind which some of what is under way may be stored, and where that ends."""
        marks = [(work.bookmark, work.end) for work in left if work.bookmark is not None]
        if self.progress.bookmark is not None and self.progress.bookmark_end > acknowledged:
            marks.append((self.progress.bookmark, self.progress.bookmark_end))
        return (marks[0][0], max(end for _, end in marks)) if marks else (None, 0)


class UploadAccumulator(Accumulator):
    """The artifacts of one run. One is a work, and several may be under way, but for those that overwrite one
    another."""

    def _choose(self, limits: Limits, end_waits: bool) -> list[Part]:
        part = next(iter(self.parts), None)
        if part is None or part.upload is None or self._overtakes(part):
            return []
        for work in self.flight:
            if work.upload is not None and not work.done and clash(work.upload, part.upload):
                return []
        return [part]

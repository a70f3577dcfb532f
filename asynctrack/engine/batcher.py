"""What goes into the next batch. Pure: decides, and leaves reading and sending to others.

A `Lane` is one run on its way to the store. It takes the run's share of each chunk of the journal as a `Part`, and
gives out `Work`: as many whole parts as the store takes at once. Acknowledging is by parts, so the cursor only ever
stands between chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.errors import StoreError
from asynctrack.stores.base import Batch, Limits, RunSpec

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["EndOfRun", "Lane", "Part", "Work", "split"]


class EndOfRun(NamedTuple):
    """A run's last event: its status (a `RunStatus` name) and end time (ms)."""

    status: str
    end_time: int


class Part:
    """One run's events of journal slots ``start`` … ``end - 1`` (and of the ``late`` slots before them)."""

    __slots__ = ("batch", "end", "ends", "late", "start", "starts")

    def __init__(self, start: int, end: int, *, ends: EndOfRun | None = None, late: Iterable[int] = ()) -> None:
        self.start = start
        self.end = end
        self.batch = Batch()
        self.starts = False
        self.ends = ends
        self.late = list(late)

    def weight(self) -> int:
        """How many entities and calls it is worth."""
        return len(self.batch) + self.starts + (self.ends is not None)


class Work:
    """The next thing to do for a run: create it, send a batch, end it; any of the three may be absent."""

    __slots__ = ("batch", "end", "ends", "parts", "starts")

    def __init__(self) -> None:
        self.parts = 0
        self.end = 0
        self.batch = Batch()
        self.starts = False
        self.ends: EndOfRun | None = None


class Lane:
    """One run's way to the store: what is loaded, what is under way, what went wrong."""

    def __init__(self, run: int, spec: RunSpec, *, attached: bool) -> None:
        self.run = run
        self.spec = spec
        #: a forked child logging to its parent's run: it does not end it
        self.attached = attached
        self.run_id: str | None = spec.run_id
        self.info: RunInfo | None = None
        #: why the run could not be created, for good
        self.refused: StoreError | None = None
        self.ended = False
        #: a lane with the same run before this one, whose events (its end, above all) go first
        self.after: Lane | None = None
        #: read up to here; None: up to wherever the source has read for everybody
        self.position: int | None = None
        self.parts: deque[Part] = deque()
        self.loaded_weight = 0
        # the batch under way
        self.busy = False
        self.bookmark: Any = None
        self.bookmark_end = 0
        self.uncertain = False
        self.attempts = 0
        self.retry_at = 0.0
        # counters for stats()
        self.accepted = 0
        self.delivered = 0
        self.rejected = 0
        self.retries = 0
        self.last_error: str | None = None
        self.refusals: deque[str] = deque(maxlen=20)

    def add(self, part: Part) -> None:
        """Take one part in."""
        self.parts.append(part)
        self.loaded_weight += part.weight()
        self.accepted += len(part.batch)

    def has_room(self, limits: Limits) -> bool:
        """Whether to load more: one batch under way and one ready are enough."""
        return self.loaded_weight < 2 * limits.entities

    def acknowledged(self, front: int) -> int:
        """Every event of the run before this sequence number is dealt with."""
        if self.parts:
            return self.parts[0].start
        return front if self.position is None else self.position

    def blocked(self) -> bool:
        """Whether this run is to be taken up again while an earlier end of it is still on its way."""
        if self.after is not None and self.parts and self.parts[0].starts:
            return bool(self.after.parts) or self.after.position is not None
        return False

    def next_work(self, limits: Limits) -> Work | None:
        """The next parts that fit one batch together, still in the lane until `done`; None when it is empty."""
        if not self.parts:
            return None
        work = Work()
        weight = 0
        for part in self.parts:
            if work.parts and (weight + part.weight() > limits.entities or work.ends is not None):
                break
            work.parts += 1
            work.end = part.end
            weight += part.weight()
            work.starts |= part.starts
            work.ends = part.ends
            work.batch = work.batch.plus(part.batch) if work.batch else part.batch
        return work

    def done(self, work: Work) -> list[int]:
        """The work is dealt with: forget its parts; the late slots among them."""
        late: list[int] = []
        for _ in range(work.parts):
            part = self.parts.popleft()
            self.loaded_weight -= part.weight()
            late += part.late
        if work.ends is not None:
            self.ended = True
        if work.end >= self.bookmark_end:
            self.bookmark, self.bookmark_end, self.uncertain = None, 0, False
        self.attempts, self.retry_at = 0, 0.0
        return late

    def in_flight(self) -> Iterator[int]:
        """Late slots that are loaded and not dealt with."""
        for part in self.parts:
            yield from part.late


def split(batch: Batch, limits: Limits) -> Iterator[Batch]:
    """``batch`` in pieces of at most the limits' counts, in order. The batch itself where it fits."""
    counts = (batch.points, len(batch.params), len(batch.tags))
    if all(count <= limit for count, limit in zip(counts, limits, strict=False)) and sum(counts) <= limits.entities:
        yield batch
        return
    room = {"metric": limits.metrics, "param": limits.params, "tag": limits.tags}
    piece: list[tuple[str, str, Any]] = []
    used = dict.fromkeys(room, 0)
    for item in batch.items():
        kind = item[0]
        if used[kind] == room[kind] or len(piece) == limits.entities:
            yield Batch.of(piece)
            piece, used = [], dict.fromkeys(room, 0)
        piece.append(item)
        used[kind] += 1
    yield Batch.of(piece)

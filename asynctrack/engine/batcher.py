"""What goes into the next batch. Pure: decides, and leaves reading and sending to others.

A `Lane` is one run on its way to the store. It takes the run's share of each chunk of the journal as a `Part`, and
gives out `Work`: as many whole parts as the store takes at once. Where the store allows it, batches of metrics
overlap; what must keep its order (params among themselves, tags, the run's start and end) waits for its turn. The
cursor only ever stands between chunks, before the first work that is not dealt with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.engine.uploads import Upload, clash
from asynctrack.errors import StoreError
from asynctrack.stores.base import Batch, Limits, RunSpec

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["EndOfRun", "Lane", "Part", "Work", "split"]


#: seconds after which a request that is still under way takes no place away from other runs
_STUCK = 5.0


class EndOfRun(NamedTuple):
    """A run's last event: its status (a `RunStatus` name) and end time (ms)."""

    status: str
    end_time: int
    #: nobody has logged it: the program died. Whoever has ended the run since knows better.
    assumed: bool = False


class Part:
    """One run's events of journal slots ``start`` … ``end - 1`` (and of the ``late`` slots before them)."""

    __slots__ = ("batch", "end", "ends", "ends_at", "late", "start", "starts", "upload")

    def __init__(
        self,
        start: int,
        end: int,
        *,
        ends: EndOfRun | None = None,
        late: Iterable[int] = (),
        upload: Upload | None = None,
    ) -> None:
        self.start = start
        self.end = end
        self.batch = Batch()
        self.starts = False
        self.ends = ends
        #: the slot of the run's end
        self.ends_at = start
        self.late = list(late)
        #: an artifact; it has a part, and a work, of its own
        self.upload = upload

    @property
    def alone(self) -> bool:
        """Whether nothing else of the run may be under way with it."""
        return self.starts or self.ends is not None

    @property
    def ordered(self) -> bool:
        """Whether it may not overtake others of its kind: params and tags."""
        return bool(self.batch.params or self.batch.tags)

    def weight(self) -> int:
        """How many entities and calls it is worth."""
        return len(self.batch) + self.starts + (self.ends is not None) + (self.upload is not None)


class Work(Part):
    """The next thing to do for a run: create it, send a batch, end it; any of the three may be absent.

    It is the same work, with the same events, however often it is tried.
    """

    __slots__ = ("attempts", "begun", "bookmark", "busy", "done", "isolate", "uncertain")

    def __init__(self, first: Part) -> None:
        super().__init__(first.start, first.end)
        #: being carried out just now, since ``begun`` (monotonic seconds)
        self.busy = False
        self.begun = 0.0
        #: dealt with, though maybe not what stands before it
        self.done = False
        self.bookmark: Any = None
        #: some of it may be stored already, behind the bookmark
        self.uncertain = False
        self.attempts = 0
        #: the store fails at this batch and takes others: find the event that it fails at
        self.isolate = False

    def take(self, part: Part) -> None:
        """Join the next part to it."""
        self.end = part.end
        self.starts |= part.starts
        self.ends = part.ends
        self.late += part.late
        self.upload = part.upload
        self.batch = self.batch.plus(part.batch) if self.batch else part.batch


class Lane:
    """One run's way to the store: what is loaded, what is under way, what went wrong."""

    def __init__(self, run: int, spec: RunSpec, *, attached: bool) -> None:
        self.run = run
        self.spec = spec
        #: a forked child logging to its parent's run: it does not end it
        self.attached = attached
        self.run_id: str | None = spec.run_id
        self.info: RunInfo | None = None
        #: where its artifacts go, once somebody had to know
        self.artifact_uri: str | None = None
        #: why the run could not be created, for good
        self.refused: StoreError | None = None
        #: why the user has to mend something before it can be created
        self.held: StoreError | None = None
        self.ended = False
        #: a lane with the same run before this one, whose events (its end, above all) go first
        self.after: Lane | None = None
        #: the lane of the run that this one is nested in, whose id the store may still have to give
        self.parent: Lane | None = None
        #: the lane of this run's artifacts, which go beside everything else; the run's end waits for it
        self.uploads: Lane | None = None
        #: the run whose artifacts this lane is for
        self.uploads_of: Lane | None = None
        #: artifacts that were refused, by their snapshot's name, and why
        self.failed: dict[str, str] = {}
        #: read up to here; None: up to wherever the source has read for everybody
        self.position: int | None = None
        self.parts: deque[Part] = deque()
        #: under way, or put off, in order
        self.flight: deque[Work] = deque()
        self.loaded_weight = 0
        #: from a dead process's cursor: what starts before ``bookmark_end``, or came late, may be stored already
        self.bookmark: Any = None
        self.bookmark_end = 0
        self.suspects: set[int] = set()
        #: times in a row that the store failed; what was under way together counts once
        self.attempts = 0
        self.failed_at = self.failing_since = 0.0
        #: monotonic seconds; success brings it forward, but not to before what the store has asked for
        self.retry_at = 0.0
        self.not_before = 0.0
        #: what was said last about this run to the user, so that it is said once
        self.told: str | None = None
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
        self.accepted += len(part.batch) + (part.upload is not None)

    @property
    def name(self) -> str:
        """The run's id, for messages; the uid that it was registered with while the store has not given it one."""
        run = self.uploads_of or self
        return run.run_id or run.spec.uid

    @property
    def idle(self) -> bool:
        """Nothing is loaded and nothing is under way."""
        return not self.parts and not self.flight

    @property
    def level(self) -> bool:
        """Nothing is left of what has been read for everybody, artifacts included."""
        return self.idle and self.position is None and (self.uploads is None or self.uploads.level)

    def has_room(self, limits: Limits, depth: int, now: float) -> bool:
        """Whether to load more: ``depth`` batches under way and one ready are enough. Of a run that does not get on
        nothing need be ready: there may be many of them."""
        return self.loaded_weight < (depth + 1) * limits.entities and not (self.parts and self.stalled(now))

    def stalled(self, now: float) -> bool:
        """Whether it does not get on: the store fails at it, does not answer, or something else goes first."""
        return bool(self.attempts or self.retry_at > now or self.stuck(now) or self.blocked())

    def stuck(self, now: float) -> int:
        """How many of its requests have been under way for so long that their answers may never come."""
        return sum(work.busy and now - work.begun > _STUCK for work in self.flight)

    def acknowledged(self, front: int) -> int:
        """Every event of the run before this sequence number is dealt with."""
        for first in (self.flight, self.parts):
            if first:
                return first[0].start
        return front if self.position is None else self.position

    def blocked(self) -> bool:
        """Whether another run's creation, or an earlier end of this very run, is still on its way and goes first."""
        run, parent = self.uploads_of, self.parent
        if run is not None and not (run.run_id or run.refused):
            return True
        if self.run_id is None and parent is not None and not (parent.run_id or parent.ended or parent.refused):
            return True
        if self.after is not None and self.parts and self.parts[0].starts:
            return not self.after.idle or self.after.position is not None
        return False

    def next_work(self, limits: Limits, overlap: int = 1) -> Work | None:
        """What to do next; None when there is nothing, or something under way must come first.

        ``overlap``: how many batches of a run may be under way at once. The work is in ``flight`` until it is `done`.
        """
        for work in self.flight:
            if not work.busy and not work.done:
                return work
        creates = self.run_id is None and self.uploads_of is None
        if len(self.flight) >= overlap or (self.flight and creates):
            return None
        if any(work.alone for work in self.flight):
            return None
        return self._take(limits)

    def _take(self, limits: Limits) -> Work | None:
        ends_later = self.uploads is not None and not self.uploads.level
        if ends_later:
            self._set_end_apart()
        ordered_before = any(work.ordered for work in self.flight)
        taken: list[Part] = []
        weight = 0
        for part in self.parts:
            if self.flight and (part.alone or (part.ordered and ordered_before)):
                break
            if part.ends is not None and ends_later:
                break
            if part.upload is not None:
                return self._take_upload(part)
            if taken and (weight + part.weight() > limits.entities or taken[-1].ends is not None):
                break
            if taken and self._suspect(part) != self._suspect(taken[0]):
                break  # the bookmark knows nothing of what comes behind it
            taken.append(part)
            weight += part.weight()
        if not taken or (self.flight and weight < limits.entities // 2):
            return None  # a small batch beside others would only cost the store more: it fills up meanwhile
        work = Work(taken[0])
        for part in taken:
            work.take(part)
            self.parts.popleft()
        if self._suspect(work):
            work.bookmark, work.uncertain = self.bookmark, True
        self.flight.append(work)
        return work

    def _set_end_apart(self) -> None:
        """The end waits for the artifacts; what came with it (maybe the start, for which these wait) does not."""
        for index, part in enumerate(self.parts):
            if part.ends is not None and (part.batch or part.starts):
                self.parts.insert(index + 1, Part(part.ends_at, part.end, ends=part.ends, late=part.late))
                part.ends = None
                return

    def _take_upload(self, part: Part) -> Work | None:
        """One at a time is a work, and several may be under way, but for those that overwrite one another."""
        if part.upload is None:
            return None
        if any(work.upload and not work.done and clash(work.upload, part.upload) for work in self.flight):
            return None
        work = Work(part)
        work.take(self.parts.popleft())
        work.uncertain = self._suspect(part)
        self.flight.append(work)
        return work

    def _suspect(self, part: Part) -> bool:
        """Whether some of it may be stored already, by a process that died."""
        if self.bookmark is None:
            return False
        return part.start < self.bookmark_end or not self.suspects.isdisjoint(part.late)

    def done(self, work: Work) -> list[Work]:
        """The work is dealt with. What is dealt with together with everything before it: from here on the cursor stands
        behind it."""
        work.done, work.busy = True, False
        passed = []
        while self.flight and self.flight[0].done:
            passed.append(self.flight.popleft())
            self.loaded_weight -= passed[-1].weight()
        if work.ends is not None:
            self.ended = True
        self.attempts, self.retry_at = 0, self.not_before
        return passed

    def sent_bookmark(self, acknowledged: int) -> tuple[Any, int]:
        """For the cursor: the bookmark behind which some of what is under way may be stored, and where that ends."""
        marks = [(work.bookmark, work.end) for work in self.flight if work.bookmark is not None]
        if self.bookmark is not None and self.bookmark_end > acknowledged:
            marks.append((self.bookmark, self.bookmark_end))
        return (marks[0][0], max(end for _, end in marks)) if marks else (None, 0)


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

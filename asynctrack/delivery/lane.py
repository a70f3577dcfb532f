"""One run on its way to the store: which run it is, what is loaded of it, and whether it gets on. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import TYPE_CHECKING

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.delivery.accumulator import FRAME_BYTES, Accumulator, UploadAccumulator
from asynctrack.delivery.progress import Front, RunProgress, Stage
from asynctrack.delivery.queues import RunQueue
from asynctrack.delivery.retry import Backoff
from asynctrack.delivery.work import Part, Work
from asynctrack.errors import StoreError
from asynctrack.journal.positions import RunPosition
from asynctrack.stores.base import Limits, RunSpec

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo

__all__ = ["EVENT_BYTES", "Lane", "UploadLane"]

#: about what a metric point takes in memory
EVENT_BYTES = 100


class Lane:
    """One run's way to the store: what is loaded, what is under way, what went wrong."""

    #: the run whose artifacts this lane is for
    uploads_of: Lane | None = None

    def __init__(
        self,
        run: int,
        spec: RunSpec,
        *,
        attached: bool,
        front: Front | None = None,
        queue: RunQueue | None = None,
    ) -> None:
        self.run = run
        self.spec = spec
        #: a forked child logging to its parent's run: it does not end it
        self.attached = attached
        self.progress = RunProgress(Front() if front is None else front, run)
        self.accumulator = Accumulator(self.progress)
        #: the lanes of this very run, here and in other spools
        self.queue = RunQueue() if queue is None else queue
        self.info: RunInfo | None = None
        #: where its artifacts go, once somebody had to know
        self.artifact_uri: str | None = None
        #: it was taken up again, in a spool whose program died, and somebody else has ended it since: at which time, in
        #: ms since the epoch; 0: nobody has
        self.superseded = 0
        #: why the run could not be created, for good
        self.refused: StoreError | None = None
        #: why the user has to mend something before it can be created
        self.held: StoreError | None = None
        #: the lane of this run's artifacts, which go beside everything else; the run's end waits for it
        self.uploads: UploadLane | None = None
        #: artifacts that were refused, by their snapshot's name, and why
        self.failed: dict[str, str] = {}
        #: of a dead process's run: the latest timestamp of a point that was loaded, in ms
        self.latest_point = 0
        #: when the store is tried again, and when the spool's own files
        self.backoff, self.disk = Backoff(), Backoff()
        # counters for stats()
        self.accepted = 0
        self.delivered = 0
        self.rejected = 0
        self.retries = 0
        self.last_error: str | None = None
        self.refusals: deque[str] = deque(maxlen=20)

    # ── which run it is

    @property
    def run_id(self) -> str | None:
        """The run's id in the store; None: it is not known yet."""
        return self.queue.run_id or self.spec.run_id

    @run_id.setter
    def run_id(self, run_id: str | None) -> None:
        if run_id is not None:
            self.queue.learn(run_id)
            self.progress.advance(Stage.OPEN)

    @property
    def creates(self) -> bool:
        """Whether it is up to this lane to create the run, and it has not yet."""
        return not (self.attached or self.run_id or self.refused or self.ended)

    @property
    def parent(self) -> Lane | None:
        """The lane of the run that this one is nested in, whose id the store may still have to give."""
        name = self.spec.tags.get(PARENT_RUN_TAG)
        queue = self.queue.other(name) if name is not None else None
        return None if queue is None else queue.first()

    @property
    def beside(self) -> list[Lane]:
        """The other lanes of its run: they may wait for this one."""
        lanes = [each for main in self.queue.live for each in (main, main.uploads)]
        return [lane for lane in lanes if lane is not None and lane is not self]

    @property
    def name(self) -> str:
        """The run's id, for messages; the uid that it was registered with while the store has not given it one."""
        return self.run_id or self.spec.uid

    @property
    def order(self) -> tuple[tuple[int, str], int]:
        """Where it stands among the lanes of its run."""
        return self.progress.front.order, self.run

    @property
    def ended(self) -> bool:
        """Whether its end is delivered."""
        return self.progress.stage >= Stage.ENDED

    # ── what is loaded

    @property
    def parts(self) -> deque[Part]:
        """What is loaded and not under way."""
        return self.accumulator.parts

    @property
    def flight(self) -> deque[Work]:
        """What is under way, or put off, in order."""
        return self.accumulator.flight

    @property
    def loaded_weight(self) -> int:
        """How many entities and calls are loaded, under way or not."""
        return self.accumulator.weight

    def add(self, part: Part) -> None:
        """Take one part in, behind the others; one that was written late, in its place among them."""
        self.accumulator.add(part)
        self.progress.advance(Stage.ENDING if part.ends is not None else Stage.CREATING)
        if self.run_id is not None:
            self.progress.advance(Stage.OPEN)
        self.accepted += len(part.batch) + (part.upload is not None)

    def unload(self) -> set[int] | None:
        """Let go of what is loaded; see `Accumulator.unload`."""
        events = sum(len(part.batch) + (part.upload is not None) for part in (*self.parts, *self.flight))
        late = self.accumulator.unload()
        if late is not None:
            self.accepted -= events
        return late

    @property
    def idle(self) -> bool:
        """Nothing is loaded and nothing is under way."""
        return self.accumulator.idle

    @property
    def caught_up(self) -> bool:
        """Nothing is left of what has been read for everybody, artifacts not counted."""
        return self.idle and self.progress.position is None

    @property
    def level(self) -> bool:
        """The same, artifacts included."""
        return self.caught_up and (self.uploads is None or self.uploads.level)

    def has_room(self, limits: Limits, depth: int, now: float, *, tight: bool = False) -> bool:
        """Whether to load more: ``depth`` batches under way and one ready are enough. Of a run that does not get on one
        part is, and of one that waits for its next attempt, or where memory is ``tight``, nothing: there may be many of
        them."""
        if self.idle:
            return not (self.waits(now) or (tight and self.blocked()))
        if self.loaded_weight >= (depth + 1) * limits.entities or self.accumulator.bytes >= (depth + 1) * FRAME_BYTES:
            return False
        return not self.stalled(now)

    @property
    def load(self) -> int:
        """What it holds in memory, as so many events."""
        return self.accumulator.weight + self.accumulator.bytes // EVENT_BYTES

    # ── whether it gets on

    def waits(self, now: float) -> bool:
        """Whether it is too early to try again."""
        return self.backoff.waits(now) or self.disk.waits(now)

    def stalled(self, now: float) -> bool:
        """Whether it does not get on: the store fails at it, does not answer, or something else goes first."""
        return bool(self.backoff.attempts or self.waits(now) or self.stuck(now) or self.blocked())

    def stuck(self, now: float) -> int:
        """How many of its requests have been under way for so long that their answers may never come."""
        return self.accumulator.stuck(now)

    def blocked(self) -> bool:
        """Whether something else goes first: the creation of the run that it is nested in, or older events of this very
        run, in another lane."""
        if self.run_id is None:
            parent = self.parent
            if parent is not None and not (parent.run_id or parent.ended or parent.refused):
                return True
        return not self.creates and self.queue.holds_up(self)

    def goes_before(self, later: Lane) -> bool:
        """Whether what this lane still has to deliver goes before what ``later``, of the same run, has loaded."""
        if not later.parts:
            return False
        if self.progress.front is not later.progress.front:
            # An older spool: whatever is in it was logged before.
            return not (self.caught_up and self.progress.front.complete)
        first = later.parts[0]
        if first.starts:
            return not self.caught_up
        return first.ordered and self.progress.watermark < first.start

    # ── what goes next

    def next_work(self, limits: Limits, overlap: int = 1) -> Work | None:
        """What to do next; None when there is nothing, or something under way must come first. See
        `Accumulator.next_work`."""
        end_waits = self.uploads is not None and not self.uploads.level
        return self.accumulator.next_work(limits, overlap, created=self.run_id is not None, end_waits=end_waits)

    def done(self, work: Work) -> list[Work]:
        """The work is dealt with. What is dealt with together with everything before it: from here on the cursor stands
        behind it."""
        self.backoff.succeeded()
        return self.accumulator.done(work)

    @property
    def plain(self) -> bool:
        """Whether, once nothing of it is loaded, a cursor says nothing of it but its id."""
        return self.progress.bookmark is None and self.progress.stage < Stage.ENDED

    def at(self, dealt_with: Set[Work] = frozenset()) -> RunPosition:
        """For the cursor: where the run is; or will be, once the works ``dealt_with`` are acknowledged."""
        return self.accumulator.at(self.run_id, dealt_with)


class UploadLane(Lane):
    """The artifacts of one run, on their way beside everything else."""

    uploads_of: Lane

    def __init__(self, main: Lane) -> None:
        super().__init__(-main.run, main.spec, attached=True, front=main.progress.front, queue=main.queue)
        self.accumulator = UploadAccumulator(self.progress)
        self.uploads_of = main

    def blocked(self) -> bool:
        """Whether the run is still to be created, or artifacts in an older spool go first."""
        main = self.uploads_of
        return main.refused is None and (main.run_id is None or main.queue.holds_up(self))

    def goes_before(self, later: Lane) -> bool:
        """Whether what this lane still has to deliver goes before what ``later``, of the same run, has loaded."""
        if self.progress.front is later.progress.front:
            return False
        return not (self.caught_up and self.progress.front.complete)

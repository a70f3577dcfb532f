"""What is on its way to the store: parts, as they are read from the journal, and works, as they are sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.delivery.uploads import Upload
from asynctrack.stores.base import Batch, Limits, Refusal

if TYPE_CHECKING:
    from asynctrack.delivery.isolation import Isolation

__all__ = ["EndOfRun", "Part", "Work", "WorkState", "split"]


class EndOfRun(NamedTuple):
    """A run's last event: its status (a `RunStatus` name) and end time (ms)."""

    status: str
    end_time: int
    #: nobody has logged it: the program died. Whoever has ended the run since knows better.
    assumed: bool = False


class Part:
    """One run's events of journal slots ``start`` … ``end - 1`` (and of the ``late`` slots before them)."""

    __slots__ = ("_places", "batch", "bytes", "end", "ends", "ends_at", "late", "start", "starts", "upload")

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
        #: what its frames take in memory, about
        self.bytes = 0
        #: the slots of its params, of its tags and of its inputs
        self._places: tuple[list[int], list[int], list[int]] = ([], [], [])

    @property
    def at(self) -> int:
        """The slot that it comes from, or the first of them."""
        return self.late[0] if self.late and self.start == self.end else self.start

    @property
    def alone(self) -> bool:
        """Whether nothing else of the run may be under way with it."""
        return self.starts or self.ends is not None

    @property
    def ordered(self) -> bool:
        """Whether it may not overtake others of its kind: params, tags and inputs."""
        return bool(self.batch.params or self.batch.tags or self.batch.inputs)

    @property
    def ordered_to(self) -> int:
        """The last slot whose event must not overtake those before it; -1: there is none."""
        if self.upload is not None:
            return self.at
        return max((places[-1] for places in self._places if places), default=-1)

    def weight(self) -> int:
        """How many entities and calls it is worth."""
        return len(self.batch) + self.starts + (self.ends is not None) + (self.upload is not None)

    def add_params(self, place: int, entries: Iterable[tuple[str, str]]) -> None:
        """Add what stands in slot ``place``, in its place among the others."""
        _insert(self._places[0], self.batch.params, place, entries)

    def add_tags(self, place: int, entries: Iterable[tuple[str, str]]) -> None:
        """The same with tags."""
        _insert(self._places[1], self.batch.tags, place, entries)

    def add_inputs(self, place: int, entries: Iterable[tuple[str, str]]) -> None:
        """The same with inputs."""
        _insert(self._places[2], self.batch.inputs, place, entries)

    def absorb(self, late: Part) -> None:
        """Take in what stands in a slot of this part, and was written late."""
        for mine, theirs, add in (
            (late.batch.params, late._places[0], self.add_params),
            (late.batch.tags, late._places[1], self.add_tags),
            (late.batch.inputs, late._places[2], self.add_inputs),
        ):
            for entry, place in zip(mine, theirs, strict=True):
                add(place, [entry])
        for key, points in late.batch.metrics.items():
            self.batch.metrics  # noqa: B018  # decodes: in a batch the points in ``blocks`` are the last ones
            self.batch.add(key, points)
        self.starts |= late.starts
        self.ends = late.ends or self.ends
        self.ends_at = late.ends_at if late.ends is not None else self.ends_at
        self.late += late.late
        self.bytes += late.bytes


def _insert(places: list[int], items: list[tuple[str, str]], place: int, entries: Iterable[tuple[str, str]]) -> None:
    new = list(entries)
    index = bisect_right(places, place)
    places[index:index] = [place] * len(new)
    items[index:index] = new


class WorkState(Enum):
    """Where a work stands: to be begun, or begun again; being carried out; acknowledged."""

    READY = 1
    BUSY = 2
    DONE = 3


class Work(Part):
    """The next thing to do for a run: create it, send a batch, end it; any of the three may be absent.

    It is the same work, with the same events, however often it is tried.
    """

    __slots__ = (
        "attempts",
        "begun",
        "bookmark",
        "incomplete",
        "isolation",
        "refusals",
        "refusals_kept",
        "state",
        "suspected",
        "uncertain",
    )

    def __init__(self, first: Part) -> None:
        super().__init__(first.start, first.end)
        self.state = WorkState.READY
        #: when it was begun last (monotonic seconds)
        self.begun = 0.0
        self.bookmark: Any = None
        #: some of it may be stored already, behind the bookmark
        self.uncertain = False
        self.attempts = 0
        #: the store has its run in part only: it is to be created again
        self.incomplete = False
        #: the store fails at it again and again: it may be an event's fault
        self.suspected = False
        #: how far the sending of its batch is
        self.isolation: Isolation | None = None
        #: what the store has refused of it; None until it has dealt with all of it
        self.refusals: list[Refusal] | None = None
        #: they are written down
        self.refusals_kept = False

    @property
    def busy(self) -> bool:
        """It is being carried out just now."""
        return self.state is WorkState.BUSY

    @property
    def done(self) -> bool:
        """It is dealt with, though maybe not what stands before it."""
        return self.state is WorkState.DONE

    def take(self, part: Part) -> None:
        """Join the next part to it."""
        self.end = part.end
        self.starts |= part.starts
        self.ends = part.ends
        self.late += part.late
        self.bytes += part.bytes
        self.upload = part.upload
        self.batch = self.batch.plus(part.batch) if self.batch else part.batch


def split(batch: Batch, limits: Limits) -> Iterator[Batch]:
    """``batch`` in pieces of at most the limits' counts, in order. The batch itself where it fits."""
    room = {"metric": limits.metrics, "param": limits.params, "tag": limits.tags, "input": limits.tags}
    counts = (batch.points, len(batch.params), len(batch.tags), len(batch.inputs))
    if (
        all(count <= limit for count, limit in zip(counts, room.values(), strict=True))
        and len(batch) <= limits.entities
    ):
        yield batch
        return
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

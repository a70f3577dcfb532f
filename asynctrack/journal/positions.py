"""How far the consumer of a journal is: what its cursor says, as `FORMAT.md` describes it. Pure.

Whoever delivers writes it; whoever waits for a delivery, and whoever looks at a spool, reads it. What it means for an
event to be acknowledged is decided here and nowhere else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

__all__ = ["Numbers", "Positions", "RunPosition", "at_front"]

_acknowledged = itemgetter(0)


class Numbers:
    """Which numbers were seen, where nearly all up to the highest were: it keeps the gaps."""

    def __init__(self, highest: int = 0, gaps: Iterable[tuple[int, int]] = ()) -> None:
        self.highest = highest
        #: first and last of each stretch below the highest that was not seen, in order
        self.gaps: list[tuple[int, int]] = sorted(gaps)

    def __contains__(self, number: int) -> bool:
        return 0 < number <= self.highest and self._gap_of(number) is None

    def add(self, number: int) -> None:
        """From now on it was seen."""
        if number > self.highest:
            if number > self.highest + 1:
                self.gaps.append((self.highest + 1, number - 1))
            self.highest = number
            return
        index = self._gap_of(number)
        if index is not None:
            first, last = self.gaps[index]
            parts = [(first, number - 1), (number + 1, last)]
            self.gaps[index : index + 1] = [part for part in parts if part[0] <= part[1]]

    def copy(self) -> Numbers:
        """Another one of the same."""
        return Numbers(self.highest, self.gaps)

    def _gap_of(self, number: int) -> int | None:
        index = bisect_right(self.gaps, number, key=lambda gap: gap[0]) - 1
        return index if index >= 0 and number <= self.gaps[index][1] else None


class RunPosition(NamedTuple):
    """What a cursor says about one run, or about the artifacts of one."""

    #: every event before this sequence number is acknowledged, but for ``late`` ones
    acknowledged: int
    run_id: str | None = None
    bookmark: Any = None
    bookmark_end: int = 0
    ended: bool = False
    #: slots before ``acknowledged`` that were written late, and are not acknowledged
    late: tuple[int, ...] = ()


def at_front(front: int, run_id: str | None) -> RunPosition:
    """Where a run is of which everything that was read is acknowledged. A third of what calling the class costs."""
    return tuple.__new__(RunPosition, (front, run_id, None, 0, False, ()))


class Positions:
    """A cursor's contents."""

    def __init__(
        self,
        front: int = 0,
        seen: Numbers | None = None,
        pending: Iterable[int] = (),
        runs: Mapping[int, RunPosition] | None = None,
        to: str | None = None,
        reports: Mapping[int, list[Any]] | None = None,
    ) -> None:
        self.front = front
        #: the runs whose registration was read
        self.seen = Numbers() if seen is None else seen
        #: slots to look at again: not written yet, or found late and not acknowledged
        self.pending = sorted(pending)
        #: by run number; those of a run's artifacts by the negative number
        self.runs = dict(runs or {})
        self.to = to
        self.reports = dict(reports or {})

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Positions:
        """What a cursor's frame says. Raises ValueError where it is none that can be used."""
        try:
            seen = Numbers(int(record["known_runs"]), [(int(a), int(b)) for a, b in record.get("unknown_runs", ())])
            runs = {int(run): _run_position(*entry) for run, entry in record["runs"].items()}
            pending = [int(number) for number in record["pending"]]
            return cls(int(record["front"]), seen, pending, runs, record.get("to"), record.get("reports"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the cursor cannot be used: {error!r}") from None

    def record(self) -> dict[str, Any]:
        """What goes into the cursor's frame."""
        record: dict[str, Any] = {
            "front": self.front,
            "known_runs": self.seen.highest,
            "pending": self.pending,
            "runs": self.runs,
        }
        if self.seen.gaps:
            record["unknown_runs"] = [list(gap) for gap in self.seen.gaps]
        if self.to is not None:
            record["to"] = self.to
        if self.reports:
            record["reports"] = self.reports
        return record

    @property
    def begun(self) -> bool:
        """Whether a run may have an id in the store. It gets one before any event of it arrives there."""
        if any(position.run_id is not None for position in self.runs.values()):
            return True
        return any(run in self.seen and run not in self.runs for run in range(1, self.seen.highest + 1))  # delivered

    def acknowledged(self, run: int) -> int:
        """Every event of the run before this sequence number is acknowledged; with a negative number, every artifact.

        0 for a run whose registration was not read yet.
        """
        if abs(run) not in self.seen:
            return 0
        both = (run, -run) if run > 0 else (run,)
        return min(min([at.acknowledged, *at.late]) for at in map(self._position, both))

    def waits(self, run: int, start: int) -> bool:
        """Whether an event of the run at ``start`` is still to be delivered, where that is no slot of `pending`.
        Artifacts count under the negative number."""
        return start >= self._position(run).acknowledged

    def low_water(self) -> int:
        """Every event before this sequence number is acknowledged, whosesoever, but for those in `pending`."""
        return min(map(_acknowledged, self.runs.values()), default=self.front)

    def drop_finished(self) -> None:
        """Leave out the runs that have ended, and of which nothing is left: that they are seen says as much."""
        for run in [run for run, position in self.runs.items() if run > 0 and position.ended]:
            if all(
                self._position(number).acknowledged >= self.front and not self._position(number).late
                for number in (run, -run)
            ):
                self.runs.pop(run)
                self.runs.pop(-run, None)

    def borders(self) -> Iterator[int]:
        """Between two of these, in order, every slot is acknowledged by the same runs."""
        yield from sorted({self.front, *(position.acknowledged for position in self.runs.values())})

    def _position(self, run: int) -> RunPosition:
        return self.runs.get(run) or RunPosition(self.front)


def _run_position(
    acknowledged: int,
    run_id: str | None = None,
    bookmark: Any = None,
    bookmark_end: int = 0,
    ended: bool = False,
    late: Iterable[int] = (),
    *_: Any,
) -> RunPosition:
    return RunPosition(int(acknowledged), run_id, bookmark, int(bookmark_end), bool(ended), tuple(map(int, late)))

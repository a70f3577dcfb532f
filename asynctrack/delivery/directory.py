"""The runs of one journal: which number is which run, and which of them are kept in memory.

A number is unknown, live, finished or forgotten. *Live* runs have something to deliver or have not ended; *finished*
ones have ended, and are remembered for a while, for events that come behind their end.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from asynctrack.delivery.entries import Registration
from asynctrack.delivery.lane import Lane, UploadLane
from asynctrack.delivery.oldest import Oldest
from asynctrack.delivery.progress import Front, Stage
from asynctrack.delivery.queues import RunQueues
from asynctrack.delivery.work import Work
from asynctrack.journal.positions import Numbers, RunPosition, at_front

__all__ = ["RunDirectory"]


class RunDirectory:
    """Run number → lane. Lanes of artifacts are kept apart: a number, or a name, leads to a run's."""

    #: ended runs that are kept in memory; later ones are read from the registry
    remembered = 1000

    def __init__(
        self, front: Front, queues: RunQueues, *, forgotten: Callable[[int], object], experiment: str | None = None
    ) -> None:
        self._front = front
        #: told the number of each run of which nothing is kept any more
        self._forgotten = forgotten
        self.queues = queues
        queues.wait_no_more(front.order)
        #: the experiment, by name, that runs are created in, whatever their programs chose
        self._experiment = experiment
        #: the lanes of live runs, by run number; the lane of a run's artifacts under the negative number
        self.lanes: dict[int, Lane] = {}
        self.finished: dict[int, Lane] = {}
        #: the numbers of the runs whose registration was read
        self.seen = Numbers()
        #: live lanes that have something loaded, or are behind; no others have
        self.active: dict[Lane, None] = {}
        self._oldest = Oldest(self.active)

    def register(self, number: int, registration: Registration) -> Lane:
        """A run whose registration is read for the first time; or again, when it was forgotten meanwhile."""
        assert number not in self.lanes
        assert number not in self.finished
        spec, attached = registration
        if self._experiment is not None and spec.run_id is None:
            spec = spec._replace(experiment_id=None, experiment_name=self._experiment)
        names = [spec.run_id] if spec.run_id is not None else [spec.uid]
        lane = Lane(number, spec, attached=attached, front=self._front, queue=self.queues.queue(names))
        if number in self.seen:
            lane.progress.advance(Stage.ENDED)  # it was forgotten, and so it had ended
            self.finished[number] = lane
            self.queues.leave(lane)
        else:
            self.seen.add(number)
            self.lanes[number] = lane
            self.queues.join(lane)
        return lane

    def find(self, number: int) -> Lane | None:
        """The lane of a run as far as it is kept. Changes nothing, so any thread may ask."""
        return self.lanes.get(number) or self.finished.get(number)

    def uploads(self, main: Lane) -> UploadLane:
        """The lane of a run's artifacts, made for the first of them."""
        if main.uploads is None:
            main.uploads = UploadLane(main)
            if main.progress.everything_is_suspect:
                main.uploads.progress.suspect_everything()
            if main.run in self.lanes:
                self.lanes[-main.run] = main.uploads
        return main.uploads

    def activate(self, lane: Lane) -> None:
        """Something of the lane has been loaded, or is to be read again: its run is live."""
        main = lane.uploads_of or lane
        if main.run in self.finished:
            # A thread that logged while the run was being ended: its event comes behind the end, and counts.
            self.lanes[main.run] = self.finished.pop(main.run)
            if main.uploads is not None:
                self.lanes[-main.run] = main.uploads
            self.queues.join(main)
        self.active[lane] = None
        self._oldest.add(lane)

    def low_water(self) -> int:
        """Every event before this sequence number is dealt with, whosesoever."""
        number = self._oldest.number()
        return self._front.at if number is None else number

    def behind(self) -> list[tuple[int, Lane]]:
        """The lanes that have fallen behind, and how far each was read."""
        return [(position, self.lanes[run]) for run, position in self._front.behind.items()]

    def positions(self, dealt_with: Set[Work] = frozenset()) -> tuple[dict[int, RunPosition], list[int]]:
        """Where each live run is, once the works ``dealt_with`` are acknowledged; and the slots that were found late
        and are not acknowledged."""
        front, active = self._front.at, self.active
        # Of thousands of open runs nearly all are at rest, and each piece of work has all of them written.
        runs = {
            run: at_front(front, lane.run_id) if lane not in active and lane.plain else lane.at(dealt_with)
            for run, lane in self.lanes.items()
        }
        return runs, [number for lane in active for number in runs[lane.run].late]

    def busy_lanes(self) -> list[Lane]:
        """The lanes that have something loaded, or are behind. Any thread may ask."""
        return list(self.active)

    @property
    def drained(self) -> bool:
        """Whether all that is loaded is delivered, and no run is behind. Any thread may ask."""
        try:
            first = next(iter(self.active), None)
        except RuntimeError:
            return False  # another thread, whose it is, has just put something in, or out
        # Asked after each piece of work, where there may be thousands: nearly always the first says it all.
        return first is None or (first.caught_up and all(lane.caught_up for lane in self.busy_lanes()))

    def rest(self, lane: Lane) -> None:
        """Something of the lane was delivered. If that was all of an ended run, it is finished."""
        if lane.caught_up:
            self.active.pop(lane, None)
            self._oldest.tidy(len(self.active))
        main = lane.uploads_of or lane
        if main.ended and main.level:
            self.put_away(main)

    def put_away(self, main: Lane) -> None:
        """Nothing is left to do for a run."""
        main.progress.advance(Stage.ENDED)
        for lane in (main, main.uploads):
            if lane is not None:
                self.active.pop(lane, None)
                self.lanes.pop(lane.run, None)
        self.finished[main.run] = main
        self.queues.leave(main)
        while len(self.finished) > self.remembered:
            oldest = next(iter(self.finished))
            lane = self.finished.pop(oldest)
            lane.progress.advance(Stage.FORGOTTEN)
            self.queues.forget(lane)
            self._forgotten(oldest)

    def put_back(self) -> None:
        """This journal is to be taken up again: until then what it still has goes before what is younger."""
        left = [lane for run, lane in self.lanes.items() if run > 0 and not (lane.level and self._front.complete)]
        self.queues.wait_for(self._front.order, left)

    def close(self) -> None:
        """No lane of this journal holds up another one any more."""
        for number, lane in [*self.lanes.items(), *self.finished.items()]:
            if number > 0:
                self.queues.forget(lane)

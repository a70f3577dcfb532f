"""Where each run of a journal is, against a model that keeps every slot by itself."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynctrack.delivery.directory import RunDirectory
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.progress import Front, Stage
from asynctrack.delivery.queues import RunQueues
from asynctrack.delivery.work import EndOfRun, Part, Work
from asynctrack.stores.base import Limits, RunSpec

LIMITS = Limits(entities=6)
RUNS = st.integers(1, 5)


class SmallDirectory(RunDirectory):
    remembered = 1


class ProgressMachine(RuleBasedStateMachine):
    """Rules are what a source does with the lanes of its directory."""

    def __init__(self) -> None:
        super().__init__()
        self.front = Front()
        self.forgotten: set[int] = set()
        self.directory = SmallDirectory(self.front, RunQueues(), forgotten=lambda run: self.forgotten.add(run))
        #: slots of each run that are not dealt with
        self.left: dict[int, set[int]] = {}
        self.holes: set[int] = set()
        self.under_way: list[tuple[Lane, Work, set[int]]] = []
        self.slots_of: dict[int, set[int]] = {}
        self.watermarks: dict[Lane, int] = {}
        self.known: dict[int, Lane] = {}
        self.ended: set[int] = set()

    def lane(self, run: int) -> Lane:
        lane = self.directory.find(run)
        if lane is None:
            lane = self.directory.register(run, (RunSpec(uid=f"u{run}", run_id=f"r{run}"), False))
            self.known[run] = lane
        return lane

    def give(self, run: int, start: int, end: int, slots: set[int], *, late: bool, ends: bool = False) -> None:
        lane = self.lane(run)
        if not late and lane.progress.position is None and len(lane.parts) > 2:
            self.directory.activate(lane)
            lane.progress.position = start
            return
        if not late and lane.progress.position is not None and lane.progress.position < start:
            return
        part = Part(start, end, late=slots if late else (), ends=EndOfRun("FINISHED", 1) if ends else None)
        part.batch.add("m", [(slot, 0, 0.0) for slot in sorted(slots)])
        lane.add(part)
        self.directory.activate(lane)

    @rule(run=RUNS)
    def a_registration_is_read(self, run: int) -> None:
        self.lane(run)

    @rule(owners=st.lists(st.one_of(RUNS, st.none(), st.just(0)), min_size=1, max_size=5), ending=RUNS | st.none())
    def a_chunk_is_read(self, owners: list[int | None], ending: int | None) -> None:
        """Of each slot, the run; 0 where it is no event, None where it is not written yet."""
        start, end = self.front.at, self.front.at + len(owners)
        found: dict[int, set[int]] = {}
        for slot, owner in enumerate(owners, start):
            if owner is None:
                self.holes.add(slot)
            elif owner:
                found.setdefault(owner, set()).add(slot)
        for run, slots in found.items():
            self.left.setdefault(run, set()).update(slots)
            self.slots_of.setdefault(run, set()).update(slots)
            ends = run == ending and run not in self.ended
            if ends and (lane := self.directory.find(run)) is not None and lane.progress.position is not None:
                ends = False
            self.ended |= {run} if ends and len(self.lane(run).parts) <= 2 else set()
            self.give(run, start, end, slots, late=False, ends=ends)
        self.front.at = end

    @rule(run=RUNS, count=st.integers(1, 4))
    def a_run_reads_on(self, run: int, count: int) -> None:
        lane = self.directory.find(run)
        if lane is None or (position := lane.progress.position) is None:
            return
        end = min(position + count, self.front.at)
        slots = {slot for slot in self.slots_of.get(run, ()) if position <= slot < end}
        if slots:
            self.give(run, position, end, slots, late=False)
        lane.progress.position = None if end == self.front.at else end
        self.directory.rest(lane)

    @precondition(lambda self: self.holes)
    @rule(run=RUNS, data=st.data())
    def a_slot_is_written_late(self, run: int, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.holes)))
        self.holes.remove(slot)
        self.left.setdefault(run, set()).add(slot)
        self.slots_of.setdefault(run, set()).add(slot)
        position = self.lane(run).progress.position
        if position is None or position > slot:
            self.give(run, slot, slot + 1, {slot}, late=True)

    @rule(run=RUNS)
    def a_batch_is_begun(self, run: int) -> None:
        lane = self.directory.find(run)
        work = lane.next_work(LIMITS, 3) if lane is not None else None
        if lane is not None and work is not None and all(other is not work for _, other, _ in self.under_way):
            slots = {point[0] for points in work.batch.metrics.values() for point in points}
            self.under_way.append((lane, work, slots))

    @rule(run=RUNS)
    def a_run_lets_go_of_what_is_loaded(self, run: int) -> None:
        """Its works that are under way are begun anew, in other batches maybe."""
        lane = self.directory.find(run)
        if lane is None or any(work.done for work in lane.flight) or any(part.ends for part in lane.parts):
            return
        late = lane.unload()
        assert late is not None
        self.under_way = [entry for entry in self.under_way if entry[0] is not lane]
        for slot in sorted(late):
            if lane.progress.position is None or lane.progress.position > slot:
                self.give(run, slot, slot + 1, {slot}, late=True)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_batch_is_dealt_with(self, data: st.DataObject) -> None:
        lane, work, slots = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        promised = lane.at({work})
        lane.done(work)
        assert lane.at() == promised
        self.left[lane.run] -= slots
        self.directory.rest(lane)

    @invariant()
    def the_watermark_never_falls(self) -> None:
        for lane in self.directory.lanes.values():
            assert lane.progress.watermark >= self.watermarks.get(lane, 0)
            self.watermarks[lane] = lane.progress.watermark

    @invariant()
    def settled_means_that_nothing_before_the_mark_is_left(self) -> None:
        for run in self.known:
            lane = self.directory.find(run)
            for mark in range(self.front.at + 1):
                if lane is None or lane.progress.settled(mark):
                    assert not any(slot < mark for slot in self.left.get(run, ()))

    @invariant()
    def a_number_is_unknown_live_finished_or_forgotten(self) -> None:
        directory = self.directory
        assert not set(directory.lanes) & set(directory.finished)
        for run in range(1, 7):
            assert (run in directory.seen) == (run in self.known)
            if run in directory.lanes or run in directory.finished:
                assert directory.find(run) is not None
            elif run in directory.seen:
                assert self.known[run].progress.stage is Stage.FORGOTTEN
                assert run in self.ended
                assert run in self.forgotten
        assert len(directory.finished) <= directory.remembered
        assert all(lane.ended for lane in directory.finished.values())

    @invariant()
    def active_lanes_are_those_with_something_to_do(self) -> None:
        for lane in self.directory.lanes.values():
            assert (lane in self.directory.active) or lane.caught_up

    @invariant()
    def the_oldest_event_is_known_without_asking_every_run(self) -> None:
        active = self.directory.busy_lanes()
        oldest = min((lane.progress.acknowledged for lane in active), default=self.front.at)
        assert self.directory.low_water() == oldest

    @invariant()
    def the_lanes_that_have_fallen_behind_are_known(self) -> None:
        lanes = self.directory.lanes.values()
        behind = {(lane.progress.position, lane) for lane in lanes if lane.progress.position is not None}
        assert set(self.directory.behind()) == behind

    def teardown(self) -> None:
        """In the end everything can be delivered."""
        for _ in range(500):
            for run in list(self.known):
                self.a_run_reads_on(run, 4)
                self.a_batch_is_begun(run)
            while self.under_way:
                lane, work, slots = self.under_way.pop()
                lane.done(work)
                self.left[lane.run] -= slots
                self.directory.rest(lane)
        assert not any(self.left.values())


TestProgress = ProgressMachine.TestCase
TestProgress.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

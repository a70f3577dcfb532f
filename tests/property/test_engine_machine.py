"""The engine's reading, batching, sending and recovering against a model, in every order that hypothesis thinks of.

What holds throughout: an event whose log call has returned is stored, or still in a spool, or reported as refused;
each once; and each metric's points are stored in the order in which they were logged.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Loaded, Source
from asynctrack.errors import UnavailableError
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import FRAME, PACK
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from asynctrack.stores.base import Batch, Limits, Refusal
from asynctrack.stores.io import drive
from tests.journals import ExactStore, bits, leave_behind, let_go, new_journal, register, uid


class Killed(BaseException):
    """The process ends in the middle of a call to the store."""


class Process:
    """A process that logs, and delivers what it and dead processes have logged."""

    def __init__(self, home: Path, orphans: list[Path], delivery: Sender) -> None:
        self.delivery = delivery
        self.journal: Journal = new_journal(home, slots=6)
        self.own = Source(self.journal.spool, self.journal.head, delivery.store.limits, adopted=False)
        self.adopted: list[Source] = []
        for path in orphans:
            spool = Spool.adopt(str(path))
            assert spool is not None
            head = spool.segments.look(None, living=False)
            assert not spool.segments.problems
            self.adopted.append(Source(spool, head, delivery.store.limits, adopted=True))
        #: open runs: number → streams by key
        self.runs: dict[int, dict[str, int]] = {}
        #: claimed slots that are not written yet, with what is to be written there
        self.claimed: list[tuple[Segment, Any, int, int, int, str]] = []
        #: the same for a tag
        self.tagging: list[tuple[Segment, Any, int, int, str]] = []

    @property
    def sources(self) -> list[Source]:
        return [self.own, *self.adopted]

    def look(self) -> bool:
        """Load and tidy up once, as the engine does; whether there may be more."""
        more = False
        self.journal.seal_behind()
        for source in self.sources:
            source.refresh()
            loaded = source.load()
            more |= loaded is not Loaded.ALL
            if source.adopted and loaded is Loaded.ALL and source.end_orphans(set()):
                self.finish(source)
        return more

    def finish(self, source: Source) -> None:
        # A slot that was claimed when its process died is reported, as it might have been damage.
        assert all(problem.startswith("unfinished") for problem in source.reader.problems)
        account = source.account()
        source.close()
        source.spool.remove(account)
        self.adopted.remove(source)

    def deliver(self, *, backwards: bool = False) -> None:
        """Everything that may be under way at once, whenever it was to be tried again; ``backwards``: the last that
        was begun is carried out first."""
        lanes = [(source, lane) for source in self.sources for lane in source.lanes.values()]
        for _, lane in lanes:
            lane.backoff.retry_at = 0.0
        works = list(self.delivery.due(iter(lanes)))
        try:
            while works:
                source, lane, work = works.pop(-1 if backwards else 0)
                drive(self.delivery.step(source, lane, work))
        finally:
            # Cut short by the end of the process.
            self.delivery.under_way -= len(works)
        for source in self.sources:
            if source.retire() and source is self.own:
                assert source.reader.head is not None
                self.journal.head = source.reader.head

    def spools(self) -> list[Path]:
        return [Path(source.spool.path) for source in self.sources if source.spool.path]

    def close(self) -> None:
        for source in self.sources:
            let_go(source.spool, source.reader.head)
        self.journal.close()
        let_go(self.journal.spool, self.journal.head)


def chain(segment: Segment | None) -> list[Segment]:
    found = []
    while segment is not None:
        found.append(segment)
        segment = segment.next
    return found


class EngineMachine(RuleBasedStateMachine):
    """Rules are what programs, stores and the operating system do."""

    #: how many batches of a run the store takes at once; their points may then arrive in any order
    overlap = 1
    store_class = ExactStore

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.store = self.store_class(Limits(metrics=3, params=2, tags=2, entities=4))
        self.store.overlap = self.overlap
        self.store.before_batch = self.before_batch
        self.refused: list[tuple[str, str, str, Any]] = []
        #: what to do in the next calls of the store: how many events to store, and what to raise then
        self.plan: list[tuple[int, BaseException]] = []
        self.events = 0
        self.run_numbers = 0
        #: (run id, kind, key) → values whose log calls have returned, in order; those that came late are not in order
        self.accepted: dict[tuple[str, str, str], list[Any]] = {}
        self.late: set[Any] = set()
        self.status: dict[str, tuple[str, int]] = {}
        self.watermarks: dict[Lane, int] = {}
        self.process = self.start_process([])

    def start_process(self, orphans: list[Path]) -> Process:
        self.lives += 1
        return Process(self.folder / f"life{self.lives}", orphans, Sender(self.store, self.on_refusal))

    def on_refusal(self, run_id: str, refusal: Refusal) -> None:
        value = refusal.value
        if refusal.kind == "metric":
            value = value[0], value[1], bits(value[2])
        self.refused.append((run_id, refusal.kind, refusal.key, value))

    def before_batch(self, run_id: str, batch: Batch, keep: Callable[[int], None]) -> None:
        if self.plan:
            stored, error = self.plan.pop(0)
            if not any(self.store.is_refused(item) for item in list(batch.items())[:stored]):
                keep(stored)
            raise error

    # ── what programs do

    @rule()
    def start_run(self) -> None:
        self.run_numbers += 1
        number = register(self.process.journal, self.run_numbers)
        self.process.journal.write_frame(["start", number])
        self.process.runs[number] = {}
        self.run_ids[self.lives, number] = uid(self.run_numbers)
        self.status[uid(self.run_numbers)] = "RUNNING", 0

    #: (life, run's number in its journal) → run id
    @property
    def run_ids(self) -> dict[tuple[int, int], str]:
        found: dict[tuple[int, int], str] = self.__dict__.setdefault("_run_ids", {})
        return found

    def choose_run(self, data: st.DataObject) -> tuple[int, str]:
        number = data.draw(st.sampled_from(sorted(self.process.runs)))
        return number, self.run_ids[self.lives, number]

    def has_run(self) -> bool:
        return bool(self.process.runs)

    def stream(self, run: int, key: str) -> int:
        streams = self.process.runs[run]
        if key not in streams:
            new = self.process.journal.register_stream(run, key)
            assert new is not None
            streams[key] = new
        return streams[key]

    def next_event(self) -> int:
        self.events += 1
        return self.events

    def accept(self, run_id: str, kind: str, key: str, value: Any, *, late: bool = False) -> None:
        self.accepted.setdefault((run_id, kind, key), []).append(value)
        if late:
            self.late.add(value)

    @precondition(has_run)
    @rule(data=st.data(), key=st.sampled_from("ab"), count=st.integers(1, 12))
    def log_metric(self, data: st.DataObject, key: str, count: int) -> None:
        run, run_id = self.choose_run(data)
        stream = self.stream(run, key)
        for _ in range(count):
            number = self.next_event()
            assert self.process.journal.write(number, 0, float(number), stream)
            self.accept(run_id, "metric", key, (number, 0, bits(number)))

    @precondition(has_run)
    @rule(data=st.data(), kind=st.sampled_from(["param", "tag"]), count=st.integers(1, 6))
    def log_params_or_tags(self, data: st.DataObject, kind: str, count: int) -> None:
        run, run_id = self.choose_run(data)
        entries = {f"{kind}{number}": str(number) for number in (self.next_event() for _ in range(count))}
        assert self.process.journal.write_frame([f"{kind}s", run, entries])
        for key, value in entries.items():
            self.accept(run_id, kind, key, value)

    @precondition(has_run)
    @rule(data=st.data(), key=st.sampled_from("ab"))
    def a_thread_claims_a_slot_and_is_slow(self, data: st.DataObject, key: str) -> None:
        run, _ = self.choose_run(data)
        stream = self.stream(run, key)
        claim, slots, segment = self.process.journal.current
        at = claim()
        if segment.holds(at):
            self.process.claimed.append((segment, slots, at, stream, run, key))

    @precondition(has_run)
    @rule(data=st.data())
    def a_thread_sets_a_tag_slowly(self, data: st.DataObject) -> None:
        """It has claimed its slot, and waits for the disk. Whatever is set behind it is the later word."""
        run, run_id = self.choose_run(data)
        claim, slots, segment = self.process.journal.current
        at = claim()
        if segment.holds(at):
            value = str(self.next_event())
            self.process.tagging.append((segment, slots, at, run, value))
            self.accept(run_id, "tag", "same", value)

    @precondition(lambda self: self.process.tagging)
    @rule(data=st.data())
    def the_tag_is_written(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.process.tagging) - 1))
        segment, slots, at, run, value = self.process.tagging.pop(index)
        logged = self.accepted[self.run_ids[self.lives, run], "tag", "same"]
        entry = ["tags", run, {"same": value}]
        frame = encode_frame(entry)
        try:
            offset = segment.append_frame(frame)
            PACK(slots, at, offset, len(frame), 0.0, FRAME, offset, len(frame), 0.0, FRAME, at)
        except (ValueError, TypeError, OSError):
            assert not segment.holds(at)
            logged.remove(value)
            logged.append(value)
            assert self.process.journal.write_frame(entry)

    @precondition(has_run)
    @rule(data=st.data())
    def set_the_same_tag(self, data: st.DataObject) -> None:
        run, run_id = self.choose_run(data)
        value = str(self.next_event())
        assert self.process.journal.write_frame(["tags", run, {"same": value}])
        self.accept(run_id, "tag", "same", value)

    def give_up_tags(self) -> None:
        """The process dies before they are written."""
        for _, _, _, run, value in self.process.tagging:
            self.accepted[self.run_ids[self.lives, run], "tag", "same"].remove(value)
        self.process.tagging = []

    @precondition(lambda self: self.process.claimed)
    @rule(data=st.data())
    def the_slow_thread_goes_on(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.process.claimed) - 1))
        segment, slots, at, stream, run, key = self.process.claimed.pop(index)
        number = self.next_event()
        try:
            PACK(slots, at, number, 0, float(number), stream, number, 0, float(number), stream, at)
        except (ValueError, TypeError):
            assert not segment.holds(at)
            assert self.process.journal.write(number, 0, float(number), stream)
        value = number, 0, bits(number)
        self.accept(self.run_ids[self.lives, run], "metric", key, value, late=True)

    @precondition(has_run)
    @rule(data=st.data())
    def end_run(self, data: st.DataObject) -> None:
        run, run_id = self.choose_run(data)
        if any(claimed[4] == run for claimed in self.process.claimed):
            return
        if any(tagging[3] == run for tagging in self.process.tagging):
            return
        assert self.process.journal.write_frame(["end", run, "FINISHED", self.next_event()])
        self.status[run_id] = "FINISHED", self.events
        del self.process.runs[run]

    # ── what the store does

    @rule(stored=st.integers(0, 5), times=st.integers(1, 2))
    def store_will_fail(self, stored: int, times: int) -> None:
        """With nothing of a batch stored, a part, or all of it: as when the answer was lost on the way."""
        self.plan += [(stored, UnavailableError("down"))] * times

    @rule(ahead=st.integers(1, 6), says_which=st.booleans())
    def store_will_refuse_a_point(self, ahead: int, says_which: bool) -> None:
        self.store.says_which = says_which
        self.store.refused_values |= {float(self.events + ahead), str(self.events + ahead)}

    # ── what the engine does

    @rule()
    def look(self) -> None:
        self.process.look()

    @rule(rounds=st.integers(1, 3), backwards=st.booleans())
    def deliver(self, rounds: int, backwards: bool) -> None:
        for _ in range(rounds):
            self.process.deliver(backwards=backwards)

    @rule()
    def prepare_a_segment(self) -> None:
        self.process.journal.prepare()

    # ── what the operating system does

    @rule(stored=st.integers(0, 5) | st.none())
    def kill(self, stored: int | None) -> None:
        """Between two calls, or in the middle of one to the store, when a part of a batch is stored."""
        if stored is not None:
            self.plan = [(stored, Killed())]
            try:
                self.process.look()
                self.process.deliver()
            except Killed:
                pass
            self.plan = []
        self.give_up_tags()
        old = self.process
        orphans: list[Path] = []
        for path in old.spools():
            orphans.append(self.folder / f"orphan{self.lives}-{len(orphans)}")
            leave_behind(path, orphans[-1])
        for run in old.runs:
            self.status[self.run_ids[self.lives, run]] = "KILLED", 0
        old.close()
        self.process = self.start_process(orphans)

    # ── what holds

    @invariant()
    def nothing_is_stored_twice_or_invented_or_out_of_order(self) -> None:
        for where, kept in self.store.kept.items():
            logged = self.accepted[where]
            assert len(set(kept)) == len(kept)
            assert set(kept) <= set(logged)
            in_order = [value for value in kept if value not in self.late]
            if self.overlap == 1 or where[1] != "metric":
                assert in_order == [value for value in logged if value in in_order]
        assert len(set(self.refused)) == len(self.refused)

    @invariant()
    def what_is_acknowledged_stays_so_and_every_run_stands_somewhere(self) -> None:
        for source in self.process.sources:
            directory = source.directory
            assert not set(directory.lanes) & set(directory.finished)
            assert all(abs(number) in directory.seen for number in [*directory.lanes, *directory.finished])
            for lane in [*directory.lanes.values(), *directory.finished.values()]:
                assert lane.progress.watermark >= self.watermarks.get(lane, 0)
                self.watermarks[lane] = lane.progress.watermark
                assert lane.caught_up or lane in directory.active

    @invariant()
    def what_is_computed_for_few_runs_is_what_all_runs_say(self) -> None:
        for source in self.process.sources:
            assert source.positions().runs == {run: lane.at() for run, lane in source.lanes.items()}
            assert source.directory.low_water() == source.low_water()

    def teardown(self) -> None:
        """In the end, with the store well again, everything is delivered or was refused."""
        try:
            self.plan = []
            self.process.claimed = []
            self.give_up_tags()
            for source in self.process.sources:
                source.loader.patience = 0.0
            for _ in range(1000):
                more = self.process.look()
                self.process.deliver()
                if not more and not self.process.adopted and self.process.own.drained:
                    break
            assert not self.process.adopted
            self.check_all_is_there()
        finally:
            self.process.close()
            shutil.rmtree(self.folder)

    def check_all_is_there(self) -> None:
        self.nothing_is_stored_twice_or_invented_or_out_of_order()
        for (run_id, kind, key), logged in self.accepted.items():
            kept = self.store.kept.get((run_id, kind, key), [])
            refused = [value for run, *what, value in self.refused if (run, *what) == (run_id, kind, key)]
            assert sorted(kept + refused) == sorted(logged)
            assert not set(kept) & set(refused)
        for run_id, (status, end_time) in self.status.items():
            ends = [(found, time) for run, found, time in self.store.ended if run == run_id]
            if status == "KILLED":
                assert {found for found, _ in ends} <= {"KILLED"}
            elif status == "FINISHED":
                assert set(ends) == {("FINISHED", end_time)}
            else:
                assert not ends


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


class OverlappingMachine(EngineMachine):
    """The same with a store that takes three batches of a run at once."""

    overlap = 3


TestOverlappingMachine = OverlappingMachine.TestCase
TestOverlappingMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

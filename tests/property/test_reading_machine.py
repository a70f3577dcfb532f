"""What a reader sees, against a model, while programs log, deliver and die: every point exactly once at each look."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from asynctrack.entities import Metric, Run, RunData
from asynctrack.errors import UnavailableError
from asynctrack.reading.follower import Follower
from asynctrack.reading.series import Series
from asynctrack.stores.io import drive
from tests.journals import ExactStore, bits
from tests.property.test_engine_machine import EngineMachine, Killed


class ReadableStore(ExactStore):
    """Gives out what it keeps. ``between`` is done once, right before or after: when the spools were read."""

    between: Callable[[], object] | None = None
    #: how often it is asked before that
    later = 0
    down = False

    async def get_run(self, run_id: str) -> Run:
        self._asked()
        run = await super().get_run(run_id)
        newest = [self._points(run_id, key)[-1] for run, kind, key in self.kept if (run, kind) == (run_id, "metric")]
        return Run(run.info, RunData.of(newest, {}, {}))

    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        self._asked()
        points = self._points(run_id, key)
        self._asked()
        return points

    def _points(self, run_id: str, key: str) -> list[Metric]:
        kept = self.kept.get((run_id, "metric", key), [])
        return [Metric(key, struct.unpack("<d", value)[0], time, step) for time, step, value in kept]

    def _asked(self) -> None:
        if self.later > 0:
            self.later -= 1
        elif self.between is not None:
            between, self.between = self.between, None
            between()
        if self.down:
            raise UnavailableError("down")


class ReadingMachine(EngineMachine):
    """Readers look at each run, again and again, in between and in the middle of everything."""

    store_class = ReadableStore
    store: ReadableStore

    def __init__(self) -> None:
        self.followers: dict[str, Follower] = {}
        self.eager = self.in_between = False
        super().__init__()

    @rule(stored=st.integers(0, 5) | st.none())
    def kill(self, stored: int | None) -> None:
        """What it leaves is delivered from another place, see `leave_behind`; the first one goes."""
        home = self.folder / f"life{self.lives}"
        orphans = self.process.spools()
        super().kill(stored)
        for path in [*orphans, home]:
            shutil.rmtree(path, ignore_errors=True)  # some were delivered to their end in the last moment

    @initialize(eager=st.booleans())
    def begin(self, eager: bool) -> None:
        """With a run, and somebody who reads it all the time, or now and then."""
        self.start_run()
        self.eager = eager

    @invariant()
    def the_eager_see_each_point_once(self) -> None:
        if self.eager:
            for run_id in self.status:
                self.check(self.follower(run_id), run_id)

    def follower(self, run_id: str) -> Follower:
        """Every other one follows a metric only after it was logged, as the page does."""
        if run_id not in self.followers:
            self.followers[run_id] = Follower(self.store, run_id, None if len(self.followers) % 2 else [])
        return self.followers[run_id]

    @rule(data=st.data(), again=st.booleans())
    def read(self, data: st.DataObject, again: bool) -> None:
        """With a reader that has looked before, or with a new one."""
        run_id = data.draw(st.sampled_from(sorted(self.status)))
        self.check(self.follower(run_id) if again else Follower(self.store, run_id), run_id)

    @rule(data=st.data(), rounds=st.integers(1, 3), stored=st.integers(0, 5) | st.none())
    def read_while_it_is_delivered(self, data: st.DataObject, rounds: int, stored: int | None) -> None:
        """Between the look at the spools and the question to the store; or its program is killed in the middle."""
        run_id = data.draw(st.sampled_from(sorted(self.status)))
        again = data.draw(st.booleans())

        def deliver() -> None:
            self.plan = [] if stored is None else [(stored, Killed())]
            try:
                for _ in range(rounds):
                    self.process.look()
                    self.process.deliver()
            except Killed:
                pass
            self.plan = []

        self.store.between, self.store.later = deliver, data.draw(st.integers(0, 4))
        self.in_between = True
        self.check(self.follower(run_id) if again else Follower(self.store, run_id), run_id)
        self.in_between = False
        self.store.between = None  # the engine asks the store, too
        if stored is not None:
            self.kill(None)

    @rule(count=st.integers(1, 9))
    def log_more(self, count: int) -> None:
        """Most of what programs do."""
        for number, streams in self.process.runs.items():
            run_id = self.run_ids[self.lives, number]
            for key in [*streams, "a"]:
                for _ in range(count):
                    value = self.next_event()
                    assert self.process.journal.write(value, 0, float(value), self.stream(number, key))
                    self.accept(run_id, "metric", key, (value, 0, bits(value)))

    @rule()
    def keep_up(self) -> None:
        """A part of what waits is delivered."""
        self.process.look()
        self.process.deliver()

    @rule(data=st.data())
    def read_while_the_store_is_down(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.status)))
        self.store.down = True
        try:
            follower = self.follower(run_id)
            self.look_at(follower, run_id)
            self.shown(follower.series, run_id)
        except UnavailableError:
            assert not self.knows(run_id)
        finally:
            self.store.down = False

    def knows(self, run_id: str) -> bool:
        """Whether a spool that is there now has something of the run, or has it open."""
        return any(
            lane.spec.uid == run_id
            for source in self.process.sources
            for number, lane in source.directory.lanes.items()
            if number > 0
        )

    def look_at(self, follower: Follower, run_id: str) -> None:
        assert follower._pending is not None
        follower._pending._homes = [str(self.folder), str(self.folder / f"life{self.lives}")]
        follower._ask_again_at = follower._describe_again_at = 0.0  # as if some time had passed
        new = {
            key for run, kind, key in self.accepted if (run, kind) == (run_id, "metric") and not follower._follows(key)
        }
        if new:
            drive(follower.look_for(new))
            self.shown(follower.series, run_id)
        drive(follower.look())

    def shown(self, series: dict[str, Series], run_id: str) -> dict[str, set[tuple[int, int, bytes]]]:
        """What is shown: never twice, and nothing that was not logged."""
        found = {}
        for key, line in series.items():
            points = [(time, step, bits(value)) for step, time, value in line.columns.rows()]
            found[key] = set(points)
            assert len(found[key]) == len(points), "shown twice"
            assert found[key] <= set(self.accepted[run_id, "metric", key]), "never logged"
        return found

    def check(self, follower: Follower, run_id: str) -> None:
        logged = {
            key: set(values) for (run, kind, key), values in self.accepted.items() if (run, kind) == (run_id, "metric")
        }
        self.look_at(follower, run_id)
        shown = self.shown(follower.series, run_id)
        refused = {value for run, kind, _, value in self.refused if (run, kind) == (run_id, "metric")}
        for key, values in logged.items():
            assert values - shown.get(key, set()) <= refused, "not shown"
        for key, line in follower.series.items():
            if self.in_between:
                break  # the store may have more by now
            kept = self.store.kept.get((run_id, "metric", key), [])
            assert line.stored == len(kept), "marked wrongly"

    def teardown(self) -> None:
        self.store.between = None
        super().teardown()


TestReadingMachine = ReadingMachine.TestCase
# The same examples each time: what they take depends on the machine, and a failure can be looked into.
TestReadingMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)

"""The budget of a journal: what is reserved is what a walk through the spool's folder finds, whatever happens."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asynctrack.errors import SpoolFullError
from asynctrack.journal import frames as frames_module
from asynctrack.journal import room as room_module
from asynctrack.journal import segment as segment_module
from asynctrack.journal.budget import Budget, bytes_below
from asynctrack.journal.disk import allocate, write_all
from asynctrack.journal.reader import JournalReader
from tests.journals import let_go, new_journal, register, segment_bytes, segments

SLOTS = 4
LIMIT = 3 * segment_bytes(SLOTS) + 400


def test_what_is_reserved_is_released_and_the_limit_holds() -> None:
    """Unless a caller may overdraw it."""
    budget = Budget(100)
    budget.reserve(60)
    with pytest.raises(OSError, match="max_spool_bytes=100 is reached") as caught:
        budget.reserve(41)
    assert caught.value.errno == errno.ENOSPC
    budget.reserve(41, overdraw=True)
    assert (budget.bytes, budget.left()) == (101, -1)
    budget.release(60)
    assert (budget.bytes, budget.left()) == (41, 59)


def test_a_snapshot_is_given_back_once() -> None:
    """Whoever deletes it says so; a second time, or one that was never known, changes nothing."""
    budget = Budget(100)
    budget.add_snapshot("a", 30)
    budget.add_snapshot("b", 20)
    assert (budget.bytes, budget.snapshot_bytes) == (50, 50)
    budget.drop_snapshot("a")
    budget.drop_snapshot("a")
    budget.drop_snapshot("c")
    assert (budget.bytes, budget.snapshot_bytes, budget.has_snapshots) == (20, 20, True)
    budget.drop_snapshots_but({"c"})
    assert (budget.bytes, budget.snapshot_bytes, budget.has_snapshots) == (0, 0, False)


def test_threads_that_reserve_and_release_leave_a_sum_of_nothing() -> None:
    budget = Budget(10**9)
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(30)
        for size in range(2000):
            budget.reserve(size)
            budget.release(size)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.bytes == 0


def test_of_descriptors_there_are_so_many() -> None:
    budget = Budget(0, most_files=2)
    assert [budget.reserve_file() for _ in range(3)] == [True, True, False]
    budget.release_file()
    assert budget.reserve_file()


class BudgetMachine(RuleBasedStateMachine):
    """A journal that logs, whose disk fills up, that is delivered, by this process or another, and that ends runs."""

    @initialize(consumed=st.booleans(), policy=st.sampled_from(["drop_new", "raise"]))
    def begin(self, consumed: bool, policy: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.disk_full = False
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(segment_module, "allocate", self._allocate)
        self.patched.setattr(frames_module, "write_all", self._write_all)
        self.patched.setattr(room_module, "_RETRY_FULL", 0.0)
        self.journal = new_journal(
            self.folder / "spools", slots=SLOTS, max_spool_bytes=LIMIT, spool_full=policy, consumed=consumed
        )
        self.stream = self.journal.register_stream(register(self.journal), "loss")
        self.snapshots: list[str] = []
        self.names = itertools.count()

    def _check(self, fd: int) -> None:
        if self.disk_full and os.readlink(f"/proc/self/fd/{fd}").startswith(str(self.folder)):
            raise OSError(errno.ENOSPC, "No space left on device")

    def _allocate(self, fd: int, size: int) -> None:
        self._check(fd)
        allocate(fd, size)

    def _write_all(self, fd: int, data: bytes, offset: int) -> None:
        self._check(fd)
        write_all(fd, data, offset)

    # ── what a program does

    @rule(count=st.integers(1, 6))
    def log_points(self, count: int) -> None:
        for step in range(count):
            try:
                assert self.stream is not None
                self.journal.write(1, step, 0.5, self.stream)
            except SpoolFullError:
                return

    @rule(size=st.sampled_from([1, 90, 300, 900]))
    def set_a_tag(self, size: int) -> None:
        try:
            self.journal.write_frame(["tags", 1, {"note": "x" * size}])
        except SpoolFullError:
            pass

    @rule()
    def end_a_run(self) -> None:
        """Where this process delivers, an end never waits."""
        if self.journal.chain.supply.consumed:
            assert self.journal.write_frame(["end", 1, "FINISHED", 5], patience=5)

    @rule(size=st.integers(0, 300))
    def log_an_artifact(self, size: int) -> None:
        if size > self.journal.room():
            return
        folder = Path(self.journal.spool.artifacts())
        folder.mkdir(exist_ok=True)
        name = str(next(self.names))
        (folder / name).write_bytes(bytes(size))
        self.journal.put_aside(name)
        self.snapshots.append(name)

    @rule()
    def look(self) -> None:
        """As the engine does every now and then."""
        self.journal.seal_behind()
        self.journal.prepare()

    # ── what the world does

    @rule(full=st.booleans())
    def fill_or_empty_the_disk(self, full: bool) -> None:
        self.disk_full = full

    @rule()
    def deliver_segments(self) -> None:
        self.journal.seal_behind()
        consumed = self.journal.chain.supply.consumed
        reader = JournalReader(self.journal.spool.registry, self.journal.head)
        for retired in reader.retirable(self.journal.current[2].first):
            reader.drop(retired)
            if consumed:
                retired.remove()
            elif retired.path is not None:
                for path in (retired.path, retired.frames.path):
                    if path is not None and os.path.exists(path):
                        os.unlink(path)
        if consumed:
            assert reader.head is not None
            self.journal.head = reader.head
        else:
            self.journal.look_for_deleted(lambda: self.journal.current[2].first)
        self.journal.room_made()

    @rule()
    def deliver_an_artifact(self) -> None:
        if self.snapshots:
            name = self.snapshots.pop(0)
            os.unlink(os.path.join(self.journal.spool.artifacts(), name))
            if self.journal.chain.supply.consumed:
                self.journal.budget.drop_snapshot(name)
            else:
                self.journal.look_for_deleted(lambda: self.journal.current[2].first)

    # ── what holds

    @invariant()
    def what_is_reserved_is_there(self) -> None:
        spool = Path(self.journal.spool.path or "")
        found = sum(path.stat().st_size for pattern in ("*.slots", "*.frames") for path in spool.glob(pattern))
        found += bytes_below(self.journal.spool.artifacts())
        found += sum(s.size + s.frames.size() for s in segments(self.journal.head) if s.path is None)
        assert self.journal.budget.bytes == found

    @invariant()
    def the_limit_holds(self) -> None:
        """But for ends of runs, for what stands in for a segment, and for one of the smallest behind each segment that
        was given up early: its frames took the room, and when that is gone only ends can put some there."""
        over = self.journal.budget.bytes - LIMIT
        ends = sum(s.frames.size() for s in segments(self.journal.head))
        memory = sum(s.size for s in segments(self.journal.head) if s.path is None or s.aside)
        given_up = sum(s.frames.size() > 0 and s.next is not None for s in segments(self.journal.head))
        assert over <= ends + memory + (given_up + 1) * segment_bytes(SLOTS)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.disk_full = False
            self.journal.close()
            self.what_is_reserved_is_there()
            let_go(self.journal.spool, self.journal.head)
            self.patched.undo()
            shutil.rmtree(self.folder)


BudgetMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestBudgetMachine = BudgetMachine.TestCase


def test_what_stands_in_for_a_segment_on_a_full_disk_counts_as_large_as_its_file() -> None:
    machine = BudgetMachine()
    machine.begin(consumed=False, policy="drop_new")
    machine.look()
    machine.fill_or_empty_the_disk(full=True)
    machine.log_points(count=5)
    machine.what_is_reserved_is_there()
    machine.teardown()

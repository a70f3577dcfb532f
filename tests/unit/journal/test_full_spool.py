"""What a training loop meets when the spool is full, and that nothing it was allowed to log is lost."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import asynctrack
from asynctrack.errors import DeliveryError, SpoolFullError
from asynctrack.journal import segment as segment_module
from asynctrack.journal.disk import allocate
from asynctrack.runs.active import attached_run
from tests.journals import journal_in, register, segment_bytes
from tests.mlruns import only_run, read_runs

LIMIT = 30
SLOTS = 50
#: room for four segments of fifty events
ROOM = 4 * segment_bytes(SLOTS) + 4096


class Store:
    """A file store that takes nothing: a file stands where one of its folders would have to be made."""

    def __init__(self, folder: Path) -> None:
        self._in_the_way = folder / "disk"
        self.root = self._in_the_way / "mlruns"
        self._in_the_way.write_text("")
        asynctrack.set_tracking_uri(self.root)

    def back(self) -> None:
        if self._in_the_way.is_file():
            self._in_the_way.unlink()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    asynctrack.configure(segment_bytes=segment_bytes(SLOTS), flush_interval=0.05, max_spool_bytes=ROOM)
    yield made
    made.back()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def steps(store: Store) -> list[int]:
    return [int(step) for _, _, step in only_run(store.root).metrics["loss"]]


def test_what_the_events_are_of_is_not_counted(tmp_path: Path) -> None:
    """Runs and metrics are registered beyond the limit, and ends accepted: the rest could not be delivered."""
    with journal_in(tmp_path, slots=4, max_spool_bytes=segment_bytes(8)) as journal:
        run = register(journal)
        stream = journal.register_stream(run, "loss")
        assert stream is not None
        while journal.write(1, 0, 0.5, stream):
            pass
        before = journal.budget.bytes
        assert register(journal) != run
        assert journal.register_stream(run, "x" * 1000) is not None
        assert journal.budget.bytes == before
        assert journal.write_frame(["end", run, "FINISHED", 5], patience=0.0)


def test_drop_new_drops_counts_and_reports_and_training_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The default. What was accepted before is all there, in order; what comes when there is room again, too."""
    with caplog.at_level(logging.WARNING), asynctrack.start_run() as run:
        for step in range(1000):
            run.log_metric("loss", 0.5, step)
        dropped = run.stats().dropped
        assert 700 < dropped < 1000
        assert run.stats().accepted == 1000 - dropped
        store.back()
        with pytest.raises(DeliveryError, match=f"{dropped} events of this process were dropped"):
            run.flush(timeout=LIMIT)
        run.log_metric("loss", 0.5, 1000)
        run.flush(timeout=LIMIT)
    assert steps(store) == [*range(1000 - dropped), 1000]
    assert only_run(store.root).status == "FINISHED"
    told = [record for record in caplog.records if "no room in" in record.message]
    assert len(told) == 1
    assert "max_spool_bytes" in told[0].message


def test_raise_raises_in_the_log_call_and_what_was_accepted_is_delivered(store: Store) -> None:
    """The program decides what to do; here it stops logging until the store is back."""
    asynctrack.configure(spool_full="raise")
    accepted = []
    with asynctrack.start_run() as run:

        def train() -> None:
            for step in range(1000):
                run.log_metric("loss", 0.5, step)
                accepted.append(step)

        with pytest.raises(SpoolFullError, match="The event was not logged; make room or raise max_spool_bytes"):
            train()
        assert 0 < len(accepted) < 300
        with pytest.raises(SpoolFullError):
            run.set_tag("a", "b")
        store.back()
        run.flush(timeout=LIMIT)
        run.log_metric("loss", 0.5, 1000)
        assert run.stats().dropped == 0
    assert steps(store) == [*accepted, 1000]


def test_leaving_the_block_warns_of_what_was_dropped(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody has called flush(): the run is complete but for those, and says how many."""
    with caplog.at_level(logging.WARNING), asynctrack.start_run() as run:
        for step in range(1000):
            run.log_metric("loss", 0.5, step)
        dropped = run.stats().dropped
        store.back()
    assert f"{dropped} events of this process were dropped" in caplog.text
    assert steps(store) == list(range(1000 - dropped))


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_a_full_spool_is_emptied_although_it_is_not_time_to_look(shipper: str, store: Store) -> None:
    """Nobody flushes, and the next look would be in ten minutes: events are dropped for a moment and not until then."""
    asynctrack.configure(flush_interval=600.0, shipper=shipper)
    store.back()
    with asynctrack.start_run() as run:

        def log_once() -> bool:
            """Whether it was accepted."""
            before = run.stats().dropped
            run.log_metric("loss", 0.5, 0)
            return run.stats().dropped == before

        until(lambda: not log_once())
        until(log_once)


def test_block_waits_for_the_store_and_loses_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The loop stands still while there is no room, says so, and goes on when the store takes events again."""
    asynctrack.configure(spool_full="block")
    with asynctrack.start_run() as run:
        logged = 0

        def train() -> None:
            nonlocal logged
            for step in range(1000):
                run.log_metric("loss", 0.5, step)
                logged = step + 1

        thread = threading.Thread(target=train)
        thread.start()
        until(lambda: "log calls wait until there is room" in caplog.text)
        assert 0 < logged < 300
        assert thread.is_alive()
        store.back()
        thread.join(LIMIT)
        assert logged == 1000
        assert run.stats().dropped == 0
    assert steps(store) == list(range(1000))


def test_a_run_that_cannot_start_for_want_of_room_holds_up_nobody_else(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Its start waits for room without the engine's lock: another thread attaches to a run, and the end is not held
    up."""
    asynctrack.configure(spool_full="block")
    with asynctrack.start_run(wait=False) as run:
        registry = run._state.engine.journal.registry

        def train() -> None:
            for step in range(300):
                run.log_metric("loss", 0.5, step)

        training = threading.Thread(target=train)
        training.start()
        until(lambda: "log calls wait until there is room" in caplog.text)
        registered = registry.next_run
        starting = threading.Thread(target=lambda: asynctrack.start_run(wait=False).terminate())
        starting.start()
        until(lambda: registry.next_run > registered)
        attached: list[bool] = []
        # A daemon, lest it keep the test from failing.
        attaching = threading.Thread(target=lambda: attached.append(attached_run("f" * 32).ended), daemon=True)
        attaching.start()
        attaching.join(LIMIT / 3)
        assert attached == [False]
        assert starting.is_alive()
        store.back()
        for thread in (starting, training):
            thread.join(LIMIT)
            assert not thread.is_alive()
    asynctrack.shutdown()
    assert [run.status for run in read_runs(store.root).values()] == ["FINISHED"] * 2


@pytest.mark.parametrize("policy", ["drop_new", "raise", "block"])
def test_a_full_disk_is_treated_alike(
    store: Store, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is far; the disk is full at the third segment, and somebody makes room."""
    asynctrack.configure(spool_full=policy, max_spool_bytes=1024**3)
    full = False

    def allocate_on_it(fd: int, size: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, size)

    monkeypatch.setattr(segment_module, "allocate", allocate_on_it)
    refused: list[tuple[int, str]] = []
    with asynctrack.start_run() as run:

        def train(steps: range) -> None:
            for step in steps:
                try:
                    run.log_metric("loss", 0.5, step)
                except SpoolFullError as error:
                    refused.append((step, str(error)))

        train(range(60))
        full = True
        thread = threading.Thread(target=train, args=(range(60, 400),))
        thread.start()
        until(lambda: bool(refused) or "No space left on device" in caplog.text)
        if policy == "block":
            assert thread.is_alive()
            full = False
        thread.join(LIMIT)
        assert not thread.is_alive()
        full = False
        store.back()
        with pytest.raises(DeliveryError, match="dropped") if policy == "drop_new" else nullcontext():
            run.flush(timeout=LIMIT)
        dropped = run.stats().dropped
    assert all("No space left on device" in reason for _, reason in refused)
    # Two segments of fifty were there, and nothing of what stood in them is lost.
    assert steps(store)[:90] == list(range(90))
    assert len(steps(store)) == 400 - dropped - len(refused)
    assert [bool(dropped), bool(refused)] == [policy == "drop_new", policy == "raise"]

"""What a training loop meets when the spool is full, and that nothing it was allowed to log is lost."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import DeliveryError, FlushTimeoutError, InvalidInputError, RunEndedError, SpoolFullError
from asynctrack.journal import segment as segment_module
from asynctrack.journal.disk import allocate
from asynctrack.journal.writer import Journal
from asynctrack.runs.active import attach_state, attached_run, leave_state, states_of_process
from asynctrack.runs.log import RunLog
from tests.journals import journal_in, register, segment_bytes
from tests.mlruns import only_run, read_runs

LIMIT = 30
SLOTS = 50
#: room for four segments of fifty events
ROOM = 4 * segment_bytes(SLOTS) + 4096


class Store:
    """A file store that takes nothing: a file stands where one of its folders would have to be made."""

    def __init__(self, folder: Path) -> None:
        self._in_the_way, self._elsewhere = folder / "disk", folder / "elsewhere"
        self.root = self._in_the_way / "mlruns"
        self._in_the_way.write_text("")
        asynctrack.set_tracking_uri(self.root)

    def back(self) -> None:
        if self._in_the_way.is_file():
            self._in_the_way.unlink()
            if self._elsewhere.is_dir():
                self._elsewhere.rename(self._in_the_way)

    def away(self) -> None:
        """With what it has."""
        self._in_the_way.rename(self._elsewhere)
        self._in_the_way.write_text("")


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


# ── the ends of runs, and of those who log to them


BLOB = "x" * 1000


def fill_with_points(log: Callable[[str, float, int], None], *, to: int = 1000) -> None:
    """Use up all the room there is, by segments."""
    for step in range(to):
        log("loss", 0.5, step)


@contextmanager
def waiting_for_room(store: Store, caplog: pytest.LogCaptureFixture, log: Callable[[str, str], None]) -> Iterator[None]:
    """Meanwhile another thread logs by ``log``, with more and more names, and waits for room."""
    caplog.clear()

    def work() -> None:
        with suppress(RunEndedError):
            for number in range(1000):
                log(f"p{number}", BLOB)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: "log calls wait until there is room" in caplog.text)
        yield
    finally:
        store.back()
        thread.join(LIMIT)
        assert not thread.is_alive()


def running(store: Store) -> str:
    """A run that the store has, which is away now."""
    store.back()
    service = asynctrack.get_service(store.root)
    run_id = service.create_run(service.create_experiment("shared")).info.run_id
    store.away()
    return run_id


def status_after_sync(store: Store) -> str:
    """After the program has died: what was in memory only dies with it."""
    asynctrack.shutdown()
    store.back()
    asynctrack.configure(mode=None)
    asynctrack.sync()
    return only_run(store.root).status


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("policy", ["drop_new", "raise"])
def test_a_run_that_has_ended_well_when_the_spool_was_full_is_finished(mode: str, policy: str, store: Store) -> None:
    asynctrack.configure(mode="offline" if mode == "offline" else None, spool_full=policy, close_timeout=0.3)
    with asynctrack.start_run(wait=False) as run, suppress(SpoolFullError):
        fill_with_points(run.log_metric)
    assert status_after_sync(store) == "FINISHED"


def test_a_run_ends_while_a_thread_waits_in_log_param_for_room(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """It does not hold the run's lock meanwhile."""
    asynctrack.configure(spool_full="block", close_timeout=LIMIT)
    run = asynctrack.start_run(wait=False)
    with waiting_for_room(store, caplog, run.log_param):
        began = time.monotonic()
        assert run._state.log_end("FINISHED", 5, LIMIT)
        assert time.monotonic() < began + LIMIT / 3
    run.terminate()
    asynctrack.shutdown()
    assert only_run(store.root).status == "FINISHED"


def test_a_param_that_was_dropped_may_become_another(store: Store) -> None:
    with asynctrack.start_run(wait=False) as run:

        def logged(key: str, value: int) -> bool:
            """Whether it was accepted."""
            before = run.stats().dropped
            run.log_param(key, value)
            return run.stats().dropped == before

        assert logged("lr", 1)
        fill_with_points(run.log_metric)
        assert not logged("seed", 1)
        with pytest.raises(InvalidInputError, match="is '1' already"):
            run.log_param("lr", 2)
        store.back()
        with pytest.raises(DeliveryError, match="dropped"):
            run.flush(timeout=LIMIT)
        until(lambda: logged("seed", 2))
    asynctrack.shutdown()
    assert only_run(store.root).params == {"lr": "1", "seed": "2"}


@pytest.mark.parametrize("policy", ["block", "raise"])
def test_who_leaves_a_run_waits_for_no_room(policy: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Nor do they hear that there is none: it is about nothing that they have logged."""
    asynctrack.configure(spool_full=policy, close_timeout=0.3)
    run = asynctrack.attach(running(store))
    with waiting_for_room(store, caplog, run.set_tag) if policy == "block" else nullcontext():
        if policy == "raise":
            with pytest.raises(SpoolFullError):
                fill_with_points(run.log_metric)
        began = time.monotonic()
        with pytest.raises(FlushTimeoutError):
            run.detach()
        assert time.monotonic() < began + LIMIT / 3
        assert run.ended


def test_who_leaves_a_run_holds_up_nobody_who_attaches_to_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its last frame takes."""
    state = attach_state(running(store), None)
    RunLog(state).log_metric("loss", 0.5, 1)
    written, go_on = threading.Event(), threading.Event()
    write = Journal.write_frame

    def slow(journal: Journal, entry: list[Any], **how: Any) -> bool:
        if entry[0] == "end":
            written.set()
            assert go_on.wait(LIMIT)
        return write(journal, entry, **how)

    monkeypatch.setattr(Journal, "write_frame", slow)
    leaving = threading.Thread(target=leave_state, args=(state,))
    leaving.start()
    assert written.wait(LIMIT)
    attached: list[bool] = []
    attaching = threading.Thread(target=lambda: attached.append(attached_run("f" * 32).ended), daemon=True)
    attaching.start()
    attaching.join(LIMIT / 3)
    go_on.set()
    leaving.join(LIMIT)
    assert attached == [False]
    assert state not in states_of_process()


def test_who_cannot_leave_a_run_that_another_thread_holds_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the next one leaves it."""
    monkeypatch.setattr("asynctrack.runs.active._MOMENT", 0.05)
    state = attach_state(running(store), None)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with state.lock:
            held.set()
            assert go_on.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LIMIT)
    assert not leave_state(state)
    go_on.set()
    thread.join(LIMIT)
    assert not state.ended
    assert attach_state(state.run_id, None) is state
    assert leave_state(state)


def test_a_run_that_is_ended_by_its_id_when_the_spool_is_full_ends(store: Store) -> None:
    """By the default policy, which drops what finds no room: it is no event of the training."""
    run_id = running(store)
    asynctrack.configure(close_timeout=0.3)
    service = asynctrack.get_service(store.root)
    service.set_tag(run_id, "note", BLOB)
    fill_with_points(lambda key, value, step: service.log_metric(run_id, key, value, step=step))
    with pytest.raises(FlushTimeoutError, match=r"Its end, FAILED, is kept with them$"):
        service.set_terminated(run_id, "FAILED")
    assert status_after_sync(store) == "FAILED"


def test_an_end_by_id_for_which_a_full_disk_has_no_room_is_not_said_to_be_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = running(store)
    asynctrack.configure(close_timeout=0.3)
    service = asynctrack.get_service(store.root)
    service.log_metric(run_id, "loss", 0.5)
    monkeypatch.setattr(Journal, "write_frame", lambda journal, entry, **how: False)
    with pytest.raises(FlushTimeoutError, match="There was no room for its end: its status will not be FAILED"):
        service.set_terminated(run_id, "FAILED")
    assert f"run {run_id}: no room in the spool for its end; its status stays what it is, and not FAILED" in caplog.text
    assert status_after_sync(store) == "RUNNING"

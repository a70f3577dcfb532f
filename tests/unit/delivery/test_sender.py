"""One piece of work after another against a store that does as the test says, with a clock of the test's own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.work import Work
from asynctrack.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    ServerFaultError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.base import Batch, Limits, Page, Refusal
from asynctrack.stores.io import drive
from tests.journals import ExactStore, let_go, new_journal, register, uid


class Clock:
    """Stands in for `asynctrack.clock`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Program:
    """A journal with runs, and its way to a store."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.store = ExactStore(Limits(metrics=1000, params=100, tags=100, entities=1000))
        self.store.before_batch = self._answer
        self.refused: list[tuple[str, Refusal]] = []
        self.delivery = self.sender(lambda run_id, refusal: self.refused.append((run_id, refusal)))
        self.journal = new_journal(folder)
        self.source = Source(self.journal.spool, self.journal.head, self.store.limits, adopted=False)
        #: what the store raises for a batch, if anything
        self.answer: Callable[[Batch], BaseException | None] = lambda batch: None

    def sender(self, on_refusal: Callable[[str, Refusal], None] | None = None) -> Sender:
        return Sender(self.store, on_refusal, self.clock.monotonic)

    def _answer(self, run_id: str, batch: Batch, keep: Callable[[int], None]) -> None:
        error = self.answer(batch)
        if error is not None:
            raise error

    def start(self, number: int = 1) -> int:
        run = register(self.journal, number)
        self.journal.write_frame(["start", run])
        return run

    def log(self, run: int, *values: float) -> None:
        stream = self.journal.register_stream(run, "m")
        assert stream is not None
        for step, value in enumerate(values):
            assert self.journal.write(1, step, value, stream)

    def begin(self) -> list[tuple[Source, Lane, Work]]:
        self.source.refresh()
        while self.source.load() is Loaded.MORE:
            pass
        return list(self.delivery.due((self.source, lane) for lane in list(self.source.lanes.values())))

    def deliver(self) -> int:
        """Carry out all that is due now; how much that was."""
        works = self.begin()
        for source, lane, work in works:
            drive(self.delivery.step(source, lane, work))
        return len(works)

    def lane(self, run: int) -> Lane:
        found = self.source.lane(run)
        assert found is not None
        return found

    def stored(self, number: int = 1) -> int:
        return len(self.store.kept.get((uid(number), "metric", "m"), []))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def program(tmp_path: Path, clock: Clock) -> Iterator[Program]:
    program = Program(tmp_path, clock)
    yield program
    program.journal.close()
    let_go(program.journal.spool, program.source.reader.head)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_outage_is_said_once_and_its_end_once(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """However many attempts and runs meet with it."""
    runs = [program.start(number) for number in (1, 2, 3)]
    program.deliver()
    for run in runs:
        program.log(run, 1.0)
    program.answer = lambda batch: UnavailableError("down")
    for _ in range(10):
        program.deliver()
        program.clock.now += 60
    assert [line for line in lines(caplog) if "trying again" in line] == lines(caplog)
    program.answer = lambda batch: None
    program.deliver()
    assert len(lines(caplog)) == 2
    assert "takes events again after 600 s" in lines(caplog)[1]


def test_trouble_that_comes_and_goes_is_not_said_each_time(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """At most once a minute."""
    run = program.start()
    program.deliver()
    for number in range(20):
        program.log(run, float(number))
        program.answer = lambda batch: UnavailableError("down")
        program.deliver()
        program.answer = lambda batch: None
        program.clock.now += 1
        program.deliver()
    assert len(lines(caplog)) == 2


def test_wrong_credentials_are_said_once_whatever_the_words_and_once_that_they_are_right(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt is another request, and worded otherwise."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0)
    attempts = iter(range(100))
    program.answer = lambda batch: AuthenticationError(f"request {next(attempts)}: 401")
    for _ in range(5):
        program.deliver()
        program.clock.now += 200
    assert len(lines(caplog)) == 1
    assert program.lane(run).held is not None
    program.answer = lambda batch: None
    program.deliver()
    assert len(lines(caplog)) == 2
    assert "takes its events again" in lines(caplog)[1]
    assert program.stored() == 1


def test_a_setting_that_cannot_be_used_is_held_and_said_once(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate's path, read when the store connects: the user mends it, and nothing is lost."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0)
    program.answer = lambda batch: InvalidInputError("MLFLOW_TRACKING_SERVER_CERT_PATH='x': no such file")

    async def search_experiments(*args: object, **options: object) -> Page:
        raise InvalidInputError("MLFLOW_TRACKING_SERVER_CERT_PATH='x': no such file")

    program.store.search_experiments = search_experiments  # type: ignore[method-assign]  # nothing is answered then
    for _ in range(3):
        program.deliver()
        program.clock.now += 200
    assert isinstance(program.lane(run).held, WrongServerError)
    assert len(lines(caplog)) == 1
    assert "CERT_PATH" in lines(caplog)[0]


def test_what_a_store_asks_for_is_waited_for_although_another_run_succeeds(program: Program) -> None:
    """``Retry-After``; without it, success brings the next attempt forward."""
    asked, plain, well = (program.start(number) for number in (1, 2, 3))
    program.deliver()
    program.log(asked, 1.0)
    program.answer = lambda batch: UnavailableError("429", retry_after=30.0)
    program.deliver()
    program.log(plain, 1.0)
    program.answer = lambda batch: UnavailableError("down")
    program.deliver()
    program.log(well, 1.0)
    program.answer = lambda batch: None
    program.deliver()
    assert (program.stored(1), program.stored(2), program.stored(3)) == (0, 0, 1)
    program.deliver()
    assert (program.stored(1), program.stored(2)) == (0, 1)
    program.clock.now += 29.9
    assert program.deliver() == 0
    program.clock.now += 0.2
    program.deliver()
    assert program.stored(1) == 1


def test_requests_that_fail_together_count_as_one_failure(program: Program) -> None:
    """Or eight of them under way would make the next attempt wait half a minute."""
    program.store.overlap = 8
    run = program.start()
    program.deliver()
    program.source.loader.depth = 8
    program.log(run, *map(float, range(8000)))
    program.answer = lambda batch: UnavailableError("reset")
    assert program.deliver() > 2
    assert program.lane(run).backoff.attempts == 1
    assert program.lane(run).backoff.retry_at <= program.clock.now + 0.5
    program.clock.now += 10
    program.deliver()
    assert program.lane(run).backoff.attempts == 2


@pytest.mark.parametrize("size", [1, 2, 100, 1000])
@pytest.mark.parametrize("place", [0.0, 0.37, 1.0])
def test_one_event_that_is_refused_costs_two_requests_a_halving(program: Program, size: int, place: float) -> None:
    """Everything else is stored, in order."""
    run = program.start()
    program.deliver()
    guilty = int((size - 1) * place)
    program.log(run, *map(float, range(size)))
    program.answer = lambda batch: RefusedError("bad") if any(item[2][2] == guilty for item in batch.items()) else None
    program.deliver()
    assert len(program.store.sent) <= 2 * math.ceil(math.log2(size)) + 1
    assert [refusal.value[2] for _, refusal in program.refused] == [float(guilty)]
    assert program.stored() == size - 1
    assert (program.lane(run).delivered, program.lane(run).rejected) == (size - 1, 1)


def test_an_event_that_the_store_fails_at_for_good_is_found_after_the_third_failure(program: Program) -> None:
    """While the store takes something else; the other events are stored."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(1000)))
    program.answer = lambda batch: (
        ServerFaultError("500") if any(item[2][2] == 617.0 for item in batch.items()) else None
    )
    for attempt in range(4):
        assert program.stored() == 0 or attempt == 3
        program.deliver()
        program.clock.now += 60
    assert program.stored() == 999
    assert [refusal.value[2] for _, refusal in program.refused] == [617.0]
    # Three failures, the batch once more before and behind the question whether the store takes anything, the halves.
    assert len(program.store.sent) <= 3 + 2 + 2 * math.ceil(math.log2(1000))


def test_an_error_that_is_final_for_the_whole_batch_is_not_searched_for_its_cause(program: Program) -> None:
    """One reason; one request, and another one because the store does have the run when it is asked."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(500)))
    program.answer = lambda batch: NotFoundError("no such run")
    program.deliver()
    assert [len(batch) for batch in program.store.sent] == [500, 500]
    assert {refusal.reason for _, refusal in program.refused} == {"no such run"}
    assert len(program.refused) == 500


def test_a_request_without_an_answer_takes_no_place_from_other_runs(program: Program) -> None:
    """After a few seconds the others go on; the run itself waits for its answer."""
    program.store.most_requests = 16
    program.delivery = program.sender()
    stuck, other = program.start(1), program.start(2)
    program.deliver()
    program.deliver()
    program.log(stuck, 1.0)
    (begun,) = program.begin()
    program.log(other, 1.0)
    assert program.begin() == [], "the limit is one"
    program.clock.now += 5.1
    program.log(stuck, 2.0)
    assert program.deliver() == 1
    assert (program.stored(1), program.stored(2)) == (0, 1)
    drive(program.delivery.step(*begun))
    program.deliver()
    assert (program.stored(1), program.stored(2)) == (2, 1)


def test_an_answer_costs_no_look_at_runs_that_there_is_no_room_for(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of runs have something to send, and the server takes a few requests at once."""
    program.store.most_requests = 16
    program.delivery = program.sender()
    runs = [program.start(number) for number in range(1, 101)]
    while program.deliver():
        pass  # the runs are created
    for run in runs:
        program.log(run, 1.0)
    waits, looks = Lane.waits, 0

    def counted(lane: Lane, now: float) -> bool:
        nonlocal looks
        looks += 1
        return waits(lane, now)

    monkeypatch.setattr(Lane, "waits", counted)
    assert program.delivery.limiter is not None
    program.delivery.limiter.limit = 8
    program.source.load()
    lanes = [(program.source, lane) for lane in program.source.active]
    assert len(lanes) == 100
    looks = 0
    begun = list(program.delivery.due(iter(lanes)))
    assert 0 < len(begun) <= looks <= 3 * len(begun)
    looks = 0
    assert list(program.delivery.due(iter(lanes))) == []
    assert looks == 0


def test_after_a_rest_a_server_s_connections_are_opened_one_after_another(program: Program) -> None:
    """All at once, they may all come to one worker of several. While they are open, all that is due is sent."""
    program.store.most_requests = 16
    program.delivery = program.sender()
    assert program.delivery.limiter is not None
    program.delivery.limiter.limit = 8
    runs = [program.start(number) for number in range(1, 9)]

    def sent_at_once() -> list[int]:
        for run in runs:
            program.log(run, 1.0)
        counts = []
        while count := program.deliver():
            counts.append(count)
        return counts

    while program.deliver():
        pass  # the runs are created
    program.clock.now += 1.0
    assert sent_at_once() == [8]
    program.clock.now += 5.0
    assert sent_at_once() == [1, 2, 4, 1]
    program.clock.now += 1.0
    assert sent_at_once() == [8]
    program.clock.now += 5.0
    for run in runs:
        program.log(run, 1.0)
    begun = []
    for _ in range(4):  # without any answer
        begun.append(len(program.begin()))
        program.clock.now += 0.25
    assert begun == [1, 1, 1, 1]


def test_a_callback_that_fails_does_no_harm(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """``on_error`` is the user's; what it raises is logged."""

    def fail(run_id: str, refusal: Refusal) -> None:
        raise ValueError("mine")

    program.delivery = program.sender(fail)
    run = program.start()
    program.deliver()
    program.log(run, 1.0, 2.0)
    program.store.refused_values = {1.0}
    program.deliver()
    assert program.stored() == 1
    assert any("on_error failed" in line for line in lines(caplog))


def test_an_unexpected_failure_of_a_store_is_reported_and_its_events_are_kept(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a store loses nothing."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0)
    program.answer = lambda batch: KeyError("a bug")
    program.deliver()
    assert any("unexpected failure" in line for line in lines(caplog))
    program.answer = lambda batch: None
    program.clock.now += 60
    program.deliver()
    assert program.stored() == 1


def test_whoever_carries_out_one_work_after_another_waits_like_everybody(program: Program) -> None:
    """At the interpreter's end each work is done before the next is asked for: a store that fails is not asked at once
    again, and other runs get their turn."""
    failing, other = program.start(1), program.start(2)
    program.deliver()
    program.log(failing, 1.0)
    program.log(other, 1.0)
    program.answer = lambda batch: UnavailableError("503", retry_after=30.0)
    program.source.load()
    begun = []
    for source, lane, work in program.delivery.due((program.source, lane) for lane in program.source.lanes.values()):
        begun.append(lane.run)
        assert len(begun) < 10
        drive(program.delivery.step(source, lane, work))
    assert sorted(begun) == [failing, other]
    program.clock.now += 29.9
    assert program.deliver() == 0


@pytest.mark.parametrize("call", ["reject", "save_cursor"])
def test_what_cannot_be_written_down_is_not_sent_again(
    program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """The spool's disk is full: the store is asked once, memory does not run ahead of the cursor, a pause grows, one
    line says so, other runs' events are sent, and once there is room all is acknowledged."""

    async def bookmark(run_id: str, batch: Batch) -> None:
        return None

    program.store.bookmark = bookmark  # type: ignore[method-assign]  # as a server over a database
    run, other = program.start(1), program.start(2)
    program.deliver()
    program.store.refused_values = {2.0}
    program.store.says_which = True
    program.log(run, 1.0, 2.0)
    program.log(other, 1.0)
    program.source.load()
    spool, full = program.source.spool, True
    write = getattr(spool, call)

    def failing(*args: object, **kwargs: object) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(spool, call, failing)
    pauses = []
    for _ in range(6):
        program.deliver()
        pauses.append(program.lane(run).disk.retry_at - program.clock.now)
        assert not program.lane(run).backoff.attempts, "the store is well"
        assert program.source.acknowledged(run) < program.source.front
        program.clock.now += 100.0
    sent = len(program.store.sent)
    assert (program.stored(1), program.stored(2)) == (1, 1)
    assert min(pauses) > 0
    assert max(pauses) > 3
    full = False
    program.deliver()
    assert len(program.store.sent) == sent
    assert program.source.acknowledged(run) == program.source.front
    assert [refusal.value[2] for _, refusal in program.refused] == [2.0]
    assert (program.lane(run).delivered, program.lane(run).rejected) == (1, 1)
    assert len([line for line in lines(caplog) if "No space left" in line]) == 1
    assert len([line for line in lines(caplog) if "can be written again" in line]) == 1


def test_a_run_that_takes_nothing_any_more_costs_few_requests(program: Program) -> None:
    """It was deleted, say: two requests an event would be asked of a server that answers them all in the same way."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(1000)))
    program.answer = lambda batch: RefusedError("the run is deleted")

    async def probe(run_id: str) -> None:
        raise RefusedError("the run is deleted")

    program.store.probe = probe  # type: ignore[method-assign]  # a store of this test's own
    while program.deliver():
        pass
    assert len(program.store.sent) < 25
    assert len(program.refused) == 1000


def test_a_batch_of_which_every_event_is_refused_holds_nobody_up(program: Program) -> None:
    """It is looked through in turns with others; each event is refused for what the store says of it alone."""
    run, other = program.start(1), program.start(2)
    program.deliver()
    program.log(run, *map(float, range(1000)))
    program.log(other, -1.0)
    program.answer = lambda batch: RefusedError("bad") if next(batch.items())[2][2] >= 0 else None
    program.deliver()
    assert program.stored(2) == 1
    assert len(program.store.sent) < 150
    while program.deliver():
        pass
    assert len(program.refused) == 1000
    assert program.lane(run).rejected == 1000


def test_what_was_taken_before_a_connection_is_lost_is_not_sent_again(program: Program) -> None:
    """The search for a guilty event goes on where it was."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(64)))
    program.answer = lambda batch: RefusedError("bad") if len(batch) > 1 else UnavailableError("reset")
    program.deliver()
    sent = len(program.store.sent)
    program.answer = lambda batch: RefusedError("bad") if any(item[2][2] == 63.0 for item in batch.items()) else None
    program.clock.now += 60
    program.deliver()
    assert len(program.store.sent[sent]) == 1, "the one that got no answer"
    assert (program.stored(), len(program.refused)) == (63, 1)


def test_a_probe_that_is_refused_for_good_does_not_go_on_for_ever(program: Program) -> None:
    """A store that looks at it and refuses it does not fail at everything: the event is at fault."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0, 2.0)
    program.answer = lambda batch: ServerFaultError("500") if any(i[2][2] == 2.0 for i in batch.items()) else None

    async def probe(run_id: str) -> None:
        raise RefusedError("no such tag")

    program.store.probe = probe  # type: ignore[method-assign]  # a store of this test's own
    for _ in range(4):
        program.deliver()
        program.clock.now += 60
    assert (program.stored(), [refusal.value[2] for _, refusal in program.refused]) == (1, [2.0])
    assert program.lane(run).idle


def test_a_run_that_is_gone_while_an_event_is_suspected_refuses_the_rest(program: Program) -> None:
    """The probe finds no such run: that ends the work."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0, 2.0)
    program.answer = lambda batch: ServerFaultError("500")

    async def probe(run_id: str) -> None:
        raise NotFoundError("no such run")

    program.store.probe = probe  # type: ignore[method-assign]  # a store of this test's own
    for _ in range(4):
        program.deliver()
        program.clock.now += 60
    assert {refusal.reason for _, refusal in program.refused} == {"no such run"}
    assert (len(program.refused), program.lane(run).idle) == (2, True)


def test_an_event_that_a_store_calls_invalid_is_refused_and_the_others_are_stored(program: Program) -> None:
    """The store answers other questions, so that it is no setting that is wrong."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(10)))
    program.answer = lambda batch: (
        InvalidInputError("no such key") if any(item[2][2] == 3.0 for item in batch.items()) else None
    )
    program.deliver()
    assert (program.stored(), [refusal.value[2] for _, refusal in program.refused]) == (9, [3.0])
    assert program.lane(run).held is None


@pytest.mark.parametrize("bug", [KeyError("a bug"), RecursionError(), UnicodeDecodeError("a", b"b", 0, 1, "c")])
def test_an_event_at_which_a_store_has_a_bug_is_refused_after_a_few_times(
    program: Program, caplog: pytest.LogCaptureFixture, bug: Exception
) -> None:
    """It is tried after growing pauses, said once, and does not keep the others from being stored."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(10)))
    program.answer = lambda batch: bug if any(item[2][2] == 3.0 for item in batch.items()) else None
    for _ in range(5):
        program.deliver()
        program.clock.now += 60
    assert (program.stored(), [refusal.value[2] for _, refusal in program.refused]) == (9, [3.0])
    assert len([line for line in lines(caplog) if "unexpected failure in the store" in line]) == 1


@pytest.mark.parametrize("moment", [MemoryError(), RuntimeError("can't start new thread"), OSError(24, "EMFILE")])
def test_what_says_more_about_this_moment_than_about_an_event_refuses_none(program: Program, moment: Exception) -> None:
    """However often it happens."""
    run = program.start()
    program.deliver()
    program.log(run, 1.0)
    program.answer = lambda batch: moment
    for _ in range(20):
        program.deliver()
        program.clock.now += 60
    assert program.refused == []
    program.answer = lambda batch: None
    program.deliver()
    assert program.stored() == 1


@pytest.mark.parametrize("call", ["create_run", "update_run"])
def test_a_bug_in_any_call_of_a_run_does_not_go_on_for_ever(
    program: Program, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What cannot be carried out is refused; other runs are delivered meanwhile."""
    run, other = program.start(1), program.start(2)
    program.log(run, 1.0)
    program.log(other, 1.0)
    program.journal.write_frame(["end", run, "FINISHED", 5])
    right = getattr(program.store, call)

    async def failing(of: object, **given: object) -> object:
        if uid(1) in (of, getattr(of, "uid", None)):
            raise KeyError("a bug")
        return await right(of, **given)

    monkeypatch.setattr(program.store, call, failing)
    for _ in range(20):
        program.deliver()
        program.clock.now += 60
    assert program.stored(2) == 1
    assert program.stored(1) == (call == "update_run")
    assert {refusal.kind for _, refusal in program.refused} == {"end"} | ({"metric"} if call == "create_run" else set())
    assert program.source.drained

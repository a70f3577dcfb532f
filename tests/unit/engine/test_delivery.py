"""One piece of work after another against a store that does as the test says, with a clock of the test's own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrack.engine import delivery as module
from asynctrack.engine.batcher import Lane, Work
from asynctrack.engine.delivery import Delivery
from asynctrack.engine.source import Loaded, Source
from asynctrack.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    ServerFaultError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.base import Batch, Limits, Refusal
from asynctrack.stores.io import drive
from tests.journals import ExactStore, let_go, new_journal, register, uid


class Clock:
    """Stands in for the module ``time``."""

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
        self.delivery = Delivery(self.store, lambda run_id, refusal: self.refused.append((run_id, refusal)))
        self.journal = new_journal(folder)
        self.source = Source(self.journal.spool, self.journal.head, self.store.limits, adopted=False)
        #: what the store raises for a batch, if anything
        self.answer: Callable[[Batch], BaseException | None] = lambda batch: None

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
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


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
    program.source.depth = 8
    program.log(run, *map(float, range(8000)))
    program.answer = lambda batch: UnavailableError("reset")
    assert program.deliver() > 2
    assert program.lane(run).attempts == 1
    assert program.lane(run).retry_at <= program.clock.now + 0.5
    program.clock.now += 10
    program.deliver()
    assert program.lane(run).attempts == 2


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
    """One request, one reason."""
    run = program.start()
    program.deliver()
    program.log(run, *map(float, range(500)))
    program.answer = lambda batch: NotFoundError("no such run")
    program.deliver()
    assert len(program.store.sent) == 1
    assert {refusal.reason for _, refusal in program.refused} == {"no such run"}
    assert len(program.refused) == 500


def test_a_request_without_an_answer_takes_no_place_from_other_runs(program: Program) -> None:
    """After a few seconds the others go on; the run itself waits for its answer."""
    program.store.most_requests = 16
    program.delivery = Delivery(program.store)
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


def test_after_a_rest_a_server_s_connections_are_opened_one_after_another(program: Program) -> None:
    """All at once, they may all come to one worker of several. While they are open, all that is due is sent."""
    program.store.most_requests = 16
    program.delivery = Delivery(program.store)
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

    program.delivery = Delivery(program.store, fail)
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

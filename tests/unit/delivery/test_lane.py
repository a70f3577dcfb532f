"""What goes into the next batch, decided without reading or sending."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.work import EndOfRun, Part, Work, WorkState, split
from asynctrack.stores.base import Batch, Limits, RunSpec

LIMITS = Limits(metrics=10, params=3, tags=3, entities=10)
END = EndOfRun("FINISHED", 1)


def lane(*parts: Part) -> Lane:
    """A run that exists already, with these events on their way."""
    found = Lane(1, RunSpec(uid="u", run_id="r"), attached=False)
    for part in parts:
        found.add(part)
    return found


def part(start: int, points: int = 0, *, params: int = 0, starts: bool = False, ends: EndOfRun | None = None) -> Part:
    made = Part(start, start + max(points, 1), ends=ends)
    made.starts = starts
    if points:
        made.batch.add("m", [(number, 0, 0.0) for number in range(start, start + points)])
    made.batch.params = [(f"p{start}.{number}", "") for number in range(params)]
    return made


def begin(of: Lane, overlap: int = 1) -> Work | None:
    """Take the next work, and have it under way."""
    work = of.next_work(LIMITS, overlap)
    if work is not None:
        work.state = WorkState.BUSY
    return work


def taken(work: Work | None) -> int:
    assert work is not None
    return len(work.batch)


def test_a_batch_takes_what_is_there_up_to_the_limit() -> None:
    """Whole parts, in order; a part that is too large goes alone, and is split later."""
    filling = lane(part(0, 4), part(4, 4), part(8, 4), part(12, 25))
    for wanted in (8, 4, 25):
        work = begin(filling)
        assert taken(work) == wanted
        assert work is not None
        filling.done(work)
    assert filling.idle


def test_one_batch_at_a_time_where_the_store_wants_it_so() -> None:
    """Whatever waits behind it."""
    waiting = lane(part(0, 8), part(8, 8))
    assert begin(waiting) is not None
    assert begin(waiting) is None


def test_metric_batches_overlap_and_params_wait_for_earlier_params() -> None:
    """But metrics do not wait for params, nor params for metrics."""
    busy = lane(part(0, 8, params=1), part(9, 8), part(18, 8, params=1), part(27, 8))
    assert [taken(begin(busy, 4)) for _ in range(2)] == [9, 8]
    assert begin(busy, 4) is None
    busy.done(busy.flight[0])
    assert taken(begin(busy, 4)) == 9


def test_start_and_end_go_alone() -> None:
    """Nothing of the run overtakes its creation, and its end overtakes nothing."""
    fresh = Lane(1, RunSpec(uid="u"), attached=False)
    for each in (part(0, 8, starts=True), part(8, 8), part(16, 8), part(24, 0, ends=END)):
        fresh.add(each)
    first = begin(fresh, 4)
    assert first is not None
    assert first.starts
    assert begin(fresh, 4) is None
    fresh.run_id = "r"
    fresh.done(first)
    assert [taken(begin(fresh, 4)) for _ in range(2)] == [8, 8]
    assert begin(fresh, 4) is None
    for work in list(fresh.flight):
        fresh.done(work)
    last = begin(fresh, 4)
    assert last is not None
    assert last.ends == END
    fresh.done(last)
    assert fresh.ended


def test_an_end_that_waits_for_artifacts_is_all_that_is_left() -> None:
    """Also where another thread has logged something just behind it: that is delivered with what was before, and the
    next program, if this one is killed, does not deliver it again."""
    ending = Lane(1, RunSpec(uid="u", run_id="r"), attached=False)
    last = Part(0, 10, ends=END)
    last.ends_at = 5
    last.batch.add("m", [(slot, 0, 0.0) for slot in range(10) if slot != 5])
    ending.add(last)
    ending.progress.front.at = 10
    first = ending.accumulator.next_work(LIMITS, 1, end_waits=True)
    assert taken(first) == 9
    assert first is not None
    assert (ending.at().acknowledged, ending.at({first})[0::5]) == (0, (10, (5,)))
    ending.done(first)
    assert ending.progress.acknowledged == 5, "whoever waits for the end waits still"
    assert ending.accumulator.next_work(LIMITS, 1, end_waits=True) is None
    end = ending.accumulator.next_work(LIMITS, 1)
    assert end is not None
    assert end.ends == END
    ending.done(end)
    assert (ending.ended, ending.progress.acknowledged, ending.at().late) == (True, 10, ())


def test_a_small_batch_beside_others_waits_until_it_is_worth_a_request() -> None:
    """Alone it goes at once."""
    filling = lane(part(0, 9), part(9, 2))
    first = begin(filling, 4)
    assert taken(first) == 9
    assert begin(filling, 4) is None
    assert first is not None
    filling.done(first)
    assert taken(begin(filling, 4)) == 2


def test_what_was_put_off_comes_before_what_is_new_and_is_the_same() -> None:
    """A batch that may be stored already is not mixed with others."""
    failing = lane(part(0, 8), part(8, 8))
    work = begin(failing, 2)
    assert work is not None
    work.state = WorkState.READY
    assert begin(failing, 2) is work


def test_the_cursor_stands_before_the_first_work_that_is_not_dealt_with() -> None:
    """Later ones may be; they are sent again after a crash, which changes nothing."""
    busy = lane(part(0, 8), part(8, 8), part(16, 8))
    works = [begin(busy, 3) for _ in range(3)]
    busy.progress.front.at = 99
    for work, wanted in zip((works[1], works[0], works[2]), (0, 16, 99), strict=True):
        assert work is not None
        busy.done(work)
        assert busy.progress.watermark == wanted


def test_success_ends_the_waiting_but_not_before_what_the_store_asked_for() -> None:
    """``Retry-After`` holds although another batch of the run got through."""
    putting_off = lane(part(0, 8))
    work = begin(putting_off)
    assert work is not None
    backoff = putting_off.backoff
    backoff.attempts, backoff.retry_at, backoff.not_before = 3, 100.0, 50.0
    putting_off.done(work)
    assert (backoff.attempts, backoff.retry_at) == (0, 50.0)


items = st.lists(
    st.one_of(
        st.tuples(st.just("metric"), st.sampled_from("ab"), st.tuples(st.integers(0, 9), st.just(0), st.just(0.0))),
        st.tuples(st.just("param"), st.text("pq", max_size=3), st.just("")),
        st.tuples(st.just("tag"), st.text("tu", max_size=3), st.just("")),
    ),
    max_size=60,
)


@given(items)
def test_a_batch_is_split_into_pieces_within_the_limits_that_hold_the_same_in_the_same_order(events: list[Any]) -> None:
    """Each kind in its order, and no piece empty unless the batch is."""
    batch = Batch.of(events)
    pieces = list(split(batch, LIMITS))
    assert [item for piece in pieces for item in piece.items()] == list(batch.items())
    for piece in pieces:
        assert piece.points <= LIMITS.metrics
        assert len(piece.params) <= LIMITS.params
        assert len(piece.tags) <= LIMITS.tags
        assert len(piece) <= LIMITS.entities
        assert len(piece) > 0 or not events
